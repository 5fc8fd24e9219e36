"""Claims about transfer: a denoiser's mean beside samples and beside the DDGM's own mean"""

import pandas as pd
from helpers import gauss, normal, sweep, WIDE
from helpers_daed import gauss_daed

from denoise_study.daed import no_advantage_claims, sample_to_mean_claim, transfer_claims
from denoise_study.daed import transfer_gaps, transfer_table


def test_transfer_of_a_perfect_model_holds_for_its_own_mean_as_well():
    "The paper's comparison favours the DAED, and only because of what is compared"
    models = {"DDGM": gauss(), "DAED": gauss_daed()}
    targets = {"own": normal(40), "other": normal(40, s2=0.5)}
    errors = sweep(models, targets, level=0.1, hows=("ancestral", "mean"), scale=WIDE)

    def of(errors):
        return transfer_claims(transfer_table(errors), transfer_gaps(errors))

    own, other = of(errors)
    assert own.sentence == "DAED transfers better than the DDGM: own"
    assert own.verdict == other.verdict == "holds for the control as well"
    table, gaps = transfer_table(errors), transfer_gaps(errors)
    assert sample_to_mean_claim(table).verdict == "holds"
    own, other = no_advantage_claims(table, gaps)
    assert own.sentence == "DAED and the DDGM's own mean are equally good: own"
    assert own.verdict == other.verdict == "holds"
    better = errors.copy()
    better.loc[better.kind == "DAED", "mae"] *= 0.5
    assert of(better)[0].verdict == "holds"
    better.loc[better.kind == "DAED", "mae"] *= 8
    assert of(better)[0].verdict == "does not hold"


def test_an_absence_needs_a_margin():
    "A difference that could be 8% either way is no equality, though it is not significant"
    row = dict(set="x", daed="DAED", ddgm="DDGM")
    row |= dict(against_sample=-0.03, against_sample_low=-0.04, against_sample_high=-0.02)
    row |= dict(mean_against_sample=-0.03, mean_against_sample_low=-0.04)
    row |= dict(mean_against_sample_high=-0.02, against_sample_n=40, mean_against_sample_n=40)
    transfer = pd.DataFrame([dict(model="DDGM", kind="DDGM", set="x", how="mean", mae=0.1)])

    def judged(low, high):
        ends = dict(against_mean=(low + high) / 2, against_mean_low=low, against_mean_high=high)
        gaps = pd.DataFrame([row | ends | dict(against_mean_n=40)])
        (claim,) = no_advantage_claims(transfer, gaps)
        return claim.verdict

    assert judged(-0.0077, 0.0018) == "undecided"
    assert judged(-0.004, 0.003) == "holds"
    assert judged(0.007, 0.012) == "does not hold"
