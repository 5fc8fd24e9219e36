"Notebooks, modules and README.md say the same: what the tools write is what is committed"

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = "nbs", "denoise_study", "tools", "pyproject.toml", "settings.ini"
# of the package itself; those of its folders are made by tools/faces.py
BY_HAND = {"__init__.py", "__main__.py", "all.py"}
JUNK = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")


def run(command, cwd, *args):
    "A console script of this environment, found also where the environment isn't activated"
    subprocess.run(
        [Path(sysconfig.get_path("scripts")) / command, *args],
        cwd=cwd,
        check=True,
        capture_output=True,
    )


def committed(root):
    "Path -> content of modules, stubs and notebooks"
    kinds = ("denoise_study", "py"), ("denoise_study", "pyi"), ("nbs", "ipynb")
    files = [f for folder, ext in kinds for f in sorted((root / folder).rglob(f"*.{ext}"))]
    return {f.relative_to(root): f.read_bytes() for f in files}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    "A copy of the sources, exported and cleaned once more from nothing"
    copy = tmp_path_factory.mktemp("copy")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=JUNK)
        else:
            shutil.copy(ROOT / name, copy)
    package = copy / "denoise_study"
    for module in package.rglob("*.py*"):
        if module.parent != package or module.name not in {*BY_HAND, "py.typed"}:
            module.unlink()
    run("nbdev-export", copy)
    run("nbdev-clean", copy)
    subprocess.run([sys.executable, "tools/faces.py"], cwd=copy, capture_output=True)
    return copy


def test_modules_and_notebooks(exported):
    here, there = committed(ROOT), committed(exported)
    every = here.keys() | there.keys()
    changed = sorted(str(name) for name in every if here.get(name) != there.get(name))
    wanted = "run nbdev-export, nbdev-clean and python tools/faces.py"
    assert not changed, f"{changed} out of date: {wanted}"


def test_readme():
    check = subprocess.run(
        [sys.executable, "docs/readme.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert check.returncode == 0, check.stderr
