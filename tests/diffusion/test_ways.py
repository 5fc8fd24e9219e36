"Errors on one scale, levels and times, models and images that fit"

import math

import numpy as np
import pytest
import torch
from helpers import close, gauss, images, normal, sweep, trained
from helpers_ddgm import SCHEDULES

from denoise_study.daed import DAED
from denoise_study.diffusion import GaussianNet, image_errors, kind_of, show_rows, summarise


def test_errors_are_on_the_scale_of_the_paper():
    "Constant -1 against +1 is 2, however stored"
    one = torch.ones(2, 1, 8, 8)
    for back, x, r in ((-one, one, (-1.0, 1.0)), (0 * one, one, (0.0, 1.0))):
        close(image_errors(back, x, r)[:, 0], [2.0, 2.0])


def test_noisy_knows_nothing_of_the_data():
    "x_t/sqrt(abar) has MAE .2660 at .1 for any data, unclipped"
    for x in (images(40, 32), images(40, 32).sign()):
        table = summarise(sweep(gauss(range=(-1.0, 1.0), n=32), x, level=0.1, hows=("noisy",)))
        want = np.sqrt(2 / math.pi * table.level / (1 - table.level))
        close(table.mae.to_numpy(), want.to_numpy(), rtol=0.005)
        close(table.mae.to_numpy(), [0.2660], rtol=0.01)


def test_an_image_is_without_error_to_itself():
    x = images(3, 28)
    close(image_errors(x, x), torch.tensor([[0.0, 0.0, 1.0]]).expand(3, 3), atol=1e-6)
    assert np.isfinite(image_errors(-x, x)).all()


@pytest.mark.parametrize(
    "name,tenth", [("Ho 1000", 0.103), ("repo 1000", 0.177), ("cosine 1000", 0.028)]
)
def test_a_tenth_of_the_steps_is_no_noise_level(name, tenth):
    s = SCHEDULES[name]
    level = sweep(gauss(s, n=8), normal(3, 8), [s.T // 10], ("noisy",)).level.unique()
    close(level, [tenth], atol=6e-4)


@pytest.mark.parametrize("name,n", [("repo 500", 33), ("Ho 1000", 98), ("cosine 4000", 794)])
def test_levels_are_looked_up_in_each_schedule(name, n):
    "Times are counts, not indices"
    s = SCHEDULES[name]
    model = gauss(s, n=8)
    models = {"own": model, "DAED": DAED.from_ddgm(model, n, GaussianNet(s, 0.25))}
    errors = sweep(models, normal(3, 8), level=0.1, hows=("mean",))
    assert errors.t.unique().tolist() == [n, 1] and errors.step.unique().tolist() == [n]
    close(errors.level.unique(), [0.1], atol=2e-3)


def test_kind_of_model():
    model = trained()
    daed = DAED.from_ddgm(model, 4, trained().net)
    assert [kind_of(m) for m in (model, daed)] == ["DDGM", "DAED"]


def test_rows_need_images_of_one_shape():
    with pytest.raises(ValueError, match="rows: images of one shape"):
        show_rows({"a": images(4), "b": images(3, 8, 3)})
