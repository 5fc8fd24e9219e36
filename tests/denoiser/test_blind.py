"The blind U-Net: counts and field of view of the paper, the norm, the places that can be read"

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from denoise_study.diffusion import ScaleNorm
from denoise_study.denoiser import Blind, BlindUNet
from denoise_study.core import build, describe, load_checkpoint, save_checkpoint

SMALL = dict(channels=1, widths=(6, 10, 14, 22), depths=(2, 3, 2))


def small(
    seed=0, biases=0.003, **kw
):  # of the size of the activations: larger ones would drown them
    torch.manual_seed(seed)
    net = BlindUNet(**SMALL | kw)
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.normal_(m.bias, std=biases)
    return net


def rand(*shape, seed=0, dtype=torch.float32):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# --- what it is


@pytest.mark.parametrize(
    "n, kw",
    [
        (13_124_803, {}),
        (13_125_187, dict(up_bias=True)),
        (13_122_497, dict(channels=1)),
        (10_024_643, dict(depths=(2, 3, 2))),
        (10_764_483, dict(depths=(2, 2, 6))),
        (17_880_643, dict(depths=(2, 6, 3))),
        (13_899_843, dict(depths=(3, 3, 6))),
        (13_678_531, dict(depths=(2, 3, (5, 6, 7)), up_bias=True)),
        (627_921, dict(channels=1, widths=(16, 32, 64, 128), depths=(2, 3, 2), up_bias=True)),
        (627_825, dict(channels=1, widths=(16, 32, 64, 128), depths=(2, 3, 2))),
    ],
)
def test_parameter_counts(n, kw):
    with torch.device("meta"):
        assert sum(p.numel() for p in BlindUNet(**kw).parameters()) == n


def test_counts_of_the_blocks():
    with torch.device("meta"):
        net = BlindUNet()
    count = lambda *ms: sum(p.numel() for m in ms for p in m.parameters())
    assert [count(b) for b in net.enc] == [38_784, 221_696, 885_760] and count(net.mid) == 5_901_312
    assert [count(u, d) for u, d in zip(net.up, net.dec)] == [
        4_656_128,
        1_164_800,
        256_323 - count(net.out),
    ]
    assert count(net.out) == 64 * 9 * 3 + 3


@pytest.mark.parametrize(
    "depths, field", [((2, 3, 6), 84), ((2, 2, 6), 68), ((2, 6, 3), 132), ((3, 3, 6), 98)]
)
def test_receptive_field(depths, field):
    with torch.device("meta"):
        assert BlindUNet(depths=depths).receptive_field == field


def support(net, size=160):
    "First and last row and column of the pixels on which the unit (10,10) of the middle depends"
    x = rand(1, 1, size, size, dtype=torch.float64).requires_grad_()
    d = torch.autograd.grad(net.maps(x)["mid"][0, :, 10, 10].sum(), x)[0][0, 0].abs()
    rows, cols = d.sum(1).nonzero()[:, 0], d.sum(0).nonzero()[:, 0]
    return [int(v) for v in (rows[0], rows[-1], cols[0], cols[-1])]


def test_support_is_84_pixels_without_the_norm_and_global_with_it(monkeypatch):
    net = small().double()
    monkeypatch.setattr(
        BlindUNet, "maps", lambda self, x: self._read(x, ("mid",), lambda h: h)
    )  # in float64
    assert support(net) == [0, 159, 0, 159]
    monkeypatch.setattr(
        ScaleNorm, "forward", lambda self, x: x * self.gain.abs()[:, None, None]
    )  # and no ReLU, that could hide a path
    assert support(net) == [42, 125, 42, 125]


