"""What the diffusion model and its files refuse, each with an error that names the argument (data,
network and metrics have tables of their own)"""

import io
import json
import pickle

import pytest
import torch
from helpers import digits
from safetensors.torch import save_file
from torch import nn

from denoise_study.core import build, denoise_learner, image_dls, load_checkpoint, save_checkpoint
from denoise_study.core import write_tensors
from denoise_study.diffusion import DDGM, Schedule, UNet

net = UNet(channels=1, width=32, mult=(1,), n_blocks=1, attn=())
sched = Schedule.linear(100)
model = DDGM(net, sched, shape=(1, 8, 8))
x = torch.zeros(2, 1, 8, 8)
eps = torch.zeros_like(x)
nan = x.clone().index_fill_(0, torch.tensor([1]), float("nan"))
t = torch.tensor([1, 100])
dls = image_dls("digits", bs=64, device="cpu")

CALLS = {
    "loss unknown": (lambda: DDGM(net, sched, (1, 8, 8), loss="l1"), "loss: one of"),
    "variance unknown": (lambda: DDGM(net, sched, (1, 8, 8), var="big"), "var: one of"),
    "prediction unknown": (lambda: DDGM(net, sched, (1, 8, 8), pred="z"), "pred: one of"),
    "sampler unknown": (lambda: DDGM(net, sched, (1, 8, 8), sampler="best"), "sampler: one of"),
    "hybrid with a fixed variance": (
        lambda: DDGM(net, sched, (1, 8, 8), loss="hybrid"),
        "loss: 'hybrid'",
    ),
    "learned variance without the channels": (
        lambda: DDGM(net, sched, (1, 8, 8), var="learned"),
        "var: 'learned'",
    ),
    "grey network for colour": (lambda: DDGM(net, sched, (3, 8, 8)), "net: made for 1 channels"),
    "foreign network with wrong output": (
        lambda: foreign().sample(1, progress=False),
        "net: returned 2 channels",
    ),
    "time 0": (lambda: model(x, torch.tensor([0, 5]), eps), r"t: times run 1\.\.100"),
    "time T+1": (lambda: model(x, torch.tensor([1, 101]), eps), r"t: times run 1\.\.100"),
    "float times": (lambda: model(x, t.float(), eps), "t: an integer"),
    "one time for two images": (lambda: model(x, t[:1], eps), r"t: .*shape \(2,\)"),
    "noise of another shape": (lambda: model(x, t, eps[:1]), "eps: must have the shape of x0"),
    "reconstruct beyond T": (lambda: model.reconstruct(x, 101), r"t: times run 0\.\.100"),
    "reconstruct by magic": (lambda: model.reconstruct(x, 5, "magic"), "how: one of"),
    "reconstruct nan": (lambda: model.reconstruct(nan, 5), "x0"),
    "reconstruct bytes": (lambda: model.reconstruct(x.byte(), 5), "x0"),
    "reconstruct colour": (lambda: model.reconstruct(x.expand(2, 3, 8, 8), 5), "x0"),
    "reconstruct another size": (lambda: model.reconstruct(torch.zeros(2, 1, 16, 16), 5), "x0"),
    "reconstruct out of range": (lambda: model.reconstruct(x + 3, 5), "x0"),
    "likelihood off the grid": (lambda: model.bits_per_dim(x + 0.3, progress=False), "x0: .*grid"),
    "likelihood in [0,1]": (
        lambda: DDGM(net, sched, (1, 8, 8), range=(0.0, 1.0)).bits_per_dim(x, progress=False),
        r"range: .*\(-1, 1\)",
    ),
    "sample by magic": (lambda: model.sample(1, method="magic"), "method: one of"),
    "sample nothing": (lambda: model.sample(0), "n: a whole number of at least 1"),
    "respace to more steps": (
        lambda: model.sample(1, steps=500),
        r"steps: a number of steps in 1\.\.100",
    ),
    "data of another size": (
        lambda: denoise_learner(digits(size=16), model),
        r"dls: .*\(1, 8, 8\).*\(1, 16, 16\)",
    ),
    "data in another range": (
        lambda: denoise_learner(digits(range=(0.0, 1.0)), model),
        "dls: .*range",
    ),
    "ema of everything": (
        lambda: denoise_learner(dls, model, ema=1.0),
        r"decay: a number in \[0,1\)",
    ),
    "a stranger's class": (
        lambda: build({"class": "os.system", "args": {"command": "true"}}),
        "os.system.*not a class of this library",
    ),
    "a function of ours as class": (
        lambda: build({"class": "denoise_study.core.image_dls", "args": {}}),
        "is not a model",
    ),
    "a class of the future": (
        lambda: build({"class": "denoise_study.diffusion.Future", "args": {}}),
        "does not exist",
    ),
}


