"""Claims follow from their tables: each verdict from the numbers that it names, also when they
are read from a record"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import close, gauss, normal, sweep, WIDE
from helpers_daed import gauss_daed, places

from denoise_study.core import Claim, claims_table, Verdict
from denoise_study.daed import CEILING, daed_claims, daed_claims_of, FLOOR, judged_together
from denoise_study.daed import learned_from, learned_to_denoise, multiplicity_in_words
from denoise_study.daed import printed_ratios, quality_arms, table1_claims, transfer_table
from denoise_study.diffusion import summarise

RESULTS = Path(__file__).parents[2] / "docs/results"


def verdicts(**kw):
    return {c.sentence: c.verdict for c in daed_claims(**kw)}


def test_nothing_given_is_nothing_measured():
    assert set(verdicts().values()) == {"not measured"}


def test_printed_numbers_stand_beside_the_sentences():
    printed = {c.sentence: c.printed for c in daed_claims()}
    assert printed["DAED (.1) is better than the DDGM, VLB"] == "FID lower on 2 of 3 sets"
    assert printed["DAED (.001) is better than the DDGM, VLB"] == "FID lower on 3 of 3 sets"
    transfer = printed["DAED transfers better than the DDGM: any target"]
    assert transfer.startswith("MAE ratio DDGM / DAED 1.31 to 1.59")
    pair = printed["10% of the steps is a log-SNR of about 4"]
    assert pair == "FashionMNIST 1.79, CIFAR10 0.80 at 10% of the steps"
    close(
        sorted(printed_ratios().to_numpy().ravel())[::11], [0.085 / 0.065, 0.113 / 0.071], atol=1e-9
    )


def scores(**daed):
    "A quality table of one DDGM and two DAEDs"
    base = dict(frechet=10.0, precision=0.7, recall=0.6, roughness=1.0)

    def row(kind, level, values):
        cells = dict(model=f"{kind} {level}", kind=kind, loss="simple", level=level, n_fake=1000)
        for k, x in values.items():
            cells |= {k: x, f"{k}_low": x - 0.02, f"{k}_high": x + 0.02}
        return cells

    daed = base | daed
    return pd.DataFrame(
        [row("DDGM", 1e-4, base), row("DAED", 0.0993, daed), row("DAED", 0.0009, daed)]
    )


SMOOTH = "DAED (.1) smooths (roughness)"


def with_a_larger_one(trainings=4, **larger):
    "Trainings of the DDGM, of a DAED that is less diverse and smoother, and of a larger DDGM"
    drawn = np.random.default_rng(0).normal(0, 0.002, (trainings, 3))
    parts = []
    for k in range(trainings):
        table = scores(recall=0.5, roughness=0.9)
        wide = table[table.kind == "DDGM"].assign(model="DDGM, larger", **larger)
        table = pd.concat([table, wide], ignore_index=True).assign(training=k)
        for score, off in zip(("recall", "roughness"), drawn[k]):
            table.loc[table.kind == "DAED", score] += off
            table.loc[table.model == "DDGM, larger", score] += 2 * off
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize(
    "larger, diverse, smooth",
    [
        (dict(), "holds", "holds"),  # of the DDGM's own scores
        (dict(recall=0.5), "holds for the control as well", "holds"),
        (dict(recall=0.4), "holds for the control as well", "holds"),
        (dict(roughness=0.9), "holds", "holds for the control as well"),
        (dict(roughness=0.95), "holds", "holds"),  # smoother, but by half
        (dict(recall=0.8, roughness=1.2), "holds", "holds"),
    ],
)
def test_what_as_many_weights_change_is_not_the_splits(larger, diverse, smooth):
    found = {c.sentence: c for c in daed_claims(joint=with_a_larger_one(**larger))}
    assert (found[DIVERSE].verdict, found[SMOOTH].verdict) == (diverse, smooth)
    (finding,) = found[DIVERSE].findings
    assert finding.beside == "DDGM, larger minus DDGM 0.0001"
    assert "recall of DAED 0.0993" in found[DIVERSE].note and "DDGM 0.0001" in found[DIVERSE].note


def test_as_many_weights_without_several_trainings():
    "Intervals over samples, whose widths add up"
    table = scores(recall=0.5)
    wide = table[table.kind == "DDGM"].assign(model="DDGM, larger")

    def judged(**larger):
        joint = pd.concat([table, wide.assign(**larger)], ignore_index=True)
        return verdicts(joint=joint)[DIVERSE]

    assert judged() == "holds"
    assert judged(recall=0.4, recall_low=0.38, recall_high=0.42) == "holds for the control as well"


def test_one_training_of_the_larger_one_is_no_control():
    "A record that is made in parts: what stands beside is the DDGM, until there are pairs"
    table = with_a_larger_one(recall=0.5)
    table = table[(table.model != "DDGM, larger") | (table.training == 0)]
    found = {c.sentence: c for c in daed_claims(joint=table)}
    assert found[DIVERSE].verdict == "holds"
    assert found[DIVERSE].findings[0].beside == "DDGM 0.0001"
    evidence = {"DDGM, larger": (learned_from("DDGM, larger", "loss", 2.0, 1.0, {}),)}
    (claim,) = [c for c in table1_claims(table, None, evidence) if c.sentence == DIVERSE]
    assert claim.verdict == "holds"  # nobody asks whether it had learned


DIVERSE = "DAED (.1) loses diversity (recall)"
CLOSE = "DAED (.001) is close to the DDGM"
PRECISE = "DAED (.1) is as precise as the DDGM"


@pytest.mark.parametrize(
    "daed,claim,verdict",
    [
        (dict(recall=0.5), DIVERSE, "holds"),
        (dict(recall=0.535), DIVERSE, "holds"),
        (dict(recall=0.57), DIVERSE, "undecided"),
        (dict(recall=0.595), DIVERSE, "does not hold"),  # certainly less than 5 points
        (dict(recall=0.7), DIVERSE, "does not hold"),
        (dict(frechet=11.0), CLOSE, "holds"),
        (dict(frechet=12.49), CLOSE, "undecided"),
        (dict(frechet=14.0), CLOSE, "does not hold"),
        (dict(precision=0.5), PRECISE, "does not hold"),
        (dict(precision=0.7), PRECISE, "holds"),
        (dict(precision=0.9), PRECISE, "holds"),  # one-sided: better is as good
        (dict(precision=0.66), PRECISE, "undecided"),
        (dict(roughness=0.8), SMOOTH, "holds"),
        (dict(), "DAED (.1) is better than the DDGM, VLB", "not measured"),
        (dict(), "DAED (.001) is better than the DDGM, VLB", "not measured"),
    ],
)
def test_claims_about_quality(daed, claim, verdict):
    assert verdicts(joint=scores(**daed))[claim] == verdict


def test_less_recall_than_printed_is_smaller_than_claimed():
    table = scores(recall=0.56)
    table[["recall_low", "recall_high"]] = np.stack([table.recall - 0.001, table.recall + 0.001], 1)
    assert verdicts(joint=table)[DIVERSE] == "smaller than claimed"


def test_table_1_is_about_joint_models():
    "Two-step models are judged by the same sentences, which then say so; the bound has none"
    splits = scores(recall=0.5).assign(share=[0.001, 0.1, 0.01], tenth_log_snr=1.8, four_share=0.03)
    splits["model"] = ["DDGM", "a", "b"]
    v = verdicts(splits=splits)
    assert v[DIVERSE] == v[CLOSE] == "not measured"
    assert v[f"{DIVERSE}, two-step"] == v[f"{CLOSE}, two-step"] == "holds"
    assert not any("VLB" in s and "two-step" in s for s in v)
    places = {c.place for c in daed_claims(splits=splits) if "two-step" in c.sentence}
    assert places == {"not of Table 1: two-step models", "DAED sec. 6.2"}
    both = [c.sentence for c in daed_claims(splits=splits, joint=scores(recall=0.5))]
    assert both.index(f"{DIVERSE}, two-step") == both.index(DIVERSE) + 1  # side by side


def test_the_nearest_model_is_judged_and_named():
    "Not the average of all that are within a factor of e"
    table = scores(recall=0.5)
    far = table.iloc[[1]].assign(model="DAED .2", level=0.2, recall=0.9)
    both = pd.concat([table, far])
    _, daed = quality_arms(both, "simple", 0.1)
    assert daed.model.tolist() == ["DAED 0.0993"]
    (claim,) = [c for c in daed_claims(joint=both) if c.sentence == DIVERSE]
    assert claim.verdict == "holds" and "DAED 0.0993" in claim.findings[0].name
    assert quality_arms(table, "simple", 0.02) is None


def test_claims_over_trainings_are_paired():
    "What all trainings share cancels; a difference that changes its sign does not count"
    shift = np.array([-0.2, 0, 0.2])

    def trained(gaps):
        tables = []
        for i, (gap, s) in enumerate(zip(gaps, shift)):
            table = scores(recall=0.6 + gap).assign(training=i)
            table["recall"] += s
            tables.append(table)
        # a DDGM of another size is no baseline
        wide = tables[0].iloc[:1].assign(model="as many weights", recall=0.1)
        return pd.concat([*tables, wide])

    (claim,) = [
        c for c in daed_claims(joint=trained([-0.15, -0.16, -0.17])) if c.sentence == DIVERSE
    ]
    half = 4.302653 * 0.01 / 3**0.5  # t quantile for 2 degrees of freedom
    paired = claim.findings[0].paired
    assert claim.verdict == "holds" and paired.over == "3 trainings"
    close([paired.value, paired.high], [-0.16, -0.16 + half], atol=1e-6)
    assert verdicts(joint=trained([-0.05, 0.06, -0.07]))[DIVERSE] == "undecided"
    assert verdicts(joint=trained([0.05, 0.06, 0.07]))[DIVERSE] == "does not hold"


def test_claims_about_splits():
    rows = []
    for model, share, frechet in (("DDGM", 0.001, 10), ("a", 0.09, 10.5), ("b", 0.2, 30)):
        ends = dict(frechet_low=frechet - 0.5, frechet_high=frechet + 0.5)
        rows.append(
            dict(
                model=model,
                kind="DDGM" if model == "DDGM" else "DAED",
                loss="simple",
                level=share,
                share=share,
                frechet=frechet,
                n_fake=9,
                **ends,
            )
        )
    splits = pd.DataFrame(rows).assign(tenth_log_snr=1.8, four_share=0.03)
    for k in ("precision", "recall", "roughness"):
        splits[[k, f"{k}_low", f"{k}_high"]] = 0.5, 0.4, 0.6
    comparable = "Quality is comparable, 10% of the steps replaced"
    v = verdicts(splits=splits)
    assert v[comparable] == "holds"
    assert v["10% of the steps is a log-SNR of about 4"] == "does not hold"
    (claim,) = [c for c in daed_claims(splits=splits) if c.sentence == comparable]
    assert [f.name[:3] for f in claim.findings] == ["a: "]  # the nearest, by its name
    assert verdicts(splits=splits[splits.model != "a"])[comparable] == "not measured"
    splits.loc[1, ["frechet", "frechet_low", "frechet_high"]] = 20, 19, 21
    assert verdicts(splits=splits)[comparable] == "does not hold"
    splits.loc[1, ["frechet", "frechet_low", "frechet_high"]] = 12, 11, 13
    assert verdicts(splits=splits)[comparable] == "undecided"


def test_an_arm_worse_than_a_linear_filter_is_not_judged():
    """The DDGM decides about reconstruction and the switch; both it and the DAE about splits and
    transfer"""
    train = normal(300, 8, seed=9)
    x = {"own": normal(40, 8), "other": normal(40, 8, s2=0.5, seed=3)}
    filters = {"own": train, "other": 2**0.5 * train}
    models = {"DDGM": gauss(n=8), "DAED": gauss_daed(n=98)}
    models["DAED"] = type(models["DAED"])(**dict(models["DAED"].config, shape=(1, 8, 8)))
    ways = ("ancestral", "mean", "linear")
    at = sweep(models, x, level=0.1, hows=ways, train=filters, scale=WIDE)
    over = sweep(models["DDGM"], x, [50, 98, 200], ways, train=filters, scale=WIDE)
    errors, transfer = summarise(over), transfer_table(at)
    about = dict(steps=7, valid_loss=0.25)
    (evidence,) = learned_to_denoise(transfer, "DAED", "own", about)
    assert evidence.less and evidence.steps == 7 and "validation loss 0.25" in str(evidence)
    for worse, tables in (("DAED", transfer), ("model", errors)):
        bad = (tables.model == worse) & (tables.how == "mean")
        good = (tables.how == "mean") & ~bad
        tables.loc[bad, "mse"] = 1.0
        tables.loc[good, "mse"] = 0.001
        v = verdicts(errors=errors, transfer=transfer)
        assert v["DAED transfers better than the DDGM: own"] == "not learned"
        tables.loc[bad, "mse"] = 0.001
    v = verdicts(errors=errors, transfer=transfer)
    assert v["DAED transfers better than the DDGM: own"] != "not learned"
    assert learned_to_denoise(transfer[transfer.how != "linear"], "DAED", "own") == ()


ENDED = dict(steps=940, valid_loss=0.15, fall=0.004, least=0.01)


@pytest.mark.parametrize(
    "training,verdict",
    [
        (None, "holds"),  # no evidence is asked for
        (dict(a=ENDED, b=ENDED), "holds"),
        (dict(a=ENDED | dict(fall=0.02), b=ENDED), "not learned"),  # still falling
        (dict(a=dict(steps=94), b=ENDED), "not learned"),  # nobody knows
        ({}, "not learned"),
    ],
)
def test_an_arm_whose_loss_still_falls_is_not_judged(training, verdict):
    splits = scores(recall=0.5).assign(share=[0.001, 0.1, 0.01], tenth_log_snr=1.8, four_share=0.03)
    splits["model"] = ["DDGM", "DAED a", "DAED b"]
    if training is not None:
        training = {f"DAED {k}": v for k, v in training.items()}
    (claim,) = [
        c
        for c in daed_claims(splits=splits, training=training)
        if c.sentence == f"{DIVERSE}, two-step"
    ]
    assert claim.verdict == verdict
    if training:
        assert f"{training['DAED a']['steps']} steps" in claim.texts()["learned"]


@pytest.mark.parametrize("ceiling,verdict", [(100.0, "holds"), (15.0, "not learned")])
def test_a_ddgm_nearer_to_no_training_than_to_the_floor_is_not_judged(ceiling, verdict):
    "Its samples are at a Fréchet distance of 10, training images at 1"
    ends = pd.DataFrame(dict(model=[FLOOR, CEILING], kind="images", frechet=[1.0, ceiling]))
    splits = scores(recall=0.5).assign(share=[0.001, 0.1, 0.01], tenth_log_snr=1.8, four_share=0.03)
    splits["model"] = ["DDGM", "a", "b"]
    assert verdicts(splits=splits, ends=ends)[f"{DIVERSE}, two-step"] == verdict
    joint = pd.concat([scores(recall=0.5), ends], ignore_index=True)
    assert verdicts(joint=joint)[DIVERSE] == verdict


def test_many_verdicts_are_judged_together():
    "Seventeen intervals are wider when all have to hold; a verdict that was close is lost"
    claims = daed_claims(joint=scores(recall=0.555), switches=(places((0.08, 0.1, 0.12)),))
    wider, count = judged_together(claims)
    assert count == 7
    before, after = [{c.sentence: c for c in found} for found in (claims, wider)]
    factor = 2.690110 / 1.959964  # normal quantiles for 1 - .05/14 and .975
    low = before[DIVERSE].findings[0].measured.value - factor * 0.02
    close(after[DIVERSE].findings[0].measured.low, low, atol=1e-5)
    assert (before[DIVERSE].verdict, after[DIVERSE].verdict) == ("holds", "undecided")
    words = multiplicity_in_words(claims)
    assert "7 of these numbers" in words and f'"{DIVERSE}" (holds -> undecided)' in words
    assert judged_together(daed_claims())[1] == 0 and multiplicity_in_words([]) == ""


RECORDS = [
    ("daed_fashion_mnist.json", None),
    ("study_digits.json", "Where generating ends and denoising begins"),
]


@pytest.mark.parametrize("file,chapter", RECORDS)
def test_claims_come_back_from_a_record(file, chapter):
    "Written, read, judged anew: the same claims"
    results = json.loads((RESULTS / file).read_text())
    if chapter:
        results = results["chapters"][chapter]
    claims = daed_claims_of(results)
    found = {c.sentence: c.verdict for c in claims}
    assert found["log-SNR falls below 0 after about 20% of the steps, linear"] == "holds"
    assert found["The biggest changes are in the first 10%, cosine"] == "does not hold"
    own = results["transfer"][0]["set"]
    assert found[f"DAED transfers better than the DDGM: {own}"] != "holds"
    assert found["DAED (.1) is better than the DDGM, VLB"] == "not measured"
    assert all(c.learned for c in claims if c.place == "DAED Table 2")
    again = [Claim.from_dict(json.loads(json.dumps(c.to_dict()))) for c in claims]
    pd.testing.assert_frame_equal(claims_table(claims), claims_table(again))


def test_a_record_of_several_trainings_is_about_joint_models():
    table = pd.concat([scores(recall=0.4 + 0.01 * i).assign(training=i) for i in range(3)])
    claims = daed_claims_of(dict(quality=table.to_dict("records")))
    (verdict,) = [c.verdict for c in claims if c.sentence == DIVERSE]
    assert verdict == Verdict.HOLDS
