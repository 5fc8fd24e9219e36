"""Everything that has a device, on a GPU that has been thought of, and on a real one where there is
one: `pytest -m cuda`"""

from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import gen, rand
from helpers_phantom import phantom_gpu
from helpers_tasks import perceptron_task, QUICK
from helpers_training import shorter_chains
from torch import nn

from denoise_study import load_pretrained
from denoise_study.core import compare_sets, image_dls, load_arrays, load_checkpoint
from denoise_study.core import SmallCNN, Study
from denoise_study.daed import split, train_dae, train_daed, transfer_table
from denoise_study.denoiser import denoiser, psnr_curve, sample, train_blind
from denoise_study.denoiserep import ARMS, box_dls, Budget, classification_task, detection_task
from denoise_study.denoiserep import retrieval_task, run_protocol, segmentation_task
from denoise_study.denoiserep import shape_masks, shapes, split_classes, time_ratios
from denoise_study.diffusion import reconstruction_sweep, Schedule, train_ddgm, WAYS_BACK
from denoise_study.representation import central_members, centroid, channel_averages, clusters
from denoise_study.representation import (
    conditional_distance,
    label_agreement,
    linear_probe,
    neighbours,
    participation,
)
from denoise_study.representation import samples_around, selectivity, self_guided, separation
from denoise_study.representation import unguided
from denoise_study.study import run_study


@pytest.fixture(params=["phantom", pytest.param("cuda", marks=pytest.mark.cuda)])
def gpu(request):
    "The name of a GPU: the phantom's, or that of the machine"
    with phantom_gpu() if request.param == "phantom" else nullcontext():
        yield "cuda"


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    "A file of 160 digits: what an image goes through is what counts here"
    file = tmp_path_factory.mktemp("data") / "few.npz"
    images, labels = load_arrays("digits")["train"]
    np.savez(file, images=images[:160, 0].numpy(), labels=labels[:160].numpy())
    return str(file)


@pytest.fixture
def phantom():
    with phantom_gpu() as driver:
        yield driver


def on_gpu(*tensors):
    return all(t.is_cuda and t.device.type == "cuda" for t in tensors)


# The phantom itself


def meetings():
    "What a GPU refuses: its own tensor `x` of 3 numbers, and something on the CPU"
    c, one = torch.ones(3), torch.ones(())
    yield "sum", lambda x: x + c
    yield "sum, the other way", lambda x: c * x[0]
    yield "in place", lambda x: x.mul_(c)
    yield "in place, on the CPU", lambda x: c.add_(x[0])
    yield "together", lambda x: torch.cat([x, c])
    yield "together, one number", lambda x: torch.stack([x[0], one])
    yield "layer", lambda x: nn.Linear(3, 2)(x)
    yield "mask", lambda x: x.masked_fill(c > 0, 0)
    yield "choice", lambda x: torch.where(x > 0, x, c)
    yield "CPU indexed by GPU", lambda x: c[x.long()]
    yield "values on the CPU", lambda x: x.__setitem__(torch.tensor([0, 1, 2]), c)
    yield "CPU generator", lambda x: x.normal_(generator=torch.Generator())
    yield "GPU generator", lambda x: torch.randn(3, generator=torch.Generator(x.device))
    yield "generator", lambda x: torch.randint(3, (2,), device="cuda", generator=gen())
    yield "numpy", lambda x: x.numpy()
    yield "np.asarray", lambda x: np.asarray(x)
    yield "np.mean", lambda x: np.mean(x)


@pytest.mark.parametrize("call", [pytest.param(call, id=name) for name, call in meetings()])
def test_a_gpu_refuses(gpu, call):
    x = torch.zeros(3, device=gpu)
    with pytest.raises((RuntimeError, TypeError)):
        call(x)


