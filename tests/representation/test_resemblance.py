"Near, of its kind, no copies: on images of which the answer is known"

import pytest
import torch

from denoise_study.representation import centroid, samples_around
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
