"Half and twice the resolution: the folded convolution against the literal one"

import torch
import torch.nn.functional as F

from denoise_study.diffusion import doubled, halved, Resample, upsample_conv


def test_upsample_gradients():
    g = torch.Generator().manual_seed(0)
    shapes = (2, 3, 4, 5), (6, 3, 3, 3), (6,)
    random = dict(generator=g, dtype=torch.float64, requires_grad=True)
    x, w, b = (torch.randn(*s, **random) for s in shapes)
    ours = upsample_conv(x, w, b)
    literal = F.conv2d(F.interpolate(x, scale_factor=2), w, b, padding=1)
    torch.testing.assert_close(ours, literal)
    grads = (torch.autograd.grad(y.square().sum(), (x, w, b)) for y in (ours, literal))
    for a, c in zip(*grads):
        torch.testing.assert_close(a, c)


def test_without_weights():
    x = torch.randn(2, 3, 4, 6)
    assert torch.equal(halved(doubled(x)), x)
    for up, want in ((True, doubled(x)), (False, halved(x))):
        step = Resample(3, up, conv=False)
        assert not list(step.parameters()) and torch.equal(step(x), want)
