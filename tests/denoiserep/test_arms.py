"Arms: a placebo that moves the outputs as far as the closed form, and knows nothing"

from copy import deepcopy

import pytest
import torch

from denoise_study.core import image_dls
from denoise_study.denoiserep import baseline, Budget, classification_task, moved_outputs
from denoise_study.denoiserep import placebo_arm, rotated_step, solved_arm
from helpers import gen
from helpers_denoiserep import net, wild, X
from denoise_study.denoiserep import denoise_rep


@pytest.mark.parametrize("network", ["resnet8", "vit_small"])
def test_the_placebo_moves_outputs_as_far(network):
    dls = image_dls("digits", bs=128, test=0.3, range=(0.0, 1.0), device="cpu")
    task = classification_task(backbone_name=network, dls=dls, steps=100)
    base = baseline(task, 0, progress=False)
    seen = [list(task.inputs(part)) for part in (dls.valid, dls.test)]
    moved, share = {}, {}
    for name, arm in dict(solved=solved_arm, placebo=placebo_arm).items():
        model, info = arm(task, deepcopy(base), 0, Budget(n_solve=256))
        moved[name] = [moved_outputs(model.eval(), base, part, "cpu") for part in seen]
        share[name] = info["share"]
    # on the images that it was matched on, and on others
    assert moved["placebo"][0] == pytest.approx(moved["solved"][0], rel=1e-3)
    assert moved["placebo"][1] == pytest.approx(moved["solved"][1], rel=0.15)
    assert share["solved"] == pytest.approx(1) and share["placebo"] < 0.5


def test_a_rotated_step_has_the_same_spectrum_and_other_directions():
    dr = wild(denoise_rep(net(), example=X))
    for name, slot in dr.slots.items():
        A, _ = slot.denoiser.affine()
        own = A - torch.eye(A.shape[-1]).double()
        turned = rotated_step(slot.denoiser, gen(1))
        norms = [B.flatten(1).norm(dim=1).sort().values for B in (own, turned)]
        assert torch.allclose(*norms), name  # groups may change their places
        if A.shape[-1] > 1:
            assert not torch.allclose(own, turned, rtol=0.1)