def test_layout_of_norms():
    "The first convolution has none, the last and the upward ones neither norm nor ReLU"
    net = BlindUNet(**SMALL)
    kinds = lambda block: [type(m).__name__ for m in block]
    assert (
        kinds(net.enc[0]) == ["Conv2d", "ReLU", "Conv2d", "ScaleNorm"]
        and kinds(net.enc[1]) == ["Conv2d", "ScaleNorm"] * 2
    )
    assert kinds(net.mid) == ["Conv2d", "ScaleNorm"] * 3
    assert [kinds(b) for b in net.dec] == [["Conv2d", "ScaleNorm"] * 2] * 2 + [
        ["Conv2d", "ScaleNorm"]
    ]
    assert isinstance(net.out, nn.Conv2d) and all(isinstance(u, nn.ConvTranspose2d) for u in net.up)
    assert net(rand(1, 1, 8, 8)).min() < 0 and not any(
        getattr(m, "inplace", False) for m in net.modules()
    )


def test_start():
    "Gains of random sign, N(0, (2/9/64)^2) within +-.025; Kaiming-normal convolutions, zero biases"
    torch.manual_seed(0)
    net = BlindUNet(channels=1, widths=(64, 128, 256, 512), depths=(2, 3, 2))
    gains = torch.cat([m.gain for m in net.modules() if isinstance(m, ScaleNorm)])
    assert (
        abs(gains.std().item() / (2 / 9 / 64) - 1) < 0.05
        and gains.abs().max() <= 0.025
        and 0.45 < (gains > 0).float().mean() < 0.55
    )
    conv = net.mid[2]
    assert (
        abs(conv.weight.std().item() * (512 * 9 / 2) ** 0.5 - 1) < 0.02 and (conv.bias == 0).all()
    )
    before = conv.weight.clone()
    net.reset_parameters()
    assert not torch.equal(conv.weight, before) and (conv.bias == 0).all()


def test_untrained_network_is_already_sparse():
    "Participation of channel means at sigma .5: .30 .19 .21, middle .25, .25 .30, give or take .1"
    want, got = dict(enc1=0.30, enc2=0.19, enc3=0.21, mid=0.25, dec3=0.25, dec2=0.30), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        net, x = BlindUNet(), rand(2, 3, 64, 64) + 0.5 * torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            found = net.averages(x, tuple(want))
        got.append(
            [(v.sum(1) ** 2 / (v.shape[1] * v.pow(2).sum(1))).mean().item() for v in found.values()]
        )
    off = (torch.tensor(got).mean(0) - torch.tensor(list(want.values()))).abs()
    assert off[0] < 0.12 and off[1:].max() < 0.08, got
    assert all(0.2 < row[3] < 0.32 for row in got), (
        got
    )  # the paper's "sparse" .2-.3, without any training


# --- the norm


def test_without_biases_the_network_does_not_see_the_scale():
    x = rand(2, 1, 32, 32)
    change = lambda net: ((net(3 * x) - net(x)).norm() / net(x).norm()).item()
    with torch.no_grad():
        assert change(small(biases=0)) < 1e-4 and change(small()) > 1e-3


def test_images_do_not_see_each_other():
    net, x = small(), torch.cat([rand(3, 1, 16, 16), 50 * rand(1, 1, 16, 16)])
    with torch.no_grad():
        assert torch.allclose(net(x)[:1], net(x[:1]), atol=1e-6)
        assert torch.allclose(net.averages(x)["mid"][:1], net.averages(x[:1])["mid"], atol=1e-7)
        assert torch.equal(net.train()(x), net.eval()(x))  # no running statistics, no dropout


def test_any_size_that_divides():
    net = small()
    with torch.no_grad():
        assert [net(rand(1, 1, h, w)).shape[2:] for h, w in ((8, 8), (16, 40))] == [
            (8, 8),
            (16, 40),
        ]


def test_bf16():
    net, x = small(), rand(2, 1, 32, 32)
    with torch.no_grad():
        want = net(x)
        with torch.autocast("cpu", torch.bfloat16):
            got, phi = net(x), net.averages(x)["mid"]
        assert got.dtype == phi.dtype == torch.float32 and (got - want).norm() < 0.05 * want.norm()
        assert net.bfloat16()(x).dtype == torch.float32


# --- reading


