"""What stands under the title of every tutorial: a badge that opens it on Colab, the notebooks of
what it imports, and the cell that installs the package there.

python tools/badges.py writes it into nbs/tutorials; the tests ask whether it is up to date. Who the
repository belongs to is said once, in settings.ini."""

import ast
import re
import sys
from configparser import ConfigParser
from pathlib import Path

import nbformat

sys.path.insert(0, str(Path(__file__).resolve().parent))
import faces  # noqa: E402, it lies beside this file

ROOT = Path(__file__).resolve().parents[1]
COLAB = "https://colab.research.google.com"
INSTALL = """#| hide
import sys
if 'google.colab' in sys.modules:
    %pip install -q git+https://github.com/{user}/{repo}.git@{branch}"""


def home(root=ROOT):
    "user, repo and branch of settings.ini"
    ini = ConfigParser(delimiters=["="], interpolation=None)
    ini.read(root / "settings.ini", encoding="utf-8")
    return {k: ini["DEFAULT"][k] for k in ("user", "repo", "branch")}


def badge(stem, user, repo, branch):
    "Colab's own button, which leads to the notebook there"
    button = f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]"
    return f"{button}({COLAB}/github/{user}/{repo}/blob/{branch}/nbs/tutorials/{stem}.ipynb)"


def imported(nb):
    "The names that a notebook imports from the package or its wings"
    for cell in nb.cells:
        if cell.cell_type != "code" or "denoise_study" not in cell.source:
            continue
        for line in re.findall(
            r"^from denoise_study[\w.]* import (?:[^\n(]+|\([^)]*\))", cell.source, re.M
        ):
            yield from (alias.name for alias in ast.parse(line).body[0].names)


def used(nb):
    "Links to the notebooks that a tutorial's names are from, wing by wing, in reading order"
    homes, names = faces.homes(), set(imported(nb))
    needed = {place for name in names for place in homes.get(name, [])}
    links = []
    for wing in faces.WINGS:
        found = [path for path in faces.notebooks(wing) if (wing, faces.room_of(path)) in needed]
        rooms = ", ".join(f"[{faces.room_of(path)}](../{wing}/{path.name})" for path in found)
        if rooms:
            links.append(f"`{wing}` ({rooms})")
    return ", ".join(links)


def dressed(nb, stem, root=ROOT):
    "The notebook with both cells behind its first, as they should be"
    at = home(root)
    head = f"{badge(stem, **at)}\n\nWhat it uses: {used(nb)}."
    top = nbformat.v4.new_markdown_cell(head, id="badge")
    install = nbformat.v4.new_code_cell(INSTALL.format(**at), id="colab")
    title, *rest = [c for c in nb.cells if c.id not in ("badge", "colab")]
    return nbformat.from_dict(dict(nb, cells=[title, top, install, *rest]))


def stale(root=ROOT):
    "The tutorials whose cells differ, path -> the notebook as it should be"
    old = {p: nbformat.read(p, 4) for p in sorted((root / "nbs/tutorials").glob("*.ipynb"))}
    new = {p: dressed(nb, p.stem, root) for p, nb in old.items()}

    def content(nb):
        return [(c.id, c.source) for c in nb.cells]

    return {p: nb for p, nb in new.items() if content(nb) != content(old[p])}


if __name__ == "__main__":
    for path, nb in stale().items():
        nbformat.write(nb, path)
        print(path.relative_to(ROOT))
