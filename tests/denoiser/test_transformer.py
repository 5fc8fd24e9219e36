"A denoiser made of PyTorch's transformer blocks, read at its blocks"

import pytest
import torch

from denoise_study.core import build, describe, untrained
from denoise_study.denoiser import Blind, BlindTransformer, denoiser
from helpers import rand


SMALL = dict(shape=(1, 8, 8), width=16, heads=2, hidden=24)


def net(seed=0, **kw):
    torch.manual_seed(seed)
    return BlindTransformer(**SMALL | kw)


def test_places_are_blocks_by_depth_and_phi_is_the_mean_over_tokens():
    n, x = net(), rand(3, 1, 8, 8)
    D = denoiser(n)
    with torch.no_grad():
        tokens = n.embed(x).flatten(2).mT + n.position
        for name, block in zip(("enc1", "enc2", "enc3", "mid"), n.encoder.layers):
            tokens = block(tokens)
            assert torch.allclose(D.averages(x, taps=(name,))[name], tokens.mean(1), atol=1e-5)
        assert D.maps(x)["mid"].shape == (3, 16, 2, 2)
        assert torch.allclose(D(x), n(x))
    assert list(denoiser(net(blocks=4)).taps)[1::2] == ["enc1", "enc2", "mid", "dec1"]


def test_a_pixel_of_a_patch_changes_its_residual_and_no_place_is_lost():
    n = net(blocks=1)
    with torch.no_grad():
        n.out.weight.zero_()
        n.out.bias.copy_(torch.arange(16.0))
        x = torch.zeros(1, 1, 8, 8)
        assert (-n(x)[0, 0, :4, 4:]).equal(torch.arange(16.0).view(4, 4))


def test_images_of_a_batch_do_not_touch_each_other():
    n, x = net().eval(), rand(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(n(x)[1:2], n(x[1:2]), atol=1e-5)


def test_it_is_built_again_from_words_and_fresh_weights_differ_between_blocks():
    model = Blind(net(), (1, 8, 8))
    assert build(describe(model)).net.config == model.net.config
    fresh = untrained(denoiser(model)).net
    first, second = (layer.linear1.weight for layer in fresh.encoder.layers[:2])
    assert not first.equal(second) and not first.equal(model.net.encoder.layers[0].linear1.weight)


@pytest.mark.parametrize("wrong", [dict(patch=3), dict(heads=3)])
def test_sides_and_heads_must_fit(wrong):
    with pytest.raises(ValueError, match="multiples of patch"):
        net(**wrong)


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match=r"x: images \(1, 8, 8\) are accepted"):
        denoiser(net())(rand(1, 1, 16, 16))
