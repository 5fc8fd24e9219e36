"The chapter on the representation: models first, then parts that only look"

import re

import pytest
import torch
from helpers import ROOT

from denoise_study.core import Chapter, image_dls, Study, untrained
from denoise_study.denoiser import BlindUNet, denoiser
from denoise_study.representation import blind_dls, blind_models, BlindModels, denoising_part
from denoise_study.representation import channels_part, distance_part, one_of_each
from denoise_study.representation import representation_part
from denoise_study.representation import selfguided_part, study_blind, study_judge


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    dls = image_dls("digits", bs=128, device="cpu")
    study = Study(dls, tmp_path_factory.mktemp("study"), steps=2, n_eval=8)
    torch.manual_seed(0)
    net = BlindUNet(channels=1, widths=(4, 6, 8, 10), depths=(1, 1, 2))
    study.models["blind"] = denoiser(net, (1, 16, 16)), blind_dls(study)
    return study


def test_targets_are_of_each_class_in_turn():
    y = torch.tensor([3, 3, 0, 1, 0, 3, 1])
    assert one_of_each(y, 5).tolist() == [2, 3, 0, 4, 6]
    assert one_of_each(torch.full((4,), -1), 3).tolist() == [0, 1, 2]


def test_small_images_are_enlarged_and_others_padded(study):
    info = study_blind(study)[1].info
    assert info.size == (16, 16) and info.range == (0, 1)


def test_models_are_made_once_and_only_what_is_needed(study):
    without = blind_models(study, judge=False)
    assert without.judge is None and "judge" not in study.models
    study.models["judge"] = marked = torch.nn.Identity()
    assert study_judge(study) is marked and blind_models(study).judge is marked
    assert without.D is study.models["blind"][0]
    del study.models["judge"]


def test_parts_train_nothing(study, monkeypatch):
    "A part that is asked for a figure must not train for minutes"

    def fail(*a, **kw):
        raise AssertionError("a part trained a model")

    for name in ("train_blind", "feature_space"):
        monkeypatch.setattr(f"denoise_study.representation.study_models.{name}", fail)
    D, dls = study.models["blind"]
    models, c = BlindModels(D, untrained(D, 0), dls), Chapter("x")
    table = denoising_part(study, c, models)
    assert set(table.denoiser) == {"BlindUNet", "best linear", "untrained"}
    around = selfguided_part(study, c, models, n=2, targets=2, levels=2, steps=2)
    assert "class hit" not in set(around.measure) and c.results["judge"] is None
    assert 0 <= c.results["converged"] <= 1 and len(c.blocks) > 4


SHOWN = {  # number of a picture in docs/pictures.py -> how its caption in the chapter begins
    "1": "Share of channels",
    "3": "8 test images",
    "4": "Clusters",
    "5": "Distance between centroids",
    "6": "The most selective channels",
    "7": "How often a channel answers",
    "8": "Each point is a channel",
    "9": "Left: 2 test images",
    "10": "Targets that are no image: the middle of 10 images",
    "11": "Targets that are no image: the middle of 10 images",
    "12": "Targets that are no image: a walk",
    "13": r"Targets that are no image: the \d+ channels",
    "15": "Difference of the scores",
}


@pytest.mark.parametrize("classes", [True, False], ids=["classes", "no classes"])
def test_pictures_of_a_record_stand_under_their_numbers(classes, study, tmp_path, monkeypatch):
    "They are recorded in the order of the chapter, of which images without classes lack some"
    D = study.models["blind"][0]
    source = dict(data="digits", bs=128, device="cpu")
    if not classes:
        bytes_ = image_dls("digits", device="cpu").train.dataset.batch(range(400))
        source["data"] = bytes_.permute(0, 2, 3, 1)
    work = Study(image_dls(**source), tmp_path, n_eval=12, source=source)
    work.models["blind"] = D, blind_dls(work)
    models, c = BlindModels(D, untrained(D, 0), work.models["blind"][1]), Chapter("x")
    denoising_part(work, c, models)
    representation_part(work, c, models, 40)
    channels_part(work, c, models, 40)
    selfguided_part(work, c, models, n=1, targets=2, levels=2, steps=1, shown=2)
    distance_part(work, c, models, n=4)
    found = re.findall("<figcaption>(.*?)</figcaption>", "".join(c.blocks))
    monkeypatch.syspath_prepend(ROOT / "docs")
    from pictures import WITHOUT_CLASSES

    numbers = {k: k for k in SHOWN} if classes else {"1": "1", "3": "3", **WITHOUT_CLASSES}
    for name, number in numbers.items():
        assert re.match(SHOWN[name], found[int(number)])
    assert ("of class" in " ".join(found)) == classes
    assert len(found) == (16 if classes else 13)
