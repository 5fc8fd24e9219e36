"Recipes: what they train, what they leave alone, what they write; a control of the same size"

import pytest
import torch
from helpers import trained

from denoise_study import load_pretrained
from denoise_study.core import image_dls, load_checkpoint
from denoise_study.daed import split, train_dae, train_daed, widened_net
from denoise_study.diffusion import Plateau, preset, Schedule, UNet


@pytest.fixture(scope="module")
def dls():
    return image_dls("digits", bs=128, device="cpu")


def test_joint_training_makes_both_networks_of_the_preset(dls, tmp_path):
    m = train_daed(dls, tmp_path, steps=1, loss="vlb", sched=Schedule.linear(60), level=0.3)
    net = preset(dls.info)["net"]
    assert (
        m.net.config == UNet(**dict(net, learn_sigma=True)).config
        and m.dae.config == UNet(**net).config
    )
    assert m.n == Schedule.linear(60).nearest(0.3) and (m.loss, m.var) == ("vlb", "learned")
    again = load_checkpoint(tmp_path / "daed.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), m.parameters()))


def test_denoiser_alone_leaves_the_generator_as_it_was(dls, tmp_path):
    ddgm = trained()
    before = [p.clone() for p in ddgm.parameters()]
    at = split(ddgm.sched, level=0.1)
    m = train_dae(dls, tmp_path, ddgm, at, steps=1)
    info = load_checkpoint(tmp_path / "daed.safetensors").info
    assert info["max_steps"] == 1 and info["fall"] is None  # one check is too few to tell
    assert m.n == at.n and all(torch.equal(a, b) for a, b in zip(before, m.net.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(before, ddgm.parameters()))


def test_denoiser_learns_on_at_another_level(dls, tmp_path):
    """It begins with the weights of the other and leaves that one alone; the run knows whose they
    were, so that another start in its folder is refused"""
    ddgm, first = trained(), load_pretrained("dae-digits-20")
    before = [p.clone() for p in first.dae.parameters()]
    at = split(ddgm.sched, level=0.3)
    until = Plateau(checks=1)
    m = train_dae(dls, tmp_path / "a", ddgm, at, steps=1, start=first, lr=1e-12, until=until)
    assert m.n == at.n != first.n
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(m.dae.parameters(), before))
    assert all(torch.equal(a, b) for a, b in zip(first.dae.parameters(), before))
    info = load_checkpoint(tmp_path / "a/daed.safetensors").info
    assert info["steps_before"] == first.info["steps"] and info["run"]["start"]
    other = load_checkpoint(tmp_path / "a/daed.safetensors")
    torch.nn.init.ones_(next(other.dae.parameters()))
    with pytest.raises(ValueError, match="start"):
        train_dae(dls, tmp_path / "a", ddgm, at, steps=1, start=other, lr=1e-12)


def test_start_must_fit(dls, tmp_path):
    ddgm = trained()
    at = split(ddgm.sched, n=2)
    with pytest.raises(ValueError, match="start: a DAED is needed, got a DDGM"):
        train_dae(dls, tmp_path, ddgm, at, start=ddgm)
    clothes = load_pretrained("daed-fashion_mnist")
    with pytest.raises(ValueError, match="start: trained with shape .* but the DDGM has"):
        train_dae(dls, tmp_path, ddgm, at, start=clothes)
    assert not list(tmp_path.iterdir())


def test_widened_net_has_the_width_whose_count_is_nearest():
    "Two networks of the paper have 17,598,210 parameters"

    def count(config):
        return sum(p.numel() for p in UNet(**config).parameters())

    base = UNet.paper("fashion_mnist").config
    got = widened_net(base, 17_598_210)
    assert got == base | dict(width=got["width"]) and got["width"] == 92
    near = {w: abs(count(base | dict(width=w)) - 17_598_210) for w in (88, 92, 96)}
    assert min(near, key=near.get) == 92 and near[92] / 17_598_210 < 0.04
    tiny = UNet(channels=1, width=16, mult=(1,), n_blocks=1, attn=()).config
    assert widened_net(tiny, count(tiny)) == tiny
    assert widened_net(tiny, 2 * count(tiny))["width"] > 16
    assert widened_net(tiny | dict(head_channels=8), 2 * count(tiny))["width"] % 8 == 0
    assert widened_net(tiny, count(tiny | dict(width=4)))["width"] == 4


@pytest.mark.parametrize(
    "n,message", [(0, "n_params: an integer of at least"), (1e6, "n_params: an integer")]
)
def test_refused(n, message):
    with pytest.raises(ValueError, match=message):
        widened_net(UNet(channels=1).config, n)
