"Verdicts on the paper's claims: each from numbers whose answer is known, and the same from a file"

import json
from pathlib import Path

import pandas as pd
import pytest

from denoise_study.core import Claim, Interval, Verdict
from denoise_study.core.files import _plain
from denoise_study.representation import blind_claims, BLOCKS, CLAIMED, least_ratio
from denoise_study.representation import over_trainings, recorded_claims

RESULTS = Path(__file__).parents[2] / "docs" / "results"
HOLDS, SHARED, FAILS, UNDECIDED = Verdict.HOLDS, Verdict.SHARED, Verdict.FAILS, Verdict.UNDECIDED
NOT_LEARNED, NOT_MEASURED = Verdict.NOT_LEARNED, Verdict.NOT_MEASURED

BEST_LINEAR = "It beats the best linear denoiser"
SPARSER = "The middle block makes vectors sparser"
ACTIVE = "In phi, 20-30% of the channels are active"
TURNS = "phi turns less between noise .5 and any other level than to another image"
STABLE = "The middle is the most stable block, at every level"
COLLAPSE = "phi collapses as the noise goes to 0"
DRIFT = "Less selective channels have less drift with noise"
MAPS = "Less selective channels have less sparse maps"
TWO = "Centroids of clusters are 2 deviations apart"
APART = "Clusters are further apart than those of a Gaussian"
NEAR, KIND = "Samples around an image are near it in phi", "They are of its class"
VARIOUS, COPIES = "They differ from each other", "They are no copies (pixel correlation below .5)"
NOISE = "Matching leaves the noise level alone, to 7%"
BOUNDS = "Their ratio has bounds closer than by chance (B/A)"
FOLLOW = "Distances of phi follow those of densities"


def interval(v, w=0.01, n=100):
    return dict(value=v, low=v - w, high=v + w, n=n)


def named(v, name, w=0.01):
    return {f"{name}_{k}": x for k, x in interval(v, w).items() if k != "n"}


def sparsity(mid, fresh):
    "Blocks as the paper says, but for the middle of both"
    trained = {
        "mid.in": mid[0],
        "mid": mid[1],
        "enc2.in": 0.2,
        "enc2": 0.4,
        "enc3.in": 0.4,
        "enc3": 0.6,
        "dec3.in": 0.6,
        "dec3": 0.4,
        "dec2.in": 0.4,
        "dec2": 0.2,
    }
    untrained = {f"{b}{side}": 0.4 for b in BLOCKS for side in (".in", "")}
    untrained |= {"mid.in": fresh[0], "mid": fresh[1]}
    nets = dict(trained=trained, untrained=untrained)
    return [dict(network=k, tap=t, **interval(v)) for k, at in nets.items() for t, v in at.items()]


def stability(instability, others, fresh, norm):
    def row(network, tap, sigma):
        v = fresh if network == "untrained" else instability if tap == "mid" else others
        length = norm if network == "trained" else 0.99
        return dict(
            network=network,
            tap=tap,
            sigma=sigma,
            n=100,
            instability=v,
            instability_low=v - 0.01,
            instability_high=v + 0.01,
            norm=length,
            norm_low=length - 0.01,
            norm_high=length + 0.01,
        )

    networks = "trained", "untrained"
    return pd.DataFrame([row(k, t, s) for k in networks for t in BLOCKS for s in (0.02, 0.2)])


def compare(clusters, gain):
    "`gain`: of label agreement over both controls, on the same images"
    pairs = {
        "selectivity (median PR of channels)": (0.4, 0.9, None),
        "purity of top images": (0.8, 0.5, 0.3),
        "5-NN label agreement": (0.7, 0.5, 0.6),
        "D/S of clusters (median)": (clusters, 5.0, 5.0),
    }
    rows = []
    for quantity, (trained, untrained, control) in pairs.items():
        row = dict(quantity=quantity, **named(trained, "trained"), **named(untrained, "untrained"))
        if quantity == "5-NN label agreement":
            for arm in ("untrained", "control"):
                row |= named(gain, f"minus_{arm}")
        rows.append(row | (named(control, "control") if control else {}))
    return rows


