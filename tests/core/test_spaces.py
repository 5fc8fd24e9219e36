"A small classifier as a feature space"

import json

import numpy as np
import pytest
import torch

from denoise_study.core import SmallCNN


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=6, c=1, side=32, seed=0):
    return torch.rand(n, c, side, side, generator=gen(seed))


def test_small_cnn():
    from denoise_study.core import image_dls

    dls = image_dls("digits", bs=64)
    epoch, state = dls.train.epoch, torch.get_rng_state()
    a, b = (SmallCNN.fit(dls, epochs=4, progress=False) for _ in range(2))
    assert a.name == b.name and "digits, seed 0, test accuracy" in a.name
    assert a.name != SmallCNN.fit(dls, epochs=1, progress=False).name
    assert float(a.name.split("accuracy ")[1][:5]) > 0.9
    assert dls.train.epoch == epoch and torch.equal(torch.get_rng_state(), state)
    c = SmallCNN(**json.loads(json.dumps(a.config)))
    c.load_state_dict(a.state_dict())
    x = images(5, 1, 8)
    torch.testing.assert_close(c.eval()(x), a(x))
    assert c.name == a.name and a(x).shape == (5, 64) and not a.training
    unlabelled = image_dls(np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8))
    with pytest.raises(ValueError, match="`dls`"):
        SmallCNN.fit(unlabelled)
