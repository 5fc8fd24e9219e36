"""Claims follow from their tables: each verdict from the numbers that it names, also when they
are read from a record"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import close, constructed, gauss, HO, normal, sweep, WIDE
from helpers_daed import gauss_daed

from denoise_study.core import Claim, claims_table, Verdict
from denoise_study.daed import daed_claims, daed_claims_of, learned_to_denoise, printed_ratios
from denoise_study.daed import quality_arms, transfer_gaps, transfer_table, transition_point
from denoise_study.diffusion import Schedule, snr_crossing, summarise

RESULTS = Path(__file__).parents[2] / "docs/results"
SWITCH = "The error is the same on both sets up to about 10% of the steps, then parts"


def verdicts(**kw):
    return {c.sentence: c.verdict for c in daed_claims(**kw)}


def test_nothing_given_is_nothing_measured():
    assert set(verdicts().values()) == {"not measured"}


def crossings(power):
    scheds = dict(linear=HO, cosine=Schedule.cosine(1000))
    return {k: dict(snr_crossing(s, power)) for k, s in scheds.items()}


def test_claims_about_schedules():
    v = verdicts(crossing=crossings(0.682))  # FashionMNIST
    assert v["log-SNR falls below 0 after about 20% of the steps, linear"] == "holds"
    assert v["log-SNR falls below 0 after 25-50% of the steps, cosine"] == "holds"
    assert v["The biggest changes are in the first 10%, linear"] == "holds"
    assert v["The biggest changes are in the first 10%, cosine"] == "does not hold"
    v = verdicts(crossing=crossings(0.256))  # CIFAR-10: .147
    assert v["log-SNR falls below 0 after about 20% of the steps, linear"] == "does not hold"


def test_printed_numbers_stand_beside_the_sentences():
    printed = {c.sentence: c.printed for c in daed_claims()}
    vlb = printed["DAED (.1) is better than the DDGM, VLB"]
    assert vlb == "FID lower on 2 of 3 sets; at .001 on 3 of 3 sets"
    transfer = printed["DAED transfers better than the DDGM: any target"]
    assert transfer.startswith("MAE ratio DDGM / DAED 1.31 to 1.59")
    pair = printed["10% of the steps is a log-SNR of about 4"]
    assert pair == "FashionMNIST 1.79, CIFAR10 0.80 at 10% of the steps"
    close(
        sorted(printed_ratios().to_numpy().ravel())[::11], [0.085 / 0.065, 0.113 / 0.071], atol=1e-9
    )


def test_transfer_of_a_perfect_model_holds_for_its_own_mean_as_well():
    "The paper's comparison favours the DAED, and only because of what is compared"
    models = {"DDGM": gauss(), "DAED": gauss_daed()}
    targets = {"own": normal(40), "other": normal(40, s2=0.5)}
    errors = sweep(models, targets, level=0.1, hows=("ancestral", "mean"), scale=WIDE)
    name = "DAED transfers better than the DDGM: {}"

    def of(errors):
        return verdicts(transfer=transfer_table(errors), gaps=transfer_gaps(errors))

    v = of(errors)
    assert v[name.format("own")] == v[name.format("other")] == "holds for the control as well"
    assert v["A sample has about twice the MSE of the mean"] == "holds"
    better = errors.copy()
    better.loc[better.kind == "DAED", "mae"] *= 0.5
    assert of(better)[name.format("own")] == "holds"
    better.loc[better.kind == "DAED", "mae"] *= 8
    assert of(better)[name.format("own")] == "does not hold"


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
        (dict(roughness=0.8), "DAED (.1) smooths (roughness)", "holds"),
        (dict(), "DAED (.1) is better than the DDGM, VLB", "not measured"),
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
    assert places == {"DAED Table 1, of two-step models", "DAED sec. 6.2"}


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


@pytest.mark.parametrize(
    "onset,verdict",
    [(8, "holds"), (1, "does not hold"), (20, "does not hold"), (None, "does not hold")],
)
def test_claim_about_the_switch(onset, verdict):
    point = transition_point(constructed(onset), "a", "b")
    assert verdicts(switches=(point,))[SWITCH] == verdict


def test_switch_with_a_wide_interval_is_undecided():
    point = transition_point(constructed(8), "a", "b")
    point.update(t=8, share=0.1, share_low=0.02, share_high=0.15)
    assert verdicts(switches=(point,))[SWITCH] == "undecided"
    point.update(share_high=None)  # not found in some of the resamples
    assert verdicts(switches=(point,))[SWITCH] == "undecided"


def test_claims_about_splits():
    rows = []
    for model, share, frechet in (("DDGM", 0.001, 10), ("a", 0.05, 10.5), ("b", 0.2, 30)):
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
    splits.loc[1, ["frechet", "frechet_low", "frechet_high"]] = 20, 19, 21
    assert verdicts(splits=splits)[comparable] == "does not hold"
    splits.loc[1, ["frechet", "frechet_low", "frechet_high"]] = 12, 11, 13
    assert verdicts(splits=splits)[comparable] == "undecided"


def test_error_passes_early_for_gaussian_noise_images():
    model, x = gauss(Schedule.linear(100), n=8), normal(8, 8)
    errors = sweep(model, x, range(1, 30, 4), ("ancestral", "mean"), scale=WIDE)
    claim = "The error passes .1 MAE after around 10% of the steps"
    assert verdicts(errors=summarise(errors))[claim] == "does not hold"


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
    (evidence,) = learned_to_denoise(transfer, "DAED", "own", steps=7)
    assert evidence.less and evidence.steps == 7
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
