"What the tools that record a chapter for one data set share"

import base64
import re
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from denoise_study.core import write_json

DOCS = Path(__file__).resolve().parents[1] / "docs"


def arguments(doc, data, folder):
    "Parser with the options that all have"
    p = ArgumentParser(description=doc, formatter_class=RawDescriptionHelpFormatter)
    p.add_argument("--data", default=data, help="a name, a folder of images, or an .npz file")
    p.add_argument("--root", default="", help="folder of the named data sets")
    p.add_argument(
        "--folder", default=folder, help="models go here; what is there is not trained again"
    )
    p.add_argument(
        "--steps", type=int, default=0, help="training steps; 0: those of the small size"
    )
    p.add_argument("--bf16", action="store_true")
    p.add_argument("--seed", type=int, default=0)
    return p


def keep(name, chapter, how):
    "The numbers of a chapter in docs/results, its pictures in docs/images"
    write_json(DOCS / f"results/{name}.json", how | chapter.results)
    for old in DOCS.glob(f"images/{name}-*.*"):
        old.unlink()
    blocks = "".join(chapter.blocks)
    found = re.findall(r'src="data:image/(png|svg)[^;]*;base64,([^"]+)"', blocks)
    for i, (kind, data) in enumerate(found):
        (DOCS / f"images/{name}-{i}.{kind}").write_bytes(base64.b64decode(data))
