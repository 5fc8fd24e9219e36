"OpenAI's checkpoints against a second implementation that runs directly on their state dicts"

import pickle

import pytest
import torch
from torch import nn

from helpers import IMPROVED, openai_state
from helpers_diffusion import openai_forward
from denoise_study.diffusion import from_openai, openai_config, OPENAI_MODELS, openai_settings
from denoise_study.diffusion import openai_views, to_openai

HEADS = dict(heads=4)
CASES = {
    "improved": (IMPROVED, {}, {}),
    "learned sigma, one channel": (IMPROVED | dict(channels=1, out=2), {}, {}),
    "time added": (IMPROVED | dict(scale_shift=False), {}, dict(scale_shift=False)),
    "attention at full resolution": (
        dict(width=32, mult=(1, 1, 2), n_blocks=1, attn=(1, 4)),
        dict(heads=2),
        {},
    ),
    "guided": (
        dict(width=32, mult=(1, 2, 3), n_blocks=1, attn=(2, 4), out=6, n_classes=5, updown=True),
        dict(head_channels=16, new_order=True),
        dict(updown=True),
    ),
    "guided, half width first": (
        dict(width=64, mult=(0.5, 1), n_blocks=2, attn=(2,), updown=True),
        dict(head_channels=32),
        dict(updown=True),
    ),
    "no weights in resampling": (IMPROVED | dict(conv=False, attn=(1,)), {}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_openai_checkpoints(case):
    "Outputs and gradients are those of the published forward pass; the export is exact"
    layout, load, ref = CASES[case]
    sd = openai_state(**layout)
    net = from_openai(sd, **HEADS | load)
    assert net.config["mult"] == list(layout["mult"])
    assert net.config["n_blocks"] == layout["n_blocks"]
    assert net.config["attn"] == list(layout["attn"])
    back = to_openai(net)
    assert back.keys() == sd.keys() and all(torch.equal(back[k], v) for k, v in sd.items())

    g = torch.Generator().manual_seed(1)
    x = torch.randn(3, net.channels, 16, 8, generator=g)
    t = torch.tensor([0.0, 250.25, 999.0])
    y = torch.tensor([0, 4, 2]) if net.n_classes else None
    kw = load | ref | dict(n_blocks=layout["n_blocks"], levels=len(layout["mult"]))
    theirs, ours = openai_forward(sd, x, t, y, **kw), net(x, t, y)
    # float32 without AVX-512 differs by 1.06e-5 in one of 14 networks
    assert ours.dtype == torch.float32 and (ours - theirs).norm() < 2e-5 * theirs.norm()

    # gradients in float64, so that nothing hides behind rounding; those of the weights are
    # exported like weights
    x, net = x.double().requires_grad_(), net.double()
    sd = {k: v.double().requires_grad_() for k, v in sd.items()}
    w = torch.randn(ours.shape, generator=g, dtype=torch.float64)
    want = torch.autograd.grad((openai_forward(sd, x, t, y, **kw) * w).sum(), [x, *sd.values()])
    (net(x, t, y) * w).sum().backward()
    torch.testing.assert_close(x.grad, want[0])
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(p.grad)
    got = to_openai(net)
    for k, grad in zip(sd, want[1:]):
        atol = 1e-7 * max(1.0, grad.abs().max().item())
        torch.testing.assert_close(got[k], grad, rtol=1e-6, atol=atol)


@pytest.mark.parametrize("case", CASES)
def test_config_is_read_off_names_and_shapes(case):
    layout, load, _ = CASES[case]
    sd = openai_state(**layout)
    net = from_openai(sd, **HEADS | load)
    found = openai_config(sd)
    assert {k: net.config[k] for k in found} == found
    assert set(net.config) - set(found) == {"heads", "head_channels", "new_order", "dropout"}


def test_views_reach_every_parameter():
    "Writing into the views writes the network: each number once"
    net = from_openai(openai_state(**IMPROVED), heads=4)
    views = openai_views(net)
    for v in views.values():
        v.fill_(7.0)
    assert all(p.eq(7).all() for p in net.parameters())
    assert sum(v.numel() for v in views.values()) == sum(p.numel() for p in net.parameters())


def test_order_and_heads_matter():
    "The arguments that cannot be inferred do change the output: a wrong one is not harmless"
    sd, x, t = openai_state(**IMPROVED), torch.randn(1, 3, 8, 8), torch.tensor([5.0])
    with torch.no_grad():
        a, b, c = (
            from_openai(sd, **HEADS | k)(x, t) for k in ({}, dict(new_order=True), dict(heads=2))
        )
    assert (a - b).abs().max() > 1e-3 and (a - c).abs().max() > 1e-3


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_checkpoint_files(tmp_path, capfd):
    sd = openai_state(**IMPROVED)
    torch.save(sd, f := tmp_path / "good.pt")
    assert all(torch.equal(v, sd[k]) for k, v in to_openai(from_openai(f, heads=4)).items())
    from safetensors.torch import save_file

    save_file(sd, f := tmp_path / "good.safetensors")
    assert from_openai(str(f), 4).config == from_openai(sd, 4).config

    good = (tmp_path / "good.pt").read_bytes()
    bad = dict(empty=b"", text=b"hello", short=good[: len(good) // 2], evil=pickle.dumps(Evil()))
    for name, data in bad.items():
        (f := tmp_path / f"{name}.pt").write_bytes(data)
        with pytest.raises(ValueError, match=f"{name}.pt: not a readable checkpoint"):
            from_openai(f)
    torch.save(dict(model=sd, evil=Evil()), f := tmp_path / "object.pt")
    with pytest.raises(ValueError, match="object.pt: not a readable"):
        from_openai(f)
    assert "executed" not in capfd.readouterr().out
    short = (tmp_path / "good.safetensors").read_bytes()[:-100]
    (f := tmp_path / "short.safetensors").write_bytes(short)
    with pytest.raises(ValueError, match="short.safetensors"):
        from_openai(f)
    with pytest.raises(FileNotFoundError, match="none.pt"):
        from_openai(tmp_path / "none.pt")


def test_foreign_state_dicts():
    sd = openai_state(**IMPROVED)
    with pytest.raises(ValueError, match="of more than tensors"):
        from_openai(dict(state_dict=sd))
    foreign = nn.Linear(2, 2).state_dict()
    with pytest.raises(ValueError, match="not the layout"):
        from_openai(foreign)
    with pytest.raises(ValueError, match="not the layout"):
        from_openai({})
    less = {k: v for k, v in sd.items() if k != "out.0.bias"}
    more = sd | dict(extra=torch.zeros(1))
    other = sd | {"out.0.bias": torch.zeros(3)}
    with pytest.raises(ValueError, match="1 tensors missing, e.g. out.0.bias"):
        from_openai(less, heads=4)
    with pytest.raises(ValueError, match="not of this network, e.g. extra"):
        from_openai(more, heads=4)
    with pytest.raises(ValueError, match="another shape, e.g. out.0.bias"):
        from_openai(other, heads=4)
    with pytest.raises(ValueError, match="heads=5"):
        from_openai(sd, heads=5)


def test_heads_are_asked_for():
    "One head loaded as four is another network, and names and shapes are the same"
    with pytest.raises(ValueError, match="do not tell the attention heads; give heads"):
        from_openai(openai_state(**IMPROVED))
    assert from_openai(openai_state(**IMPROVED), head_channels=32).config["head_channels"] == 32


def test_super_resolution_is_refused():
    for out in (3, 6):
        with pytest.raises(ValueError, match="6 channels, as a super-resolution network"):
            from_openai(openai_state(**IMPROVED | dict(channels=6, out=out)), heads=4)


def test_settings_of_published_models():
    "Where the papers' codes say so: improved-diffusion scales times to 1000 unless told otherwise"
    assert len(OPENAI_MODELS) == 16
    for name in OPENAI_MODELS:
        about = openai_settings(name)
        assert bool(about.get("heads")) != bool(about.get("head_channels"))
        assert about["T"] in (1000, 4000) and about["side"] in (32, 64, 128, 256, 512)
        assert about["time_scale"] in (1, 1000 / about["T"])
    assert openai_settings("imagenet64_cond")["time_scale"] == 1  # rescale_timesteps False
    assert openai_settings("lsun_uncond_bs64")["heads"] == 1


def test_settings_that_no_file_tells():
    told = dict(side=8, schedule="linear", T=1000, heads=2)
    assert openai_settings(None, **told)["time_scale"] == 1
    with pytest.raises(ValueError, match="^time_scale: the file does not tell"):
        openai_settings(None, **told | dict(T=500))
    with pytest.raises(ValueError, match="^side, T, time_scale, heads: the file"):
        openai_settings(None, schedule="linear")
    with pytest.raises(ValueError, match="schedule"):
        openai_settings(None, **told | dict(schedule="quadratic"))
    with pytest.raises(ValueError, match="T: that of cifar10_uncond is known"):
        openai_settings("cifar10_uncond", T=1000)
    with pytest.raises(ValueError, match="cifar10_uncond"):
        openai_settings("cifar10")


def test_loading_leaves_the_global_generator_alone():
    state, before = openai_state(**IMPROVED), torch.get_rng_state()
    from_openai(state, heads=4)
    assert torch.equal(torch.get_rng_state(), before)