def test_what_a_gpu_takes_from_the_cpu(gpu):
    x = torch.arange(3.0, device=gpu)
    assert on_gpu(x + torch.tensor(1.0), x[torch.tensor([0, 2])], x.to(torch.float64), x + 1)
    assert on_gpu(x[x.cpu() > 0], torch.zeros_like(x), x.new_zeros(2), deepcopy(x))
    assert on_gpu(torch.as_tensor([1, 2], device=gpu), torch.ones(2).to(x), torch.ones(2).cuda())
    assert x.tolist() == [0, 1, 2] and x.sum().item() == 3 and not x.cpu().is_cuda
    assert torch.zeros(3).copy_(x).tolist() == x.cpu().numpy().tolist() == [0, 1, 2]
    draws = [torch.randn(3, device=gpu, generator=torch.Generator(gpu).manual_seed(0)).tolist()]
    draws.append(x.normal_(generator=torch.Generator(gpu).manual_seed(0)).tolist())
    assert draws[0] == draws[1]


def some_net():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.GELU(), nn.Flatten())
    return nn.Sequential(body, nn.Dropout(0.0), nn.Linear(6 * 64, 4))


def trained_net(device, bf16):
    "The network after three steps, and the gradient of its input"
    net = some_net().to(device)
    opt = torch.optim.AdamW(net.parameters(), 1e-2, fused=True)
    x = rand(5, 1, 8, 8).requires_grad_()
    for _ in range(3):
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            out = net(x.to(device))
        loss = nn.functional.cross_entropy(out.float(), torch.arange(5, device=device) % 4)
        loss.backward()
        assert all(p.grad.device == p.device == loss.device for p in net.parameters())
        opt.step()
        opt.zero_grad()
    assert not x.grad.is_cuda
    return [p.detach().cpu() for p in net.parameters()] + [x.grad]


@pytest.mark.parametrize("bf16", [False, True])
def test_the_numbers_of_the_phantom_are_those_of_the_cpu(phantom, bf16):
    "Forward, backward and a fused optimiser; the gradient comes back to a CPU tensor"
    both = [trained_net(device, bf16) for device in ("cpu", "cuda")]
    for a, b in zip(*both, strict=True):
        assert torch.equal(a, b)


def test_the_phantom_goes_away():
    with phantom_gpu():
        left = torch.zeros(2, device="cuda")
        assert torch.cuda.is_available() and on_gpu(left)
    assert torch.Generator().device.type == "cpu" and type(torch.zeros(1)) is torch.Tensor
    assert torch.autocast("cuda", torch.bfloat16).device == "cuda"
    with pytest.raises((RuntimeError, AssertionError)):
        torch.zeros(1, device="cuda:0" if not torch.cuda.is_available() else "cuda:99")


# Training by Learners


NET = dict(channels=1, width=32, mult=(1,), n_blocks=1, attn=())


def train(kind, dls, folder, monkeypatch):
    "Two steps of a small model of some kind"
    shorter_chains(monkeypatch, **NET)
    how, chain = dict(steps=2, bf16=True), Schedule.cosine(5)
    if kind == "blind":
        return train_blind(dls, folder, width=8, **how)
    if kind == "transformer":
        return train_blind(dls, folder, "transformer", width=16, **how)
    if kind == "ddgm":
        return train_ddgm(dls, folder, loss="hybrid", sched=chain, **how)
    if kind == "daed":
        return train_daed(dls, folder, sched=chain, **how)
    ddgm = train_ddgm(dls, folder / "ddgm", steps=1, sched=chain)
    return train_dae(dls, folder, ddgm, split(ddgm.sched, n=2), **how)


@pytest.mark.parametrize(
    "kind", ["ddgm", "daed", "blind", "transformer", pytest.param("dae", marks=pytest.mark.slow)]
)
def test_a_learner(gpu, few, kind, tmp_path, monkeypatch):
    "In bfloat16, with log, state, pictures and checkpoint; and its folder goes on"
    form = dict(size=16, range=(0.0, 1.0)) if kind in ("blind", "transformer") else {}
    dls = image_dls(few, bs=64, device=gpu, **form)
    model = train(kind, dls, tmp_path, monkeypatch)
    assert on_gpu(*model.parameters()) and all(p.isfinite().all() for p in model.parameters())
    again = train(kind, dls, tmp_path, monkeypatch)  # from the state
    name = dict(transformer="blind", dae="daed").get(kind, kind)
    kept = load_checkpoint(tmp_path / f"{name}.safetensors", device=gpu)
    for a, b, c in zip(model.parameters(), again.parameters(), kept.parameters(), strict=True):
        assert torch.equal(a, b) and torch.equal(a, c) and on_gpu(c)


