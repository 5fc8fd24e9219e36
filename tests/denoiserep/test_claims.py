"Claims from records: the recorded ones, learned or not, seeds that are no networks"

import copy
import json
import math
from pathlib import Path

import pytest

from denoise_study.core import Claim, Verdict
from denoise_study.denoiserep import arm_share, CLAIMS, difference_interval, learnable_share
from denoise_study.denoiserep import rep_claims, SILENT_LOSS, slides_table, TRAINED

RESULTS = Path(__file__).parents[2] / "docs/results"
RECORDS = {f.stem: json.loads(f.read_text()) for f in sorted(RESULTS.glob("rep_*.json"))}
STUDY = json.loads((RESULTS / "study_digits.json").read_text())["chapters"]
RECORDS["study_digits"] = STUDY["Denoised features for nothing"]
each_record = pytest.mark.parametrize("name", RECORDS)


@each_record
def test_recorded_results_make_claims(name):
    claims = rep_claims(RECORDS[name])
    sentences = [c.sentence for c in CLAIMS]
    found = [c.sentence for c in claims]
    # label-free, its placebo and the best possible: arms of every record
    assert len(found) >= 3 and found == [s for s in sentences if s in found]
    for c in claims:
        assert Claim.from_dict(json.loads(json.dumps(c.to_dict()))) == c
        assert c.margin < c.size


@each_record
def test_arms_that_have_not_learned_are_not_judged(name):
    record = RECORDS[name]
    verdicts = {c.sentence: c.verdict for c in rep_claims(record)}
    for c in CLAIMS:
        if c.sentence not in verdicts:
            continue
        trained = [arm for arm in (c.arm, c.against) if arm in TRAINED]
        lazy = any(arm_share(record, arm) < 0.9 for arm in trained)
        assert lazy == (verdicts[c.sentence] == Verdict.NOT_LEARNED), c.sentence


def test_share_of_the_learnable():
    assert SILENT_LOSS["l1"] == pytest.approx(math.sqrt(2 / math.pi))
    assert learnable_share(SILENT_LOSS["l1"], 0.755) == 0 and learnable_share(0.755, 0.755) == 1
    assert learnable_share(1.03, 0.777) < 0
    assert learnable_share(0.9, 0.8, "l2") == pytest.approx(0.5)


def made():
    "A record in which everything was learned"

    def interval(value):
        return dict(
            value=value,
            low=value - 0.0001,
            high=value + 0.0001,
            n=5,
            unit="networks x 1000 images",
            level=0.95,
        )

    row = dict(
        claim="label-free improves the checkpoint",
        arm="label_free",
        against="base",
        n=5,
        p=0.06,
        p_holm=None,
        interval=interval(0.004),
        control=interval(0.0),
        paired=interval(0.004),
    )
    arms = [
        dict(arm="base", value=0.8, side_loss=None),
        dict(arm="label_free", value=0.804, side_loss=0.7445),
        dict(arm="closed_form", value=0.804, side_loss=0.743),
    ]
    return dict(
        task="classification",
        metric="accuracy@1",
        budget=dict(loss="l1", steps=9),
        about=dict(data="d", backbone="b", checkpoint=None, n_test=1000),
        arms=arms,
        comparisons=[row],
    )


def verdict_of(record):
    (claim,) = rep_claims(record)
    return claim.verdict


def test_a_learned_gain_holds_and_without_learning_it_does_not_count():
    record = made()
    assert verdict_of(record) == Verdict.HOLDS
    record["arms"][1]["side_loss"] = 0.79
    assert verdict_of(record) == Verdict.NOT_LEARNED


def test_an_unknown_share_does_not_count_as_learned():
    record = made()
    del record["arms"][2]  # no closed form to compare with
    assert verdict_of(record) == Verdict.NOT_LEARNED


def test_what_the_placebo_does_as_well_is_shared():
    record = made()
    row = record["comparisons"][0]
    row["paired"] = row["control"]
    row["control"] = copy.deepcopy(row["interval"])
    assert verdict_of(record) == Verdict.SHARED


def test_a_gain_below_every_gain_of_the_slides_is_smaller_than_claimed():
    record = made()
    row = record["comparisons"][0]
    for key in ("interval", "paired"):
        row[key] |= dict(value=0.0003, low=0.0002, high=0.0004)
    assert verdict_of(record) == Verdict.SMALLER


def test_seeds_of_one_checkpoint_are_no_networks():
    "In a record of an earlier version, which has the ends of bootstrap intervals alone"
    old = made()
    row = old["comparisons"][0]
    for key in ("interval", "control", "paired"):
        del row[key]
    row |= dict(difference=0.004, boot_low=0.003, boot_high=0.005)
    old.pop("unit", None)
    old["about"] = dict(checkpoint="published.pt", n_test=1000)
    assert difference_interval(old, row).unit == "seeds x 1000 images"
    assert "one published network" in rep_claims(old)[0].note
    old["about"]["checkpoint"] = None
    assert difference_interval(old, row).unit == "networks x 1000 images"


def test_slides_table_says_what_an_interval_is_over():
    table = slides_table(RECORDS[k] for k in RECORDS if k != "study_digits")
    assert set(table.verdict) <= {v.value for v in Verdict}
    assert table.over.str.contains("images|queries").all() and (table.claimed != "").all()
    assert table[table.arm.isin(TRAINED)].share.str.len().gt(0).all()


@pytest.mark.parametrize(
    "moved, name, note",
    [
        ((0.01, 0.0101), "matched placebo", ""),
        ((0.02, 0.0101), "placebo that moved the outputs 2.0 times as far", "; against a placebo"),
        ((0.01, math.nan), "placebo", "; whether the placebo is matched was not measured"),
        ((None, 0.01), "placebo", "; whether the placebo is matched was not measured"),
    ],
)
def test_a_placebo_is_called_matched_only_where_it_is(moved, name, note):
    record = copy.deepcopy(RECORDS["rep_camvid"])
    for row in record["arms"]:
        row["moved"] = dict(zip(("placebo", "closed_form"), moved)).get(row["arm"])
    claims = {c.sentence: c for c in rep_claims(record)}
    assert claims["label-free improves the checkpoint"].findings[0].beside == name
    assert note in claims["label-free beats the matched placebo"].note
