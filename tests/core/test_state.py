"A state becomes JSON and tensors, and a state again"

import json
import random

import numpy as np
import pytest
import torch

from denoise_study.core import get_rng, pack, set_rng, unpack


def test_pack_round_trip():
    nest = dict(a=[1, 2.5, None, "x"], b=(torch.arange(3), {0: torch.eye(2), "k": True}), c={})
    tensors = {}
    back = unpack(json.loads(json.dumps(pack(nest, tensors))), tensors)
    assert back["a"] == nest["a"] and back["c"] == {}
    assert isinstance(back["b"], tuple) and torch.equal(back["b"][1][0], torch.eye(2))
    with pytest.raises(TypeError, match="state.f"):
        pack(dict(f=print), {}, "state")


def test_random_states_come_back_through_a_file():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    tensors = {}
    skeleton = json.loads(json.dumps(pack(get_rng(), tensors)))
    first = draw()
    set_rng(unpack(skeleton, tensors))
    assert draw() == first