def test_places():
    net, x = small(), rand(2, 1, 32, 32)
    assert net.taps == (
        "enc1",
        "enc2.in",
        "enc2",
        "enc3.in",
        "enc3",
        "mid.in",
        "mid",
        "dec3.in",
        "dec3",
        "dec2.in",
        "dec2",
        "dec1.in",
        "dec1",
    )
    with torch.no_grad():
        maps, means = net.maps(x, net.taps), net.averages(x, net.taps)
    assert list(maps) == list(net.taps)
    assert {k: (v.shape[1], v.shape[2]) for k, v in maps.items() if "." not in k} == dict(
        enc1=(6, 32),
        enc2=(10, 16),
        enc3=(14, 8),
        mid=(22, 4),
        dec3=(14, 8),
        dec2=(10, 16),
        dec1=(6, 32),
    )
    for k in net.taps:
        assert (
            torch.allclose(means[k], maps[k].mean((2, 3)), atol=1e-7)
            and means[k].dtype == torch.float32
        )
    assert (
        all(m.min() >= 0 for k, m in maps.items() if "." not in k) and maps["dec3.in"].min() < 0
    )  # after the ReLU; up-convolutions have none
    for k, below in (("enc2", "enc1"), ("enc3", "enc2"), ("mid", "enc3")):
        assert (means[f"{k}.in"] - means[below]).abs().max() < 1e-7  # average pooling keeps means
    for i in (3, 2, 1):  # upsampled channels first, then the encoder's
        half = maps[f"enc{i}"].shape[1]
        assert maps[f"dec{i}.in"].shape[1] == 2 * half and torch.equal(
            maps[f"dec{i}.in"][:, half:], maps[f"enc{i}"]
        )


def test_maps_are_those_of_the_forward_pass():
    "Against hooks on the modules"
    net, x, seen = small(), rand(2, 1, 16, 16), {}
    blocks = {
        **{f"enc{i + 1}": b for i, b in enumerate(net.enc)},
        "mid": net.mid,
        **{f"dec{3 - i}": b for i, b in enumerate(net.dec)},
    }
    hooks = [
        b.register_forward_hook(lambda m, a, out, k=k: seen.update({k: out, f"{k}.in": a[0]}))
        for k, b in blocks.items()
    ]
    with torch.no_grad():
        net(x)
    for h in hooks:
        h.remove()
    with torch.no_grad():
        assert all(torch.equal(v, seen[k]) for k, v in net.maps(x, net.taps).items())


def test_encoder_only_pass_stops_after_the_middle():
    net, x = small(), rand(2, 1, 16, 16)

    def fail(*a):
        raise AssertionError("the decoder was computed")

    hooks = [m.register_forward_pre_hook(fail) for m in [*net.up, *net.dec, net.out]]
    phi = net.averages(x)["mid"]
    hooks.append(net.enc[1].register_forward_pre_hook(fail))
    net.averages(x, ("enc1", "enc2.in"))  # and no further than the last place asked for
    for h in hooks:
        h.remove()
    with torch.no_grad():
        assert torch.equal(phi, net.averages(x, ("dec1", "mid"))["mid"])
    enc = net.averages(x, ("enc2", "enc1"))
    assert list(enc) == ["enc2", "enc1"]  # in the order asked for


def test_gradient_reaches_the_image():
    net = small().double().requires_grad_(False)
    x, v = rand(1, 1, 16, 16, dtype=torch.float64), rand(1, 1, 16, 16, seed=1, dtype=torch.float64)
    f = lambda x: (
        net._read(x, ("mid",), lambda h: h.mean((2, 3)))["mid"].pow(2).sum()
    )  # averages are float32, too coarse for differences
    slope = (torch.autograd.grad(f(x.requires_grad_()), x)[0] * v).sum()
    x = x.detach()
    assert slope.abs() > 0 and abs(((f(x + 1e-5 * v) - f(x - 1e-5 * v)) / 2e-5) / slope - 1) < 1e-3
    y = rand(1, 1, 16, 16).requires_grad_()
    assert torch.autograd.grad(small().averages(y)["mid"].sum(), y)[0].norm() > 0


