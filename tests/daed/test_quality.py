"Quality of samples: the oracle's smoothing, sets whose scores are known, the figure"

import math

import pytest
import torch
from helpers import close, gauss, HO, images, normal, trained
from helpers_daed import space

from denoise_study.daed import DAED, plot_splits, quality_table, roughness, split_sweep, Yardstick
from denoise_study.diffusion import GaussianNet


def test_split_sweep_of_the_oracle():
    """Smoothing of a perfect DAE: variance .17351 of .25 at n = 98, so a roughness of .8331; the
    chain above is untouched"""
    ddgm, x = gauss(n=16, var="small"), normal(64)
    daeds = {f"{n}": DAED.from_ddgm(ddgm, n, GaussianNet(HO, 0.25)) for n in (2, 98)}
    table = split_sweep(ddgm, daeds, x, space(), n=48, seeds=(0, 1), n_boot=5, progress=False)
    assert (
        table.model.tolist() == ["DDGM", "2", "98"] * 2
        and table.n_merged.tolist() == [1, 2, 98] * 2
    )
    assert (
        table.kind.tolist() == ["DDGM", "DAED", "DAED"] * 2
        and table["T"].tolist() == [1000, 999, 903] * 2
    )
    by = table.groupby("model").mean(numeric_only=True)
    # a standard error of .6%: 48 images of 256 pixels, twice, on both sides
    close(by.roughness["98"] / by.roughness["DDGM"], (0.17351 / 0.2461) ** 0.5, rtol=0.02)
    close(by.roughness["2"] / by.roughness["DDGM"], 1, rtol=0.02)
    close(by.level["98"], 0.09927, atol=1e-5)
    # 10% of the steps and a log-SNR of 4 are two places
    power = math.exp(float(x.square().mean((1, 2, 3)).log().mean()))
    close(table.tenth_log_snr.values, [float(HO.log_snr(power)[100])] * len(table), atol=1e-6)
    assert (
        HO.log_snr(power)[int(1000 * table.four_share[0])] - 4
    ).abs() < 0.2 and table.four_share[0] < 0.03
    assert (
        (table.feature_space == "4x4 means").all()
        and (table.n_fake == 48).all()
        and (table.n_real == 64).all()
    )


def test_quality_of_known_images():
    """Real against itself: distance 0, precision and recall 1, both kinds; half of the images:
    recall falls, precision stays"""
    x = images(60)
    table = quality_table(
        {"same": x, "model": trained(T=40)},
        x,
        space(),
        n=20,
        seeds=(0, 1),
        n_boot=5,
        progress=False,
    ).set_index("model")
    same = table.loc["same"]
    close(
        [
            same.frechet,
            same.precision,
            same.recall,
            same.prd_precision,
            same.prd_recall,
            same.roughness,
        ],
        [0, 1, 1, 1, 1, 1],
        atol=1e-6,
    )
    assert (
        same.kind == "images"
        and table.loc["model"].seed.tolist() == [0, 1]
        and table.loc["model"].n_fake.tolist() == [20, 20]
    )
    assert table.loc["model"].frechet.nunique() == 2 and (table.loc["model"].loss == "simple").all()


def test_samples_that_are_there_are_not_drawn_again():
    x, model = images(20), trained(T=40)
    drawn = dict(model=model.sample(8, seed=3))
    how = dict(n=8, seeds=(3, 4), n_boot=5, progress=False)
    found = [quality_table(dict(model=model), x, space(), samples=s, **how) for s in (None, drawn)]
    assert found[0].equals(found[1]) and found[0].kind.tolist() == ["DDGM"] * 2
    other = quality_table(dict(model=model), x, space(), samples=dict(model=x[:8]), **how)
    assert other.frechet[0] != found[0].frechet[0] and other.frechet[1] == found[0].frechet[1]


def test_figure_has_the_three_scores():
    ddgm = trained(T=40)
    daeds = {"s": DAED.from_ddgm(ddgm, 4, trained().net)}
    splits = split_sweep(ddgm, daeds, images(12), space(), n_boot=3, progress=False)
    assert [ax.get_ylabel() for ax in plot_splits(splits)] == [
        "Fréchet distance",
        "precision",
        "recall",
    ]


def test_rows_are_those_of_the_yardstick():
    x = images(20)
    row = quality_table({"x": x[:8]}, x, space(), n_boot=5, progress=False).iloc[0]
    scores = Yardstick(x, space(), n_boot=5, progress=False).scores(x[:8])
    assert all(row[k] == v for k, v in scores.items())
    close(roughness(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])), [0.5])


grey, color = trained(), images(3, 8, 3)
x = images(4)
CALLS = {
    "three samples": (lambda: quality_table({"m": grey}, x, space(), n=3), "n: at least 4"),
    "real images out of range": (lambda: quality_table({"m": grey}, x + 2, space(), n=4), "real: "),
}


@pytest.mark.parametrize("case", CALLS)
def test_bad_input(case):
    call, message = CALLS[case]
    with pytest.raises((ValueError, TypeError), match=f"(?s){message}"):
        call()
