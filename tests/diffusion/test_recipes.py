"Presets are the papers', and a training ends where it should"

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback

from denoise_study.core import DataInfo, image_dls, load_checkpoint
from denoise_study.diffusion import DDGM, fit, loss_fall, Plateau, preset, preview, Schedule
from denoise_study.diffusion import train_ddgm, UNet


def info(channels, side):
    return DataInfo("x", channels, (side, side), (-1.0, 1.0), (), 1, 1, 1)


@pytest.mark.parametrize(
    "channels,side,count,T,bs,steps",
    [
        (1, 28, 8_799_105, 500, 128, 100_000),
        (3, 32, 52_542_979, 1000, 160, 500_000),
        (3, 64, 121_060_483, 1000, 160, 200_000),
    ],
)
def test_presets_are_the_papers(channels, side, count, T, bs, steps):
    "Parameters, steps and batch sizes of DAED's code"
    p = preset(info(channels, side), "paper")
    with torch.device("meta"):
        net = UNet(**p["net"])
    assert sum(v.numel() for v in net.parameters()) == count
    assert (p["T"], p["bs"], p["steps"], p["net"]["dropout"]) == (T, bs, steps, 0.3)


@pytest.mark.parametrize("side", [8, 16, 28, 32, 64])
def test_small_networks_take_images_of_their_size(side):
    net = UNet(**preset(info(1, side), "small")["net"])
    model, x = DDGM(net, Schedule.linear(200), (1, side, side)), torch.zeros(1, 1, side, side)
    assert side % net.factor == 0 and model(x, torch.tensor([1]), x).shape == (1,)


def test_a_training_takes_the_steps_that_were_asked_for(tmp_path):
    "Epochs of one length, whatever the size of the data set; what is saved is what is returned"
    dls = image_dls("digits", bs=64, device="cpu")
    sched = Schedule.linear(40)
    model = train_ddgm(dls, tmp_path, steps=9, width=16, loss="vlb", sched=sched)
    again = load_checkpoint(tmp_path / "ddgm.safetensors")
    assert again.info["steps"] == 9 and (model.var, model.sched) == ("learned", sched)
    assert torch.equal(preview(model), preview(again))


def test_size_is_one_of_two():
    with pytest.raises(ValueError, match="size: .*'small', 'paper'.*got 'large'"):
        preset(info(1, 8), "large")


def random_images(seed=0, n=200):
    images = np.random.default_rng(seed).integers(0, 256, (n, 8, 8), dtype=np.uint8)
    return image_dls(images, bs=64, device="cpu")


def trained(folder, dls=None, **kw):
    sched = Schedule.linear(30)
    return train_ddgm(dls or random_images(), folder, steps=2, width=16, sched=sched, **kw)


def test_another_run_in_the_folder_is_refused(tmp_path):
    first = trained(tmp_path)
    path = tmp_path / "ddgm.safetensors"
    kept = path.read_bytes()
    for other, field in (
        (dict(dls=random_images(1)), "images"),
        (dict(seed=1), "seed"),
        (dict(bf16=True), "precision"),
        (dict(compiled=True), "precision"),
        (dict(lr=1e-3), "rates"),
    ):
        with pytest.raises(ValueError, match=f"{field}: this run has"):
            trained(tmp_path, **other)
    (tmp_path / "state.safetensors").unlink()  # the finished checkpoint alone is enough to know
    with pytest.raises(ValueError, match="seed: this run has 1, .*ddgm.safetensors is of a run"):
        trained(tmp_path, seed=1)
    assert path.read_bytes() == kept
    assert load_checkpoint(path).info["run"]["seed"] == 0
    other = trained(tmp_path, seed=1, fresh=True)
    assert not torch.equal(next(first.parameters()), next(other.parameters()))
    assert load_checkpoint(path).info["run"]["seed"] == 1


@pytest.mark.parametrize("n", [2, 5])
def test_a_set_without_validation_images_is_trained_on(tmp_path, n):
    dls = random_images(n=n)
    assert dls.info.n_valid == 0
    trained(tmp_path, dls)
    info = load_checkpoint(tmp_path / "ddgm.safetensors").info
    assert info["steps"] == 2 and "valid_loss" not in info
    trained(tmp_path, dls)  # and taken up again


def test_fall_of_the_loss():
    "Best of the last checks against the best before; unknown as long as there is nothing before"
    assert loss_fall([3.0, 2.0, 1.0], 3) == np.inf
    assert loss_fall([2.0, 1.0, 1.5, 0.9], 2) == pytest.approx(0.1)
    assert loss_fall([1.0, 2.0, 2.0], 2) == -1.0  # it rises


class Script(Plateau):
    "A plateau whose losses are given"

    def __init__(self, losses, **kw):
        super().__init__(**kw)
        self.given = losses

    def losses(self):
        return [(s, self.given[i]) for i, (s, _) in enumerate(super().losses())]


def ended(folder, losses, steps=32, least=0.01, **kw):
    "Steps after which a training with these losses ends, and what its checkpoint says"
    net = UNet(channels=1, width=4, mult=(1,), n_blocks=1, attn=())
    model = DDGM(net, Schedule.linear(30), (1, 8, 8))
    p = dict(preset(info(1, 8)), ema=0.9)
    until = Script(losses, least=least, keep=folder)
    fit(random_images(), model, folder / "m.safetensors", p, steps, until=until, **kw)
    return load_checkpoint(folder / "m.safetensors").info


FALLING = [0.9**i for i in range(16)]


