"A small classifier as a feature space"

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import denoise_study
from denoise_study.core import feature_space, first_images, image_dls, read_tensors, SmallCNN

SPACES = sorted((Path(denoise_study.__file__).parent / "feature_spaces").glob("*.safetensors"))


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=6, c=1, side=32, seed=0):
    return torch.rand(n, c, side, side, generator=gen(seed))


def accuracy_in(name):
    "What the name of a space says of it"
    return float(name.split("accuracy ")[1][:5])


def test_small_cnn():
    dls = image_dls("digits", bs=64)
    epoch, state = dls.train.epoch, torch.get_rng_state()
    a, b = (SmallCNN.fit(dls, epochs=4, progress=False) for _ in range(2))
    assert a.name == b.name and "digits, seed 0, test accuracy" in a.name
    assert a.name != SmallCNN.fit(dls, epochs=1, progress=False).name
    assert accuracy_in(a.name) > 0.9
    assert dls.train.epoch == epoch and torch.equal(torch.get_rng_state(), state)
    c = SmallCNN(**json.loads(json.dumps(a.config)))
    c.load_state_dict(a.state_dict())
    x = images(5, 1, 8)
    torch.testing.assert_close(c.eval()(x), a(x))
    assert c.name == a.name and a(x).shape == (5, 64) and not a.training
    unlabelled = image_dls(np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8))
    with pytest.raises(ValueError, match="`dls`"):
        SmallCNN.fit(unlabelled)


def trained_in(monkeypatch):
    "Trainings from now on"
    seen = []
    monkeypatch.setattr(SmallCNN, "fit", lambda dls, **how: seen.append(how) or "trained")
    return seen


def test_the_space_that_ships_is_for_exactly_its_images(monkeypatch):
    seen = trained_in(monkeypatch)
    digits = feature_space(image_dls("digits", bs=32, range=(0.0, 1.0), device="cpu"))
    assert digits.name.startswith("cnn-64 (digits, seed 0, test accuracy 0.98") and not seen
    for other in (dict(test=0.3), dict(seed=7), dict(size=9), dict(size=16, pad_to=12)):
        assert feature_space(image_dls("digits", device="cpu", **other)) == "trained"
    assert feature_space(image_dls("digits", device="cpu"), seed=1) == "trained"
    assert [how["seed"] for how in seen] == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("file", SPACES, ids=lambda f: f.stem)
def test_a_space_that_ships_classifies(file):
    tensors, desc = read_tensors(file, "feature space")
    name, data = desc["config"]["name"], desc["data"]
    assert f"({data['name']}, seed 0" in name and "+" not in desc["info"]["commit"]
    assert accuracy_in(name) > 0.8
    if data["name"] == "fashion_mnist":
        return  # has to be downloaded
    form = dict(pad_to=8) if any(data["pad"]) else dict(size=data["size"][0])
    dls = image_dls(data["name"], device="cpu", range=(0.0, 1.0), **form)
    space = feature_space(dls)
    assert space.name == name
    x, y = first_images(dls, "test")
    with torch.no_grad():
        right = space.head(space(x)).argmax(1) == y
    assert accuracy_in(name) == pytest.approx(float(right.float().mean()), abs=1e-3)


def test_training_it_again_gives_one_as_good():
    "Not the same weights: they depend on the machine in the last digits, which is why one ships"
    dls = image_dls("digits", device="cpu")
    again = SmallCNN.fit(dls, progress=False)
    accuracy = [accuracy_in(s.name) for s in (again, feature_space(dls))]
    assert accuracy[0] == pytest.approx(accuracy[1], abs=0.02)
