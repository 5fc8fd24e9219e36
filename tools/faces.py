"""Write what each folder of the package offers: python tools/faces.py [--check]

A folder of denoise_study hands on the public names of its modules, so that nobody has to know
which module a name is in: `from denoise_study.daed import
DAED`. Its `__init__.pyi` lists them, for editors as much as for `lazy_loader`, which imports a
module when one of its names is asked for."""
import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]/"denoise_study"
# from the ground up: a folder imports only from those before it
WINGS = {
    "core": "What knows no paper: small tools, plots, intervals, claims, images, training, files, "
            "metrics, the page of a report",
    "diffusion": "Diffusion models and what they are made of: schedules, the U-Net, losses, "
                 "samplers, reconstruction",
    "daed": "A diffusion model as a generator and a denoiser (Deja et al. 2022): where is the "
            "switch, and what does a split cost?",
    "denoiser": "One contract for every denoiser: blind networks, oracles, adapters, and samplers "
                "that need nothing else",
    "representation": "What a blind denoiser knows (Kadkhodaie et al. 2025): channel averages, "
                      "their geometry, images sampled from them",
    "denoiserep": "Denoising layers in front of the layers of any network, and their exact fusion "
                  "(Xu et al. 2024)",
    "study": "Pretrained models, the commands, and the study of all three papers as one report",
}
FACE = '''"{doc}"
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
'''


def public(module):
    "The names in the `__all__` of a module"
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


def rooms(wing):
    "Module -> its public names"
    return {m.stem: public(m) for m in sorted((PACKAGE/wing).glob("*.py"))
            if not m.stem.startswith("_")}


def clashes(wing):
    "Names that two modules of a folder offer, and names that are those of a module"
    homes = {}
    for room, names in rooms(wing).items():
        for name in names: homes.setdefault(name, []).append(room)
    twice = [f"{wing}: {name} is in {' and '.join(where)}" for name, where in homes.items()
             if len(where) > 1]
    return twice + [f"{wing}: {name} is a name and a module" for name in homes
                    if name in rooms(wing)]


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
        written[PACKAGE/wing/"__init__.py"] = FACE.format(doc=doc)
        written[PACKAGE/wing/"__init__.pyi"] = stub(wing)
    return written


def stale():
    "Files that are not what they should be"
    return [path for path, text in faces().items() if not path.exists()
            or path.read_text(encoding="utf-8") != text]


if __name__ == "__main__":
    wrong = [line for wing in WINGS for line in clashes(wing)]
    if wrong: sys.exit("\n".join(wrong))
    old, texts = stale(), faces()
    if "--check" in sys.argv:
        sys.exit(f"run python tools/faces.py: {', '.join(str(p.relative_to(PACKAGE)) for p in old)}" if old else 0)
    for path in old: path.write_text(texts[path], encoding="utf-8")
