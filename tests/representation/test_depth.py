"How many channels are active: closed forms, channels that are silent, one noise for each level"

import pytest
import torch

from helpers import blind_denoiser, pictures
from helpers_probes import Reader
from denoise_study.representation import active_channels, channel_averages, participation
from denoise_study.representation import plot_active

torch.set_num_threads(1)
D = blind_denoiser()
X = pictures()


def counted(read, **kw):
    return active_channels(Reader(read), X, sigmas=(0.5,), progress=False, **kw).iloc[0]


@pytest.mark.parametrize("k", [1, 3, 8])
def test_channels_that_answer_alike_are_counted(k):
    "k channels with one answer, beside others that are silent: k are active"
    answer = lambda x: x.mean((1, 2, 3)).abs()[:, None, None, None] + 0.1
    quiet = lambda x: torch.zeros(len(x), 8 - k, 1, 1)
    row = counted(lambda x: torch.cat([answer(x).expand(-1, k, 1, 1), quiet(x)], 1), draws=2)
    assert row.channels == 8 and row.active == pytest.approx(k, rel=1e-6)
    assert row.n == len(X) and row.dead == 0


def test_images_without_an_answer_are_counted_and_left_out():
    "Half of the images excite one channel, the others none"
    bright = X.mean((1, 2, 3)).median()
    read = lambda x: torch.relu(x.mean((1, 2, 3), keepdim=True) - bright)
    row = counted(read, draws=200)
    silent = counted(lambda x: torch.zeros(len(x), 4, 1, 1), draws=2)
    assert row.n + row.dead == len(X) and row.active == pytest.approx(1)
    assert silent.n == 0 and silent.dead == len(X) and silent.isna()["active"]


def test_every_block_and_level_once_as_the_probes_read_it():
    "Outputs in the order of depth; a level has noise of its own, whichever others are read"
    t = active_channels(D, X, sigmas=(0.1, 0.5), draws=2, seed=3, progress=False)
    blocks = [tap for tap in D.taps if not tap.endswith(".in")]
    assert t.tap.tolist() == 2 * blocks and t.sigma.tolist() == [0.1] * 7 + [0.5] * 7
    a = channel_averages(D, X, sigma=0.5, draws=2, seed=4, progress=False)
    row = t[(t.tap == "mid") & (t.sigma == 0.5)].iloc[0]
    assert row.active == pytest.approx(22 * float(participation(a.phi.x).mean()))
    assert row.active_low < row.active < row.active_high
    only = active_channels(D, X, sigmas=(0.1,), taps=("mid",), draws=2, seed=3, progress=False)
    assert only.active.tolist() == t[(t.tap == "mid") & (t.sigma == 0.1)].active.tolist()


def test_what_is_drawn():
    "A curve for each level over all blocks, under the number of channels that there are"
    t = active_channels(D, X, sigmas=(0.1, 0.5), draws=2, progress=False)
    (ax,) = plot_active(t)
    steps, *curves = ax.get_lines()
    assert steps.get_ydata().tolist() == [6, 10, 14, 22, 14, 10, 6]
    assert [c.get_ydata().tolist() for c in curves] == [
        t[t.sigma == s].active.tolist() for s in (0.1, 0.5)
    ]
