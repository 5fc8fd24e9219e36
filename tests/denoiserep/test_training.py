"Training: what learns, what must not change, and what each scheme sees"

from collections import Counter
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.optimizer import Adam
from safetensors.torch import load_file
from torch import nn

from helpers import gen, run_script
from helpers_denoiserep import net, rel, wild, X
from denoise_study.core import AdamW, image_dls
from denoise_study.denoiserep import backbone_digest, denoise_rep, denoiserep_learner, DenoiseRepCB
from denoise_study.denoiserep import merge_loaders


@pytest.fixture(scope="module")
def dls():
    return image_dls("digits", bs=128, device="cpu")


def fit(dls, dr, *args, epochs=1, lr=1e-2, cbs=None, **kwargs):
    learn = denoiserep_learner(dls, dr, *args, cbs=cbs, **kwargs)
    with learn.no_bar(), learn.no_logging():
        learn.fit(epochs, lr)
    return learn


@pytest.mark.parametrize("scheme", ["label_free", "label_aug"])
def test_the_backbone_is_untouched(dls, scheme):
    m = net(dropout=0.5)
    digest, stats = backbone_digest(m), m.norm.running_mean.clone()
    dr = denoise_rep(m, example=X)
    learn = fit(dls, dr, scheme)
    assert {id(p) for g in learn.opt.param_lists for p in g} == {id(p) for p in dr.parameters()}
    assert (
        backbone_digest(m) == digest
        and torch.equal(stats, m.norm.running_mean)
        and not dr.handles
        and not m._forward_hooks
    )
    assert all(bool((p != 0).any()) for p in dr.parameters())  # each of them learns
    assert learn.opt.hypers[0]["wd"] == 0
    dr.unload()
    assert backbone_digest(m) == digest


def test_the_proof_of_an_untouched_backbone_can_fail(dls):
    class Drift(Callback):
        def after_batch(self):
            self.model.norm.running_mean.add_(1e-6)

    with pytest.raises(RuntimeError, match="the backbone changed"):
        fit(dls, denoise_rep(net(), example=X), cbs=Drift())
    dr = denoise_rep(net(), example=X)
    learn = Learner(
        dls,
        dr.model,
        nn.CrossEntropyLoss(),
        opt_func=AdamW,
        splitter=lambda m: [list(m.parameters())],
        cbs=DenoiseRepCB(dr),
    )
    with pytest.raises(ValueError, match="splitter"), learn.no_bar(), learn.no_logging():
        learn.fit(1)


def test_gradients_reach_denoisers_and_nothing_else(dls):
    m = net()
    dr = wild(denoise_rep(m, example=X), 0.1)
    ours = {id(p) for p in dr.parameters()}
    with dr.disabled(), dr.recording():
        m(X)
    dr.loss().backward()
    assert all(p.grad is None for p in m.parameters() if id(p) not in ours) and all(
        p.grad.abs().max() > 0 for p in dr.parameters()
    )
    for p in dr.parameters():
        p.grad = None
    F.cross_entropy(
        m(X), torch.arange(6)
    ).backward()  # from the task alone; in the reference there is none
    assert all(p.grad.abs().max() > 0 for p in dr.parameters())
    assert all(p.grad is None for p in m.parameters() if id(p) not in ours)


def test_label_free_reads_no_label(dls):
    class Shuffled(Callback):
        def before_batch(self):
            self.learn.yb = (torch.full_like(self.yb[0], -1),)

    res = []
    for cbs in (None, Shuffled()):
        dr = denoise_rep(net(), example=X)
        dls.train.epoch = 0
        fit(dls, dr, cbs=cbs)
        res.append(torch.cat([p.detach().flatten() for p in dr.parameters()]))
    assert torch.equal(*res)  # and a seed gives the same result twice


@pytest.mark.parametrize("scheme, through", [("label_free", False), ("label_aug", True)])
def test_which_network_the_features_are_from(dls, scheme, through):
    "label_free: of the original network; label_aug goes through the denoisers"
    dr, same = wild(denoise_rep(net(), example=X)), []

    class Look(Callback):
        def after_pred(self):
            if not self.training:
                return
            with torch.no_grad(), dr.disabled():
                same.append(rel(self.pred.detach(), self.model(self.x)) < 1e-5)

    fit(dls, dr, scheme, cbs=Look())
    assert same and all(s != through for s in same)