def test_a_training_ends_at_its_plateau(tmp_path):
    "Sixteen checks; the loss falls up to the fifth: at the ninth the last four bring nothing"
    flat = FALLING[:5] + [0.9**4] * 11
    found = ended(tmp_path, flat)
    assert (found["steps"], found["max_steps"], found["fall"]) == (18, 32, 0.0)
    assert [s for s, _ in found["losses"]] == list(range(2, 19, 2))
    kept = sorted(int(f.stem.split("-")[1]) for f in tmp_path.glob("after-*"))
    assert kept == [2, 4, 8, 16]  # the first, second, fourth and eighth check
    again = ended(tmp_path, flat)  # asked again, nothing more is trained
    assert again["steps"] == 18 and again["losses"] == found["losses"]


def test_a_training_that_still_falls_takes_all_its_steps_and_says_so(tmp_path):
    found = ended(tmp_path, FALLING)
    assert found["steps"] == 32 and found["fall"] == pytest.approx(1 - 0.9**4)
    assert found["fall"] > found["least"]


def same_weights(a, b):
    first, second = (load_checkpoint(f / "m.safetensors").state_dict() for f in (a, b))
    return all(torch.equal(v, second[k]) for k, v in first.items())


def test_a_training_can_be_made_longer(tmp_path):
    "In one go or in two, it is the same one, and its rule looks at a quarter of all its steps"
    once, twice = tmp_path / "once", tmp_path / "twice"
    falling = [0.9**i for i in range(99)]
    for folder in (once, twice):
        torch.manual_seed(0)
        assert ended(folder, falling, 16)["steps"] == 16
    assert ended(twice, falling, 32)["steps"] == 32
    found = [ended(folder, falling, 64) for folder in (once, twice)]
    assert [f["steps"] for f in found] == [64, 64] and same_weights(once, twice)
    assert [s for s, _ in found[0]["losses"]] == list(range(4, 65, 4))
    assert found[0]["losses"] == found[1]["losses"]
    again = ended(twice, falling, 64)  # the same command: it is done
    assert again["steps"] == 64 and again["losses"] == found[1]["losses"]


def test_a_longer_one_is_interrupted_and_goes_on(tmp_path):
    class PowerCut(Callback):
        order = 99

        def after_batch(self):
            if self.training and self.train_iter == 27:
                raise KeyboardInterrupt

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        torch.manual_seed(0)
        ended(folder, FALLING, 16)
    ended(whole, FALLING, 32)
    with pytest.raises(KeyboardInterrupt):
        ended(cut, FALLING, 32, cbs=[PowerCut()])
    assert ended(cut, FALLING, 32)["steps"] == 32 and same_weights(whole, cut)


def test_one_that_had_ended_is_asked_again_whether_it_has_when_it_may_take_longer(tmp_path):
    flat = FALLING[:5] + [0.9**4] * 30
    assert ended(tmp_path, flat)["steps"] == 18  # of 32, with checks every two steps
    still = [0.9**i for i in range(30)]
    assert ended(tmp_path, still, 64)["steps"] == 64


@pytest.mark.parametrize("steps", [16, 33, 48])
def test_other_lengths_are_refused(steps, tmp_path):
    ended(tmp_path, FALLING, 32)
    kept = (tmp_path / "m.safetensors").read_bytes()
    with pytest.raises(ValueError, match=f"steps: this run has {steps}, .* run with 32.*three"):
        ended(tmp_path, FALLING, steps)
    assert (tmp_path / "m.safetensors").read_bytes() == kept


def test_a_finished_model_without_its_state_is_not_replaced_by_a_longer_run(tmp_path):
    ended(tmp_path, FALLING, 32)
    (tmp_path / "state.safetensors").unlink()
    with pytest.raises(ValueError, match="steps: this run has 64, .*m.safetensors is of a run"):
        ended(tmp_path, FALLING, 64)
    assert ended(tmp_path, FALLING, 64, fresh=True)["steps"] == 64


def test_with_a_schedule_nothing_can_be_made_longer(tmp_path):
    trained(tmp_path)
    sched = Schedule.linear(30)
    with pytest.raises(ValueError, match="steps: this run has 4, .* run with 2"):
        train_ddgm(random_images(), tmp_path, steps=4, width=16, sched=sched)


def test_validation_is_of_the_averaged_weights(tmp_path):
    "The loss in the checkpoint is that of the model in it, under the same noise each time"
    dls = random_images()
    dls.loaders[1] = dls.train.new(shuffle=False, drop_last=False)
    torch.manual_seed(0)
    net = UNet(channels=1, width=4, mult=(1,), n_blocks=1, attn=())
    model = DDGM(net, Schedule.linear(30), (1, 8, 8))
    p = dict(preset(info(1, 8)), ema=0.9)
    averaged = fit(dls, model, tmp_path / "m.safetensors", p, 16, until=Plateau())
    found = load_checkpoint(tmp_path / "m.safetensors").info
    from denoise_study.core import denoise_learner

    loss = float(denoise_learner(dls, averaged, ema=None).validate()[0])
    assert found["valid_loss"] == pytest.approx(loss, rel=1e-5)
    assert found["losses"][-1] == [16, found["valid_loss"]]


def test_without_validation_images_nobody_knows(tmp_path):
    net = UNet(channels=1, width=4, mult=(1,), n_blocks=1, attn=())
    model = DDGM(net, Schedule.linear(30), (1, 8, 8))
    dls = random_images(n=5)
    fit(dls, model, tmp_path / "m.safetensors", preset(info(1, 8)), 4, until=Plateau())
    found = load_checkpoint(tmp_path / "m.safetensors").info
    assert found["steps"] == 4 and found["fall"] is None and found["losses"] == []
