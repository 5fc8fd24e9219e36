"""Claims about the transition: schedules, reconstruction, and the place where the errors part"""

import pytest
from helpers import constructed, gauss, HO, normal, sweep, WIDE
from helpers_daed import places

from denoise_study.daed import LEASTS, reconstruction_claim, schedule_claims, switch_claim
from denoise_study.daed import transition_point
from denoise_study.diffusion import Schedule, snr_crossing, summarise


def judged(power):
    "Verdicts on two schedules, for images of this mean square"
    scheds = dict(linear=HO, cosine=Schedule.cosine(1000))
    found = {k: dict(snr_crossing(s, power)) for k, s in scheds.items()}
    return {c.sentence: c.verdict for c in schedule_claims(found)}


def test_claims_about_schedules():
    v = judged(0.682)  # FashionMNIST
    assert v["log-SNR falls below 0 after about 20% of the steps, linear"] == "holds"
    assert v["log-SNR falls below 0 after 25-50% of the steps, cosine"] == "holds"
    assert v["The biggest changes are in the first 10%, linear"] == "holds"
    assert v["The biggest changes are in the first 10%, cosine"] == "does not hold"
    v = judged(0.256)  # CIFAR-10: .147
    assert v["log-SNR falls below 0 after about 20% of the steps, linear"] == "does not hold"


@pytest.mark.parametrize(
    "shares,width,verdict",
    [
        ((0.08, 0.1, 0.12), 0.01, "holds"),
        ((0.03, 0.08, 0.17), 0.01, "does not hold"),  # it grows: there is no one place
        ((0.08, 0.1, None), 0.01, "does not hold"),
        ((0.08, 0.1, 0.12), 0.05, "undecided"),
    ],
)
def test_claim_about_the_switch(shares, width, verdict):
    assert switch_claim(places(shares, width)).verdict == verdict


def test_the_switch_is_judged_by_its_size_and_says_where_it_is_significant():
    points = [dict(transition_point(constructed(8), "a", "b", least=v)) for v in LEASTS]
    claim = switch_claim(points)
    assert [f.name[:3] for f in claim.findings] == ["5% ", "10%", "20%"]
    assert "with 90 images the excess is significant from 0.08 of the steps" in claim.note
    lost = places((None, 0.1, 0.12), share_high=None)
    claim = switch_claim(lost)
    assert "5% not reached" in claim.note and claim.findings[1].measured.high == 1.0


def test_error_passes_early_for_gaussian_noise_images():
    model, x = gauss(Schedule.linear(100), n=8), normal(8, 8)
    errors = sweep(model, x, range(1, 30, 4), ("ancestral", "mean"), scale=WIDE)
    assert reconstruction_claim(summarise(errors)).verdict == "does not hold"
