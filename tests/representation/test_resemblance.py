"Near, of its kind, no copies: on images of which the answer is known"

import pytest
import torch

from denoise_study.representation import as_target, centroid, samples_around
from denoise_study.representation import told_apart
from helpers import rand
from helpers_selfguided import refused, small


def dark_and_bright():
    both = torch.stack([torch.zeros(1, 16, 16), torch.ones(1, 16, 16)])
    return both * 0.8 + 0.1 * rand(2, 1, 16, 16)


def classify(x):
    return (x.mean((1, 2, 3)) > 0.5).long()


def scores(x):
    return torch.stack([1 - x.mean((1, 2, 3)), x.mean((1, 2, 3))], 1)


def test_copies_noise_and_classes():
    D, image, control = small(), dark_and_bright(), rand(12, 1, 16, 16, seed=3)
    copies = image.repeat_interleave(3, 0)
    t = samples_around(D, image, copies, control, classify).set_index(["measure", "arm"])
    assert t.value["pixel correlation", "guided"] == pytest.approx(1, abs=1e-4)
    assert t.value["pixel std", "guided"] < 1e-6
    assert t.value["class hit", "guided"] == 1
    assert t.value["class hit", "unconditional"] == pytest.approx(0.5)
    assert t.value["phi distance", "guided"] < 2 * t.value["phi distance", "same image, new noise"]
    assert abs(t.value["pixel correlation", "unconditional"]) < 0.2 and (t.n == 2).sum() >= 6
    by_scores = samples_around(D, image, copies, control, scores).set_index(["measure", "arm"])
    assert by_scores.value["class hit", "guided"] == 1


def test_one_target_has_no_interval():
    image, control = dark_and_bright(), rand(12, 1, 16, 16, seed=3)
    copies = image.repeat_interleave(3, 0)
    one = samples_around(small(), centroid(image), copies, control, classify, torch.tensor([1]))
    assert "pixel correlation" not in set(one.measure) and one[one.arm == "guided"].low.isna().all()


D, x = small(), rand(2, 1, 16, 16)
five = rand(5, 1, 16, 16)


def nothing(o):
    return torch.zeros(len(o))


CALLS = {
    "samples do not divide": (lambda: samples_around(D, x, five, x), "samples: 5 for 2"),
    "samples in [-1,1]": (lambda: samples_around(D, x, 2 * x - 1, x), "samples: values"),
    "labels of others": (
        lambda: samples_around(D, x, x, x, nothing, torch.zeros(3)),
        "labels: 3 for 2",
    ),
}


@pytest.mark.parametrize("case", CALLS)
def test_bad_input(case):
    refused(*CALLS[case])


def test_targets_are_told_apart_by_single_draws():
    """The floor, from means over 20 draws, is how far two single ones are from each other"""
    D, image = small(), torch.cat([dark_and_bright(), rand(30, 1, 16, 16, seed=5)])
    target = as_target(image)
    draws = [target.phi(D, 0.5, 1, seed) for seed in range(40, 60)]
    single = torch.stack([(a - b).norm(dim=1).mean() for a, b in zip(draws, draws[1:])]).mean()
    phi = target.phi(D, 0.5, 20, 7)
    others = ~torch.eye(len(phi), dtype=torch.bool)
    apart = torch.cdist(phi, phi)[others].view(len(phi), -1).median(1)[0].mean()
    table = samples_around(D, image, image, image)
    score = told_apart(table).score
    assert score == pytest.approx((apart / single).item(), rel=0.15)
    assert told_apart(table.to_dict("records")).score == score
    one = samples_around(D, image[:1], image[:1], image)  # nothing to be told from
    assert not told_apart(one).ok
