"Training on a budget: whitened features are learned from soon, phases end quietly, shares by net"

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from denoise_study.core import image_dls
from denoise_study.denoiserep import baseline, Budget, denoiser_rates, phased, train_denoisers
from denoise_study.denoiserep import what_was_learned
from helpers_tasks import perceptron_task

STEPS = 160


@pytest.fixture(scope="module")
def task():
    return perceptron_task(image_dls("digits", bs=128, test=0.3, range=(0.0, 1.0), device="cpu"))


def trained(task, scheme="label_free", **changes):
    "Denoisers after a training, and what they learned"
    budget = Budget(**dict(steps=STEPS) | changes)
    dr = task.equipped(deepcopy(baseline(task, 0, progress=False)), loss=budget.loss)
    train_denoisers(task, dr, scheme, 0, budget)
    return dr, what_was_learned(task, dr, 0, budget)


def test_whitened_denoisers_learn_sooner_than_plain_ones(task):
    assert trained(task)[1]["share"] > 0.9
    _, white = trained(task, steps=40)
    _, plain = trained(task, steps=40, whiten=False)
    assert white["share"] > 0.6 > plain["share"] + 0.4
    assert white["solved_loss"] == pytest.approx(plain["solved_loss"])  # the same network


def test_what_was_learned_leaves_the_denoisers_alone(task):
    dr, found = trained(task, steps=8)
    before = {k: v.clone() for k, v in dr.tensors().items()}
    again = what_was_learned(task, dr, 0, Budget())
    assert all(torch.equal(before[k], v) for k, v in dr.tensors().items())
    assert again["share"] == pytest.approx(found["share"])


def test_alternate_is_compared_with_the_closed_form_of_its_own_backbone(task):
    _, same = trained(task, steps=16)
    _, moved = trained(task, "alternate", steps=16, lr_backbone=1e-2)
    assert abs(moved["solved_loss"] - same["solved_loss"]) > 1e-4


def test_a_rate_falls_to_its_end_in_each_phase():
    rate = phased(lambda share: 1 - share, 4)
    ends = [rate(k / 4) for k in range(4)]
    assert ends == pytest.approx([1] * 4) and rate(0.249) == pytest.approx(0.004, abs=1e-6)
    assert phased(lambda share: 1 - share, 3)(0.1 + 0.1 + 0.1 + 1 / 30) == pytest.approx(1)


def test_descent_by_channels_for_whitened_layers_and_adam_by_noise_for_plain_ones(task):
    dr = task.equipped(deepcopy(baseline(task, 0, progress=False)))
    noise = torch.tensor([s.denoiser.noise for s in dr.slots.values()])
    budget = Budget(lr=0.1, lr_backbone=0.5)
    plain, eps = denoiser_rates(dr, budget, backbone=True)
    assert (eps == 1e-8).all()
    assert plain[:-1] == pytest.approx((0.01 / noise).tolist()) and plain[-1] == 0.5
    dr.whiten(list(task.inputs(task.dls.train, 1)), progress=False)
    rates, eps = denoiser_rates(dr, budget, backbone=True, weight=0.5)
    channels = torch.tensor([s.denoiser.weight.shape[-1] for s in dr.slots.values()])
    assert rates[:-1] == pytest.approx((0.1 * channels / 0.5).tolist()) and rates[-1] == 0.5
    assert eps.tolist() == [1.0] * len(dr.slots) + [1e-8]


def test_schemes_that_use_labels_learn_too(task):
    "In turns with the backbone, half of the steps suffice; the task's loss pulls denoisers away"
    assert trained(task, "alternate")[1]["share"] > 0.85
    assert trained(task, "label_aug")[1]["share"] > 0.6


def test_images_are_changed_only_where_labels_are_learned_from(task):
    seen = []

    def augment(x, generator):
        seen.append(len(x))
        return x

    changed = replace(task, augment=augment)
    base = deepcopy(baseline(task, 0, progress=False))
    train_denoisers(changed, changed.equipped(base), "label_free", 0, Budget(steps=4))
    assert not seen
    base = deepcopy(baseline(task, 0, progress=False))
    train_denoisers(changed, changed.equipped(base), "label_aug", 0, Budget(steps=4))
    assert len(seen) == 4
