"""What models, files, metrics and statistics refuse, each with an error that names the argument
(data and networks have tables of their own)"""

import io
import json
import pickle

import pytest
import torch
from helpers import digits
from safetensors.torch import save_file
from torch import nn

from denoise_study.core import bootstrap_interval, build, compute_features, denoise_learner, frechet
from denoise_study.core import image_dls, image_generators, Interval, knn_precision_recall
from denoise_study.core import load_checkpoint, mae, mean_interval, ms_ssim, noise_like, prd
from denoise_study.core import save_checkpoint, t_interval, two_level_interval, write_tensors
from denoise_study.denoiser import BlindUNet, decibels, denoiser, psnr_curve
from denoise_study.denoiserep import holm, mcnemar
from denoise_study.diffusion import DDGM, Schedule, UNet

net = UNet(channels=1, width=32, mult=(1,), n_blocks=1, attn=())
sched = Schedule.linear(100)
model = DDGM(net, sched, shape=(1, 8, 8))
x = torch.zeros(2, 1, 8, 8)
eps = torch.zeros_like(x)
nan = x.clone().index_fill_(0, torch.tensor([1]), float("nan"))
t = torch.tensor([1, 100])
dls = image_dls("digits", bs=64, device="cpu")
D = denoiser(BlindUNet(1, (4, 8), (2, 2, 2)), (1, 8, 8))

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


half = torch.rand(8)
wrong = torch.tensor([0.5, float("nan")])
pics = torch.rand(6, 1, 8, 8)
table = torch.rand(3, 5)
feats = torch.randn(20, 3)

# Numbers out of nonsense: metrics and statistics check what images are checked for
STATISTICS = {
    "holm of what is no p": (lambda: holm([5, -1]), r"p: numbers in \[0,1\]"),
    "holm of nan": (lambda: holm([0.1, float("nan")]), r"p: numbers in \[0,1\]"),
    "mcnemar of nan": (lambda: mcnemar(wrong, [True, False]), "right: True or False"),
    "mcnemar of scores": (lambda: mcnemar([1, 0], [0.3, 0.7]), "right0: True or False"),
    "mean of nan": (lambda: mean_interval(wrong), "values: holds NaN"),
    "mean of one": (lambda: t_interval(half[:1]), "values: .*at least two seeds"),
    "mean of words": (lambda: t_interval("ab"), "values: numbers, one each of seeds"),
    "draws with nan": (lambda: bootstrap_interval(1.0, wrong, 5), "draws: NaN or infinity"),
    "coverage of 95": (lambda: mean_interval(half, level=95), "level: a coverage between 0 and 1"),
    "one resample": (lambda: mean_interval(half, n_boot=1), "n_boot: .*at least 2"),
    "a table with nan": (lambda: two_level_interval(table / 0), "items: holds NaN"),
    "tables of two shapes": (
        lambda: two_level_interval(table, table.T.contiguous()),
        "items, items0: tables of one shape",
    ),
    "an interval of nan": (
        lambda: Interval(float("nan"), 0, 1, 5, "images"),
        "value, low, high: finite",
    ),
    "an interval of words": (lambda: Interval("a", 0, 1, 5, "images"), "value: a number"),
    "bytes for [0,1]": (lambda: ms_ssim(255 * pics, pics), r"x: values from .* \[0, 1\]"),
    "bytes for [-1,1]": (lambda: mae(pics, 255 * pics, range=(-1, 1)), r"y: values from .*"),
    "features of bytes": (
        lambda: compute_features(nn.Flatten(), 255 * pics, progress=False),
        r"images: values from .* \[0, 1\]",
    ),
    "quality of bytes": (lambda: psnr_curve(D, 255 * pics), r"images: values from .* \[0, 1\]"),
    "a scale upside down": (lambda: mae(pics, pics, scale=(1, -1)), "scale: two finite numbers"),
    "nan among features": (lambda: frechet(feats, feats / 0), "`fake` holds NaN"),
    "neighbours of too few": (lambda: knn_precision_recall(feats[:3], feats), "`real` has 3"),
    "no neighbours": (lambda: knn_precision_recall(feats, feats, k=0), "k: .*at least 1"),
    "more clusters than images": (lambda: prd(feats, feats, clusters=99), "`clusters` is 99"),
    "decibels of nothing": (lambda: decibels(0.0), "mse: a number above 0"),
    "gradients of norm -1": (
        lambda: denoise_learner(dls, model, clip=-1),
        "clip: a number above 0",
    ),
    "clip=-1": (lambda: model.sample(1, clip=-1), "clip: True or False is accepted, got -1"),
}

SIZES = {
    "one step by stride": (lambda: sched.respace("ddim1"), "n: .*'ddimN', .* with N from 2"),
    "an option of the other sampler": (lambda: model.sample(1, eta=0.5), "option of 'ancestral'"),
    "odd sides for a U-Net of diffusers": (
        lambda: diffusers_net()(torch.rand(1, 1, 15, 15), 0.3),
        "x: 15x15 pixels; both sides must be multiples of 2: pad to 16x16",
    ),
    "colour for a grey denoiser": (lambda: D(pics.expand(-1, 3, -1, -1)), r"x: .*\(N,1,H,W\)"),
    "nan for a denoiser": (lambda: D(nan), "x: holds NaN"),
    "no images for a denoiser": (lambda: D(pics[:0]), r"x: a float tensor.*\(0, 1, 8, 8\)"),
    "a score without noise": (lambda: denoiser(model).score(pics, 0.0), "sigma: .*above 0"),
}


def diffusers_net():
    from diffusers import DDPMScheduler, UNet2DModel

    blocks = dict(down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2)
    shape = dict(sample_size=16, in_channels=1, out_channels=1, block_out_channels=(16, 32))
    net = UNet2DModel(norm_num_groups=8, layers_per_block=1, **shape, **blocks)
    return denoiser(net, scheduler=DDPMScheduler(100))


def test_one_ddim_step_is_the_estimate_from_pure_noise():
    "A chain of one step begins where sampling begins, at T"
    assert sched.respace(1).steps.tolist() == [0, 100]
    one = model.sample(2, method="ddim", steps=1, progress=False)
    xT = noise_like(x, image_generators(0, range(2), stream="sample"))
    with torch.no_grad():
        assert torch.allclose(one, model.p_mean_var(xT, 100)[2], atol=1e-5)


class Two(nn.Module):
    def forward(self, x, t):
        return x.expand(-1, 2, -1, -1)


def foreign():
    return DDGM(Two(), sched, (1, 8, 8))


@pytest.mark.parametrize("case", ALL := CALLS | STATISTICS | SIZES)
def test_call(case):
    call, message = ALL[case]
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
        "holds .training state.",
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