def results(
    mid=(0.5, 0.25),
    fresh=(0.35, 0.4),
    seeds=(0.38, 0.4, 0.42),
    psnr=(3.0, 3.0, 3.0),
    instability=0.2,
    others=0.5,
    fresh_turn=1.4,
    norm=0.04,
    rank=0.8,
    fresh_rank=0.1,
    clusters=9.0,
    phi=(0.1, 0.5),
    hit=0.9,
    std=0.1,
    correlation=0.3,
    ratio=1.0,
    n=20,
    low=0.5,
    ba=5.0,
    converged=0.95,
    random=1.4,
    agreement=0.02,
    turns=None,
    rank_gain=0.3,
    arrived=0.95,
    again=0.02,
    floor=0.01,
    gain=None,
):
    "Numbers of a network for which all claims hold, the Gaussian's clusters apart"
    levels = 0.1, 0.25, 0.5
    curves = {"blind U-Net": [20 + o for o in psnr], "best linear": [20.0] * 3}
    arms = {
        "phi distance": phi,
        "class hit": (hit, 0.1),
        "pixel std": (std, 0.2),
        "pixel correlation": (correlation, 0.0),
    }
    sides, ranks = ("guided", "unconditional"), dict(trained=rank, untrained=fresh_rank)
    return dict(
        psnr=pd.DataFrame(
            [
                dict(denoiser=d, sigma=s, psnr=v, low=v - 0.1, high=v + 0.1, n=100) | (gain or {})
                for d, vs in curves.items()
                for s, v in zip(levels, vs)
            ]
        ),
        sparsity=sparsity(mid, fresh),
        untrained_seeds=list(seeds),
        compare=compare(clusters, agreement),
        turns=turns or [],
        stability=stability(instability, others, fresh_turn, norm),
        channels=64,
        converged=converged,
        there=0.1,
        predicts=pd.DataFrame(
            [
                dict(
                    network=k,
                    property=p,
                    claimed=s,
                    rank=s * r,
                    low=s * r - 0.05,
                    high=s * r + 0.05,
                    n=64,
                )
                for k, r in ranks.items()
                for p, s in CLAIMED.items()
            ]
        ),
        around=pd.DataFrame(
            [
                dict(measure=m, arm=a, **interval(v))
                for m, two in arms.items()
                for a, v in zip(sides, two)
            ]
            + [
                dict(measure="phi distance", arm=a, **interval(v))
                for a, v in {"other targets": 0.5, "same image, new noise": again}.items()
            ]
        ),
        separation=pd.DataFrame(
            [
                dict(groups=g, ratio=r)
                for g, rs in dict(
                    clusters=(4.0, 6.0), Gaussian=(3.0, 5.0), classes=(1.0, 2.0)
                ).items()
                for r in rs
            ]
        ),
        noise_level=pd.DataFrame(
            [
                dict(
                    sigma=s,
                    ratio=ratio,
                    low=ratio - 0.02,
                    high=ratio + 0.02,
                    random=random,
                    random_low=random - 0.02,
                    random_high=random + 0.02,
                    n=n,
                    N=20,
                )
                for s in (1.0, 0.5, 0.2, 0.05)
            ]
        ),
        distances=pd.DataFrame(
            dict(d2=[1.0, *[(1 + ba) / 2] * 28, ba], dphi2=1.0, dphi2_floor=floor, arrived=arrived)
        ),
        distances_untrained=pd.DataFrame(
            dict(d2=[1.0, *[15.0] * 28, 29.0], dphi2=1.0, dphi2_floor=0.0)
        ),
        ratio_untrained=dict(
            rank=0.5,
            low=0.2,
            high=0.7,
            p=0.01,
            n=30,
            excluded=0,
            ratio=29.0,
            shuffled=(20.0, 40.0, 90.0),
        ),
        ratio_gain=dict(
            rank=dict(interval(rank_gain, 0.1), unit="pairs"),
            bounds=dict(interval(-rank_gain, 0.1), unit="pairs"),
        ),
        ratio=dict(
            rank=0.8,
            low=low,
            high=0.9,
            p=0.001,
            n=30,
            excluded=1,
            ratio=ba,
            shuffled=(20.0, 40.0, 90.0),
        ),
    )


def verdicts(**kw):
    return {c.sentence: c.verdict for c in blind_claims(results(**kw))}


def test_all_hold_and_a_file_says_the_same():
    claims = blind_claims(results())
    found = {c.sentence: c.verdict for c in claims}
    assert len(claims) == 25 and found.pop(TWO) == SHARED and set(found.values()) == {HOLDS}
    assert all(c.texts()["measured"] for c in claims)
    assert recorded_claims(results())[3].to_dict() == claims[3].to_dict()
    again = blind_claims(json.loads(json.dumps(_plain(results()))))
    assert [c.to_dict() for c in again] == [c.to_dict() for c in claims]


NEIGHBOURS = "Neighbours share a class, more than before training"
PAIRED = [
    dict(sigma=s, against=name, value=-0.01, low=-0.02, high=-0.005, n=100)
    for s in (0.02, 0.2)
    for name in ("untrained", *BLOCKS)
]


GAIN = dict(gain=0.1, gain_low=0.05, gain_high=0.15)  # dB over the best linear one, in pairs


