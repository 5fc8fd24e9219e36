"Training survives: killed processes, full disks, several processes; and its averages are what they say"
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fastai.callback.core import Callback
from torch import nn

from denoise_study.core import averaged, denoise_learner, describe, EMA, image_dls, load_checkpoint
from denoise_study.core import pack, read_tensors, save_checkpoint, step_generator, unpack
from denoise_study.diffusion import DDGM, Schedule, UNet

SCRIPT = Path(__file__).with_name("run_training.py")
ENV = dict(os.environ, OMP_NUM_THREADS="1", PYTHONWARNINGS="ignore")
STEPS = 21      # 3 epochs of 7 batches


class Linear(nn.Module):
    "The smallest objective: one scale per pixel, one noise level"
    shape, range = (1, 8, 8), (-1., 1.)
    def __init__(self):
        super().__init__()
        self.config, self.w = {}, nn.Parameter(torch.ones(1, 8, 8))
    def draw(self, shape, generator): return torch.ones(shape[0]), torch.randn(shape, generator=generator)
    def forward(self, x0, z): return (self.w*(x0 + .5*z) - x0).pow(2).mean((1, 2, 3))


def digits(bs=64): return image_dls("digits", bs=bs, device="cpu")
def small(T=20, **kw): return DDGM(UNet(channels=1, width=32, mult=(1,), n_blocks=1, attn=()), Schedule.linear(T, end=.015), shape=(1, 8, 8), **kw)


def quiet_fit(learn, n=1, lr=1e-2):
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(n, lr)
    return learn


def same(a, b):
    (ta, da), (tb, db) = read_tensors(a), read_tensors(b)
    assert ta.keys() == tb.keys() and da["info"]["losses"] == db["info"]["losses"]
    assert len(da["info"]["losses"]) == STEPS
    for k in ta: assert torch.equal(ta[k], tb[k]), k


def run(folder, *args): return [sys.executable, str(SCRIPT), str(folder), *args]


def kill_at(step, folder, *args):
    "Start the run and end it with SIGKILL when it says `step`"
    with subprocess.Popen(run(folder, *args), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=ENV) as p:
        for line in p.stdout:
            if line == f"step {step}\n": p.kill()
    assert p.returncode == -signal.SIGKILL


def test_killed_and_resumed_is_bit_identical(tmp_path):
    "Killed between two steps, then at any moment while every step writes its state: the result is that of the undisturbed run"
    subprocess.run(run(tmp_path/"whole"), check=True, env=ENV, stdout=subprocess.DEVNULL)
    kill_at(6, tmp_path/"cut", "--stop-at", "6")                    # the last state is that of step 4
    kill_at(11, tmp_path/"cut", "--every", "1")                     # in the second epoch, perhaps in the middle of a write
    out = subprocess.run(run(tmp_path/"cut"), check=True, env=ENV, capture_output=True, text=True).stdout
    steps = [int(line.split()[1]) for line in out.splitlines() if line.startswith("step")]
    assert 9 <= steps[0] <= STEPS and steps == list(range(steps[0], STEPS + 1))
    same(tmp_path/"whole/model.safetensors", tmp_path/"cut/model.safetensors")
    steps = [json.loads(row)["step"] for row in (tmp_path/"cut/log.jsonl").read_text().splitlines() if "lr" in row]
    assert steps == list(range(1, STEPS + 1))


def test_two_processes_equal_one(tmp_path):
    "Two CPU processes on half batches against one on the whole: the same losses and weights but for the order of sums"
    # torchrun: accelerate's own launcher starts one process on a CPU, whatever number it is told
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *run(tmp_path/"two", "--dropout", "0")[1:]]
    subprocess.run(launch, check=True, env=ENV, stdout=subprocess.DEVNULL)
    subprocess.run(run(tmp_path/"one", "--dropout", "0"), check=True, env=ENV, stdout=subprocess.DEVNULL)
    (one, done), (two, dtwo) = (read_tensors(tmp_path/f"{n}/model.safetensors") for n in ("one", "two"))
    assert (done["info"]["processes"], dtwo["info"]["processes"]) == (1, 2)
    torch.testing.assert_close(torch.tensor(done["info"]["losses"]), torch.tensor(dtwo["info"]["losses"]), rtol=1e-4, atol=1e-5)
    # Adam blows up the order of sums where a gradient is nearly 0: single biases differ by 4e-5
    for k in one: torch.testing.assert_close(one[k], two[k], rtol=1e-3, atol=2e-4, msg=lambda m, k=k: f"{k}: {m}")
    assert done["info"]["losses"][-1] < .8*done["info"]["losses"][0]    # there was something to agree on


