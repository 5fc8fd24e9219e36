"""Draw the small FashionMNIST that ships with the package: python tools/fashion_mini.py --root
DATA [--seed 0]

DATA/FashionMNIST/raw holds the four original files (Xiao et al. 2017, Zalando SE, MIT licence).
Training and validation images come from their training
set, test images from their test set, as many of every class; which ones is drawn by the seed.
Writes denoise_study/data/fashion_mini.npz."""

import argparse
from pathlib import Path

import numpy as np
from torchvision.datasets import FashionMNIST

from denoise_study.core import replacing

OUT = Path(__file__).resolve().parents[1] / "denoise_study/data/fashion_mini.npz"
SIZES = dict(train=4000, valid=500, test=1000)


def balanced(labels, n, rng, without=()):
    "Indices of `n` images, as many of each class, none of those in `without`"
    free = np.setdiff1d(np.arange(len(labels)), without)
    classes = np.unique(labels)
    chosen = [
        rng.choice(free[labels[free] == c], n // len(classes), replace=False) for c in classes
    ]
    return rng.permutation(np.concatenate(chosen))


def main(root, seed):
    rng = np.random.default_rng(seed)
    train, test = (FashionMNIST(root, train=part) for part in (True, False))
    picked = dict(train=balanced(train.targets.numpy(), SIZES["train"], rng))
    picked["valid"] = balanced(train.targets.numpy(), SIZES["valid"], rng, without=picked["train"])
    picked["test"] = balanced(test.targets.numpy(), SIZES["test"], rng)
    arrays = {}
    for split, index in picked.items():
        source = test if split == "test" else train
        arrays[split] = source.data.numpy()[index]
        arrays[f"{split}_labels"] = source.targets.numpy()[index].astype(np.uint8)
        arrays[f"{split}_index"] = index.astype(np.uint16)  # in the original files
    OUT.parent.mkdir(exist_ok=True)
    with replacing(OUT) as path, open(path, "wb") as f:
        np.savez_compressed(f, **arrays)
    print(f"{OUT.name}: {OUT.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--root", required=True, help="folder that holds FashionMNIST/raw")
    p.add_argument("--seed", type=int, default=0)
    main(**vars(p.parse_args()))
