"Random pictures, in memory and in folders, for the tests of images, sources, data sets and loaders"

import numpy as np
from PIL import Image

from denoise_study.core import image_dls

RNG = np.random.default_rng(0)


def random_images(n=40, h=8, w=8, c=None):
    "(n,h,w) or (n,h,w,c) bytes"
    shape = (n, h, w) if c is None else (n, h, w, c)
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def save_all(folder, images, ext="png", start=0):
    "Write pictures 000.png, 001.png, ... and give the folder back"
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images, start):
        Image.fromarray(image).save(folder / f"{i:03}.{ext}")
    return folder


def cpu_dls(*args, **kwargs):
    return image_dls(*args, device="cpu", **kwargs)


def all_bytes(arrays):
    "Every image of `load_arrays`, sorted"
    return sorted(image.numpy().tobytes() for u, _ in arrays.values() for image in u)


def no_network(*args, **kwargs):
    raise OSError("no network")