# What is asked of models


@pytest.fixture
def ddgm(gpu):
    return load_pretrained("ddgm-digits", gpu)


@pytest.fixture
def blind(gpu):
    return denoiser(load_pretrained("blind-digits", gpu))


def test_samples_are_those_of_the_cpu(phantom):
    "The same seed, the same images, up to the other route of the norm"
    made = []
    for device in ("cpu", "cuda"):
        model = load_pretrained("ddgm-digits", device)
        way = dict(seed=3, steps=2, progress=False)
        found = [model.sample(2, method=m, **way) for m in ("ancestral", "ddim")]
        found.append(sample(denoiser(load_pretrained("blind-digits", device)), 2, "descend", **TWO))
        assert [x.device.type for x in found] == 3 * [device]
        made.append([x.cpu() for x in found])
    for a, b in zip(*made, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


TWO = dict(sigmas=[1.0, 0.4], progress=False)  # noise levels of samplers


def test_errors_and_transfer(gpu, few, ddgm):
    dls = image_dls(few, device=gpu)
    x = dls.test.one_batch()[0][:3]
    train = dls.train.one_batch()[0][:20]
    assert on_gpu(x, ddgm.reconstruct(x, 2))
    short = ddgm.respaced(4)
    sets, fits = dict(own=x, turned=x.flip(2)), dict(own=train, turned=train.flip(2))
    way = dict(hows=WAYS_BACK, draws=2, progress=False)
    errors = reconstruction_sweep(short, sets, [2], train=fits, **way)
    assert errors.mae.notna().all() and len(transfer_table(errors)) == 2 * len(WAYS_BACK)


def test_bits(gpu, few, ddgm):
    x = image_dls(few, device=gpu).test.one_batch()[0][:3]
    bits = ddgm.respaced(4).bits_per_dim(x, progress=False)
    assert all(v.device.type == "cpu" and v.isfinite().all() for v in bits.values())


def test_scores_of_sets(gpu):
    x = rand(60, 1, 8, 8).to(gpu)
    scores = compare_sets(x[:30], x[30:], nn.Flatten(), progress=False, n_boot=5, device=gpu)
    assert scores.frechet["value"] > 0


def test_a_classifier_stays_where_it_was_trained(gpu, few):
    dls = image_dls(few, bs=64, device=gpu)
    space = SmallCNN.fit(dls, epochs=1, dim=8, progress=False)
    x, _ = dls.test.one_batch()
    assert on_gpu(*space.parameters(), space.head(space(x)))


def test_probes(gpu, few, blind):
    "phi, its clusters, neighbours and classes: read on the GPU, looked at on the CPU"
    dls = image_dls(few, size=16, range=(0.0, 1.0), device=gpu)
    x, y = (o[:48] for o in dls.train.one_batch())
    known = dict(draws=2, progress=False)
    read = channel_averages(blind, x, **known).taps["mid"]
    assert participation(read).isfinite().all()
    assert psnr_curve(blind, x, (0.5,), progress=False).psnr.notna().all()
    with torch.no_grad():
        there = blind.phi(x)
    for phi in read, there:
        found = clusters(phi, k=3)
        assert len(central_members(phi, y)) == len(y.unique()) and len(found.labels) == len(x)
        assert len(neighbours(phi, k=2)[0]) == len(neighbours(x, k=2)[0]) == len(x)
        assert selectivity(phi, 3, factor=y).purity.notna().any()
        assert separation(phi, dict(classes=y, clusters=found.labels)).ratio.notna().any()
        assert 0 <= label_agreement(phi, y).value <= 1
        assert 0 <= linear_probe(phi[:30], y[:30], phi[30:], y[30:]).value <= 1


def test_self_guidance(gpu, few, blind):
    dls = image_dls(few, size=16, range=(0.0, 1.0), device=gpu)
    x = dls.test.one_batch()[0][:4]
    quick = dict(steps=2)
    made, report = self_guided(blind, x[:2], 2, n_noise=2, matching=quick, **TWO)
    middle, _ = self_guided(blind, centroid(x), 1, n_noise=1, matching=quick, **TWO)
    plain = unguided(blind, 2, **TWO)
    assert on_gpu(made, middle, plain) and report.loss_ratio.notna().all()
    near = samples_around(blind, x[:2], made, plain, lambda x: x.mean((1, 2, 3)) > 0.5, draws=2)
    assert near.value.notna().all()
    few_draws = dict(n_noise=1, phi_draws=2, progress=False, **quick)
    apart = conditional_distance(blind, x[:1], x[1:2], [0.3, 1.0], 2, **few_draws)
    assert apart.d2.notna().all()


# DenoiseRep


def test_every_arm_of_the_protocol(gpu, few):
    dls = image_dls(few, range=(0.0, 1.0), device=gpu)
    task = replace(perceptron_task(dls, merged=dls), steps=3)
    out = run_protocol(task, None, 1, replace(QUICK, steps=2, minus_steps=2), progress=False)
    assert set(out.table.arm) == set(ARMS) and out.table["accuracy@1"].notna().all()


def classification(gpu, few):
    return classification_task(few, "resnet8", steps=2, bs=32, flip=True, device=gpu)


def retrieval(gpu, few):
    dls = split_classes(few, n_train=6, bs=16, k=4, device=gpu)
    return retrieval_task(dls=dls, steps=2, neck=True, margin=0.3)


def detection(gpu, few):
    "torchvision's `nms` and `roi_align` are PyTorch's operations, too: the phantom sees them"
    dls = box_dls("shapes", *[shapes(2, seed=s) for s in range(3)], bs=2, device=gpu)
    return detection_task(dls=dls, steps=2)


def segmentation(gpu, few):
    return segmentation_task(dls=shape_masks((4, 2, 2), bs=2, device=gpu), steps=2)


LONG = pytest.param(detection, marks=pytest.mark.slow)  # ten times the operations of the others


@pytest.mark.parametrize("make", [classification, retrieval, segmentation, LONG])
def test_a_task(gpu, few, make):
    "A base network is trained, equipped, solved, trained, fused, judged as a file gives it back"
    task = make(gpu, few)
    arms = "closed_form", "alternate"
    out = run_protocol(task, arms, 1, Budget(steps=2, n_solve=20), progress=False)
    assert set(out.table.arm) == {"base", *arms} and out.table[task.metric].notna().all()


def test_a_clock_waits_for_the_device(phantom, monkeypatch):
    "What a GPU was asked for is done later"
    waited = []
    monkeypatch.setattr(phantom, "synchronize", lambda *args: waited.append(args))
    x = torch.zeros(2, device="cuda")
    time_ratios({"a": torch.exp, "b": torch.sin}, x, 3)
    assert len(waited) >= 6


# Chapters


@pytest.mark.slow
@pytest.mark.parametrize("chapter", ["ddgm", "daed", "blind", "rep"])
def test_a_chapter(gpu, few, chapter, tmp_path, monkeypatch):
    "As small as it can be: what is said of the images means nothing"
    shorter_chains(monkeypatch, **NET)
    form = dict(data=few, test=0.3, bs=64, device=gpu)
    how = dict(steps=2, n=8, n_eval=8, bf16=True)
    study = Study(image_dls(**form), tmp_path, source=form, **how)
    results = run_study(study, (chapter,))
    assert len(results["chapters"]) == 1 and (tmp_path / "report.html").stat().st_size > 10_000
    assert results["run"]["device"].startswith("cuda")