@pytest.mark.parametrize(
    "claim, kw, verdict",
    [
        (BEST_LINEAR, dict(psnr=(3.0, 0.1, 3.0)), UNDECIDED),
        (BEST_LINEAR, dict(psnr=(3.0, 0.1, -3.0)), FAILS),
        (BEST_LINEAR, dict(psnr=(3.0, 0.1, 3.0), gain=GAIN), HOLDS),  # the same images
        (SPARSER, dict(mid=(0.25, 0.5)), FAILS),
        (SPARSER, dict(fresh=(0.5, 0.25)), SHARED),  # the untrained one does the same
        (ACTIVE, dict(mid=(0.5, 0.15)), FAILS),
        (ACTIVE, dict(seeds=(0.24, 0.25, 0.26)), SHARED),
        (TURNS, dict(instability=1.2, others=2.0), FAILS),
        (TURNS, dict(instability=1.0), UNDECIDED),
        (TURNS, dict(fresh_turn=0.2), SHARED),
        (STABLE, dict(others=0.1), FAILS),
        (STABLE, dict(others=0.21), UNDECIDED),
        (STABLE, dict(others=0.21, turns=PAIRED), HOLDS),  # the same images on both sides
        (TURNS, dict(fresh_turn=0.205), SHARED),
        (TURNS, dict(fresh_turn=0.205, turns=PAIRED), HOLDS),
        (COLLAPSE, dict(norm=0.8), FAILS),
        (DRIFT, dict(fresh_rank=0.8), SHARED),
        (MAPS, dict(rank=0.02), UNDECIDED),
        (MAPS, dict(rank=-0.5), FAILS),
        (APART, dict(clusters=5.0), UNDECIDED),
        (APART, dict(clusters=3.0), FAILS),
        (NEAR, dict(phi=(0.6, 0.5)), FAILS),
        (NEAR, dict(phi=(0.005, 0.5)), HOLDS),  # its interval ends below 0: a distance does not
        (NEAR, dict(phi=(0.0, 0.0)), NOT_MEASURED),  # a network that says nothing
        (NEAR, dict(phi=(0.495, 0.5)), UNDECIDED),
        (KIND, dict(hit=0.1), UNDECIDED),
        (NEIGHBOURS, dict(agreement=-0.02), FAILS),  # a measured opposite
        (NEIGHBOURS, dict(agreement=0.005), UNDECIDED),
        (NOISE, dict(random=1.01), SHARED),  # any move as long would do
        (FOLLOW, dict(rank_gain=0.05), SHARED),  # as close before training
        (BOUNDS, dict(rank_gain=0.05), UNDECIDED),
        (FOLLOW, dict(arrived=0.8), NOT_LEARNED),
        (BOUNDS, dict(arrived=0.8), NOT_LEARNED),
        (VARIOUS, dict(std=0.005), FAILS),
        (COPIES, dict(correlation=0.9), FAILS),
        (NOISE, dict(ratio=1.2), FAILS),
        (NOISE, dict(ratio=1.06), UNDECIDED),
        (NOISE, dict(n=17), NOT_LEARNED),  # fewer than nine of ten arrived
        (FOLLOW, dict(low=-0.1), UNDECIDED),
        (BOUNDS, dict(ba=25.0), UNDECIDED),
    ],
)
def test_verdicts(claim, kw, verdict):
    assert verdicts(**kw)[claim] == verdict


@pytest.mark.parametrize("converged", [0.0, 0.89, None])
def test_guidance_that_did_not_arrive_decides_nothing(converged):
    found = verdicts(converged=converged)
    assert {found[k] for k in (NEAR, KIND, VARIOUS, COPIES)} == {NOT_LEARNED}
    assert found[FOLLOW] == HOLDS


@pytest.mark.parametrize(
    "kw, lost",
    [
        # means over 20 draws are sqrt(20) nearer to each other than two draws are
        (dict(again=0.11), set()),
        (dict(again=0.12), {NEAR, KIND, VARIOUS, COPIES, NOISE}),
        (dict(floor=0.049), set()),
        (dict(floor=0.051), {FOLLOW, BOUNDS}),
    ],
)
def test_an_arrival_where_all_targets_are_alike_decides_nothing(kw, lost):
    found = verdicts(**kw)
    assert {k for k, v in found.items() if v == NOT_LEARNED} == lost


def test_a_denoiser_that_learned_nothing_decides_nothing_about_its_phi():
    found = verdicts(psnr=(3.0, 3.0, -3.0))
    assert found.pop(BEST_LINEAR) == FAILS and set(found.values()) == {NOT_LEARNED}
    claims = blind_claims(results() | dict(checkpoint=dict(steps=3200)))
    assert {c.learned[0].steps for c in claims[1:]} == {3200}


