"""Images per second of the input pipeline: python tests/benchmarks/bench_data.py [--help]

Prints a table; asserts nothing. Without `--data`: the digits, random bytes of FashionMNIST's and
CIFAR-10's shape, a folder
of JPEG files written for the occasion, and, for comparison, the same digits one Pillow image at a
time."""

import argparse, tempfile, time
from pathlib import Path

import numpy as np, torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.transforms import functional as TF

from denoise_study.core import image_dls, run_info, write_json


def rate(batches, seconds):
    "Images per second over whole passes that take `seconds` in all, or a little more"
    n, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        n += sum(len(x) for x, _ in batches)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return n / (time.perf_counter() - start)


def per_item(images, labels, bs):
    "The classic route: a Pillow image, a transform and a Python call for each picture"
    one = lambda i: (
        TF.normalize(TF.to_tensor(Image.fromarray(images[i])), [0.5], [0.5]),
        int(labels[i]),
    )
    return torch.utils.data.DataLoader(
        [*range(len(images))],
        batch_size=bs,
        shuffle=True,
        drop_last=True,
        collate_fn=lambda idx: (
            torch.stack([one(i)[0] for i in idx]),
            torch.tensor([one(i)[1] for i in idx]),
        ),
    )


def jpegs(folder, n=2000, hw=(218, 178)):
    "CelebA-sized pictures, smooth enough to compress like photographs"
    rng = np.random.default_rng(0)
    for i in range(n):
        small = Image.fromarray(rng.integers(0, 256, (14, 11, 3), dtype=np.uint8))
        small.resize(hw[::-1], Image.Resampling.BICUBIC).save(folder / f"{i:05}.jpg", quality=90)
    return folder


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--root", help="folder of the named data sets")
    p.add_argument(
        "--data", nargs="*", help="names or paths to measure instead of the built-in list"
    )
    p.add_argument("--size", type=int, help="size for --data")
    p.add_argument("--cache", action="store_true", help="keep decoded pictures of --data in memory")
    p.add_argument("--bs", type=int, default=128)
    p.add_argument("--seconds", type=float, default=2.0)
    p.add_argument(
        "--threads",
        type=int,
        help="torch's own threads; 1 gives steady numbers on a machine that is shared",
    )
    p.add_argument("--device", help="'cpu', 'cuda', ...; default: fastai's")
    p.add_argument("--json", help="write the rates to this file")
    args = p.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    kw = dict(bs=args.bs, device=args.device, valid=0)

    rows = {}

    def report(label, batches):
        rows[label] = rate(batches, args.seconds)
        print(f"{label:44}{rows[label]:>12,.0f} images/s", flush=True)

    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, batches of {args.bs}")
    if args.data:
        for d in args.data:
            dls = image_dls(d, root=args.root, size=args.size, cache=args.cache, **kw)
            if args.cache:
                list(dls.train)  # the pass that fills the memory
            report(f"{dls.info.name}, {dls.info.size[0]}x{dls.info.size[1]}", dls.train)
    else:
        d, rng = load_digits(), np.random.default_rng(0)
        fashion = rng.integers(0, 256, (60000, 28, 28), dtype=np.uint8)
        cifar = rng.integers(0, 256, (50000, 32, 32, 3), dtype=np.uint8)
        report("digits", image_dls("digits", **kw).train)
        report("60,000 x 28x28 (as FashionMNIST)", image_dls(fashion, **kw).train)
        report("60,000 x 28x28, padded to 32x32", image_dls(fashion, pad_to=8, **kw).train)
        report("50,000 x 32x32x3 (as CIFAR-10)", image_dls(cifar, **kw).train)
        with tempfile.TemporaryDirectory() as tmp:
            jpegs(Path(tmp))
            report(
                "JPEG 218x178 -> 64x64, decoding", image_dls(tmp, size=64, cache=False, **kw).train
            )
            dls = image_dls(tmp, size=64, **kw)
            list(dls.train)  # the pass that fills the memory
            report("JPEG 218x178 -> 64x64, kept in memory", dls.train)
        report(
            "digits, one Pillow image at a time",
            per_item(np.round(d.images * 255 / 16).astype(np.uint8), d.target, args.bs),
        )
    if args.json:
        res = dict(
            run=run_info(), threads=torch.get_num_threads(), bs=args.bs, images_per_second=rows
        )
        write_json(args.json, res)
