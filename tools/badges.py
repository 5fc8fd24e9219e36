"""What stands under the title of every tutorial: a badge that opens it on Colab, the pages of the
modules that it uses, and the cell that installs the package there.

python tools/badges.py writes it into nbs/tutorials; the tests ask whether it is up to date. Who
the repository belongs to is said once, in settings.ini."""
import re
from configparser import ConfigParser
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
INSTALL = """#| hide
import sys
if 'google.colab' in sys.modules:
    %pip install -q git+https://github.com/{user}/{repo}.git@{branch}"""


def home(root=ROOT):
    "user, repo and branch of settings.ini"
    ini = ConfigParser(delimiters=["="], interpolation=None)
    ini.read(root/"settings.ini", encoding="utf-8")
    return {k: ini["DEFAULT"][k] for k in ("user", "repo", "branch")}


def badge(stem, user, repo, branch):
    "Colab's own button, which leads to the notebook there"
    where = (f"https://colab.research.google.com/github/{user}/{repo}/blob/{branch}/nbs/tutorials/{stem}.ipynb")
    return f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({where})"


def modules(nb, nbs):
    "Links to the notebooks of the modules that a tutorial imports from, in their order"
    used = {m for c in nb.cells if c.cell_type == "code"
            for m in re.findall(r"^from denoise_study\.(\w+) import", c.source, re.M)}
    pages = {re.sub(r"^\d+[a-z]*_", "", p.stem): p.name for p in sorted(nbs.glob("[0-9]*.ipynb"))}
    return ", ".join(f"[{m}](../{page})" for m, page in pages.items() if m in used)


def dressed(nb, stem, root=ROOT):
    "The notebook with both cells behind its first, as they should be"
    at = home(root)
    top = nbformat.v4.new_markdown_cell(f"{badge(stem, **at)}\n\nModules used: "
                                        f"{modules(nb, root/'nbs')}.", id="badge")
    install = nbformat.v4.new_code_cell(INSTALL.format(**at), id="colab")
    title, *rest = [c for c in nb.cells if c.id not in ("badge", "colab")]
    return nbformat.from_dict(dict(nb, cells=[title, top, install, *rest]))


def stale(root=ROOT):
    "The tutorials whose cells differ, path -> the notebook as it should be"
    old = {p: nbformat.read(p, 4) for p in sorted((root/"nbs/tutorials").glob("*.ipynb"))}
    new = {p: dressed(nb, p.stem, root) for p, nb in old.items()}
    said = lambda nb: [(c.id, c.source) for c in nb.cells]
    return {p: nb for p, nb in new.items() if said(nb) != said(old[p])}


if __name__ == "__main__":
    for path, nb in stale().items():
        nbformat.write(nb, path)
        print(path.relative_to(ROOT))
