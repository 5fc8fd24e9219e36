"Sparsity and dimension of maps against their definitions"

import numpy as np
import pytest
import torch

from helpers import blind_denoiser, pictures
from helpers_probes import Reader
from denoise_study.representation import map_statistics, noisy_mean, participation

torch.set_num_threads(1)
D = blind_denoiser()


def test_map_statistics_equal_the_definition():
    from sklearn.decomposition import PCA

    x = pictures(30)
    t = map_statistics(D, x, tap="enc2", draws=3, bs=7, progress=False)
    with torch.no_grad():
        maps = noisy_mean(lambda o: D.maps(o, 0.5, ("enc2",)), x, 0, 0.5, 3, 0, 1000)[
            "enc2"
        ].double()
    for c in range(10):
        m = maps[:, c].flatten(1)
        if not m.any():
            assert np.isnan(t.pca_pr[c]) and np.isnan(t.spatial_pr[c])
            continue
        pca = PCA().fit(m.numpy())
        var = pca.explained_variance_
        assert t.pca_pr[c] == pytest.approx(var.sum() ** 2 / (64 * (var**2).sum()), rel=1e-4)
        assert t.pca_90[c] == 1 + np.searchsorted(np.cumsum(pca.explained_variance_ratio_), 0.9)
        own = m.abs().sum(1) ** 2 / (64 * m.square().sum(1))
        assert t.spatial_pr[c] == pytest.approx(own.nanmean().item(), rel=1e-4)
    np.testing.assert_allclose(t.pr, participation(maps.mean((2, 3)), 0), rtol=1e-4)


CALLS = {
    "huge maps": (
        lambda: map_statistics(
            Reader(lambda x: x.expand(-1, 64, 64, 64)), torch.zeros(1, 1, 64, 64), progress=False
        ),
        "^tap",
    ),
}


@pytest.mark.parametrize("call, words", CALLS.values(), ids=CALLS)
def test_bad_input_is_refused_with_a_reason(call, words):
    with pytest.raises(ValueError, match=words):
        call()
