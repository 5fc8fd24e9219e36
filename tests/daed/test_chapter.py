"""The chapter: models are trained first and once, parts take them and return findings, claims
come from its results"""

import io
import json
import sys
from contextlib import redirect_stdout
from dataclasses import replace

import pandas as pd
import pytest
import torch
from helpers_daed import space
from helpers_training import shorter_chains

from denoise_study.core import Chapter, image_dls, Study, write_json
from denoise_study.daed import CEILING, daed_chapter, daed_claims_of, ends_of_quality, FLOOR
from denoise_study.daed import joint_part, measured_once, split_part, study_daeds, study_joint
from denoise_study.daed import switch_in_words, switch_part, training_of, two_sets
from denoise_study.daed import weights_digest, with_training
from denoise_study.diffusion import DDGM, reconstruction_sweep, Schedule, UNet


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    s = Study(
        image_dls("digits", bs=32, device="cpu"),
        tmp_path_factory.mktemp("study"),
        steps=16,
        n=12,
        n_eval=24,
        space=space(),
    )
    torch.manual_seed(0)
    net = UNet(channels=1, width=16, mult=(1, 2), n_blocks=1, attn=())
    s.models["ddgm"] = DDGM(net, Schedule.linear(40), (1, 8, 8)).eval()
    return s


def silent(f, *args, **kw):
    with redirect_stdout(io.StringIO()):
        return f(*args, **kw)


def test_second_set_is_the_first_upside_down_or_another(study):
    own, other = two_sets(study, 3).values()
    assert torch.equal(other.flip((2, 3)), own)
    study.second = study.dls
    assert list(two_sets(study, 3)) == ["digits"]  # the same data under the same name
    study.second = None
    a, b = two_sets(study, 3, "train").values()
    assert not torch.equal(a, own) and torch.equal(b.flip((2, 3)), a)


def test_denoisers_are_trained_once_and_levels_on_one_step_count_once(study):
    first = silent(study_daeds, study, (0.1, 0.101, 0.3))
    assert (
        len(first) == 2
        and study_daeds(study, (0.1,))["DAED 0.1" if "DAED 0.1" in first else next(iter(first))]
    )
    assert all(m is n for m, n in zip(first.values(), study_daeds(study, (0.1, 0.3)).values()))
    for record in training_of(first).values():
        assert record["steps"] == record["max_steps"] == 16  # as many as the study's model, at most
        assert record["fall"] > record["least"]  # which is too few, and the record says so


def test_denoisers_learn_on_from_one_another(study):
    first = silent(study_daeds, study, (0.1,))
    (start,) = first.values()
    both = silent(study_daeds, study, (0.1, 0.2), start, 32)
    (more,) = [m for name, m in both.items() if name not in first]
    about = training_of(both)
    table = with_training(pd.DataFrame(dict(model=list(both))), about).set_index("model")
    assert more.n > start.n and more.info["steps_before"] == start.info["steps"] == 16
    assert list(table.steps) == [16, 16 + more.info["steps"]] and more.info["max_steps"] == 32
    del study.models[f"dae-{more.n}"]  # other tests count the denoisers


def test_chapter_of_a_study_and_its_record(study, tmp_path):
    "Parts train nothing; the record gives the chapter's own claims"
    c = silent(daed_chapter, study)
    done = {k for k in study.seconds if k.startswith("training")}
    other = Chapter("again")
    daeds = study_daeds(study)
    silent(split_part, study, other, study.models["ddgm"], daeds)
    silent(switch_part, study, other, study.models["ddgm"])
    assert {k for k in study.seconds if k.startswith("training")} == done
    assert other.results["splits"].equals(c.results["splits"])
    assert set(c.results) >= {
        "crossing",
        "errors",
        "switch",
        "switch_fair",
        "splits",
        "transfer",
        "claims",
        "training",
        "levels",
        "ends",
        "switch_by_n",
        "multiplicity",
    }
    judged = {
        r["sentence"]: r["verdict"] for r in c.results["claims"] if "two-step" in r["sentence"]
    }
    assert set(judged.values()) == {"not learned"}
    steps = [record["steps"] for record in training_of(daeds).values()]
    assert c.results["splits"].steps.tolist()[1:] == steps and max(steps) <= 16
    assert set(c.results["levels"].model) == set(daeds)
    write_json(tmp_path / "c.json", c.results)
    again = daed_claims_of(json.loads((tmp_path / "c.json").read_text()))
    assert [x.verdict for x in again] == [r["verdict"] for r in c.results["claims"]]
    assert any("two-step" in x.sentence for x in again)


