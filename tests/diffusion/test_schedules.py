"Schedules against a second implementation (diffusers), and what they refuse"

import json

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from denoise_study.diffusion import PREDICTIONS, Schedule

NAMED = {
    "linear": (
        lambda T: Schedule.linear(T),
        dict(beta_schedule="linear", beta_start=1e-4, beta_end=0.02),
    ),
    "cosine": (lambda T: Schedule.cosine(T), dict(beta_schedule="squaredcos_cap_v2")),
}


def close(a, b, rtol=0.0, atol=0.0):
    a, b = (torch.as_tensor(o, dtype=torch.float64) for o in (a, b))
    torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", NAMED)
def test_tables_equal_diffusers(name):
    ours, kw = NAMED[name]
    s, d = ours(1000), DDPMScheduler(num_train_timesteps=1000, variance_type="fixed_small", **kw)
    close(s.beta[1:], d.betas.double(), rtol=2e-6)  # diffusers keeps float32
    close(s.alpha_bar[1:].log(), d.alphas_cumprod.double().log(), rtol=1e-4, atol=1e-6)
    var = torch.stack([d._get_variance(i) for i in range(1, 1000)])  # diffusers counts from 0
    close(s.post_var[2:], var.double(), rtol=5e-3)  # 1 - alpha_bar loses digits in float32


@pytest.mark.parametrize(
    "kind,theirs", [("eps", "epsilon"), ("x0", "sample"), ("v", "v_prediction")]
)
@pytest.mark.parametrize("name", NAMED)
def test_step_equals_diffusers(name, kind, theirs):
    "The posterior mean from any prediction is diffusers' ancestral step without its noise"
    ours, kw = NAMED[name]
    s = ours(1000)
    d = DDPMScheduler(num_train_timesteps=1000, prediction_type=theirs, clip_sample=False, **kw)
    g = torch.Generator().manual_seed(0)
    xt, pred = torch.randn(2, 1, 4, 4, 4, generator=g)
    for t in (2, 10, 500, 900):
        step = d.step(pred, t - 1, xt, generator=torch.Generator().manual_seed(1))
        x0 = s.to_x0(pred, xt, t, kind)
        close(x0, step.pred_original_sample, rtol=1e-3, atol=1e-3)
        tt = torch.full((len(xt),), t)
        noise = torch.randn(xt.shape, generator=torch.Generator().manual_seed(1))
        mean = s.at("coef_x0", tt, xt) * x0 + s.at("coef_xt", tt, xt) * xt
        close(
            mean + s.at("post_var", tt, xt).sqrt() * noise, step.prev_sample, rtol=2e-3, atol=2e-3
        )


