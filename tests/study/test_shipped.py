"Models of the package in a study: taken where a training would make the same, and said so"

import json

import pytest

from denoise_study.core import Chapter, image_dls, Study
from denoise_study.daed import LEVELS, split
from denoise_study.diffusion import preset, Schedule, study_ddgm
from denoise_study.representation import study_blind
from denoise_study.study import CHAPTERS, fitting_models, load_pretrained, open_data
from denoise_study.study import planned_trainings, run_study, same_training, seconds_a_step
from denoise_study.study import shipped_models, take_shipped


@pytest.fixture(scope="module")
def data():
    return open_data("digits", "", 0, "small", "cpu")


def digits_study(data, folder, **changes):
    dls, source = data
    return Study(dls, folder, **dict(source=source) | changes)


def test_the_models_of_a_first_run(data, tmp_path):
    "What ships for the digits is what a study of the digits trains"
    found = fitting_models(digits_study(data, tmp_path))
    shipped = {key: f"{key.partition('-')[0]}-digits" for key in ("ddgm", "blind")}
    assert found.items() >= shipped.items()
    sched = load_pretrained("ddgm-digits").sched
    cuts = {split(sched, level=level).n for level in LEVELS}
    assert {key for key in found if key.startswith("dae-")} <= {f"dae-{n}" for n in cuts}
    assert set(found.values()) <= set(shipped_models())


@pytest.mark.parametrize(
    "changes",
    [dict(seed=1), dict(steps=2000), dict(size="paper"), dict(source=dict(data="./digits"))],
    ids=lambda changes: next(iter(changes)),
)
def test_any_other_study_trains(data, tmp_path, changes):
    assert fitting_models(digits_study(data, tmp_path, **changes)) == {}


def test_other_splits_and_shapes_train(tmp_path):
    for form in (dict(seed=1), dict(valid=100), dict(size=16), dict(range=(0.0, 1.0))):
        dls = image_dls("digits", device="cpu", **form)
        study = Study(dls, tmp_path, source=dict(data="digits", device="cpu", **form))
        assert "ddgm" not in fitting_models(study), form


def test_garments_train():
    "The shipped models of FashionMNIST had other images than fashion_mini, and fewer steps"
    model = load_pretrained("ddgm-fashion_mnist")
    info = image_dls("fashion_mini", device="cpu").info
    assert not same_training(model, info, preset(info, "small"), 0)
    assert not any(name.endswith("fashion_mini") for name in shipped_models())


def test_taken_models_are_not_trained(data, tmp_path):
    study = digits_study(data, tmp_path)
    own = object()
    study.models["ddgm"] = own  # what a caller gave stays
    take_shipped(study, dict(ddgm="ddgm-digits", blind="blind-digits"))
    assert study_ddgm.__wrapped__(study) is own
    assert study_blind(study)[0].shape == (1, 16, 16) and not list(tmp_path.iterdir())


def test_what_is_left_is_counted(data, tmp_path):
    study = digits_study(data, tmp_path, steps=7)
    planned = planned_trainings(study, tuple(CHAPTERS))
    cuts = {split(Schedule.linear(200), level=level).n for level in LEVELS}
    assert len(planned) == 2 + len(cuts) and set(planned.values()) == {7}
    take_shipped(study, dict(ddgm="ddgm-digits", blind="blind-digits"))
    assert len(planned_trainings(study, tuple(CHAPTERS))) == len(cuts)
    assert planned_trainings(study, ("ddgm", "blind", "rep")) == {}
    assert seconds_a_step(study) > 0


def test_a_folder_goes_on_as_it_began(data, tmp_path, monkeypatch, capsys):
    "The page is there before the first chapter; --fresh trains everything, and so it stays"
    seen = []

    def chapter(study):
        page = (tmp_path / "report.html").read_text()
        seen.append((sorted(study.models), "blind-digits" in page, "yet" in page))
        return Chapter("Quick")

    monkeypatch.setitem(CHAPTERS, "quick", chapter)
    space = object()
    ask = lambda **how: run_study(digits_study(data, tmp_path, space=space), ("quick",), **how)
    shipped = ask()["shipped"]
    assert shipped["blind"] == "blind-digits" and seen == [(sorted(shipped), True, True)]
    assert "from the package" in capsys.readouterr().out
    assert ask(fresh=True)["shipped"] == {} and ask()["shipped"] == {}
    assert [models for models, *_ in seen[1:]] == [[], []] and not seen[-1][1]
    assert "from the package" not in capsys.readouterr().out
    assert json.loads((tmp_path / "results.json").read_text())["shipped"] == {}
