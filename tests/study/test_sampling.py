"denoise-sample and denoise-evaluate: files that say what they are"

import json
from copy import deepcopy

import numpy as np
import pytest
import torch
from helpers_study import color_pictures, command
from PIL import Image

from denoise_study.core import image_dls, save_checkpoint
from denoise_study.diffusion import DDGM, Schedule, UNet


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "Pictures of a user, and a model of their size, with weights that nobody trained"
    folder = tmp_path_factory.mktemp("sampling")
    (folder / "pictures").mkdir()
    color_pictures(folder / "pictures")
    torch.manual_seed(0)
    net = UNet(channels=3, width=32, mult=(1, 2), n_blocks=1, attn=(2,), learn_sigma=True)
    model = DDGM(net, Schedule.linear(50), (3, 8, 8), loss="hybrid", var="learned")
    save_checkpoint(folder / "ddgm.safetensors", model, deepcopy(model))
    return folder


def test_sample(folder):
    "A picture, and a file that the library reads again"
    out = command(
        folder,
        "denoise-sample",
        "ddgm.safetensors",
        "--out",
        "s.png",
        "--n",
        6,
        "--steps",
        5,
        "--weights",
        "raw",
    ).stdout
    assert "raw weights" in out
    assert np.load(folder / "s.npz")["images"].shape == (6, 8, 8, 3)
    assert Image.open(folder / "s.png").size[0] > 100
    assert image_dls(folder / "s.npz", device="cpu").info.channels == 3


def test_evaluate(folder):
    "Scores with their space, their number and their neighbours"
    out = command(
        folder,
        "denoise-evaluate",
        "ddgm.safetensors",
        "--data",
        "pictures",
        "--image-size",
        8,
        "--n",
        12,
        "--out",
        "e.json",
    ).stdout
    assert np.load(folder / "e/samples.npz")["images"].shape == (12, 8, 8, 3)
    assert np.load(folder / "s.npz")["images"].shape == (6, 8, 8, 3)  # of `denoise-sample`
    r = json.loads((folder / "e.json").read_text())
    parts = {"quality", "sweep", "bits_per_dim", "nearest_rms"}
    assert {"run", "checkpoint", "data", "seed", "seconds"} | parts <= r.keys()
    assert [q["name"] for q in r["quality"]] == ["model", "training images", "untrained network"]
    assert "bits per dimension" in out
    for q in r["quality"]:
        assert q["feature_space"].startswith("cnn-64") and q["n_fake"] == 12
        assert q["frechet"]["low"] <= q["frechet"]["value"]
    assert r["run"]["versions"]["torch"] and str(folder) not in json.dumps(r["run"])


def test_images_of_another_shape(folder):
    error = command(
        folder, "denoise-evaluate", "ddgm.safetensors", "--data", "digits", ok=False
    ).stderr
    assert "data: the model makes images (3, 8, 8)" in error and "Traceback" not in error
