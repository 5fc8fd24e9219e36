"The handle over a network: exact fusion, times, contexts, loss, closed form, files"

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from helpers import gen
from helpers_denoiserep import check_exact, CODE, DDPM, net, rel, wild, X
from denoise_study.core import save_checkpoint
from denoise_study.denoiserep import denoise_rep
from denoise_study.diffusion import DDGM, Schedule, UNet


@pytest.mark.parametrize("dtype, tol", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_a_network_with_everything_fuses_exactly_and_keeps_its_form(dtype, tol):
    assert len(check_exact(net().to(dtype), X.to(dtype), tol, bias="auto").slots) == 12


def test_times_in_order_of_execution():
    "N..1, each once; the authors' recursion gives 8,7,8,7,... over four blocks"

    class Blocks(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(
                nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4)) for _ in range(4)
            )

        def forward(self, x):
            for b in reversed(self.blocks):
                x = x + b(x)
            return x

    dr = denoise_rep(Blocks(), example=torch.randn(2, 4))
    times = {n: s.denoiser.t for n, s in dr.slots.items()}
    assert list(times.values()) == [2, 1, 4, 3, 6, 5, 8, 7] and times["blocks.3.0"] == 8
    assert dr.report().t.tolist() == list(range(8, 0, -1))


def test_fusing_is_not_random():
    outs = []
    for seed in (1, 2):
        dr = wild(denoise_rep(net(), example=X))
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        outs.append(dr.fuse().state_dict())
        assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(outs[0].values(), outs[1].values()))


def test_no_second_fusion():
    dr = wild(denoise_rep(net(), example=X))
    m = dr.fuse()
    for f in (
        dr.fuse,
        dr.unload,
        lambda: dr.solve(X),
        lambda: dr.recording().__enter__(),
        lambda: dr.save("x"),
    ):
        with pytest.raises(RuntimeError, match="fused already"):
            f()
    for copy in (m, deepcopy(m)):
        with pytest.raises(ValueError, match=r"already fused.*W A\^2"):
            denoise_rep(copy, example=X)
    with pytest.raises(ValueError, match="has a denoising layer"):
        denoise_rep(denoise_rep(net(), example=X).model, example=X)


def test_fused_does_equal_work():
    m = net()

    def flops(f):
        with torch.no_grad(), FlopCounterMode(display=False) as count:
            f()
        return count.get_total_flops()

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its kernel is invisible to the counter
    try:
        base, dr = flops(lambda: m(X)), wild(denoise_rep(m, example=X))
        with dr.two_branch():
            two = flops(lambda: m(X))
        fused = dr.fuse()
        assert flops(lambda: fused(X)) == base < 0.9 * two
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    assert sum(p.numel() for p in fused.parameters()) == sum(p.numel() for p in net().parameters())


def test_the_saved_file_is_plain_and_answers_alike(tmp_path):
    "What is evaluated is what is saved: a plain file for a plain model"
    m = wild(denoise_rep(net(), example=X)).fuse()
    torch.save(m.state_dict(), tmp_path / "fused.pt")
    fresh = net(seed=1)
    fresh.load_state_dict(torch.load(tmp_path / "fused.pt", weights_only=True), strict=True)
    with torch.no_grad():
        assert torch.equal(fresh(X), m(X))


def test_loss_is_a_sum_of_means():
    "Zero denoisers cost sqrt(2/pi) = .798 a layer in L1 and 1 in L2, whatever the sizes"
    for kind, floor in (("l1", 0.798), ("l2", 1.0), ("l1+l2", 1.798)):
        for width, x in (
            (8, torch.randn(200, 1, 8, 8, generator=gen())),
            (16, torch.randn(300, 1, 12, 12, generator=gen())),
        ):
            dr = denoise_rep(net(width=width), loss=kind, example=X)
            with dr.recording(gen()):
                dr.model(x)
            assert float(dr.loss().detach()) / len(dr.slots) == pytest.approx(floor, abs=0.03)


def test_shared_noise_is_one_draw_a_layer():
    "'shared': one z a layer, for all images and positions, of standard deviation sqrt(beta_t)"
    m = nn.Sequential(nn.Linear(5, 5, bias=False))
    with torch.no_grad():
        m[0].weight.copy_(torch.eye(5))
    dr = denoise_rep(m, t=500, example=torch.zeros(1, 5))
    draws = []
    with torch.no_grad():
        for seed in range(400):
            with dr.two_branch("shared", gen(seed)):
                y = m(torch.zeros(3, 7, 5))
            assert (y == y[0, 0]).all()
            draws.append(y[0, 0])
        with dr.two_branch():
            assert (m(torch.zeros(3, 5)) == 0).all()
    assert float(torch.stack(draws).std()) == pytest.approx(float(DDPM.beta[500].sqrt()), rel=0.05)
    with pytest.raises(ValueError, match="noise: one of"):
        dr.two_branch("each").__enter__()