def test_label_aug_is_the_convex_sum(dls):
    seen = []

    class Look(Callback):
        order = 5

        def after_loss(self):
            seen.append(
                (
                    float(self.learn.loss),
                    float(F.cross_entropy(self.pred, self.y).detach()),
                    float(dr.loss().detach()),
                )
            )

    dr = denoise_rep(net(), example=X)
    fit(dls, dr, "label_aug", lam=0.3, cbs=Look())
    assert all(
        total == pytest.approx(0.7 * task + 0.3 * side, rel=1e-5) for total, task, side in seen
    )


@pytest.mark.parametrize("opt_func", [AdamW, Adam])
def test_alternation_and_its_control(dls, opt_func):
    """Epoch 0 for the denoisers, epoch 1 for the backbone; the control sees the same batches.
    fastai's own Adam zeroes gradients, so that momentum and decay would move what is frozen."""
    runs = {}

    class Look(Callback):
        order = 20

        def before_fit(self):
            self.rows = []

        def after_epoch(self):
            self.rows.append(
                (backbone_digest(self.model), [p.detach().clone() for p in dr.parameters()])
            )

        def before_step(self):
            self.steps.append((float(self.opt.hypers[-1]["lr"]), float(self.xb[0].double().sum())))

        steps = []

    for scheme in ("alternate", "control"):
        look, dr = Look(), denoise_rep(net(), example=X)
        look.steps, start, dls.train.epoch = [], backbone_digest(dr.model), 0
        fit(
            dls,
            dr,
            scheme,
            epochs=2,
            phase=1,
            lr=1e-3,
            cbs=look,
            opt_func=opt_func,
            noise="shared" if scheme == "alternate" else None,
        )
        (first, d0), (second, d1) = look.rows
        assert (
            first == start != second
        )  # the backbone learns in the second epoch only, batch norm included
        assert all(torch.equal(a, b) for a, b in zip(d0, d1)) and any(
            bool(p.any()) for p in d0
        ) == (scheme == "alternate")
        runs[scheme] = look.steps[-len(dls.train) :]
    assert runs["alternate"] == runs["control"]


@pytest.mark.parametrize("noise", [None, "shared"])
def test_alternation_trains_the_backbone_through_the_denoisers(dls, noise):
    dr, diffs = wild(denoise_rep(net(), example=X)), []

    class Look(Callback):
        def after_pred(self):
            if not (self.training and self.denoise_rep_cb.backbone):
                return
            with torch.no_grad():
                with dr.disabled():
                    plain = self.model(self.x)
                diffs.append(
                    (rel(self.pred.detach(), self.model(self.x)), rel(self.pred.detach(), plain))
                )

    fit(dls, dr, "alternate", epochs=2, phase=1, noise=noise, lr=1e-6, cbs=Look())
    assert len(diffs) == len(dls.train)
    for denoised, plain in diffs:
        assert plain > 0.01 and (denoised < 1e-5 if noise is None else 1e-4 < denoised < plain)


def test_noise_control_trains_with_noise_and_nothing_else(dls):
    "Zero denoisers in the slides' formula leave features alone: what differs is the noise"
    weights = {}
    for noise in (None, "shared"):
        dr = denoise_rep(net(), example=X, mode="slides")
        dls.train.epoch = 0
        fit(dls, dr, "control", epochs=2, phase=1, noise=noise, lr=1e-3)
        assert not any(bool(p.any()) for p in dr.parameters())
        weights[noise] = dr.unload().head.weight.detach().clone()
    assert 0 < rel(weights["shared"], weights[None]) < 0.5


def test_validate_without_a_fit(dls):
    dr = denoise_rep(net(), example=X)
    for lam in (0.0, 1.0):
        learn = denoiserep_learner(dls, dr, "label_aug", lam=lam)
        with learn.no_bar(), learn.no_logging():
            loss = learn.validate()[0]
        with torch.no_grad():
            task = torch.cat(
                [F.cross_entropy(dr.model(x), y, reduction="none") for x, y in dls.valid]
            ).mean()
        assert loss == pytest.approx(
            float(task) if lam == 0 else 0.798 * len(dr.slots), rel=1e-5 if lam == 0 else 0.05
        )
        assert not dr.handles and not dr.model._forward_hooks


def test_train_mode_keeps_norms_and_dropout_still(dls):
    modes = {}

    class Look(Callback):
        def before_batch(self):
            if self.training:
                modes.update({n: m.training for n, m in self.model.named_modules()})

    dr = denoise_rep(net(dropout=0.1), example=X)
    fit(dls, dr, "label_aug", train_mode=True, cbs=Look())
    assert modes["head"] and not modes["norm"] and not modes["blocks.layers.0.dropout1"]