def test_joint_models_and_the_control_of_their_size(study, tmp_path, monkeypatch):
    shorter_chains(monkeypatch, width=16)
    study = replace(study, folder=tmp_path, steps=2, models=dict(study.models))
    small = silent(study_joint, study, wide=False)
    models = silent(study_joint, study, ("simple", "vlb"))
    assert list(small) == ["DDGM", "DAED 0.1, simple"]
    assert list(models) == [
        "DDGM",
        "DAED 0.1, simple",
        "DDGM, vlb",
        "DAED 0.1, vlb",
        "DDGM, as many weights",
    ]
    c = Chapter("joint")
    table = silent(joint_part, study, c, models)
    assert list(table.kind) == ["DDGM", "DAED"] * 2 + ["DDGM", "images", "images"]
    assert table.loss.tolist()[:5] == ["simple", "simple", "vlb", "vlb", "simple"]

    # after two steps a denoiser is worse than a linear filter, and the evidence says so
    levels = c.results["joint_levels"]
    assert {*levels.model} >= {"DAED 0.1, simple", "DAED 0.1, vlb"}
    claims = [x for x in daed_claims_of(c.results) if x.place == "DAED Table 1" and x.learned]
    said = [e for x in claims for e in x.learned if "linear filter" in e.measure]
    assert said and not any(e.ok for e in said)


def test_switch_goes_on_with_the_next_time(study, tmp_path, monkeypatch):
    "Interrupted between two times, nothing is measured twice; the errors of images are tables"
    mine = replace(study, folder=tmp_path, n_eval=8)
    asked = []

    def stops(model, sets, ts, **kw):
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.extend(ts)
        return reconstruction_sweep(model, sets, ts, **kw)

    room = sys.modules["denoise_study.daed.chapter"]
    monkeypatch.setattr(room, "reconstruction_sweep", stops)
    with pytest.raises(KeyboardInterrupt):
        silent(switch_part, mine, Chapter("c"), mine.models["ddgm"])
    monkeypatch.setattr(
        room,
        "reconstruction_sweep",
        lambda *a, **kw: asked.extend(a[2]) or reconstruction_sweep(*a, **kw),
    )
    errors, _ = silent(switch_part, mine, Chapter("c"), mine.models["ddgm"])
    assert len(asked) == len(set(asked)) == errors.t.nunique()
    kept = [pd.read_csv(path) for path in tmp_path.glob("errors_switch_*.csv")]
    assert sum(map(len, kept)) == len(errors) and {"image", "mae", "set"} <= set(errors.columns)


def test_switch_in_words():
    point = dict(a="x", b="y", least=0.1, share=None)
    assert "10% larger than on" in switch_in_words(point) and "nowhere" in switch_in_words(point)
    point |= dict(share=0.02, log_snr=5.0, share_low=0.01, share_high=None)
    words = switch_in_words(point)
    assert "from 2% of the chain on" in words and "1% to the last step tried or later" in words


def test_errors_of_images_are_measured_once(study, tmp_path):
    "A table in the folder is taken if it is of these images, weights and times, and of no others"
    calls = []

    def measure():
        calls.append(1)
        return pd.DataFrame(dict(mae=[1 / 3, 2e-17]))

    def ask(**about):
        return measured_once(study, "once", measure, **about).mae.tolist()

    assert ask(n=2) == ask(n=2) == [1 / 3, 2e-17] and len(calls) == 1
    ask(n=3)
    study.seed += 1
    ask(n=3)
    study.seed -= 1
    assert len(calls) == 3
    (study.folder / "once.json").unlink()  # a table without its note is not trusted
    ask(n=3)
    assert len(calls) == 4
    note = study.folder / "once.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | dict(seconds=1000)))
    with study.stage("going on"):
        ask(n=3)
    assert len(calls) == 4 and 1000 <= study.seconds.pop("going on") < 1100
    a, b = [UNet(channels=1, width=16, mult=(1,), n_blocks=1, attn=()) for _ in "ab"]
    assert weights_digest(a) == weights_digest(a) != weights_digest(b)


def test_untrained_is_far_and_training_images_are_near(study):
    ends = ends_of_quality(study, study.models["ddgm"]).set_index("model")
    assert ends.frechet[CEILING] > ends.frechet[FLOOR] and list(ends.index) == [FLOOR, CEILING]


def test_steps_stand_beside_the_numbers():
    table = pd.DataFrame(dict(model=["DDGM", "no model"], mae=[0.1, 0.2]))
    beside = with_training(table, dict(DDGM=dict(steps=7, valid_loss=0.5)))
    assert beside.steps[0] == 7 and beside.valid_loss[0] == 0.5
    assert beside.loc[1, ["steps", "valid_loss"]].isna().all()