class Two(nn.Module):
    def forward(self, x, t):
        return x.expand(-1, 2, -1, -1)


def foreign():
    return DDGM(Two(), sched, (1, 8, 8))


@pytest.mark.parametrize("case", CALLS)
def test_call(case):
    call, message = CALLS[case]
    with pytest.raises((ValueError, TypeError), match=f"(?s){message}"):
        call()


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("ckpt") / "good.safetensors"
    save_checkpoint(path, model)
    return path


def pickled(good):
    buf = io.BytesIO()
    pickle.dump({"a": 1}, buf)
    return buf.getvalue()


def retell(good, path, **change):
    "The good file with another description"
    from denoise_study.core import read_tensors

    tensors, desc = read_tensors(good)
    write_tensors(path, tensors, json.loads(json.dumps(desc)) | change)


def colored():
    "The description of a network for images of three channels, under its name of earlier versions"
    other = UNet(channels=3, width=32, mult=(1,), n_blocks=1, attn=())
    return {"class": "denoise_study.unet.UNet", "args": dict(other.config)}


FILES = {
    "empty": (lambda good, p: p.write_bytes(b""), "not a readable safetensors file"),
    "noise": (lambda good, p: p.write_bytes(b"\xff" * 1000), "not a readable safetensors file"),
    "truncated": (
        lambda good, p: p.write_bytes(good.read_bytes()[:-1000]),
        "not a readable safetensors file",
    ),
    "header only": (
        lambda good, p: p.write_bytes(good.read_bytes()[:100]),
        "not a readable safetensors file",
    ),
    "a pickle": (lambda good, p: p.write_bytes(pickled(good)), "not a readable safetensors file"),
    "foreign safetensors": (
        lambda good, p: save_file({"w": torch.ones(2)}, p),
        "not one of this library",
    ),
    "a training state": (
        lambda good, p: write_tensors(p, {"w": torch.ones(2)}, dict(kind="training state")),
        "holds a training state",
    ),
    "weights of another network": (
        lambda good, p: retell(good, p, model=colored()),
        "does not fit the model",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_file(case, good, tmp_path):
    make, message = FILES[case]
    path = tmp_path / "bad.safetensors"
    make(good, path)
    with pytest.raises(ValueError, match=f"bad.safetensors .*{message}|{message}"):
        load_checkpoint(path)
    assert torch.equal(next(load_checkpoint(good).parameters()), next(model.parameters()))


def test_file_and_model_must_agree(good, tmp_path):
    with pytest.raises(FileNotFoundError, match="no.safetensors does not exist"):
        load_checkpoint(tmp_path / "no.safetensors")
    with pytest.raises(ValueError, match="sched.*'T': 50.*'T': 100"):
        load_checkpoint(good, model=DDGM(net, Schedule.linear(50), shape=(1, 8, 8)))
    with pytest.raises(ValueError, match="range"):
        load_checkpoint(good, model=DDGM(net, sched, shape=(1, 8, 8), range=(0.0, 1.0)))
    with pytest.raises(ValueError, match="weights: .*'raw'.*'ema'"):
        load_checkpoint(good, weights="ema")
    with pytest.raises(ValueError, match="weights: 'raw' or 'ema'"):
        load_checkpoint(good, weights="best")