def test_an_error_inside_leaves_nothing_behind():
    dr = wild(denoise_rep(net(), example=X))
    with torch.no_grad():
        out = dr.model(X)
        for context in (dr.disabled, dr.two_branch, dr.recording):
            with pytest.raises(RuntimeError), context():
                dr.model(torch.zeros(2, 3, 8, 8))
            assert torch.equal(dr.model(X), out)


def test_solve_looks_at_the_original_network():
    "Whatever the denoisers were before, the moments are those of features without them"
    res = []
    for start in (lambda dr: dr, wild):
        dr = start(denoise_rep(net(), example=X))
        dr.solve(X)
        res.append(dr.parameters())
    assert all(torch.equal(a, b) for a, b in zip(*res))


def test_solve_streams():
    "Batches, a tensor, and a loader's labels that nobody looks at: the same denoisers"
    res = []
    for dl in (X, [X[:2], X[2:]], [(X[:4], "label"), (X[4:], "label")]):
        dr = denoise_rep(net(), example=X, bias="auto")
        table = dr.solve(dl, progress=False)
        res.append([p.detach().clone() for p in dr.parameters()])
    assert (
        all(rel(a, b) < 1e-4 for other in res[1:] for a, b in zip(res[0], other))
        and table.rows.max() == 6 * 64
    )
    with pytest.raises(ValueError, match="dl: no batches"):
        dr.solve([], progress=False)


def test_save_and_load(tmp_path):
    dr = wild(denoise_rep(net(), example=X, bias="auto"))
    dr.save(tmp_path / "d.safetensors", note="a test")
    again = denoise_rep(net(), example=X, bias="auto").load(tmp_path / "d.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(dr.parameters(), again.parameters()))
    assert all(
        torch.equal(a, b)
        for a, b in zip(dr.fuse().state_dict().values(), again.fuse().state_dict().values())
    )


@pytest.mark.parametrize(
    "make, what",
    [
        (lambda: denoise_rep(net(seed=1), example=X), "backbone"),
        (lambda: denoise_rep(net(), r"blocks.*", example=X), "layers"),
        (lambda: denoise_rep(net(), t=5, example=X), "layers"),
        (lambda: denoise_rep(net(), sched=CODE, example=X), "sched"),
        (lambda: denoise_rep(net(), mode="slides", example=X), "mode"),
        (lambda: denoise_rep(net(), scale=2.0, example=X), "scale"),
        (lambda: denoise_rep(net(width=16), example=X), "layers"),
        (lambda: denoise_rep(net(), bias="auto", example=X), "layers"),
    ],
)
def test_state_of_another_model_is_refused(tmp_path, make, what):
    denoise_rep(net(), example=X).save(tmp_path / "d.safetensors")
    with pytest.raises(ValueError, match=f"belongs to another model: its {what}"):
        make().load(tmp_path / "d.safetensors")


def test_other_files_are_refused(tmp_path):
    save_checkpoint(
        tmp_path / "c.safetensors",
        DDGM(UNet(channels=1, width=32, mult=(1,), n_blocks=1, attn=()), DDPM, (1, 8, 8)),
    )
    with pytest.raises(ValueError, match="holds .checkpoint., not .denoising layers."):
        denoise_rep(net(), example=X).load(tmp_path / "c.safetensors")


REFUSED = {
    "depth without example": (lambda: denoise_rep(net()), "example: t='depth' needs a batch"),
    "too many layers": (
        lambda: denoise_rep(net(), example=X, sched=Schedule.cosine(5)),
        "sched: 12 layers need as many steps, it has 5",
    ),
    "time 0": (lambda: denoise_rep(net(), t=0), r"t: times run 1\.\.1000"),
    "times of other layers": (
        lambda: denoise_rep(net(), ["stem"], t={"stam": 3}),
        "t: needs a time for each of 'stem'",
    ),
    "mode unknown": (lambda: denoise_rep(net(), example=X, mode="paper"), "mode: one of"),
    "loss unknown": (lambda: denoise_rep(net(), example=X, loss="l3"), "loss: one of"),
    "init unknown": (lambda: denoise_rep(net(), example=X, init="one"), "init: one of"),
    "nothing recorded": (
        lambda: denoise_rep(net(), example=X).loss(),
        "loss: nothing was recorded",
    ),
    "batch norm in training": (
        lambda: denoise_rep(net().train(), example=X).recording().__enter__(),
        "model: batch norms in training mode .'norm'",
    ),
    "fuse without a batch": (lambda: denoise_rep(net(), t=3).fuse(), "check: a batch is needed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()
