"Intervals from data: the numbers that the library gave before, and how often they hold the truth"

import pandas as pd
import pytest
import torch
from scipy import stats

from denoise_study.core import bootstrap_interval, mean_interval, paired_interval, resamples
from denoise_study.core import t_interval, two_level_bootstrap, two_level_interval


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def ends(i):
    return i.value, i.low, i.high


# value, low, high of the mean of `normal(seed, 60)**2` as first released: reports must not move.
# (Equal to the last bit where they were made; other processors may add in another order.)
RELEASED = {
    0: (0.8281568294153737, 0.6040251032582339, 1.1029415307038568),
    1: (0.8338185563633028, 0.5713979145020904, 1.1336502953985474),
    7: (0.9080410239265516, 0.6565348786975566, 1.1915942807114221),
}


@pytest.mark.parametrize("seed, expected", RELEASED.items())
def test_mean_interval_is_what_it_was(seed, expected):
    assert ends(mean_interval(normal(seed, 60) ** 2, seed=seed)) == pytest.approx(
        expected, rel=1e-13
    )


@pytest.mark.filterwarnings("error")
def test_a_column_of_a_table_is_read_without_a_word():
    "pandas hands out arrays that can't be written to"
    table = pd.DataFrame(dict(a=[1.0, 2.0, 4.0]))
    assert t_interval(table.a.to_numpy(), unit="trainings") == t_interval(
        torch.tensor([1.0, 2.0, 4.0]), unit="trainings"
    )


def test_same_seed_same_interval():
    v = normal(0, 60)
    assert mean_interval(v, seed=3) == mean_interval(v, seed=3) != mean_interval(v, seed=4)


def held(make, truth, sets):
    return sum(make(d).contains(truth) for d in sets) / len(sets)


@pytest.mark.parametrize("level, least, most", [(0.95, 0.91, 0.98), (0.8, 0.73, 0.86)])
def test_mean_interval_covers(level, least, most):
    "400 sets of 60 normal values: three standard errors, and a little for 200 resamples"
    sets = [normal(s, 60) for s in range(400)]
    share = held(lambda d: mean_interval(d, level=level, n_boot=200), 0, sets)
    assert least < share < most


def test_t_interval_covers_where_the_bootstrap_does_not():
    "1000 sets of six: three standard errors of a share of .95 are .021"
    sets = normal(0, 1000, 6)
    assert abs(held(t_interval, 0, sets) - 0.95) < 0.021
    assert held(lambda d: mean_interval(d, n_boot=100), 0, sets[:300]) < 0.92


@pytest.mark.parametrize(
    "networks, images, rest", [(0.1, 0.1, 0.2), (0.02, 0.2, 0.2), (0.0, 0.4, 0.2), (0.0, 0.0, 0.3)]
)
def test_two_level_interval_covers(networks, images, rest):
    "400 tables of 5 networks and 60 images: .95 less three standard errors is .917"

    def table(s):
        tables = networks * normal(s, 5, 1) + images * normal(s + 1000, 1, 60)
        return tables + rest * normal(s + 2000, 5, 60)

    share = held(two_level_interval, 0, [table(s) for s in range(400)])
    assert share > 0.917
    true = (networks**2 / 5 + images**2 / 60 + rest**2 / 300) ** 0.5
    widths = [i.high - i.low for i in map(two_level_interval, map(table, range(100)))]
    assert sum(widths) / 100 < 2 * 3.3 * true  # Student's factor for four degrees of freedom is 2.8


def test_two_level_bootstrap_covers_with_five_networks():
    "120 tables, .95 less three standard errors is .89; cut at 2.5% on each side it holds .85"
    tables = [
        normal(s, 5, 1) + normal(s + 1000, 1, 60) + normal(s + 2000, 5, 60) for s in range(200)
    ]
    assert held(lambda d: two_level_bootstrap(d, n_boot=1000), 0, tables) > 0.91
    i = two_level_bootstrap(tables[0], n_boot=50)
    assert (i.n, i.unit, i.level) == (5, "seeds x 60 images", 0.95)


def test_two_level_bootstrap_of_many_is_an_ordinary_one():
    "Where rows don't differ and are many, its ends are those of a bootstrap over columns"
    table = normal(0, 1, 80).expand(300, 80)
    many = two_level_bootstrap(table, n_boot=4000)
    plain = mean_interval(table[0], n_boot=4000)
    assert many.low == pytest.approx(plain.low, abs=0.02)
    assert many.high == pytest.approx(plain.high, abs=0.02)


