"Models in words: written down, built again, and only models of this package"

import json

import pytest
from helpers_training import small
from torch import nn

from denoise_study.core import build, check_same_model, describe, LARGEST, PARTS, register_part
from denoise_study.daed import DAED
from denoise_study.denoiser import Blind, BlindUNet
from denoise_study.diffusion import Schedule, UNet


def unet():
    return UNet(channels=1, width=32, mult=(1,), n_blocks=1, attn=())


def blind_unet():
    return BlindUNet(channels=1, widths=(4, 8))


MODELS = {  # name of the class in an earlier version -> a model of it
    "denoise_study.ddgm.DDGM": small,
    "denoise_study.unet.UNet": unet,
    "denoise_study.unet.BlindUNet": blind_unet,
    "denoise_study.denoiser.Blind": lambda: Blind(blind_unet(), shape=(1, 8, 8)),
    "denoise_study.daed.DAED": lambda: DAED(
        unet(), unet(), Schedule.linear(20, end=0.015).merge_first(4), shape=(1, 8, 8)
    ),
}


@pytest.mark.parametrize("old", MODELS)
def test_names_of_earlier_versions_are_read(old):
    model = MODELS[old]()
    today = json.loads(json.dumps(describe(model)))
    again = build(today | {"class": old})
    assert type(again) is type(model) and describe(again) == describe(model)
    check_same_model(today, today | {"class": old}, "a file")
    check_same_model(today | {"class": old}, today, "a file")


def test_a_class_is_named_by_its_folder():
    assert describe(small())["class"] == "denoise_study.diffusion.DDGM"
    assert describe(small())["args"]["net"]["class"] == "denoise_study.diffusion.UNet"
    assert describe(nn.Linear(1, 1)) == {"class": "torch.nn.modules.linear.Linear", "args": None}


@pytest.mark.parametrize(
    "path, message",
    [
        ("os.system", "os.system, which is not a class of this library"),
        ("torch.nn.Linear", "torch.nn.Linear, which is not a class of this library"),
        ("denoise_studies.X", "not a class of this library"),
        ("", "nameless model"),
        ("denoise_study.diffusion.Schedule", "not a model"),
        ("denoise_study.diffusion.sample", "does not exist|not a model"),
        ("denoise_study.core.os.system", "does not exist"),
        ("denoise_study.nowhere.Net", "does not exist in this version"),
    ],
)
def test_only_models_of_this_package_are_built(path, message):
    with pytest.raises(ValueError, match=message):
        build({"class": path, "args": {}})


def test_a_model_without_config_is_not_built():
    with pytest.raises(ValueError, match="make the model yourself and pass it as `model=`"):
        build({"class": "denoise_study.diffusion.UNet", "args": None})


def test_a_part_that_is_no_module_is_registered():
    class Grid:
        def __init__(self, sides):
            self.spec = sides

        @classmethod
        def from_spec(cls, spec):
            return cls(spec)

    class OnGrid(nn.Module):
        def __init__(self, grid):
            super().__init__()
            self.config = dict(grid=grid)

    assert PARTS["schedule"] is Schedule  # as `denoise_study.diffusion` says
    register_part("grid", Grid)
    try:
        assert describe(OnGrid(Grid([2, 3])))["args"] == {"grid": {"grid": [2, 3]}}
    finally:
        del PARTS["grid"]


def changed(**args):
    today = json.loads(json.dumps(describe(small())))
    return today | dict(args=today["args"] | args)


NET = describe(small())["args"]["net"]
NONSENSE = {
    "no description": (None, "class .a name. and args .a dictionary., got None"),
    "a list": ([1], "a description is needed"),
    "a class of numbers": ({"class": 3, "args": {}}, "a description is needed"),
    "arguments in a list": ({"class": NET["class"], "args": [1]}, "a description is needed"),
    "unknown arguments": (changed(hue=1), "not made by the arguments .*unexpected.*hue"),
    "no schedule": (changed(sched=None), "DDGM is not made by|sched"),
    "a schedule of none": (changed(sched=dict(schedule=None)), "schedule|Schedule"),
    "a schedule in a dictionary": (changed(sched=dict(schedule=dict(T=3))), "schedule|spec"),
    "an unknown schedule": (changed(sched=dict(schedule=[dict(name="cubic")])), "cubic"),
    "a private name": (changed(sched=dict(schedule=[dict(name="__init__")])), "spec|schedule"),
    "a schedule too long": (
        changed(sched=dict(schedule=[dict(name="linear", T=10**8)])),
        f"schedule: numbers up to {LARGEST} are accepted, got .*100000000",
    ),
    "a list without end": (changed(shape=[1] * 5000), "args: lists of up to 1000 are accepted"),
    "a shape of words": (changed(shape="abc"), "shape|DDGM is not made"),
    "a shape of none": (changed(shape=None), "shape|DDGM is not made"),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_nonsense_is_refused_in_words(case):
    desc, message = NONSENSE[case]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        build(desc)


def test_a_description_without_end_is_refused():
    desc = changed()
    for _ in range(5000):
        desc = {"class": NET["class"], "args": dict(net=desc)}
    with pytest.raises(ValueError, match="not made by the arguments|RecursionError"):
        build(desc)