def test_merged_data_sets(dls):
    other = image_dls(torch.randint(0, 255, (400, 8, 8), dtype=torch.uint8), bs=64, device="cpu")
    both = merge_loaders(dls, other, seed=1)
    batches = list(both.train)
    assert len(batches) == len(both.train) == len(dls.train) + len(other.train) and all(
        (y == -1).all() for _, y in batches
    )
    assert Counter(len(x) for x, _ in batches) == {128: len(dls.train), 64: len(other.train)}
    sizes = [len(x) for x, _ in batches]
    assert sizes != sorted(sizes) and sizes != sorted(sizes, reverse=True)  # mixed
    assert both.valid is dls.valid
    dr = denoise_rep(net(), example=X)
    fit(both, dr)
    assert bool(dr.parameters()[0].any())
    with pytest.raises(ValueError, match="scheme: 'label_aug' reads labels"):
        denoiserep_learner(both, dr, "label_aug")
    with pytest.raises(ValueError, match="different ranges"):
        merge_loaders(dls, image_dls("digits", range=(0.0, 1.0), device="cpu"))
    with pytest.raises(ValueError, match="at least two"):
        merge_loaders(dls)


def test_data_without_targets(dls):
    "fastai makes no step for a batch without targets; here it must"

    class Bare:
        n_inp, bs = 1, 6

        def __len__(self):
            return 2

        def __iter__(self):
            return iter([(X,), (X,)])

        def to(self, device):
            return self

    dr = denoise_rep(net(), example=X)
    fit(DataLoaders(Bare(), Bare()), dr)
    assert all(bool(p.any()) for p in dr.parameters())


def test_training_reaches_the_closed_form():
    "Positive control: side loss of the trained denoiser within 2% of that of the closed form"
    x = torch.randn(4096, 6, generator=gen()) @ torch.randn(6, 6, generator=gen(1)) / 3
    m = nn.Sequential(nn.Linear(6, 3))
    dr, best = (denoise_rep(deepcopy(m), loss="l2", t=300, example=x[:4]) for _ in range(2))
    floor = best.solve(x).floor[0]
    opt, g = torch.optim.Adam(dr.parameters(), 2e-2), gen()
    for _ in range(300):
        with dr.recording(g):
            dr.model(x)
        opt.zero_grad()
        dr.loss().backward()
        opt.step()
    with torch.no_grad(), dr.recording(gen(5)):
        dr.model(x)
    assert floor < 0.9 and float(dr.loss()) == pytest.approx(floor, rel=0.02)
    assert rel(dr.parameters()[0], best.parameters()[0]) < 0.1


def test_every_process_fuses_the_same(tmp_path):
    "Two processes train on halves of the batches and fuse: one model, like that of one process"
    for folder, processes in (("one", 0), ("two", 2)):
        (tmp_path / folder).mkdir()
        run_script("run_denoising", tmp_path / folder, processes=processes)
    base, one, a, b = (
        load_file(tmp_path / f)
        for f in (
            "two/base.safetensors",
            "one/fused0.safetensors",
            "two/fused0.safetensors",
            "two/fused1.safetensors",
        )
    )
    assert (int(one.pop("processes")), int(a.pop("processes")), int(b.pop("processes"))) == (
        1,
        2,
        2,
    )
    l1, la, lb = (o.pop("losses") for o in (one, a, b))
    assert list(a) == list(b) == list(base) and all(torch.equal(a[k], b[k]) for k in a)
    assert all(rel(a[k], base[k]) > 1e-3 for k in a if k.endswith("weight")) and all(
        torch.equal(a[k], base[k]) for k in a if k.endswith("bias")
    )
    assert (
        len(l1) == len(la)
        and la[-4:].mean() < 0.95 * la[:4].mean()
        and abs(la[-4:].mean() / l1[-4:].mean() - 1) < 0.01
    )
    assert torch.equal(la, lb)  # of the whole batch


REFUSED = {
    "scheme unknown": (lambda: DenoiseRepCB(None, "both"), "scheme: one of"),
    "lambda 2": (lambda: DenoiseRepCB(None, lam=2), r"lam: a weight in \[0,1\]"),
    "phase 0": (lambda: DenoiseRepCB(None, phase=0), "phase: needs at least 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()
