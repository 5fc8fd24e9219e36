"Training survives killed processes and full disks, and a look on the way changes nothing"

import json
import resource
import signal
import subprocess

import pytest
import torch
from fastai.callback.core import Callback
from helpers import digits, ENV, quiet_fit, run_script, script
from helpers_training import Linear, small

from denoise_study.core import denoise_learner, load_checkpoint, read_tensors, SampleGrid
from denoise_study.core import save_checkpoint, unpack

STEPS = 21  # 3 epochs of 7 batches


def same(a, b):
    (ta, da), (tb, db) = read_tensors(a), read_tensors(b)
    assert ta.keys() == tb.keys() and da["info"]["losses"] == db["info"]["losses"]
    assert len(da["info"]["losses"]) == STEPS
    for k in ta:
        assert torch.equal(ta[k], tb[k]), k


def kill_at(step, folder, *args):
    "Start the run and end it with SIGKILL when it says `step`"
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=ENV)
    with subprocess.Popen(script("run_training", folder, *args), **pipes) as p:
        for line in p.stdout:
            if line == f"step {step}\n":
                p.kill()
    assert p.returncode == -signal.SIGKILL


def test_killed_and_resumed_is_bit_identical(tmp_path):
    """Killed between two steps, then at any moment while every step writes its state: the result
    is that of the undisturbed run"""
    run_script("run_training", tmp_path / "whole")
    kill_at(6, tmp_path / "cut", "--stop-at", "6")  # the last state is that of step 4
    kill_at(11, tmp_path / "cut", "--every", "1")  # second epoch, perhaps in the middle of a write
    out = run_script("run_training", tmp_path / "cut")
    steps = [int(line.split()[1]) for line in out.splitlines() if line.startswith("step")]
    assert 9 <= steps[0] <= STEPS and steps == list(range(steps[0], STEPS + 1))
    same(tmp_path / "whole/model.safetensors", tmp_path / "cut/model.safetensors")
    rows = (tmp_path / "cut/log.jsonl").read_text().splitlines()
    steps = [json.loads(row)["step"] for row in rows if "lr" in row]
    assert steps == list(range(1, STEPS + 1))


def test_resume_wants_the_same_run(tmp_path):
    quiet_fit(denoise_learner(digits(), Linear(), folder=tmp_path), 2)
    with pytest.raises(ValueError, match="steps: this run has 66, .* run with 44"):
        quiet_fit(denoise_learner(digits(), Linear(), folder=tmp_path), 3)
    with pytest.raises(ValueError, match="model.class"):
        quiet_fit(denoise_learner(digits(), small(), folder=tmp_path), 2)
    # nothing left to do: hands over the result
    done = quiet_fit(denoise_learner(digits(), Linear(), folder=tmp_path), 2)
    assert not torch.equal(done.model.w, Linear().w) and len(done.recorder.values) == 2


def test_full_disk_keeps_the_old_file(tmp_path):
    "A file size limit stands for a full disk"
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, model := small())
    before, (soft, hard) = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    learn = denoise_learner(digits(), small(), folder=tmp_path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="m.safetensors could not be written.*untouched"):
            save_checkpoint(path, small())
        with pytest.warns(UserWarning, match="training goes on without a new state"):
            quiet_fit(learn, 1, 1e-3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    assert torch.equal(next(load_checkpoint(path).parameters()), next(model.parameters()))


def test_samples_drawn_on_the_way_change_nothing(tmp_path):
    def fit(*cbs):
        learn = denoise_learner(digits(256), small(), cbs=list(cbs))
        return quiet_fit(learn, 1, 1e-3).model.state_dict()

    def wild(model):
        torch.randn(5)
        return model.sample(4, seed=0, progress=False)

    torch.manual_seed(0)
    plain = fit()
    torch.manual_seed(0)
    looked = fit(SampleGrid(wild, tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["epoch-0001.png"]
    assert all(torch.equal(plain[k], looked[k]) for k in plain)


class Tied(Linear):
    "Two names of one parameter"

    def __init__(self):
        super().__init__()
        self.again = self.w


def test_tied_weights_are_saved_and_taken_up(tmp_path):
    whole = quiet_fit(denoise_learner(digits(), Tied()), 2)
    learn = quiet_fit(denoise_learner(digits(), Tied(), folder=tmp_path), 2)
    again = quiet_fit(denoise_learner(digits(), Tied(), folder=tmp_path), 2)
    for model in (learn.model, again.model, again.ema_model):
        assert model.again is model.w
    assert torch.equal(again.model.w, whole.model.w)
    save_checkpoint(tmp_path / "a.safetensors", learn.model)
    assert torch.equal(load_checkpoint(tmp_path / "a.safetensors", Tied()).w, whole.model.w)


@pytest.mark.parametrize("place", ["loss", "weights"])
def test_nan_stops_a_training_and_the_good_state_stays(tmp_path, place):
    "Whether the loss shows it first or the weights, by a gradient that overflows"

    class Spoiled(Linear):
        calls = 0

        def forward(self, x0, *drawn):
            self.calls += self.training
            losses = super().forward(x0, *drawn)
            return losses * float("nan") if self.calls == 9 and place == "loss" else losses

    class Overflow(Callback):
        def before_step(self):
            if self.learn.objective_cb.step == 8 and place == "weights":
                for p in self.learn.model.parameters():
                    p.grad.fill_(float("inf"))

    dls, path = digits(), tmp_path / "state.safetensors"
    learn = denoise_learner(dls, Spoiled(), folder=tmp_path, cbs=Overflow())
    learn.resume.steps = 1
    with pytest.raises(ValueError, match="nan|NaN"):
        quiet_fit(learn, 3)
    tensors, desc = read_tensors(path)
    state = unpack(desc["state"], tensors)
    assert state["where"]["train_iter"] == 8
    assert all(t.isfinite().all() for t in state["model"].values())
    if place == "loss":
        assert all(p.isfinite().all() for p in learn.model.parameters())


def test_the_seconds_of_all_parts_are_counted(tmp_path, monkeypatch):
    "A clock that goes a second further each time it is looked at"
    looks = iter(range(10**6))
    monkeypatch.setattr("denoise_study.core.resume.time.monotonic", lambda: float(next(looks)))
    whole = denoise_learner(digits(), Linear(), folder=tmp_path / "whole")
    quiet_fit(whole, 2)
    in_one = whole.resume.spent()

    class Stop(Callback):
        def before_epoch(self):
            if self.epoch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quiet_fit(denoise_learner(digits(), Linear(), folder=tmp_path / "cut", cbs=Stop()), 2)
    again = denoise_learner(digits(), Linear(), folder=tmp_path / "cut")
    quiet_fit(again, 2)
    assert again.resume.earlier > 20  # an epoch has 22 steps
    assert abs(again.resume.spent() - in_one) < 5
