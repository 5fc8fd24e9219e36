"Checkpoints: described in words, built again, refused where they do not fit"

import json

import pytest
import torch
from helpers_training import Linear, small
from torch import nn

from denoise_study.core import build, check_same_model, describe, load_checkpoint, load_state
from denoise_study.core import PARTS, register_part, save_checkpoint
from denoise_study.daed import DAED
from denoise_study.denoiser import Blind, BlindUNet
from denoise_study.diffusion import DDGM, Schedule, UNet


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


def test_sampled_weights_are_recorded(tmp_path):
    model, ema = small(), small()
    save_checkpoint(tmp_path / "m.safetensors", model, ema, seed=4)
    for kind, src in (("raw", model), ("ema", ema), (None, ema)):
        m = load_checkpoint(tmp_path / "m.safetensors", weights=kind)
        assert m.info["weights"] == (kind or "ema") and m.info["seed"] == 4 and not m.training
        pairs = zip(m.state_dict().values(), src.state_dict().values())
        assert all(torch.equal(a, b) for a, b in pairs)
    assert describe(m) == describe(model)


def test_what_does_not_fit_is_named(tmp_path):
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, small())
    with pytest.raises(ValueError, match="model.args.sched.*'T': 30.*m.safetensors was saved with"):
        load_checkpoint(path, model=small(30))
    with pytest.raises(ValueError, match="model.class: this model has .*Linear"):
        load_checkpoint(path, model=Linear())
    with pytest.raises(ValueError, match=r"holds \['raw'\] weights, not 'ema'"):
        load_checkpoint(path, weights="ema")
    with pytest.raises(ValueError, match="1 tensors missing .*'bias'.*1 unknown .*'b'.*0 of anoth"):
        load_state(nn.Linear(1, 1), dict(weight=torch.ones(1, 1), b=torch.ones(1)), "f")


def test_a_model_of_somebody_else_is_loaded_into(tmp_path):
    path = tmp_path / "m.safetensors"
    model = Linear()
    model.w.data.fill_(3.0)
    save_checkpoint(path, model)
    with pytest.raises(ValueError, match="which is not a class of this library"):
        load_checkpoint(path)
    assert torch.equal(load_checkpoint(path, model=Linear()).w, model.w)
    assert isinstance(build(describe(small())), DDGM)


def test_loading_leaves_the_global_generator_alone(tmp_path):
    save_checkpoint(tmp_path / "m.safetensors", small())
    before = torch.get_rng_state()
    load_checkpoint(tmp_path / "m.safetensors")
    assert torch.equal(torch.get_rng_state(), before)