def test_q_sample_equals_diffusers():
    s, d = Schedule.linear(1000), DDPMScheduler(num_train_timesteps=1000)
    x0, eps = torch.randn(2, 5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([1, 2, 100, 500, 1000])
    close(s.q_sample(x0, t, eps), d.add_noise(x0, eps, t - 1), rtol=1e-4, atol=1e-5)


def test_ddim_stride_equals_diffusers():
    d = DDIMScheduler(num_train_timesteps=1000)
    d.set_timesteps(50)
    ours = Schedule.linear(1000).respace("ddim50").steps[1:].flip(0) - 1
    assert ours.tolist() == d.timesteps.tolist()


@pytest.mark.parametrize("T, n", [(1000, 50), (1000, 7), (200, 30), (468, 100)])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_spacings_equal_diffusers(spacing, T, n):
    d = DDIMScheduler(num_train_timesteps=T, timestep_spacing=spacing)
    d.set_timesteps(n)
    ours = Schedule.cosine(T).respace(n if spacing == "linspace" else f"{spacing}{n}")
    assert (ours.steps[1:].flip(0) - 1).tolist() == d.timesteps.tolist()


def test_sections_are_openais():
    "The example in their code: 10, 15 and 20 of a hundred steps each, ends included"
    kept = Schedule.cosine(300).respace("10,15,20").steps[1:] - 1
    assert len(kept) == 45
    for start, k in ((0, 10), (100, 15), (200, 20)):
        part = kept[(kept >= start) & (kept < start + 100)]
        stride = 99 / (k - 1)
        assert part.tolist() == [start + round(i * stride) for i in range(k)]
    uneven = Schedule.cosine(10).respace("1,2,3").steps[1:].tolist()  # sections of 4, 3 and 3
    assert uneven == [1, 5, 7, 8, 9, 10]
    assert Schedule.cosine(50).respace("7") == Schedule.cosine(50).respace(7)
    again = Schedule.from_spec(Schedule.cosine(300).respace("10,15,20").spec)
    assert again == Schedule.cosine(300).respace("10,15,20")


FINGERPRINTS = [
    (Schedule.linear(1000), 4.035830e-5, 275.5132334),
    (Schedule.linear(500), 3.766093e-5, 137.5159686),
    (Schedule.linear(1000, start=1e-3), 2.565152e-5, 241.0698620),
    (Schedule.linear(500, start=1e-3), 2.385933e-5, 120.2548423),
    (Schedule.cosine(1000), 2.428767e-9, 495.5775125),
    (Schedule.cosine(4000), 1.517980e-10, 1983.8100382),
]


@pytest.mark.parametrize("s,last,total", FINGERPRINTS, ids=lambda v: str(v)[:40])
def test_alpha_bar_fingerprints(s, last, total):
    close(s.alpha_bar[-1], last, rtol=1e-6)
    close(s.alpha_bar[1:].sum(), total, atol=1e-7)


def test_cosine_is_capped_once():
    beta = Schedule.cosine(4000).beta
    close(beta[-4:], [0.4375, 0.5556, 0.75, 0.999], atol=1e-4)
    assert int((beta >= 0.999).sum()) == 1


def test_float32_tables_would_be_wrong():
    "What float64 buys: 1 - alpha_bar_1 in float32 is off by 2e-4 and 3e-3"
    for s, least in ((Schedule.linear(1000), 1e-4), (Schedule.cosine(4000), 1e-3)):
        right, naive = 1 - s.alpha_bar[1], 1 - (1 - s.beta[1].float())
        assert abs(naive.double() / right - 1) > least
        noise = s.at("noise", torch.tensor([1]), torch.zeros(1))[0].double()
        assert abs(noise / right.sqrt() - 1) < 1e-7


@pytest.mark.parametrize(
    "sched,n,tail",
    [
        (Schedule.linear(500, start=1e-3), 33, 468),
        (Schedule.linear(500), 49, 452),
        (Schedule.linear(1000), 98, 903),
        (Schedule.cosine(4000), 794, 3207),
    ],
)
def test_split_at_one_tenth(sched, n, tail):
    assert sched.nearest(0.1) == n
    merged = sched.merge_first(n)
    assert merged.T == tail and torch.equal(merged.alpha_bar[1:], sched.alpha_bar[n:])
    assert merged.steps[1:].tolist() == list(range(n, sched.T + 1))
    close(merged.alpha[1:].cumprod(0), sched.alpha_bar[n:], rtol=1e-12)
    close(merged.merge_first(1).alpha_bar, merged.alpha_bar)


def test_linear_combine_is_not_the_tail():
    "DAED's own schedule: a linear one of the shortened T with its first beta overwritten"
    paper = Schedule.linear_combine(468, 0.1)
    exact = Schedule.linear(500, start=1e-3).merge_first(33)
    close(paper.beta[1:4], [0.1, 0.002224, 0.002311], atol=5e-7)
    close(exact.beta[1:4], [0.10092, 0.004513, 0.004589], atol=5e-6)
    close(paper.beta[2:], Schedule.linear(468, start=1e-3).beta[2:], rtol=1e-15)
    close([paper.alpha_bar[-1], exact.alpha_bar[-1]], [2.1305e-5, 2.3859e-5], atol=1e-9)
    close((paper.log_snr() - exact.log_snr())[1:].abs().max(), 0.33, atol=0.005)
    long = Schedule.linear(1000, start=1e-3).merge_first(65)
    assert long.T == 936 and paper.steps.tolist() == list(range(469))
    again = Schedule.from_spec(json.loads(json.dumps(paper.spec)))
    assert again == paper and "linear_combine(T=468, beta_1=0.1" in str(paper)


def test_log_snr_does_not_depend_on_the_data_but_for_a_constant():
    s = Schedule.linear(500)
    power = torch.tensor([0.05, 0.256, 0.682, 1.0])
    drop = s.log_snr(power)[:, 1:].diff(dim=-1)
    close(drop, s.log_snr()[1:].diff().expand(4, -1), atol=1e-12)
    assert s.snr()[0] == float("inf") and s.snr(power).shape == (4, 501)
    ends = s.log_snr()[
        [1, 50, 500]
    ]  # DAED: "the biggest changes ... within the first 10% of steps"
    assert 0.335 < (ends[0] - ends[1]) / (ends[0] - ends[2]) < 0.37


def test_specs_survive_json():
    betas = np.linspace(0.01, 0.3, 7)
    for s in (
        Schedule.from_betas(betas),
        Schedule.linear(1000).respace("ddim50").subset([1, 5, 50]),
        Schedule.cosine(100).merge_first(9).respace(10),
    ):
        again = Schedule.from_spec(json.loads(json.dumps(s.spec)))
        assert again == s and torch.equal(again.post_var[1:], s.post_var[1:])
    assert Schedule.linear(100) != Schedule.linear(101)


def test_one_step_chain():
    s = Schedule.from_betas([0.5])
    close(torch.stack([s.coef_x0[1], s.coef_xt[1], s.post_var[1]]), [1.0, 0.0, 0.0], atol=1e-15)
    assert torch.isfinite(s.post_log_var[1])


x = torch.zeros(2, 1, 4, 4)
short = Schedule.linear(100)
BAD = [
    (lambda: Schedule.linear(20), "T: 20 steps are too few"),
    (lambda: Schedule.linear(10, start=0.1, end=0.01), "start"),
    (lambda: Schedule.linear(0), "T: a whole number of at least 1"),
    (lambda: Schedule.cosine(0), "T: a whole number of at least 1"),
    (lambda: Schedule.cosine(10, s=-1), "s > 0"),
    (lambda: Schedule.from_betas([0.1, 1.0]), "beta_2 = 1"),
    (lambda: Schedule.from_betas([]), "betas"),
    (lambda: Schedule.from_betas([0.1, float("nan")]), "beta_2"),
    (lambda: Schedule.from_betas([[0.1]]), "betas"),
    (lambda: Schedule.linear_combine(468, 1.0), "beta_1 = 1"),
    (lambda: Schedule.linear_combine(468, 0.0), "beta_1 = 0"),
    (lambda: Schedule.linear_combine(20, 0.1), "T: 20 steps are too few"),
    (lambda: short.nearest(1.0), "level"),
    (lambda: short.nearest(float("nan")), "level"),
    (lambda: short.respace(0), "1..100"),
    (lambda: short.respace("ddim37"), "stride"),
    (lambda: short.respace(5.0), "n:"),
    (lambda: short.respace(True), "n:"),
    (lambda: short.respace("leading1"), "N from 2"),
    (lambda: short.respace("51,1"), "a section of 50 steps has no 51"),
    (lambda: short.respace("0,1"), "has no 0"),
    (lambda: short.respace("5,,5"), "sections like"),
    (lambda: short.merge_first(101), "1..100"),
    (lambda: short.subset([5, 3]), "keep"),
    (lambda: short.subset([0, 3]), "keep"),
    (lambda: short.subset([]), "keep"),
    (lambda: short.q_sample(x, 101, x), "0..100"),
    (lambda: short.q_sample(x, torch.tensor([1]), x), r"\(2,\)"),
    (lambda: short.q_sample(x, torch.tensor([1.0, 2.0]), x), "integer"),
    (lambda: short.q_sample(x, 1, x[:1]), "eps"),
    (lambda: short.to_x0(x, x, 0), "1..100"),
    (lambda: short.to_x0(x, x, 1, "noise"), "kind"),
    (lambda: Schedule.from_spec([dict(name="__init__")]), "spec"),
    (lambda: Schedule.from_spec([dict(name="linear", T=50), dict(name="__class__")]), "spec"),
    (lambda: Schedule.from_spec([dict(name="merge_first", n=5)]), "spec"),
    (lambda: Schedule.from_spec([]), "spec"),
    (lambda: Schedule.from_spec("linear"), "spec"),
]


@pytest.mark.parametrize("call,names", BAD, ids=[b[1] for b in BAD])
def test_bad_input_is_named(call, names):
    with pytest.raises(ValueError, match=names):
        call()


def test_predictions_agree():
    s = Schedule.cosine(1000)
    x0, eps = torch.randn(2, 6, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    t = torch.tensor([1, 10, 100, 400, 700, 950])
    xt = s.q_sample(x0, t, eps)
    for k in PREDICTIONS:
        close(s.to_x0(s.from_x0(x0, xt, t, k), xt, t, k), x0, atol=1e-3)
