"Selectivity, top images and special channels against scipy and known channels"

import numpy as np
import pytest
import torch
from scipy import stats

from helpers import blind_denoiser, gen, pictures, randn
from helpers_probes import read
from denoise_study.representation import plot_marginals, plot_rows, selectivity, top_channels

torch.set_num_threads(1)
D = blind_denoiser()
X = pictures()
A = read(D, X)


def test_selectivity_equals_scipy():
    x = randn(80, 5).exp()
    t = selectivity(x, k=3)
    np.testing.assert_allclose(t["kurtosis"], stats.kurtosis(x.double().numpy()), rtol=1e-9)
    np.testing.assert_allclose(t["skew"], stats.skew(x.double().numpy()), rtol=1e-9)
    np.testing.assert_allclose(
        t.pr, x.double().sum(0) ** 2 / (80 * x.double().square().sum(0)), rtol=1e-9
    )
    assert [list(o) for o in t.top] == x.topk(3, dim=0).indices.T.tolist() and list(
        t.index
    ) == list(range(5))


def test_purity_of_a_channel_that_knows_the_factor():
    y = torch.arange(200) % 4
    x = torch.cat(
        [
            (y == 2).float()[:, None] + 0.1 * torch.rand(200, 1, generator=gen()),
            torch.rand(200, 60, generator=gen(1)),
        ],
        1,
    )
    t = selectivity(x, k=10, factor=y)
    assert t.purity[0] == 1 and t.p[0] == pytest.approx(1 / 1001)
    rest = t.iloc[1:]
    assert (rest.p < 0.05).mean() < 0.15 and abs(
        rest.purity.mean() - rest.chance.mean()
    ) < 0.03  # chance finds chance


def test_dead_channels_are_counted_and_left_out():
    x = torch.rand(50, 4, generator=gen())
    x[:, 2] = 0
    t = selectivity(x)
    assert t.attrs == dict(n=50, dead=1) and np.isnan(t.pr[2]) and t.top[2] is None
    assert t.pr.quantile(0.1) == pytest.approx(np.quantile(t.pr[[0, 1, 3]], 0.1))
    p = selectivity(x, factor=torch.arange(50) % 2)
    assert np.isnan(p.purity[2]) and np.isnan(p.p[2])


def test_smallest_participation_is_one_over_n():
    for n in 10, 100:
        x = torch.zeros(n, 2)
        x[0, 0], x[:, 1] = 3.0, 0.2
        assert selectivity(x, k=1).pr.tolist() == pytest.approx([1 / n, 1])


def test_union_of_subspaces():
    "Two sets of images, a common channel and one for each set, as in Fig. 5"
    a, b = torch.arange(20), torch.arange(20, 40)
    x = 0.01 * torch.rand(60, 6, generator=gen())
    x[:, 0] += 1
    x[a, 3] += 1
    x[b, 5] += 1
    for own, other, c in (a, b, 3), (b, a, 5):
        t = top_channels(x, own, 1, against=other)
        assert t.index.tolist() == [c] and t.against.item() < 0.1 * t["mean"].item()
    assert (
        top_channels(x, 3, 2).index[0] == 3 and 0 not in top_channels(x, a, 6).index
    )  # the common channel is not special
    means = x[a, 0].mean(), x[b, 0].mean()
    assert means[0] == pytest.approx(means[1].item(), rel=0.05)
    assert len(top_channels(torch.zeros(4, 3), 0)) == 0


def test_rows_of_pictures_have_names():
    ax = plot_rows(X, {"one": [0, 1, 2], "two": torch.tensor([3, 4])})
    assert [o.get_text() for o in ax.texts] == ["one", "two"] and ax.images[0].get_array().shape[
        1
    ] > 3 * 16


CALLS = {
    "empty phi": (lambda: selectivity(torch.zeros(0, 4)), "^`phi`"),
    "top of more than there are": (lambda: selectivity(A.phi, k=13), "^k"),
    "factor too short": (lambda: selectivity(A.phi, factor=torch.zeros(5)), "^factor"),
}


@pytest.mark.parametrize("call, words", CALLS.values(), ids=CALLS)
def test_bad_input_is_refused_with_a_reason(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_channels_that_are_not_rectified_are_drawn_in_units_of_their_size():
    x = torch.tensor([[-1.0, 2.0, 0.0], [-3.0, 2.0, 0.0]])
    named = [ax.get_xlabel() for ax in plot_marginals(x, (0, 1))]
    assert named == ["answer / its mean size", "answer / its mean"]
    with pytest.raises(ValueError, match="channels: 2 is dead"):
        plot_marginals(x, (2,))
