"denoise-train: what is left behind, and what does not go together"

import re

import numpy as np
import pytest
import torch
from helpers import digits, quiet_fit
from helpers_study import color_pictures, command
from helpers_training import Linear

from denoise_study.core import denoise_learner, load_checkpoint, read_tensors
from denoise_study.diffusion import Schedule, UNet
from denoise_study.study import denoise_train, load_pretrained, model_kind, MODELS, SCHEDULES


def test_trains_on_a_folder(tmp_path):
    "Colour pictures of a user: a checkpoint that says what it is, and pictures beside it"
    (tmp_path / "pictures").mkdir()
    color_pictures(tmp_path / "pictures")
    out = command(
        tmp_path,
        "denoise-train",
        "--data",
        "pictures",
        "--image-size",
        8,
        "--folder",
        "run",
        "--steps",
        3,
        "--loss",
        "hybrid",
    ).stdout
    model = load_checkpoint(tmp_path / "run/ddgm.safetensors")
    assert model.shape == (3, 8, 8) and model.loss == "hybrid"
    assert model.info["weights"] == "ema" and model.info["data"]["n_train"] > 0
    assert list((tmp_path / "run/samples").glob("*.png"))
    assert "The model is in run/ddgm.safetensors" in out


def test_words_of_the_command_line():
    assert list(MODELS) == ["ddgm", "daed", "blind"]
    assert list(SCHEDULES) == ["linear", "cosine", "linear_combine"]


def test_noise_law_is_for_blind_models():
    with pytest.raises(ValueError, match="noise_law: for blind models only, got 'log' for 'ddgm'"):
        denoise_train(noise_law="log")


def test_a_transformer_is_a_blind_denoiser(tmp_path):
    "Trained in batches of its own preset, and refused for the other models"
    with pytest.raises(ValueError, match="size: a transformer is there for blind denoisers only"):
        denoise_train(model="ddgm", size="transformer", folder=str(tmp_path))
    denoise_train(
        model="blind", size="transformer", steps=2, width=8, image_size=16, folder=str(tmp_path)
    )
    model = load_checkpoint(tmp_path / "blind.safetensors")
    assert type(model.net).__name__ == "BlindTransformer"
    assert model.info["run"]["bs"] == 64


@pytest.mark.parametrize(
    "given",
    [
        dict(model="blind", loss="vlb"),
        dict(model="blind", T=50),
        dict(model="blind", schedule="cosine"),
        dict(model="blind", level=0.2),
        dict(model="ddgm", level=0.2),
        dict(model="ddgm", ddgm="ddgm-digits"),
        dict(model="daed", wide=True),
    ],
)
def test_options_of_other_models_are_refused(given):
    "Not dropped without a word"
    name = list(given)[1]
    with pytest.raises(ValueError, match=f"^{name}: for .* models only, got .* for"):
        denoise_train(**given)


def test_denoiser_of_a_ddgm_that_exists(tmp_path):
    "Two steps: the generator is the model's, on the tail of its chain; the denoiser is trained"
    denoise_train(
        model="daed", ddgm="ddgm-digits", level=0.2, steps=2, folder=str(tmp_path), device="cpu"
    )
    ddgm = load_pretrained("ddgm-digits")
    daed = load_checkpoint(tmp_path / "daed.safetensors")
    n = ddgm.sched.nearest(0.2)
    assert daed.n == n and daed.sched == ddgm.sched.merge_first(n)
    for a, b in zip(daed.net.parameters(), ddgm.net.parameters()):
        assert torch.equal(a, b)
    assert daed.info["max_steps"] == 2  # by the rule of the plateau
    with pytest.raises(ValueError, match="schedule: that of ddgm-digits is used, got 'cosine'"):
        denoise_train(model="daed", ddgm="ddgm-digits", schedule="cosine", folder=str(tmp_path))


def test_denoiser_of_a_daed_learns_on_at_another_level(tmp_path):
    how = dict(ddgm="ddgm-digits", start="dae-digits-20", folder=str(tmp_path), device="cpu")
    denoise_train(level=0.3, steps=2, **how)
    daed = load_checkpoint(tmp_path / "daed.safetensors")
    assert daed.n == load_pretrained("ddgm-digits").sched.nearest(0.3)
    assert daed.info["steps_before"] == load_pretrained("dae-digits-20").info["steps"]
    with pytest.raises(ValueError, match="model: that of dae-digits-20 is used, got 'ddgm'"):
        denoise_train(model="ddgm", **how)
    for kind in ("ddgm", "blind"):
        with pytest.raises(ValueError, match="start: beside ddgm a daed is needed"):
            denoise_train(**how | dict(start=f"{kind}-digits"))


def test_who_has_not_learned_all_is_told_how_to_go_on(tmp_path, capsys):
    how = dict(model="daed", ddgm="ddgm-digits", folder=str(tmp_path), device="cpu")
    denoise_train(steps=16, **how)
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(
        r"Its loss still fell by \d+\.\d% over the last quarter of its 16 steps; "
        r"asked for --steps 32, the same command goes on\.",
        last,
    )
    denoise_train(steps=32, **how)
    info = load_checkpoint(tmp_path / "daed.safetensors").info
    assert info["steps"] == 32 and info["run"]["epochs"] == 32
    denoise_train(model="blind", steps=1, folder=str(tmp_path / "blind"), device="cpu")
    assert capsys.readouterr().out.splitlines()[-1].startswith("The model is in")


