"The one door: what a signature says is what is accepted, and whose numbers count as numbers"

import inspect
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from denoise_study.core import checked, device_there, in_words, number, real_tensor, whole_number


@checked(n=1, sigma=0)
def f(
    x: Tensor,
    n: int,
    sigma: float = 0.1,
    steps: int | str | None = None,
    clip: bool = True,
    range: tuple | None = None,
    shape: tuple = (1,),
    seed: int = 0,
    level: float | Tensor = 0.5,
    path: Path | None = None,
    tick: Callable = abs,
    free=None,
    device="cpu",
    **more,
):
    "Its arguments, as they come in"
    names = "n sigma steps clip range shape seed level path device more"
    return {name: v for name, v in locals().items() if name in names.split()}


X = torch.ones(2, 3)
ALIKE = {
    "Python": (3, 0.5, True),
    "NumPy": (np.int64(3), np.float32(0.5), np.bool_(True)),
    "arrays": (np.array(3), np.array(0.5), np.array(True)),
    "PyTorch": (torch.tensor(3), torch.tensor(0.5), torch.tensor(True)),
}


@pytest.mark.parametrize("whose", ALIKE)
def test_numbers_are_numbers_whoever_wrote_them(whose):
    n, sigma, clip = ALIKE[whose]
    out = f(X, n, sigma, steps=n, clip=clip, seed=n)
    assert (out["n"], out["sigma"], out["steps"], out["clip"], out["seed"]) == (3, 0.5, 3, True, 3)
    assert [type(out[k]) for k in ("n", "sigma", "clip")] == [int, float, bool]


def test_what_fits_comes_in_as_it_is():
    grad = torch.tensor(0.3, requires_grad=True)
    out = f(X, 1, steps="ddim5", range=[0, 1], shape=[1, 8], level=grad, path="a/b", more=3)
    assert out["level"] is grad  # a tensor stays one: gradients pass
    assert (out["range"], out["shape"], out["path"]) == ((0.0, 1.0), (1, 8), Path("a/b"))
    assert out["more"] == {"more": 3}
    assert f(X.bfloat16(), 1)["n"] == 1 and f(X.requires_grad_(), 1)["n"] == 1


BAD = {
    "no tensor": (dict(x=[1.0]), "x: a tensor is accepted, got"),
    "an empty one": (dict(x=X[:0]), r"x: a tensor that is not empty .* of shape \(0, 3\)"),
    "nan": (dict(x=X.detach() / 0), "x: holds NaN or infinity"),
    "complex": (dict(x=X.detach() * 1j), "x: a plain tensor of real numbers"),
    "too small": (dict(n=0), "n: a whole number of at least 1 is accepted, got 0"),
    "half": (dict(n=1.5), "n: a whole number of at least 1 is accepted, got 1.5"),
    "bool for a count": (dict(n=True), "n: a whole number"),
    "more than can be counted": (dict(n=10**30), "n: a whole number"),
    "negative noise": (dict(sigma=-0.1), "sigma: a finite number of at least 0"),
    "infinite noise": (dict(sigma=math.inf), "sigma: a finite number"),
    "a list of steps": (dict(steps=[1]), "steps: a whole number or a string or None is"),
    "a number for a bool": (dict(clip=-1), "clip: True or False is accepted, got -1"),
    "a range upside down": (dict(range=(1, 0)), "range: two finite numbers"),
    "a side of 0": (dict(shape=(1, 0)), "shape: a whole number of at least 1 .* got 0"),
    "no sides": (dict(shape=()), "shape: one or more whole numbers"),
    "a seed in words": (dict(seed="a"), "seed: a whole number of at least 0 is accepted, got 'a'"),
    "no function": (dict(tick=3), "tick: a function is accepted, got 3"),
    "no path": (dict(path=3), "path: a Path or None is accepted, got 3"),
    "no device": (dict(device="tpu"), "device: a device of PyTorch .* got 'tpu'"),
    "a number for a device": (dict(device=3), "device: a device of PyTorch .* got 3"),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals_name_argument_accepted_and_given(case):
    arguments, message = BAD[case]
    with pytest.raises((ValueError, TypeError), match=message):
        f(**{"x": X.detach(), "n": 1, **arguments})


def test_the_function_is_still_itself():
    assert f.__name__ == "f" and f.__doc__ == "Its arguments, as they come in"
    assert list(inspect.signature(f).parameters)[:3] == ["x", "n", "sigma"]
    with pytest.raises(TypeError, match="missing a required argument: 'n'"):
        f(X)

    def walk(n: int):
        yield from range(n)

    assert list(checked(walk)(2)) == [0, 1]
    with pytest.raises(ValueError, match="n: a whole number"):
        checked(walk)("a")  # at the call, not at the first step


def test_readers_of_single_arguments():
    assert whole_number("n", -3, None) == -3 and number("v", 2) == 2
    assert real_tensor("x", X) is X and device_there("device", torch.device("cpu")).type == "cpu"
    assert in_words(np.zeros((2, 3))) == "a float64 array of shape (2, 3)"
    assert len(in_words("a" * 100)) == 60
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device: 'cuda' is not there; accepted is 'cpu'"):
            device_there("device", "cuda")
