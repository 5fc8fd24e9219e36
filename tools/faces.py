"""Write what each folder of the package offers: python tools/faces.py [--check]

A folder of denoise_study (a wing) hands on the public names of its modules (its rooms), so that
nobody has to know which module a name is in: `from denoise_study.daed import DAED`. Its
`__init__.pyi` lists them, for editors as much as for `lazy_loader`, which imports a module when one
of its names is asked for."""

import ast
import re
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, NOTEBOOKS = ROOT / "denoise_study", ROOT / "nbs"
# from the ground up: a folder imports only from those before it
WINGS = {  # name -> the one line that says what is in it
    "core": "What knows no paper: plots, intervals, claims, images, training, files, metrics",
    "diffusion": "Diffusion models: schedules, the U-Net, losses, samplers, reconstruction",
    "daed": "A diffusion model as a generator and a denoiser, split anywhere (Deja et al. 2022)",
    "denoiser": "One contract for every denoiser: blind networks, oracles, adapters, samplers",
    "representation": "What a blind denoiser knows, and images from it (Kadkhodaie et al. 2025)",
    "denoiserep": "Denoising layers before any network's layers, and their fusion (Xu et al. 2024)",
    "study": "Pretrained models, the commands, and the study of all three papers as one report",
}
FACE = """"{doc}"
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
"""


def room_of(notebook):
    "`00_schedules.ipynb` -> schedules"
    return re.sub(r"^\d+[a-z]*_", "", Path(notebook).stem)


def notebooks(wing=None):
    "The notebooks of a wing, or of all of them from the ground up, in reading order"
    wings = WINGS if wing is None else [wing]
    return [path for w in wings for path in sorted((NOTEBOOKS / w).glob("[0-9]*.ipynb"))]


def modules(wing=None):
    "The modules of a wing, or of all of them"
    wings = WINGS if wing is None else [wing]
    found = [path for w in wings for path in sorted((PACKAGE / w).glob("*.py"))]
    return [path for path in found if not path.stem.startswith("_")]


@cache
def public(module):
    "The names in the `__all__` of a module"
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


def rooms(wing):
    "Module -> its public names"
    return {module.stem: public(module) for module in modules(wing)}


def homes(wings=WINGS):
    "Public name -> the places that offer it, as (wing, room)"
    found = {}
    for wing in wings:
        for room, names in rooms(wing).items():
            for name in names:
                found.setdefault(name, []).append((wing, room))
    return found


def clashing(offered, taken):
    "What is wrong with names: public name -> places, and wing -> names of its modules"
    wrong = []
    for name, places in offered.items():
        if len(places) > 1:
            wrong.append(f"{name} is in {' and '.join('.'.join(place) for place in places)}")
        for wing in {wing for wing, _ in places}:
            if name in taken[wing]:
                wrong.append(f"{wing}: {name} is a name and a module")
    return wrong


def clashes():
    "Names that two modules offer, in one folder or in two, and names that are those of a module"
    return clashing(homes(), {wing: rooms(wing) for wing in WINGS})


def stub(wing):
    "The text of `__init__.pyi`"
    lines = ["# Written by tools/faces.py"]
    for room, names in rooms(wing).items():
        lines += [f"from .{room} import {name} as {name}" for name in sorted(names)]
    return "\n".join(lines) + "\n"


def faces():
    "Path -> text of all that is written"
    written = {}
    for wing, doc in WINGS.items():
        written[PACKAGE / wing / "__init__.py"] = FACE.format(doc=doc)
        written[PACKAGE / wing / "__init__.pyi"] = stub(wing)
    return written


def stale():
    "Files that are not what they should be"

    def fresh(path, text):
        return path.exists() and path.read_text(encoding="utf-8") == text

    return [path for path, text in faces().items() if not fresh(path, text)]


def main(args):
    "Write what is stale, or with --check say what is; clashes of names are errors in any case"
    wrong, old, texts = clashes(), stale(), faces()
    if "--check" in args:
        wrong += [f"{path.relative_to(PACKAGE)}: run python tools/faces.py" for path in old]
    else:
        for path in old:
            path.write_text(texts[path], encoding="utf-8")
    return "\n".join(wrong) or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
