"Where a chain is cut, in every unit"

import pytest
from helpers import close, HO

from denoise_study.daed import Split, split
from denoise_study.diffusion import Schedule

LONG = HO
s30 = Schedule.linear(30)


@pytest.mark.parametrize(
    "sched,n,steps",
    [
        (Schedule.linear(500, start=1e-3), 33, 468),
        (Schedule.linear(500), 49, 452),
        (LONG, 98, 903),
        (Schedule.cosine(4000), 794, 3207),
    ],
)
def test_split_at_one_tenth(sched, n, steps):
    """468 only for the start 1e-3; 452 (451 generator steps) for 1e-4. 794 is the count where
    the reference has the 0-based index 793"""
    s = split(sched, level=0.1)
    assert (s.n, s.T, s.steps, s.generator_steps) == (n, sched.T, steps, steps - 1)
    assert s.level == float(1 - sched.alpha_bar[n]) and s == split(sched, n=n)
    assert (
        all(f"{v}" in repr(s) for v in (n, sched.T, steps, steps - 1))
        and "1-alpha_bar" in repr(s)
        and "log SNR" in repr(s)
    )
    zero_based = int((sched.alpha_bar[1:] - 0.9).abs().argmin())
    assert zero_based == n - 1  # for the cosine chain this is the paper's 793


def test_split_by_log_snr():
    assert split(LONG, log_snr=4.0).n == 38
    close(split(LONG, n=100).log_snr, 2.16, atol=0.005)
    close(split(LONG, n=100, power=0.256).log_snr, 0.80, atol=0.005)  # CIFAR-10
    s = split(Schedule.cosine(1000), log_snr=3.55)
    assert s.n == 100 and isinstance(s, Split)
    assert split(Schedule.linear(500, start=1e-3), level=0.001).level == pytest.approx(
        0.002
    )  # the paper's FashionMNIST row says .001
    with pytest.raises(AttributeError):
        s.n = 3


def test_a_split_is_frozen():
    with pytest.raises(AttributeError):
        split(LONG, n=98).n = 3


CALLS = {
    "split nowhere": (lambda: split(s30), "n, level, log_snr: give exactly one"),
    "split twice": (lambda: split(s30, n=3, level=0.1), "give exactly one"),
    "split at 0": (lambda: split(s30, n=0), r"n: .*1\.\.30.*got 0"),
    "split beyond T": (lambda: split(s30, n=31), r"n: .*1\.\.30.*got 31"),
    "split at half a step": (lambda: split(s30, n=2.5), "n: a number of steps"),
    "split at True": (lambda: split(s30, n=True), "n: a number of steps"),
    "level 0": (lambda: split(s30, level=0.0), r"level: .*\(0,1\)"),
    "level 1": (lambda: split(s30, level=1.0), r"level: .*\(0,1\)"),
    "level nan": (lambda: split(s30, level=float("nan")), "level"),
    "log-SNR infinite": (lambda: split(s30, log_snr=float("inf")), "log_snr: a finite number"),
}


@pytest.mark.parametrize("case", CALLS)
def test_refused(case):
    call, message = CALLS[case]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call()
