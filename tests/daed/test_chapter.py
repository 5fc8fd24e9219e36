"""The chapter: models are trained first and once, parts take them and return findings, claims
come from its results"""

import io
from contextlib import redirect_stdout

import pytest
import torch
from helpers_daed import space

from denoise_study.core import Chapter, image_dls, Study, write_json
from denoise_study.daed import daed_chapter, daed_claims_of, joint_part, split_part, study_daeds
from denoise_study.daed import study_joint, switch_in_words, switch_part, training_of, two_sets
from denoise_study.diffusion import DDGM, Schedule, UNet


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    s = Study(
        image_dls("digits", bs=128, device="cpu"),
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
    assert {r["steps"] for r in training_of(first).values()} <= {1, 2, 12}


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
    }
    write_json(tmp_path / "c.json", c.results)
    import json

    again = daed_claims_of(json.loads((tmp_path / "c.json").read_text()))
    assert [x.verdict for x in again] == [r["verdict"] for r in c.results["claims"]]
    assert any("two-step" in x.sentence for x in again)


def test_joint_models_and_the_control_of_their_size(study):
    models = silent(study_joint, study, ("simple", "vlb"))
    assert list(models) == [
        "DDGM",
        "DAED 0.1, simple",
        "DDGM, vlb",
        "DAED 0.1, vlb",
        "DDGM, as many weights",
    ]
    table = silent(joint_part, study, Chapter("joint"), models)
    assert list(table.kind) == ["DDGM", "DAED", "DDGM", "DAED", "DDGM", "images"]
    assert table.loss.tolist()[:5] == ["simple", "simple", "vlb", "vlb", "simple"]


def test_switch_in_words():
    point = dict(a="x", b="y", t=None)
    assert "do not part" in switch_in_words(point)
    point |= dict(t=4, share=0.02, log_snr=5.0, t_low=2, t_high=None)
    assert "step 4 (2% of the chain" in switch_in_words(
        point
    ) and "2 to the last step tried" in switch_in_words(point)