def test_resume_wants_the_same_run(tmp_path):
    quiet_fit(denoise_learner(digits(), Linear(), folder=tmp_path), 2)
    with pytest.raises(ValueError, match="n_epoch.*3 epochs.*of 2"): quiet_fit(denoise_learner(digits(), Linear(), folder=tmp_path), 3)
    with pytest.raises(ValueError, match="model.class"): quiet_fit(denoise_learner(digits(), small(), folder=tmp_path), 2)
    done = quiet_fit(denoise_learner(digits(), Linear(), folder=tmp_path), 2)      # nothing left to do: hands over the result
    assert not torch.equal(done.model.w, Linear().w) and len(done.recorder.values) == 2


def test_lr_find_and_half_precision_work(tmp_path):
    learn = denoise_learner(digits(), Linear(), folder=tmp_path)
    with learn.no_bar(): suggestion = learn.lr_find(num_it=20, show_plot=False)
    assert 1e-7 < suggestion.valley < 10 and not (tmp_path/"state.safetensors").exists()
    learn = quiet_fit(denoise_learner(digits(), small(), bf16=True), 1, 1e-3)
    assert all(p.dtype == torch.float32 for p in learn.model.parameters()) and torch.isfinite(torch.stack(learn.recorder.losses)).all()
    assert not torch.is_autocast_enabled("cpu")


def test_ema_is_the_weighted_sum_of_all_weights():
    class Keep(Callback):
        order = 99
        def after_batch(self):
            if self.training: weights.append(self.learn.model.w.detach().clone())
    for warmup in (False, True):
        weights = []
        learn = denoise_learner(digits(256), Linear(), ema=None, cbs=[EMA(.9, warmup), Keep()])
        w0 = learn.model.w.detach().clone().double()
        quiet_fit(learn)
        expected = w0
        for k, w in enumerate(weights, 1):
            r = min(.9, (1 + k)/(10 + k)) if warmup else .9
            expected = r*expected + (1 - r)*w
        torch.testing.assert_close(averaged(learn).w.double(), expected, rtol=1e-5, atol=1e-6)
    k = len(weights)
    plain = .9**k*w0 + .1*sum(.9**(k - 1 - j)*w.double() for j, w in enumerate(weights))
    assert not torch.allclose(expected, plain)      # the warm-up makes a difference this early


def test_sampled_weights_are_recorded(tmp_path):
    model, ema = small(), small()
    save_checkpoint(tmp_path/"m.safetensors", model, ema, seed=4)
    for kind, src in (("raw", model), ("ema", ema), (None, ema)):
        m = load_checkpoint(tmp_path/"m.safetensors", weights=kind)
        assert m.info["weights"] == (kind or "ema") and m.info["seed"] == 4 and not m.training
        assert all(torch.equal(a, b) for a, b in zip(m.state_dict().values(), src.state_dict().values()))
    assert describe(m) == describe(model)


def test_step_noise_depends_on_seed_and_step_only():
    draw = lambda *a, **k: torch.randn(4, generator=step_generator(*a, **k))
    assert torch.equal(draw(1, 2), draw(1, 2))
    assert len({tuple(draw(*a).tolist()) for a in ((1, 2), (2, 1), (1, 3), (12, 0), (1, 20))}) == 5
    assert not torch.equal(draw(1, 2), draw(1, 2, stream="valid"))


def test_pack_round_trip():
    nest = dict(a=[1, 2.5, None, "x"], b=(torch.arange(3), {0: torch.eye(2), "k": True}), c={})
    tensors = {}
    back = unpack(json.loads(json.dumps(pack(nest, tensors))), tensors)
    assert back["a"] == nest["a"] and isinstance(back["b"], tuple) and torch.equal(back["b"][1][0], torch.eye(2)) and back["c"] == {}
    with pytest.raises(TypeError, match="state.f"): pack(dict(f=print), {}, "state")


def test_full_disk_keeps_the_old_file(tmp_path):
    "A file size limit stands for a full disk"
    path = tmp_path/"m.safetensors"
    save_checkpoint(path, model := small())
    before, (soft, hard) = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    learn = denoise_learner(digits(), small(), folder=tmp_path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="m.safetensors could not be written.*untouched"): save_checkpoint(path, small())
        with pytest.warns(UserWarning, match="training goes on without a new state"): quiet_fit(learn, 1, 1e-3)
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    assert torch.equal(next(load_checkpoint(path).parameters()), next(model.parameters()))


def test_samples_drawn_on_the_way_change_nothing(tmp_path):
    from denoise_study.core import SampleGrid
    fit = lambda *cbs: quiet_fit(denoise_learner(digits(256), small(), cbs=list(cbs)), 1, 1e-3).model.state_dict()
    def wild(model):
        torch.randn(5)
        return model.sample(4, seed=0, progress=False)
    torch.manual_seed(0)
    plain = fit()
    torch.manual_seed(0)
    looked = fit(SampleGrid(wild, tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["epoch-0001.png"] and all(torch.equal(plain[k], looked[k]) for k in plain)
