"""Train the feature spaces that come with the package: python tools/spaces.py --root DATA
[NAME ...]

For each set, in the form that the commands give it, a classifier is trained as `feature_space`
trains one for any other set, and written into denoise_study/feature_spaces/NAME.safetensors with
the digest of its training images. Numbers in a space belong to its weights: one that is made anew
is another space."""

import argparse
from pathlib import Path
from unittest.mock import patch

from denoise_study.core import data_digest, feature_space, image_dls, run_info, spaces
from denoise_study.core import write_tensors

OUT = Path(__file__).resolve().parents[1] / "denoise_study/feature_spaces"
SETS = {  # name -> arguments of `image_dls`: the forms that the commands ask for
    "digits": dict(data="digits"),
    "digits-16": dict(data="digits", size=16),
    "fashion_mini": dict(data="fashion_mini"),
    "fashion_mini-32": dict(data="fashion_mini", pad_to=8),
    "fashion_mnist": dict(data="fashion_mnist"),
    "fashion_mnist-32": dict(data="fashion_mnist", pad_to=8),
}


def make(name, root, run):
    dls = image_dls(**SETS[name], root=root or None, device="cpu")
    with patch.object(spaces, "shipped_space", lambda dls: None):
        space = feature_space(dls)
    about = dict(
        kind="feature space", images=data_digest(dls.train.dataset), config=space.config, info=run
    )
    about |= dict(data=dls.info.to_dict())
    write_tensors(OUT / f"{name}.safetensors", space.state_dict(), about)
    print(space.name)


if __name__ == "__main__":
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SETS)}; default: all")
    p.add_argument("--root", default="", help="folder of the named data sets")
    args = p.parse_args()
    if unknown := set(args.names) - set(SETS):
        p.error(f"NAME: {', '.join(SETS)} are accepted, got {', '.join(sorted(unknown))}")
    run = run_info()  # now: what is written below would make the commit look changed
    OUT.mkdir(exist_ok=True)
    for name in args.names or SETS:
        make(name, args.root, run)