def test_output_is_the_clean_image_after_training():
    "A few steps at tiny noise: the network must approach the identity, not zero"
    torch.manual_seed(0)
    net = BlindUNet(channels=1, widths=(8, 16), depths=(2, 2, 2))
    opt, x = torch.optim.Adam(net.parameters(), 1e-2), rand(16, 1, 8, 8)
    losses = []
    for _ in range(40):
        loss = (net(x + 0.01 * torch.randn_like(x)) - x).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    assert losses[0] > 0.2 and losses[-1] < 0.06  # the variance of the images is .083


def test_compiles_in_one_piece():
    net, x = small(), rand(2, 1, 16, 16)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    (a := compiled(x)).square().sum().backward()
    grads = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    (b := net(x)).square().sum().backward()
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    for p, q in zip(grads, net.parameters()):
        torch.testing.assert_close(
            p, q.grad, rtol=1e-3, atol=1e-3 * q.grad.abs().max().item() + 1e-7
        )


# --- description and files


@pytest.mark.parametrize(
    "kw", [SMALL, dict(channels=3, widths=(4, 6), depths=[1, 1, (3,)], up_bias=True)]
)
def test_description(kw, tmp_path):
    torch.manual_seed(0)
    net = BlindUNet(**kw)
    again = BlindUNet(**json.loads(json.dumps(net.config)))
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in net.state_dict().items()
    }
    assert json.dumps(describe(build(json.loads(json.dumps(describe(net)))))) == json.dumps(
        describe(net)
    )
    model = Blind(net, (kw["channels"], 8, 8))
    save_checkpoint(tmp_path / "m.safetensors", model)
    loaded, x = load_checkpoint(tmp_path / "m.safetensors"), rand(2, kw["channels"], 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded.net(x), net(x)) and loaded.sigmas == model.sigmas
    load_checkpoint(tmp_path / "m.safetensors", model=model)


net = BlindUNet(**SMALL)
BAD = {
    "one width": (lambda: BlindUNet(widths=(8,)), "widths=.*at least two"),
    "width 0": (lambda: BlindUNet(widths=(8, 0)), "widths: .*got 0"),
    "two depths": (lambda: BlindUNet(depths=(2, 3)), "depths=.*give three"),
    "depths of two decoder blocks for three": (
        lambda: BlindUNet(depths=(2, 3, (5, 6))),
        "3 decoder blocks",
    ),
    "no room for the output": (lambda: BlindUNet(depths=(2, 3, 1)), "last decoder block"),
    "no channels": (lambda: BlindUNet(channels=0), "channels: .*got 0"),
    "odd sides": (
        lambda: net(torch.zeros(1, 1, 28, 28)),
        r"28x28.*multiples of 8.*32x32.*pad_to=8.*\(2, 2, 2, 2\)",
    ),
    "one odd side, reading": (
        lambda: net.averages(torch.zeros(1, 1, 32, 30)),
        r"32x30.*32x32.*\(1, 1, 0, 0\)",
    ),
    "colour for grey": (lambda: net(torch.zeros(1, 3, 32, 32)), r"\(N,1,H,W\)"),
    "no batch": (lambda: net(torch.zeros(1, 32, 32)), r"\(N,1,H,W\)"),
    "unknown place": (
        lambda: net.averages(torch.zeros(1, 1, 8, 8), ("middle",)),
        "taps: .*middle.*'mid'",
    ),
    "a string": (lambda: net.averages(torch.zeros(1, 1, 8, 8), "mid"), "taps: .*tuple"),
    "no place": (lambda: net.averages(torch.zeros(1, 1, 8, 8), ()), "taps: .*tuple"),
    "no first input": (
        lambda: net.averages(torch.zeros(1, 1, 8, 8), ("enc1.in",)),
        "taps: .*enc1.in",
    ),
}


@pytest.mark.parametrize("call, message", BAD.values(), ids=BAD)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_bytes_are_refused():
    with pytest.raises(TypeError, match="floating-point"):
        net(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))


def test_the_padding_that_the_message_names_works():
    with torch.no_grad():
        assert net(F.pad(torch.zeros(1, 1, 28, 28), (2, 2, 2, 2))).shape == (1, 1, 32, 32)
