"denoise-sample and denoise-evaluate: files that say what they are"

import json
from copy import deepcopy

import numpy as np
import pytest
import torch
from helpers_foreign import given_models
from helpers_study import color_pictures, command
from PIL import Image

from denoise_study.core import feature_space, first_images, image_dls, save_checkpoint
from denoise_study.core import save_images, scored_sets
from denoise_study.diffusion import DDGM, Schedule, UNet
from denoise_study.study import sample_set


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
    assert (
        "data: images (3, 8, 8) are to be judged, digits has (1, 8, 8)" in error
        and "Traceback" not in error
    )


def test_models_of_other_libraries(tmp_path):
    "Sampled and measured, by the same words"
    for words in given_models(tmp_path).values():
        command(tmp_path, "denoise-sample", *words[:-2], "--n", 2, "--steps", 5)
        assert np.load(tmp_path / "samples.npz")["images"].shape == (2, 16, 16, 1)
    words = given_models(tmp_path)["diffusers"]
    out = command(tmp_path, "denoise-evaluate", *words, "--n", 8, "--out", "e.json").stdout
    r = json.loads((tmp_path / "e.json").read_text())
    assert [q["n_fake"] for q in r["quality"]] == [8, 8, 8] and "bits per dimension" in out


@pytest.fixture(scope="module")
def sets(folder):
    "The same sixty digits as guided-diffusion writes them, as we do, and as a folder of pictures"
    dls = image_dls("digits", range=(0.0, 1.0), device="cpu")
    x, _ = first_images(dls, "test", 60)
    pixels = (x * 255).round().byte().permute(0, 2, 3, 1).numpy()
    np.savez(folder / "theirs.npz", arr_0=pixels.repeat(3, -1), arr_1=np.arange(60) % 10)
    np.savez(folder / "grey.npz", arr_0=pixels)
    save_images(folder / "ours.npz", x, (0.0, 1.0))
    (folder / "grey").mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image[..., 0]).save(folder / f"grey/{i:02}.png")
    return folder


def judged(folder, samples, data, *more):
    out = command(
        folder, "denoise-evaluate", "--samples", samples, "--data", data, "--out", "j.json", *more
    ).stdout
    return json.loads((folder / "j.json").read_text()), out


def test_sets_in_any_form_are_the_same_set(sets):
    "File, other file, folder: the same numbers; and the sentence says against what"
    found = []
    for samples in ("grey.npz", "ours.npz", "grey"):
        r, out = judged(sets, samples, "grey.npz")
        assert [q["name"] for q in r["quality"]] == ["samples", "training images"]
        found.append({k: v for k, v in r["quality"][0].items() if k != "seconds"})
    assert found[0] == found[1] == found[2]
    assert found[0]["n_fake"] == 60 and found[0]["n_real"] == r["data"]["n_test"] == 30
    assert found[0]["feature_space"] == "pixels averaged to 8x8"
    assert found[0]["diversity"]["unit"] == "pairs" and found[0]["diversity"]["n"] == 30
    assert "diversity" in out and "against 30 images of grey" in out
    assert Image.open(sets / "j.png").size[0] > 100


def test_numbers_of_two_files_are_those_of_the_library(sets):
    "Without labels, pixels are the space; half of the data is the reference"
    r, _ = judged(sets, "grey.npz", "grey", "--n", 20)
    dls = image_dls(sets / "grey", range=(0.0, 1.0), test=0.5, device="cpu")
    space = feature_space(dls)
    loader = sample_set(str(sets / "grey.npz"), "", 20, "cpu")
    with pytest.warns(UserWarning, match="singular"):
        by_hand = scored_sets(space, dls.test, dict(samples=loader))[0]
    for key in ("frechet", "precision", "recall", "diversity"):
        assert r["quality"][0][key]["value"] == pytest.approx(by_hand[key]["value"])
    assert r["samples"] == dict(source="grey.npz", n=20, shape=[1, 8, 8])
    assert r["quality"][0]["singular"] and r["quality"][0]["n_real"] == dls.info.n_test


def test_sets_that_do_not_fit_are_refused_before_the_work(sets, monkeypatch):
    monkeypatch.setattr("denoise_study.core.feature_space", None)
    for samples, more, message in (
        ("theirs.npz", (), "data: images (3, 8, 8) are to be judged, digits has (1, 8, 8)"),
        ("grey", ("--image-size", 16), "data: images (1, 8, 8) are to be judged"),
        ("pictures", (), "data: images (3, 14, 12) are to be judged"),
        ("grey", ("--n", 7), "--samples: at least 8 images are needed, got 7"),
    ):
        words = "--samples", samples, "--data", "digits", *more
        error = command(sets, "denoise-evaluate", *words, ok=False).stderr
        assert message in error and "Traceback" not in error


def test_a_large_set_may_be_resized_to_its_samples(sets):
    r, _ = judged(sets, "theirs.npz", "pictures", "--image-size", 8)
    assert r["data"]["size"] == [8, 8] and r["quality"][0]["n_fake"] == 60