def test_the_authors_schedule_and_the_control_of_size(tmp_path):
    "linear_combine is cut already: T steps, the first with the noise of the denoiser"
    kw = dict(steps=1, device="cpu")
    folder = tmp_path / "daed"
    denoise_train(model="daed", schedule="linear_combine", T=30, folder=str(folder), **kw)
    daed = load_checkpoint(folder / "daed.safetensors")
    assert daed.sched == Schedule.linear_combine(30, 0.1) and daed.n == 1
    folder = tmp_path / "wide"
    denoise_train(wide=True, width=8, folder=str(folder), **kw)
    wide = load_checkpoint(folder / "ddgm.safetensors")
    one = UNet(**dict(wide.net.config, width=8))
    sizes = [sum(p.numel() for p in net.parameters()) for net in (wide.net, one)]
    assert abs(sizes[0] / sizes[1] - 2) < 0.3
    with pytest.raises(ValueError, match="linear_combine is for daed models only"):
        denoise_train(schedule="linear_combine", folder=str(tmp_path))


def bytes_of(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_a_folder_is_of_one_run_and_longer_is_another(tmp_path):
    "Other images or another seed are refused, and more steps start from the weights"
    rng = np.random.default_rng(0)
    for name in "AB":
        images = rng.integers(0, 256, (60, 8, 8), dtype=np.uint8)
        np.savez(tmp_path / f"{name}.npz", images=images)
    run, more = tmp_path / "run", tmp_path / "more"
    kw = dict(data=str(tmp_path / "A.npz"), model="blind", steps=2, device="cpu")
    denoise_train(folder=str(run), **kw)
    before = bytes_of(run)
    others = dict(data=str(tmp_path / "B.npz")), dict(seed=1), dict(bf16=True), dict(steps=4)
    for other, field in zip(others, ("data", "seed", "precision", "steps")):
        with pytest.raises(ValueError, match=f"{field}: this run has .*--fresh"):
            denoise_train(folder=str(run), **kw | other)
    assert bytes_of(run) == before
    with pytest.raises(ValueError, match="use another folder and denoise-train --start"):
        denoise_train(folder=str(run), **kw | dict(steps=4))

    kw = dict(data=kw["data"], start=str(run / "blind.safetensors"), device="cpu")
    with pytest.raises(ValueError, match="start: this run has"):
        denoise_train(folder=str(run), steps=2, **kw)
    denoise_train(folder=str(more), steps=4, **kw)
    first = load_checkpoint(run / "blind.safetensors")
    info = load_checkpoint(more / "blind.safetensors").info
    assert info["run"]["start"] == first.info["digest"] and info["run"]["steps"] == 4
    assert first.info["run"]["start"] is None


def test_a_blind_denoiser_learns_on_from_larger_images(tmp_path):
    "The same weights on images of other sides, and a digest that says where they come from"
    rng = np.random.default_rng(0)
    for name, side in dict(small=8, large=16).items():
        np.savez(tmp_path / f"{name}.npz", images=rng.integers(0, 256, (60, side, 24), np.uint8))
    kw = dict(steps=2, device="cpu")
    denoise_train(str(tmp_path / "small.npz"), folder=str(tmp_path / "run"), model="blind", **kw)
    first = tmp_path / "run" / "blind.safetensors"
    kw |= dict(start=str(first), folder=str(tmp_path / "more"), noise_law="uniform")
    denoise_train(str(tmp_path / "large.npz"), **kw)
    model = load_checkpoint(tmp_path / "more" / "blind.safetensors")
    assert model.shape == (1, 16, 24) and model.law == "uniform"
    assert model.info["run"]["start"] == load_checkpoint(first).info["digest"]
    assert model.info["steps"] == model.info["steps_before"] == 2
    denoise_train(str(tmp_path / "large.npz"), **kw)  # once more: nothing is left to do
    assert load_checkpoint(first).shape == (1, 8, 24)


def test_tied_weights_are_trained_and_saved(tmp_path):
    "Two names of one tensor: saved after an epoch, and one tensor again after a resume"

    class Tied(Linear):
        def __init__(self):
            super().__init__()
            self.again = self.w

        def forward(self, x0, z):
            return super().forward(x0, z) + (self.again * x0 - x0).pow(2).mean((1, 2, 3))

    for epochs in (1, 1):
        learn = denoise_learner(digits(256), Tied(), folder=tmp_path, ema=None)
        quiet_fit(learn, epochs)
    assert learn.model.w is learn.model.again
    tensors, _ = read_tensors(tmp_path / "state.safetensors")
    assert torch.equal(tensors[".model.w"], tensors[".model.again"])
    assert torch.equal(tensors[".model.w"], learn.model.w.detach())


def test_kinds_of_models():
    for name in ("ddgm-digits", "daed-digits", "blind-digits"):
        assert model_kind(load_pretrained(name)) == name.partition("-")[0]
    with pytest.raises(ValueError, match="start: one of ddgm, daed, blind is needed, got a Linear"):
        model_kind(Linear())
