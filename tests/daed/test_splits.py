"Samples of several splits from one walk"

import pytest
from helpers import close, gauss, images, trained
from helpers_daed import Spy

from denoise_study.diffusion import DDGM, Schedule, show_rows
from denoise_study.daed import DAED, same_noise, steps_replaced


def test_one_walk_for_all_splits():
    "The branches are the DAEDs' own samples; T generator calls in all"
    model = trained()
    daeds = {
        f"n={n}": DAED.from_ddgm(model, n, trained().net.requires_grad_(True))
        for n in (1, 5, 20, 50)
    }
    got = same_noise(model, daeds, 6, seed=2, progress=False)
    assert list(got) == ["DDGM", *daeds]
    close(got["DDGM"], model.sample(6, seed=2, progress=False), atol=1e-5)
    for k, m in daeds.items():
        close(got[k], m.sample(6, seed=2, progress=False), atol=1e-5)
    ddgm = DDGM(Spy(), Schedule.linear(50), (1, 8, 8))
    daeds = {n: DAED.from_ddgm(ddgm, n, Spy()) for n in (3, 30)}
    same_noise(ddgm, daeds, 5, bs=5, progress=False)
    assert (
        ddgm.net.calls == 50
        and [m.dae.calls for m in daeds.values()] == [1, 1]
        and [m.net.calls for m in daeds.values()] == [0, 0]
    )


def test_a_respaced_chain_is_split_as_well():
    "Steps are counted on the chain at hand; the networks go on hearing their original times"
    model = trained().respaced(12)
    daeds = {
        f"n={n}": DAED.from_ddgm(model, n, trained().net.requires_grad_(True)) for n in (1, 3, 12)
    }
    assert [steps_replaced(m, model) for m in daeds.values()] == [1, 3, 12]
    assert daeds["n=3"].n == int(model.sched.steps[3]) > 3
    got = same_noise(model, daeds, 4, seed=2, progress=False)
    for k, m in daeds.items():
        close(got[k], m.sample(4, seed=2, progress=False), atol=1e-5)


def test_rows_have_names_and_titles():
    ax = show_rows({"a": images(3), "b": images(3, seed=1)}, titles=["x", "y", "z"])
    assert [t.get_text() for t in ax.texts] == ["a", "b"] or {"a", "b"} <= {
        t.get_text() for t in ax.texts
    }


grey, color = trained(), images(3, 8, 3)
x = images(4)
CALLS = {
    "foreign generator": (
        lambda: same_noise(gauss(), {"d": DAED.from_ddgm(grey, 5, trained().net)}, 2),
        "daeds: 'd' has another generator",
    ),
    "no DAED": (lambda: same_noise(grey, {"d": grey}, 2), "daeds: 'd' has another"),
    "no samples": (lambda: same_noise(grey, {}, 0), "n, bs: at least 1"),
    "rows of different shape": (
        lambda: show_rows({"a": x, "b": color}),
        "rows: images of one shape",
    ),
}


@pytest.mark.parametrize("case", CALLS)
def test_bad_input(case):
    call, message = CALLS[case]
    with pytest.raises((ValueError, TypeError), match=f"(?s){message}"):
        call()
