"The U-Net: its parameter counts, precision, layout and compilation, and what it refuses"

import json

import pytest
import torch

# other tests import the first two from here
from helpers_diffusion import scramble
from denoise_study.diffusion import attn_factors, UNet

SMALL = dict(channels=1, width=32, mult=(1, 2), n_blocks=1, attn=(2,))


@pytest.mark.parametrize(
    "name,eps,sigma",
    [
        ("fashion_mnist", 8_799_105, 8_799_682),
        ("cifar10", 52_542_979, 52_546_438),
        ("celeba", 121_060_483, 121_063_942),
    ],
)
def test_paper_counts(name, eps, sigma):
    with torch.device("meta"):
        for n, kw in ((eps, {}), (sigma, dict(learn_sigma=True))):
            net = UNet.paper(name, **kw)
            assert sum(p.numel() for p in net.parameters()) == n
            assert UNet(**json.loads(json.dumps(net.config))).config == net.config
    side = dict(fashion_mnist=28, cifar10=32, celeba=64)[name]
    assert set(net.config["attn"]) == set(attn_factors(side)) & {1, 2, 4, 8}
    assert net.config["dropout"] == 0.3


@pytest.mark.parametrize(
    "kw",
    [
        {},
        dict(updown=True),
        dict(scale_shift=False, n_classes=3),
        dict(conv_resample=False, learn_sigma=True),
    ],
)
@pytest.mark.parametrize("size", [(8, 8), (2, 6)])
def test_fresh_output_is_zero(kw, size):
    net = UNet(**SMALL | kw)
    y = torch.tensor([0, 1]) if net.n_classes else None
    for training in (True, False):
        out = net.train(training)(torch.randn(2, 1, *size), torch.tensor([0, 9]), y)
        channels = 2 if kw.get("learn_sigma") else 1
        assert out.shape == (2, channels, *size) and out.dtype == torch.float32
        assert torch.equal(out, torch.zeros_like(out))


# --- precision, layout, compilation


def batch(net, n=3, size=8):
    g = torch.Generator().manual_seed(2)
    return torch.randn(n, net.channels, size, size, generator=g), torch.tensor([0, 3, 77][:n])


def test_layout_and_batch_do_not_matter():
    net = scramble(UNet(**SMALL)).eval()
    x, t = batch(net)
    with torch.no_grad():
        out = net(x, t)
        last = net(x.contiguous(memory_format=torch.channels_last), t.float())
        torch.testing.assert_close(last, out)
        alone = torch.cat([net(x[i : i + 1], t[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(alone, out, rtol=1e-4, atol=1e-5)


def test_autocast_and_half():
    "bfloat16 stays near float32, comes back as float32, and its gradients reach every parameter"
    net = scramble(UNet(**SMALL | dict(width=64)))
    x, t = batch(net)
    want = net(x, t)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(x, t)
    assert out.dtype == torch.float32 and (out - want).norm() < 0.03 * want.norm()
    out.square().mean().backward()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in net.parameters())
    assert net.bfloat16()(x, t).dtype == torch.float32
    assert net.double()(x.double(), t).dtype == torch.float64


def test_compiles_in_one_piece():
    net = scramble(UNet(**SMALL)).train()
    x, t = batch(net)
    assert torch._dynamo.explain(net)(x, t).graph_break_count == 0
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    (a := compiled(x, t)).square().sum().backward()
    grads = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    (b := net(x, t)).square().sum().backward()
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    for p, q in zip(grads, net.parameters()):
        atol = 1e-3 * q.grad.abs().max().item() + 1e-5
        torch.testing.assert_close(p, q.grad, rtol=1e-3, atol=atol)


def test_attention_elsewhere_leaves_the_other_weights_of_a_seed_alone():
    nets = []
    for attn in ((), (1,), (2,)):
        torch.manual_seed(0)
        nets.append(UNet(**SMALL | dict(attn=attn)))
    for stage in range(len(nets[0].down)):
        weights = [next(net.down[stage][0].parameters()) for net in nets]
        assert torch.equal(weights[0], weights[1]) and torch.equal(weights[0], weights[2])


def test_dropout_only_in_training():
    net = scramble(UNet(**SMALL | dict(dropout=0.5)))
    x, t = batch(net)
    assert not torch.equal(net(x, t), net(x, t))
    net.eval()
    assert torch.equal(net(x, t), net(x, t))


# --- faults


@pytest.mark.parametrize(
    "kw,text",
    [
        (dict(attn=(16, 8)), "factors, not resolutions"),
        (dict(heads=5), "heads=5: must divide the 64"),
        (dict(head_channels=24), "head_channels=24"),
        (dict(width=0), "width: a whole number of at least 1"),
        (dict(dropout=1.0), r"dropout=1.0"),
        (dict(mult=()), r"mult=\[\]|mult=\(\)"),
        (dict(n_classes=0), "n_classes=0"),
        (dict(n_blocks=1.5), "n_blocks: a whole number.*1.5"),
    ],
)
def test_bad_arguments(kw, text):
    with pytest.raises(ValueError, match=text):
        UNet(**SMALL | kw)


def test_bad_name():
    with pytest.raises(ValueError, match="name='cifar'.*cifar10"):
        UNet.paper("cifar")


@pytest.mark.parametrize(
    "x,t,y,error,text",
    [
        (
            torch.zeros(2, 3, 8, 8),
            torch.zeros(2),
            None,
            ValueError,
            r"x: shape \(2, 3, 8, 8\).*\(N,1,H,W\)",
        ),
        (torch.zeros(2, 1, 7, 8), torch.zeros(2), None, ValueError, "multiples of 2.*pad_to"),
        (
            torch.zeros(2, 1, 8, 8, dtype=torch.uint8),
            torch.zeros(2),
            None,
            TypeError,
            "x: torch.uint8",
        ),
        (torch.zeros(2, 1, 8, 8), torch.zeros(3), None, ValueError, r"t: shape \(3,\).*\(2,\)"),
        (torch.zeros(2, 1, 8, 8), torch.zeros(()), None, ValueError, r"t: shape \(\)"),
        (
            torch.zeros(2, 1, 8, 8),
            torch.zeros(2, dtype=torch.bool),
            None,
            TypeError,
            "t: torch.bool",
        ),
        (
            torch.zeros(2, 1, 8, 8),
            torch.zeros(2, device="meta"),
            None,
            ValueError,
            "t: on meta, but x is on cpu",
        ),
        (
            torch.zeros(2, 1, 8, 8),
            torch.zeros(2),
            torch.zeros(2).long(),
            ValueError,
            "y: this network has no classes",
        ),
    ],
)
def test_bad_inputs(x, t, y, error, text):
    with pytest.raises(error, match=text):
        UNet(**SMALL)(x, t, y)


def test_bad_classes():
    net, x, t = UNet(**SMALL, n_classes=3), torch.zeros(2, 1, 8, 8), torch.zeros(2)
    with pytest.raises(ValueError, match="y: this network is class-conditional"):
        net(x, t)
    with pytest.raises(TypeError, match="y: torch.float32.*below 3"):
        net(x, t, t)
    with pytest.raises(ValueError, match="y: shape"):
        net(x, t, torch.zeros(1, dtype=torch.int64))
