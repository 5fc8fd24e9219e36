"denoise-probe and denoise-selfguide: a blind denoiser read and sampled from"

import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from helpers_foreign import given_models
from helpers_study import command
from PIL import Image

from denoise_study.representation import Averages, unguided
from denoise_study.representation.selfguided import _SAMPLERS
from denoise_study.study import chosen_images, denoise_selfguide, open_denoiser


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "A blind denoiser, trained for eleven steps"
    folder = tmp_path_factory.mktemp("blind")
    command(
        folder,
        "denoise-train",
        "--model",
        "blind",
        "--image-size",
        16,
        "--folder",
        "run",
        "--steps",
        11,
    )
    return folder


def test_probe(folder):
    "The file is what the library reads, and the untrained network stands beside it"
    out = command(
        folder, "denoise-probe", "run/blind.safetensors", "--draws", 2, "--taps", "enc3,mid"
    ).stdout
    a = Averages.load(folder / "phi.safetensors")
    r = json.loads((folder / "phi.json").read_text())
    assert set(a.taps) == {"enc3", "mid"} and a.taps["mid"].shape == (180, 128)
    assert len(set(a.labels.tolist())) == 10 and a.run["draws"] == 2
    assert "PR of mid" in out
    assert r["compare"][0].keys() >= {"quantity", "trained_value", "untrained_value"}


def test_selfguide(folder):
    command(
        folder,
        "denoise-selfguide",
        "run/blind.safetensors",
        "--out",
        "s.png",
        "--images",
        "3,5",
        "--n",
        2,
        "--levels",
        5,
        "--matching",
        3,
    )
    r = json.loads((folder / "s.json").read_text())
    assert np.load(folder / "s.npz")["images"].shape == (4, 16, 16, 1)
    assert r["images"] == [3, 5] and Image.open(folder / "s.png").size[0] > 100
    assert {"guided", "unconditional"} <= {row["arm"] for row in r["around"]}
    assert 0 <= r["there_before"] <= r["arrived"] <= 1


@pytest.mark.parametrize("sampler", ["ancestral", "ascend"])
def test_the_control_goes_the_same_way(sampler, tmp_path, monkeypatch):
    "What stands beside guided samples is by the sampler that was asked for, in as many steps"
    seen = []

    def spied(D, n, *args, **kwargs):
        seen.append((args, kwargs))
        return unguided(D, n, *args, **kwargs)

    monkeypatch.setattr("denoise_study.representation.unguided", spied)
    # one step of matching, and an ascent that is over soon
    monkeypatch.setitem(_SAMPLERS, "ascend", dict(method="ascend", max_steps=4))
    out = str(tmp_path / "s.png")
    with pytest.warns() if sampler == "ascend" else nullcontext():
        denoise_selfguide(
            "blind-digits", images="3", out=out, n=1, sampler=sampler, levels=4, matching=1
        )
    ((way,), options), *more = seen
    assert way == sampler and not more
    assert len(options.get("sigmas", ())) == (0 if sampler == "ascend" else 4)


@pytest.mark.parametrize("kind", ["diffusers", "openai"])
def test_models_of_other_libraries(kind, tmp_path):
    "Read, and sampled from, by the same words"
    words = given_models(tmp_path)[kind]
    few = "--split", "train", "--sigma", 0.3, "--draws", 1
    out = command(tmp_path, "denoise-probe", *words, *few).stdout
    assert len(Averages.load(tmp_path / "phi.safetensors").labels) == 48 and "PR of mid" in out
    short = "--images", "0", "--n", 2, "--levels", 3, "--matching", 2
    command(tmp_path, "denoise-selfguide", *words, *short)
    assert np.load(tmp_path / "selfguided.npz")["images"].shape == (2, 16, 16, 1)


def test_images_that_are_no_numbers(folder):
    error = command(
        folder, "denoise-selfguide", "blind-digits", "--images", "three", ok=False
    ).stderr
    assert "images: numbers with commas" in error and "Traceback" not in error


def test_one_image_of_each_class():
    labels = torch.tensor([2, 0, 2, 1, 0])
    assert chosen_images("", labels) == [1, 3, 0]
    with pytest.raises(ValueError, match=r"numbers in 0\.\.4 are accepted"):
        chosen_images("3,5", labels)


def test_images_of_another_kind():
    with pytest.raises(ValueError, match="the model is for 3 channels, digits has 1"):
        open_denoiser("blind-cifar10", "digits", "", "", "cpu")


def test_every_class_is_sampled_from_however_the_files_are_sorted(tmp_path, monkeypatch):
    "The first image of the second class is the 1,002nd file"

    class Seen(Exception):
        pass

    def stop(D, targets, *args, **kwargs):
        raise Seen(targets)

    for split, counts in dict(train=(6, 6), test=(1001, 2)).items():
        for name, n, grey in zip("ab", counts, (40, 200)):
            (tmp_path / f"data/{split}/{name}").mkdir(parents=True)
            for i in range(n):
                picture = Image.new("L", (16, 16), grey)
                picture.save(tmp_path / f"data/{split}/{name}/{i:04}.png")
    monkeypatch.setattr("denoise_study.representation.self_guided", stop)
    with pytest.raises(Seen) as found:
        denoise_selfguide("blind-digits", str(tmp_path / "data"), str(tmp_path / "s.png"))
    targets = found.value.args[0]
    assert (255 * targets).round().unique(dim=0)[:, 0, 0, 0].tolist() == [40, 200]
