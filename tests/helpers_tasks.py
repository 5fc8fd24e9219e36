"For the tests of DenoiseRep's tasks: a small task, a budget spent in a second, a picture file"

import numpy as np
from PIL import Image
from torch import nn

from denoise_study.denoiserep import accuracy, Budget, Task

QUICK = Budget(steps=6, n_solve=200)


def perceptron():
    "For digits of 8x8 pixels"
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def perceptron_task(dls, **kwargs):
    "Digits, twenty steps"
    return Task(
        "classification",
        dls,
        perceptron,
        accuracy,
        "accuracy@1",
        head="3",
        steps=20,
        lr=1e-2,
        about=dict(data="digits"),
        **kwargs,
    )


def jpg(path):
    "A small picture of noise"
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (16, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def market(folder, cameras=(1, 3), test=(1, 3)):
    "A re-identification set of four people and two cameras, with a fifth to search"
    for i in range(4):
        for c in cameras:
            for k in range(3):
                jpg(folder / f"bounding_box_train/{i:04d}_c{c}s1_{k}_00.jpg")
    for c in test:
        jpg(folder / f"query/0007_c{c}s1_1_00.jpg")
        jpg(folder / f"bounding_box_test/0007_c{c}s1_2_00.jpg")
    return folder
