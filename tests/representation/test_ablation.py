"Channels that are scaled for a while"

import pytest
import torch

from helpers import blind_denoiser, pictures
from denoise_study.representation import ablated

torch.set_num_threads(1)
D = blind_denoiser()
X = pictures()


def test_ablated_scales_channels_and_leaves_nothing_behind():
    before = D(X)
    with ablated(D.net.mid, [1, 4]):
        assert not torch.equal(D(X), before)
        off = D.averages(X)["mid"]
    assert (off[:, [1, 4]] == 0).all() and torch.equal(off[:, 0], D.averages(X)["mid"][:, 0])
    with ablated(D.net.mid, range(22), 1.0):
        torch.testing.assert_close(D(X), before)
    with ablated(D.net.mid, 4, 2.0):
        twice = D.averages(X)["mid"][:, 4]
    torch.testing.assert_close(twice, 2 * D.averages(X)["mid"][:, 4])
    with pytest.raises(KeyError):
        with ablated(D.net.mid, [0]):
            raise KeyError
    assert torch.equal(D(X), before) and not D.net.mid._forward_hooks


def test_a_channel_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="^channels"), ablated(D.net.mid, [22]):
        D(X)
