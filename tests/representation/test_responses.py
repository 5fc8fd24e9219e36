"Gratings, tuning, drift and rank correlations against closed forms and scipy"

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from helpers import blind_denoiser, gen, pictures, randn
from helpers_probes import read
from denoise_study.denoiser import denoiser, Denoiser
from denoise_study.representation import channel_statistics, grating_response, gratings
from denoise_study.representation.responses import CLAIMED
from denoise_study.representation import participation, plot_channels, selectivity_predicts

torch.set_num_threads(1)
D = blind_denoiser()
X = pictures()


class Tuned(Denoiser):
    "Channels that answer to a single grating in any phase, to all of them, and to none"

    def __init__(self):
        super().__init__(nn.Conv2d(1, 1, 1), (1, 16, 16), taps=("mid",))
        wave = gratings((1, 16, 16), (2,), 8, 4)[0, 3]
        self.pair = (wave[:2] - 0.5) / (wave[:2] - 0.5).flatten(1).norm(dim=1)[
            :, None, None, None
        ]  # a quarter of a cycle apart

    def _denoise(self, x, sigma):
        return x

    def _places(self, x, sigma, taps, reduce):
        energy = torch.einsum("nchw,pchw->np", x - 0.5, self.pair).square().sum(1)
        return {
            "mid": reduce(
                torch.stack([energy, torch.ones_like(energy), 0 * energy], 1)[:, :, None, None]
            )
        }


def test_gratings_have_their_frequency_and_direction():
    x = gratings((3, 16, 16), (1, 3), 4, 2, contrast=0.25)
    assert (
        x.shape == (2, 4, 2, 3, 16, 16)
        and 0.249 < (x - 0.5).abs().amax() <= 0.25
        and torch.equal(x[:, :, :, 0], x[:, :, :, 2])
    )
    assert torch.allclose(x[1, 0, 0, 0, 0], x[1, 0, 0, 0, 9])  # direction 0 varies along a row only
    for f, (i, freq) in [(f, o) for f in (0, 2) for o in enumerate((1, 3))]:
        power = torch.fft.fft2(x[i, f, 0, 0] - 0.5).abs()
        at = power.argmax().item()
        assert (at // 16, at % 16)[f == 0] in (freq, 16 - freq) and power.flatten().topk(3).values[
            2
        ] < 1e-3  # a pair of peaks, nothing else
    assert torch.allclose(x[:, :, 0] + x[:, :, 1], torch.ones(()), atol=1e-5)  # half a cycle apart


def test_a_channel_with_a_known_tuning():
    d = Tuned()
    answers = grating_response(d, 1e-4, draws=1)
    assert answers.shape == (3, 8, 3)
    at = answers[..., 0].argmax().item()
    assert (at // 8, at % 8) == (1, 3)
    pr = participation(answers.flatten(0, 1), 0)
    assert pr[1] == pytest.approx(1) and pr[0] < 0.1 and pr[2].isnan()
    noisy = participation(grating_response(d, 0.5, draws=4).flatten(0, 1), 0)
    assert noisy[0] < 0.2  # noise lifts the floor, not the peak


class Levels(Denoiser):
    "A channel that stays, one that moves with the noise, a dead one; selective by brightness"

    def __init__(self):
        super().__init__(nn.Conv2d(1, 1, 1), (1, 16, 16), taps=("mid",))

    def _denoise(self, x, sigma):
        return x

    def _places(self, x, sigma, taps, reduce):
        one = torch.ones_like(x)
        return {"mid": reduce(torch.cat([one, one * sigma.view(-1, 1, 1, 1), 0 * one], 1))}


def test_drift_and_its_floor():
    t = channel_statistics(Levels(), X, 0.5, 0.1, progress=False)
    assert (
        t.drift[0] == 0
        and t.drift[1] == pytest.approx(0.8)
        and np.isnan(t.drift[2])
        and t.redraw[1] == 0
    )
    t = channel_statistics(D, X, tap="enc2", draws=2, progress=False)
    own = [
        read(D, X, sigma=s, draws=2, seed=k, taps=("enc2",)).taps["enc2"].double()
        for s, k in ((0.5, 1), (0.1, 3), (0.5, 2))
    ]
    live = own[0].any(0)
    for name, other in ("drift", own[1]), ("redraw", own[2]):
        np.testing.assert_allclose(
            t[name][live.numpy()],
            ((own[0] - other).norm(dim=0) / own[0].norm(dim=0))[live],
            rtol=1e-6,
        )
    assert {"pr", "kurtosis", "spatial_pr", "pca_pr", "tuning"} <= set(t.columns) and len(t) == 10
    assert len(plot_channels(t, t)) == 5


def test_what_selectivity_predicts_against_scipy():
    pr = torch.rand(40, generator=gen()).numpy()
    t = pd.DataFrame(
        dict(
            pr=pr,
            kurtosis=-pr,
            spatial_pr=pr + randn(40).numpy(),
            pca_pr=1.0,
            tuning=pr,
            drift=np.nan,
        )
    )
    t.loc[3, "tuning"] = np.nan
    r = selectivity_predicts(t).set_index("property")
    assert (
        r["rank"]["kurtosis"] == pytest.approx(-1)
        and r.n["tuning"] == 39
        and r["rank"]["tuning"] == pytest.approx(1)
        and list(r.claimed) == [-1, 1, 1, 1, -1]
    )
    spearman = stats.spearmanr(t.pr, t.spatial_pr).statistic
    assert (
        r["rank"]["spatial_pr"] == pytest.approx(spearman)
        and r.low["spatial_pr"] < r["rank"]["spatial_pr"] < r.high["spatial_pr"]
    )
    assert (
        np.isnan(r["rank"]["pca_pr"]) and np.isnan(r["rank"]["drift"]) and r.n["drift"] == 0
    )  # nothing to rank


def test_spearman_with_interval_equals_scipy():
    "Value and ends, resample by resample"
    a, b = randn(60).numpy(), (randn(60, seed=1) + randn(60)).numpy()
    table = pd.DataFrame(dict(pr=a, **dict.fromkeys(CLAIMED, b)))
    found = selectivity_predicts(table).iloc[0]
    rows = np.random.default_rng(0).integers(60, size=(300, 60))
    draws = [stats.spearmanr(a[i], b[i]).statistic for i in rows]
    expected = [stats.spearmanr(a, b).statistic, *np.quantile(draws, [0.025, 0.975])]
    assert found[["rank", "low", "high"]].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: gratings((1, 16, 16), (9,)), "^freqs: .* 8 cycles"),
        (lambda: gratings((1, 16, 16), ()), "^freqs"),
        (lambda: gratings((1, 16, 16), (0,)), "^freqs"),
        (lambda: gratings((1, 16, 16), contrast=0.6), "^contrast"),
        (lambda: gratings((1, 16, 16), angles=0), "^angles, phases"),
        (lambda: grating_response(denoiser(D.net)), "^shape: .*give"),
    ],
)
def test_bad_gratings(call, words):
    with pytest.raises(ValueError, match=words):
        call()
