"""Make the models that ship with the package: python tools/pretrained.py --runs runs --root DATA
[NAME ...]

Trains what is missing under --runs, as `denoise-train` does it (each command is below, and is
written into the model's file) or, for denoisers of a model that ships already, `denoise-splits`;
rounds the averaged weights to float16, measures the rounded model on test images, and writes
denoise_study/pretrained_models/NAME.safetensors and docs/results/pretrained_NAME.json."""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from torch import nn

from denoise_study.study import denoise_train, load_pretrained, shrink
from denoise_study.core import build, compare_sets, compute_features, describe, feature_space
from denoise_study.core import first_images, image_dls, Interval, load_checkpoint, run_info
from denoise_study.core import Study, untrained, write_json
from denoise_study.daed import study_daeds
from denoise_study.denoiser import denoiser, GaussianDenoiser, psnr_curve
from denoise_study.representation import drawn_images

ROOT = Path(__file__).resolve().parents[1]
RECIPES = {  # name -> arguments of denoise-train
    "ddgm-digits": dict(data="digits", model="ddgm", bf16=True),
    "daed-digits": dict(data="digits", model="daed", width=24, bf16=True),
    "blind-digits": dict(data="digits", model="blind", image_size=16, bf16=True),
    "ddgm-fashion_mnist": dict(data="fashion_mnist", model="ddgm", steps=1500, bf16=True),
    "daed-fashion_mnist": dict(data="fashion_mnist", model="daed", width=24, steps=1500, bf16=True),
    "blind-fashion_mnist": dict(data="fashion_mnist", model="blind", steps=3200, bf16=True),
    "transformer-fashion_mnist": dict(
        data="fashion_mnist", model="blind", size="transformer", steps=6400, noise_law="log"
    ),
    # a folder: PNG files in train/ and test/, with a subfolder for each class
    "blind-cifar10": dict(
        data="./cifar10",
        model="blind",
        before=dict(width=32, steps=5000, noise_law="log", noise_power=0.75),
        steps=8000,
        bf16=True,
        compiled=True,
        lr=4e-3,
        noise_power=1.0,
    ),
    # denoisers for the first n steps of a model above, at the levels of a study's chapter
    "dae-digits-2": dict(data="digits", model="ddgm-digits", levels=0.001),
    "dae-digits-6": dict(data="digits", model="ddgm-digits", levels=0.01),
    "dae-digits-20": dict(data="digits", model="ddgm-digits", levels=0.1),
    "dae-digits-37": dict(data="digits", model="ddgm-digits", levels=0.3),
}

SIGMAS = 0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0  # noise levels at which a denoiser is measured


def trainings(args, early="early"):
    "Arguments of one training after the other: of those that `before` changes, and of the last"
    if "before" not in args:
        return [args]
    shared = {k: v for k, v in args.items() if k != "before"}
    first = shared | args["before"] | dict(folder=early)
    last = shared | dict(start=f"{early}/{args['model']}.safetensors")
    del last["model"]  # that of the start
    return [first, last]


def spelled(args):
    "The commands that these arguments are"
    command = "denoise-splits " if "levels" in args else "denoise-train "
    return " && ".join(
        command
        + " ".join(
            f"--{k.replace('_', '-')}" + ("" if v is True else f" {v}") for k, v in each.items()
        )
        for each in trainings(args)
    )


def blank(model):
    """The same model untrained; where its last layers begin at zero they are drawn anew, or it
    would do nothing at all"""
    torch.manual_seed(0)
    fresh = build(describe(model)).eval()
    for p in fresh.parameters():
        if p.ndim > 1 and not p.any():
            nn.init.normal_(p, std=0.02)
    return fresh


def printed(measured, n):
    "A number with its interval over images, as an object or as it stands in a table"
    if isinstance(measured, Interval):
        return str(measured)
    return str(Interval.from_dict(measured, n=n, unit="images"))


def quality(model, dls, n, seed=0):
    """Samples against test images, beside training images and, a hundred being enough for it, the
    untrained network"""
    space, rng = feature_space(dls, seed=seed), dls.info.range
    features = lambda x: compute_features(space, x, rng, progress=False)
    ref = features(first_images(dls, "test", 10_000)[0])
    sets = {
        "model": model.sample(n, seed=seed),
        "training images": first_images(dls, "train", n)[0],
        "untrained network": blank(model).sample(min(n, 100), seed=seed),
    }
    rows = [
        dict(name=k, **compare_sets(ref, features(x), seed=seed, progress=False))
        for k, x in sets.items()
    ]
    me, floor = rows[0], rows[1]
    said = (
        f"Fréchet distance {printed(me['frechet'], n)} ({n} samples, "
        f"{me['feature_space'].split(' (')[0]}; training images "
        f"{printed(floor['frechet'], n)})"
    )
    return dict(quality=rows), said