def test_one_level_alone_does_not_cover():
    "What the interval over two levels is for"
    tables = [0.1 * normal(s, 5, 1) + 0.2 * normal(s + 1000, 5, 60) for s in range(200)]
    assert held(lambda d: mean_interval(d.mean(0), "normal"), 0, tables) < 0.7


def test_two_level_interval_of_rows_that_differ_is_students():
    "Where columns add nothing, the degrees of freedom are those of the rows"
    rows = normal(0, 6)
    table = rows[:, None].expand(6, 40)
    assert ends(two_level_interval(table)) == pytest.approx(ends(t_interval(rows)))


def test_t_interval_against_scipy():
    d = normal(1, 8)
    low, high = stats.ttest_1samp(d.numpy(), 0).confidence_interval(0.9)
    assert ends(t_interval(d, 0.9)) == pytest.approx((float(d.mean()), low, high))


def test_normal_interval_known_answer():
    v = torch.arange(10.0)
    half = 1.959963984540054 * float(v.double().std()) / 10**0.5
    assert ends(mean_interval(v, "normal")) == pytest.approx((4.5, 4.5 - half, 4.5 + half))


def test_pairs_drop_what_both_share():
    hard = normal(0, 100)
    a, b = hard + 0.01 * normal(1, 100) + 0.02, hard + 0.01 * normal(2, 100)
    assert not mean_interval(a).above(mean_interval(b))
    assert paired_interval(a, b).above(0)
    assert paired_interval(a, b, seed=2, unit="pairs") == mean_interval(a - b, seed=2, unit="pairs")


def test_two_levels_pair_as_well():
    a, b = normal(0, 2, 4, 30)
    for f in (two_level_bootstrap, two_level_interval):
        assert f(a, b) == f(a - b)


def test_resamples_are_counts():
    draws = list(resamples(7, 50, seed=1))
    assert len(draws) == 50 and all(w.sum() == 7 and w.min() >= 0 for w in draws)
    assert torch.equal(torch.stack(draws), torch.stack(list(resamples(7, 50, seed=1))))
    assert not torch.equal(draws[0], next(resamples(7, 50, seed=2)))


def test_centred_interval_lies_around_the_estimate():
    draws = torch.linspace(3, 5, 101)  # all above the estimate
    plain = bootstrap_interval(2.0, draws, 10)
    centred = bootstrap_interval(2.0, draws, 10, centred=True)
    assert plain.low > 3
    assert ends(centred) == pytest.approx((2.0, 1.05, 2.95))


def test_centred_interval_mirrors_the_draws():
    "A long tail of the draws above is an uncertainty below"
    draws = torch.cat([torch.zeros(90), torch.linspace(0, 10, 10)])
    i = bootstrap_interval(2.0, draws, 10, centred=True)
    assert i.value - i.low > i.high - i.value


def test_bounds_are_kept():
    draws = torch.linspace(-1, 2, 101)
    assert ends(bootstrap_interval(0.5, draws, 10, lowest=0.0, highest=1.0)) == (0.5, 0.0, 1.0)
    assert bootstrap_interval(0.5, draws, 10, lowest=0.0).high > 1.0


@pytest.mark.parametrize(
    "wrong, words",
    [
        (
            lambda: mean_interval(torch.zeros(3, 2)),
            r"values: one number each of at least two images",
        ),
        (lambda: mean_interval(torch.zeros(1), unit="pairs"), "at least two pairs"),
        (lambda: mean_interval(torch.tensor([1.0, torch.nan])), "NaN"),
        (lambda: mean_interval(torch.rand(9), "jackknife"), "method: 'bootstrap' or 'normal'"),
        (lambda: mean_interval(torch.rand(9), n_boot=1), "n_boot: a whole number"),
        (lambda: mean_interval(torch.rand(9), level=95), "level: a coverage"),
        (lambda: mean_interval(torch.rand(9), "normal", level=1), "level: a coverage"),
        (lambda: t_interval([1.0]), "at least two seeds"),
        (lambda: t_interval([1.0, 2.0], level=0), "level: a coverage"),
        (lambda: paired_interval(torch.rand(3), torch.rand(4)), r"got \(3,\) and \(4,\)"),
        (lambda: two_level_bootstrap(torch.rand(2, 3), torch.rand(2, 4)), "one shape"),
        (lambda: two_level_interval(torch.rand(3)), "one shape"),
        (lambda: two_level_interval(torch.rand(1, 4)), "at least 2 rows"),
    ],
)
def test_bad_input(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()