def test_without_labels_and_with_missing_numbers():
    r = json.loads(json.dumps(_plain(results())))
    del r["separation"]
    r["around"] = [o for o in r["around"] if o["measure"] != "class hit"]
    r["compare"] = [o for o in r["compare"] if o["quantity"] != "5-NN label agreement"]
    nothing = dict(rank=None, low=None, high=None)  # nothing to rank
    r["predicts"] = [o | nothing if o["property"] == "kurtosis" else o for o in r["predicts"]]
    unmoved = dict(n=0, ratio=None, low=None, high=None)
    r["noise_level"] = [o | unmoved for o in r["noise_level"]]
    v = {c.sentence: c.verdict for c in blind_claims(r)}
    assert "Less selective channels have lighter tails" not in v
    missing = {k for k, found in v.items() if found == NOT_MEASURED}
    assert missing == {
        KIND,
        TWO,
        NOISE,
        "Neighbours share a class, more than before training",
        "Neighbours share a class, more than in centred pixels",
    }


def test_a_study_that_was_only_read_says_what_it_did_not_measure():
    r = results()
    guided = "around", "there", "noise_level", "distances", "ratio", "ratio_untrained", "ratio_gain"
    claims = {c.sentence: c.verdict for c in blind_claims({k: r[k] for k in r if k not in guided})}
    missing = {k for k, v in claims.items() if v == NOT_MEASURED}
    assert missing == {NEAR, KIND, VARIOUS, COPIES, NOISE, FOLLOW, BOUNDS}
    assert claims[SPARSER] == HOLDS


def test_a_length_without_interval_decides_nothing():
    r = results(norm=0.8)
    r["stability"] = r["stability"].drop(columns=["norm_low", "norm_high"])
    claim = next(c for c in blind_claims(r) if c.sentence == COLLAPSE)
    assert claim.verdict == NOT_MEASURED and "0.80" in claim.note


def test_least_ratio_of_all_pairs():
    rows = [dict(ratio=v) for v in (3.0, 2.5, 4.0, 6.0)]
    i = least_ratio(rows)
    assert i.value == i.low == 2.5 and i.high > 2.5 and i.n == 4 and least_ratio([]) is None


def test_intervals_over_trainings():
    """Three networks that agree are sure, three that do not are none; a control that is as good in
    each of them is shared, however far the three are apart"""
    near = [blind_claims(results(rank=r, fresh_rank=0.1)) for r in (0.79, 0.8, 0.81)]
    found = {c.sentence: c for c in over_trainings(near)}
    ours = found[DRIFT].findings[0]
    assert found[DRIFT].verdict == HOLDS and ours.measured.over == "3 trainings"
    assert (
        ours.measured.value == pytest.approx(-0.8) and ours.measured.high - ours.measured.low < 0.1
    )
    assert ours.paired.value == pytest.approx(-0.7)
    assert len(found[DRIFT].learned) == 3
    assert ours.control == near[0][list(found).index(DRIFT)].findings[0].control  # one for all
    apart = [blind_claims(results(rank=r)) for r in (0.1, 0.8, -0.7)]
    assert {c.sentence: c.verdict for c in over_trainings(apart)}[DRIFT] == UNDECIDED
    shared = [blind_claims(results(rank=r, fresh_rank=r)) for r in (0.6, 0.7, 0.8)]
    assert {c.sentence: c.verdict for c in over_trainings(shared)}[DRIFT] == SHARED
    one_bad = [blind_claims(results(converged=c)) for c in (0.95, 0.95, 0.5)]
    assert {c.sentence: c.verdict for c in over_trainings(one_bad)}[NEAR] == NOT_LEARNED
    lengths = [blind_claims(results(phi=(0.2 * s, 0.5 * s))) for s in (1, 2, 4)]  # of phi
    alike = {c.sentence: c for c in over_trainings(lengths)}[NEAR]
    assert alike.verdict == HOLDS and alike.findings[0].measured.value == pytest.approx(0.4)
    assert over_trainings(near[:1]) is near[0]
    record = results() | dict(trainings=[results(), results()])
    assert {c.verdict for c in recorded_claims(record)} == {HOLDS}  # three times the same


def recorded(name):
    return json.loads((RESULTS / f"blind_{name}.json").read_text())


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10"])
def test_claims_of_the_recorded_studies(name):
    record = recorded(name)
    claims = recorded_claims(record)
    found = {c.sentence: c.verdict for c in claims}
    assert len(found) == 25 and all(c.place for c in claims)
    assert json.loads(json.dumps([c.to_dict() for c in claims])) == record["claims"]
    guided = {found[k] for k in (NEAR, KIND, VARIOUS, COPIES)} - {NOT_MEASURED}
    if record.get("converged", 0) < 0.9:
        assert guided <= {NOT_LEARNED}
    assert [Claim.from_dict(c.to_dict()).verdict for c in claims] == [c.verdict for c in claims]
    numbers = [f.measured for c in claims for f in c.findings if f.measured is not None]
    assert all(isinstance(i, Interval) and i.n > 1 for i in numbers)
