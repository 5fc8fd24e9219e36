"""Run notebooks and keep their outputs: python tools/refresh.py [NAME ...] [--only TEXT]

A name is a path, `wing/NN_room`, `NN_room` or a whole wing; without one all are run. Cells that the
tests skip keep the outputs they have, and with --only all those that TEXT is not in: `index --only
summary` makes the tables of the README anew, without its training. Widget ids are renumbered, so
that a second run changes nothing."""

import argparse
import re
import subprocess
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.test import nb_test_cells

WIDGETS = "application/vnd.jupyter.widget-state+json"


def stable_ids(nb):
    "Number the widget models in order of appearance: ids are random in each run"
    ids = list(nb.metadata.get("widgets", {}).get(WIDGETS, {}).get("state", {}))
    order = {m: f"{i:032x}" for i, m in enumerate(ids)}
    text = nbformat.writes(nb)
    return nbformat.reads(re.sub("|".join(ids), lambda m: order[m[0]], text), 4) if ids else nb


def keep(output):
    """Library warnings carry local paths; progress bars leave styles, empty frames and a last frame
    that says nothing"""
    html = output.get("data", {}).get("text/html")
    empty = html is not None and (
        not re.sub(r"<[^>]*>", "", html).strip()
        or html.lstrip().startswith("<style>")
        or "<progress" in html
    )
    return output.get("name") != "stderr" and not empty


def refresh(f, cfg, only=""):
    "Execute the cells that the tests run, in place"
    run = {c.id for c in nb_test_cells(f, skip_flags=cfg.tst_flags.split()) if only in c.source}
    nb = nbformat.read(f, 4)
    for c in nb.cells:
        if c.cell_type == "code" and c.id not in run:
            c.metadata["tags"] = ["skip-execution"]
    NotebookClient(
        nb, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(f.parent)}}
    ).execute()
    for c in nb.cells:
        if c.cell_type == "code":
            c.outputs = [o for o in c.outputs if keep(o)]
    nbformat.write(stable_ids(nb), f)


def chosen(names, root):
    "The notebooks that names stand for: a path, `wing/NN_room`, `NN_room`, a wing, or none for all"
    every = sorted(nbglob(root, as_path=True))
    if not names:
        return every

    def called(f):
        return {f.stem, f.relative_to(root).with_suffix("").as_posix(), f.parent.name}

    found = []
    for name in names:
        path = Path(name)
        here = [f for f in every if name.removesuffix(".ipynb") in called(f)]
        if path.suffix == ".ipynb" and path.exists():
            here = [path.resolve()]
        if not here:
            raise SystemExit(f"{name}: no such notebook in {root.name}/")
        found += here
    return list(dict.fromkeys(found))


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument(
        "names", nargs="*", help="paths, wing/NN_room, NN_room, or whole wings; default: all"
    )
    p.add_argument("--only", default="", help="run only the cells that have this text in them")
    args, cfg = p.parse_args(), get_config()
    for f in chosen(args.names, cfg.nbs_path):
        start = time.time()
        refresh(f, cfg, args.only)
        print(f"{f.parent.name}/{f.name}: {time.time() - start:.1f} s")
        subprocess.run(["nbdev-clean", "--fname", str(f)], check=True)


if __name__ == "__main__":
    main()