def denoising(model, dls, n, seed=0):
    "PSNR on test images, beside the best linear denoiser and the untrained network"
    D = denoiser(model)
    named = {
        type(D.net).__name__: D,
        "best linear": GaussianDenoiser.fit(drawn_images(dls, "train", 10_000)[0]),
        "untrained": untrained(D, seed),
    }
    test = drawn_images(dls, "test", n)[0]
    table = psnr_curve(named, test, SIGMAS, seed, progress=False, than="best linear")
    at = table[table.sigma == 0.5].set_index("denoiser")
    row = at.loc[type(D.net).__name__]
    said = (
        f"PSNR at noise .5: {row.psnr:.1f} dB from {row.psnr_in:.1f} ({int(row.n)} images; "
        f"best linear {at.psnr['best linear']:.1f})"
    )
    return dict(psnr=table), said


def opened(args, root, form):
    "The images that a model was trained for"
    size = args.get("image_size")
    return image_dls(args["data"], root=root or None, size=size, device="cpu", **form)


def measure(name, root, n, run):
    "Measure a shipped blind denoiser again: its curve in docs/results, nothing is trained"
    file = ROOT / f"docs/results/pretrained_{name}.json"
    record = json.loads(file.read_text())
    dls = opened(RECIPES[name], root, dict(range=(0.0, 1.0), pad_to=8))
    numbers, said = denoising(load_pretrained(name), dls, n)
    write_json(file, record | numbers | dict(psnr_run=run))
    print(f"{name}: {said}")


def trained(name, runs, root):
    "The checkpoint of a recipe, trained if it is not there"
    args = RECIPES[name]
    folder = Path(runs) / args["data"] / args.get("size", args["model"])
    if "levels" in args:
        checkpoint = folder / f"dae-{name.rpartition('-')[2]}/daed.safetensors"
        dls = opened(args, root, {})
        study = Study(dls, folder, models={"ddgm": load_pretrained(args["model"])})
        study_daeds(study, (args["levels"],))
    else:
        checkpoint = folder / f"{args['model']}.safetensors"
        if not checkpoint.exists():
            for each in trainings(args, str(folder / "early")):
                denoise_train(**(dict(folder=str(folder)) | each), root=root)
    return checkpoint


def make(name, runs, root, n, run):
    args = RECIPES[name]
    checkpoint = trained(name, runs, root)
    out = ROOT / f"denoise_study/pretrained_models/{name}.safetensors"
    blind, command = args["model"] == "blind", spelled(args)
    form = dict(range=(0.0, 1.0), pad_to=8) if blind else {}
    dls = opened(args, root, form)
    with tempfile.TemporaryDirectory() as d:
        shrink(checkpoint, Path(d) / "half.safetensors")
        model = load_checkpoint(Path(d) / "half.safetensors")
    numbers, said = denoising(model, dls, n) if blind else quality(model, dls, n)
    # a denoiser that goes with a model that ships leaves that model's weights to its file
    rest = out.with_name(f"{args['model']}.safetensors") if "levels" in args else None
    info = shrink(checkpoint, out, rest, command=command, measured=said)["info"]
    about = "command", "commit", "device", "versions", "steps", "valid_loss", "parameters"
    about += "steps_before", "precision"
    training = {k: info[k] for k in about if k in info}
    write_json(
        ROOT / f"docs/results/pretrained_{name}.json",
        dict(
            run=run,
            data=dls.info.to_dict(),
            seed=info["seed"],
            training=training,
            measured=said,
            **numbers,
        ),
    )
    print(f"{name}: {out.stat().st_size / 1e6:.2f} MB, {said}")


if __name__ == "__main__":
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("names", nargs="*", help=f"some of {', '.join(RECIPES)}; default: all")
    p.add_argument("--runs", default="runs/pretrained")
    p.add_argument("--root", default="")
    p.add_argument("--n", type=int, default=500, help="samples, or images to denoise")
    p.add_argument(
        "--measure", action="store_true", help="measure the blind denoisers that ship, make none"
    )
    args = p.parse_args()
    # now: the files that are written here are tracked, and would make the commit look changed
    run = run_info()
    for name in args.names or RECIPES:
        if not args.measure:
            make(name, args.runs, args.root, args.n, run)
        elif RECIPES[name]["model"] == "blind":
            measure(name, args.root, args.n, run)
