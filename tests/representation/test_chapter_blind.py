"Verdicts on the paper's claims: each from numbers whose answer is known, and the same from a file"
import json

import pandas as pd
import pytest
import torch

from denoise_study.representation import blind_claims, BLOCKS, CLAIMED
from denoise_study.representation.chapter import _one_of_each
from denoise_study.representation.claims import _apart
from denoise_study.core.report import _plain


def interval(v, w=.01): return dict(value=v, low=v - w, high=v + w)
def named(v, name, w=.01): return {f"{name}_{k}": x for k, x in interval(v, w).items()}


def results(mid=(.5, .25), fresh=(.35, .4), seeds=(.35, .4, .45), psnr=(3., 3., 3.), instability=.2, others=.5, rank=.8, fresh_rank=.1, clusters=9.,
            hit=.9, std=.1, correlation=.3, ratio=1., n=20, p=.001, ba=5.):
    "Numbers of a network for which all claims hold"
    sparsity = [dict(network=net, tap=tap, **interval(v)) for net, middle in (("trained", mid), ("untrained", fresh))
                for tap, v in {"mid.in": middle[0], "mid": middle[1], "enc2.in": .2, "enc2": .4, "enc3.in": .4, "enc3": .6,
                               "dec3.in": .6, "dec3": .4, "dec2.in": .4, "dec2": .2}.items()]
    level = lambda net, tap, s: dict(network=net, tap=tap, sigma=s, norm=s/.5, instability=(v := instability if tap == "mid" else others),
                                     instability_low=v - .01, instability_high=v + .01)
    pairs = {"selectivity (median PR of channels)": (.4, .9, None), "purity of top images": (.8, .5, .3), "5-NN label agreement": (.7, .5, .6),
             "D/S of clusters (median)": (clusters, 5., 5.)}
    compare = [dict(quantity=q, **named(a, "trained"), **named(b, "untrained"), **(named(c, "control") if c else {})) for q, (a, b, c) in pairs.items()]
    predicts = [dict(network=net, property=k, claimed=s, rank=s*r, low=s*r - .05, high=s*r + .05) for net, r in (("trained", rank), ("untrained", fresh_rank))
                for k, s in CLAIMED.items()]
    arms = {"phi distance": (.1, .5), "class hit": (hit, .1), "pixel std": (std, .2), "pixel correlation": (correlation, 0.)}
    around = [dict(measure=m, arm=a, **interval(v)) for m, two in arms.items() for a, v in zip(("guided", "unconditional"), two)]
    return dict(
        psnr=pd.DataFrame([dict(denoiser=d, sigma=s, psnr=v, low=v - .1, high=v + .1) for d, vs in (("blind U-Net", [20 + o for o in psnr]), ("best linear", (20.,)*3))
                           for s, v in zip((.1, .25, .5), vs)]),
        sparsity=sparsity, untrained_seeds=list(seeds), compare=compare, predicts=pd.DataFrame(predicts), around=pd.DataFrame(around),
        stability=pd.DataFrame([level(net, tap, s) for net in ("trained", "untrained") for tap in BLOCKS for s in (.02, .2)]),
        separation=pd.DataFrame([dict(groups=g, ratio=r) for g, r in (("clusters", 4.), ("clusters", 6.), ("Gaussian", 3.), ("classes", 1.))]),
        noise_level=pd.DataFrame([dict(sigma=s, ratio=ratio, low=ratio - .02, high=ratio + .02, n=n, N=20) for s in (1., .5, .2, .05)]),
        ratio=dict(rank=.8, low=.5, high=.9, p=p, n=30, excluded=1, ratio=ba, shuffled=(20., 40., 90.)))


def verdicts(**kw): return blind_claims(results(**kw)).set_index("claim").verdict


def test_all_hold_and_a_file_says_the_same():
    table = blind_claims(results())
    assert set(table.verdict) == {"holds", "holds, for a Gaussian as well"} and len(table) == 25 and table.ours.str.len().min() > 2
    again = blind_claims(json.loads(json.dumps(_plain(results()))))
    pd.testing.assert_frame_equal(again, table)


@pytest.mark.parametrize("claim, kw, verdict", [
    ("It beats the best linear denoiser", dict(psnr=(3., .1, 3.)), "undecided"), ("It beats the best linear denoiser", dict(psnr=(3., .1, -3.)), "not at this scale"),
    ("The middle block makes vectors sparser", dict(mid=(.25, .5)), "not at this scale"),
    ("The middle block makes vectors sparser", dict(seeds=(.2, .4)), "holds, but not below the untrained network"),
    ("In phi, 20-30% of the channels are active", dict(mid=(.5, .15)), "not at this scale"),
    ("In phi, 20-30% of the channels are active", dict(seeds=(.22, .28)), "holds, untrained as well"),
    ("phi turns less from noise .5 to .2 than to another image", dict(instability=1.2, others=2.), "not at this scale"),
    ("phi turns less from noise .5 to .2 than to another image", dict(instability=1.), "undecided"),
    ("The middle is the most stable block", dict(others=.1), "not at this scale"), ("The middle is the most stable block", dict(others=.21), "undecided"),
    ("Less selective channels have less drift with noise", dict(fresh_rank=.8), "holds, untrained as well"),
    ("Less selective channels have less sparse maps", dict(rank=.02), "undecided"), ("Less selective channels have less sparse maps", dict(rank=-.5), "not at this scale"),
    ("Clusters are further apart than those of a Gaussian", dict(clusters=5.), "undecided"),
    ("Clusters are further apart than those of a Gaussian", dict(clusters=3.), "not at this scale"),
    ("They are of its class", dict(hit=.1), "undecided"), ("They differ from each other", dict(std=.02), "not at this scale"),
    ("They are no copies (pixel correlation below .5)", dict(correlation=.9), "not at this scale"),
    ("Matching leaves the noise level alone, to 7%", dict(ratio=1.2), "not at this scale"), ("Matching leaves the noise level alone, to 7%", dict(ratio=1.06), "undecided"),
    ("Matching leaves the noise level alone, to 7%", dict(n=3), "undecided"), # too few converged: the check would pass vacuously
    ("Distances of phi follow those of densities", dict(p=.2), "undecided"), ("Their ratio has bounds closer than by chance (B/A)", dict(ba=25.), "not at this scale")])
def test_verdicts(claim, kw, verdict): assert verdicts(**kw)[claim] == verdict


def test_without_labels_and_with_missing_numbers():
    r = json.loads(json.dumps(_plain(results())))
    del r["separation"]
    r["around"] = [o for o in r["around"] if o["measure"] != "class hit"]
    r["compare"] = [o for o in r["compare"] if o["quantity"] != "5-NN label agreement"]
    r["predicts"] = [dict(o, rank=None, low=None, high=None) if o["property"] == "kurtosis" else o for o in r["predicts"]] # nothing to rank
    r["noise_level"] = [dict(o, n=0, ratio=None, low=None, high=None) for o in r["noise_level"]]
    v = blind_claims(r).set_index("claim").verdict
    assert (v == "not measured").sum() == 4 and "Less selective channels have lighter tails" not in v
    assert v["Matching leaves the noise level alone, to 7%"] == "undecided"


def test_intervals_are_above_below_or_neither():
    assert [_apart(interval(a), interval(0.)) for a in (1., -1., .01)] == [True, False, None]


def test_targets_are_of_each_class_in_turn():
    y = torch.tensor([3, 3, 0, 1, 0, 3, 1])
    assert _one_of_each(y, 5).tolist() == [2, 3, 0, 4, 6] and _one_of_each(torch.full((4,), -1), 3).tolist() == [0, 1, 2]
