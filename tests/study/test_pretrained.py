"""The models that ship: they load, say where they come from, are small, and one of them is made
again and reaches what is recorded"""

import json
from pathlib import Path

import pytest
import torch

from denoise_study.core import image_dls
from denoise_study.denoiser import denoiser, psnr_curve, train_blind
from denoise_study.representation import drawn_images
from denoise_study.study import load_pretrained, pretrained_models

ROOT = Path(__file__).parents[2]
NAMES = list(pretrained_models().index)


def recorded(name):
    return json.loads((ROOT / f"docs/results/pretrained_{name}.json").read_text())


def recorded_psnr(name):
    "sigma -> PSNR of the shipped network"
    rows = recorded(name)["psnr"]
    ours = rows[0]["denoiser"]
    return {r["sigma"]: r["psnr"] for r in rows if r["denoiser"] == ours}


def digits():
    return image_dls("digits", size=16, range=(0.0, 1.0), pad_to=8, device="cpu", bs=128)


def psnr(model, images):
    levels = tuple(recorded_psnr("blind-digits"))
    curve = psnr_curve(denoiser(model), images, levels, seed=0, progress=False)
    return dict(zip(curve.sigma, curve.psnr))


def test_sizes():
    table = pretrained_models()
    assert {"ddgm-digits", "daed-digits", "blind-digits"} <= set(NAMES)
    assert table.MB.max() <= 5.1 and table.MB.sum() <= 25


@pytest.mark.parametrize("name", NAMES)
def test_loads_and_says_where_it_comes_from(name):
    model, record = load_pretrained(name), recorded(name)
    assert model.info["command"] == record["training"]["command"]
    tool = "denoise-splits" if name.startswith("dae-") else "denoise-train"
    assert model.info["command"].startswith(f"{tool} --data ")
    assert model.info["measured"] == record["measured"] and model.info["precision"] == "float16"
    assert len(model.info["commit"].rstrip("+")) == 12 and not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(p.isfinite().all() for p in model.parameters())


def test_unknown_name():
    accepted = "name: one of .*ddgm-digits.* is accepted, got 'elephant'"
    with pytest.raises(ValueError, match=accepted):
        load_pretrained("elephant")


def test_blind_digits_reaches_what_is_recorded():
    "The shipped weights, measured again on the same test images"
    again = psnr(load_pretrained("blind-digits"), drawn_images(digits(), "test", 500)[0])
    assert again == pytest.approx(recorded_psnr("blind-digits"), abs=0.02)


@pytest.mark.slow
def test_blind_digits_made_again(tmp_path):
    """Its command once more, in float32 or bfloat16 as the machine rounds: every recorded PSNR is
    reached within a quarter of a decibel"""
    args = recorded("blind-digits")["training"]["command"]
    assert args == "denoise-train --data digits --model blind --image-size 16 --bf16"
    dls = digits()
    model = train_blind(dls, tmp_path, bf16=True, seed=0)
    again = psnr(model, drawn_images(dls, "test", 500)[0])
    before = recorded_psnr("blind-digits")
    assert [s for s in before if again[s] < before[s] - 0.25] == []
