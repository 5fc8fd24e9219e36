"""Run every notebook and keep its outputs: python tools/refresh.py [stem ...]

Cells that the tests skip keep the outputs they have. Widget ids are renumbered, so that a second run changes nothing."""
import re, subprocess, sys, time

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
    "Library warnings carry local paths; progress bars leave styles, empty frames and a last frame that says nothing"
    html = output.get("data", {}).get("text/html")
    empty = html is not None and (not re.sub(r"<[^>]*>", "", html).strip() or html.lstrip().startswith("<style>") or "<progress" in html)
    return output.get("name") != "stderr" and not empty


def refresh(f, cfg):
    "Execute the cells that the tests run, in place"
    run = {c.id for c in nb_test_cells(f, skip_flags=cfg.tst_flags.split())}
    nb = nbformat.read(f, 4)
    for c in nb.cells:
        if c.cell_type == "code" and c.id not in run: c.metadata["tags"] = ["skip-execution"]
    NotebookClient(nb, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(f.parent)}}).execute()
    for c in nb.cells:
        if c.cell_type == "code": c.outputs = [o for o in c.outputs if keep(o)]
    nbformat.write(stable_ids(nb), f)


if __name__ == "__main__":
    cfg = get_config()
    for f in sorted(nbglob(cfg.nbs_path, as_path=True)):
        if sys.argv[1:] and f.stem not in sys.argv[1:]: continue
        start = time.time()
        refresh(f, cfg)
        print(f"{f.name}: {time.time() - start:.1f} s")
        subprocess.run(["nbdev-clean", "--fname", str(f)], check=True)
