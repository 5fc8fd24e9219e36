"Notebooks, modules and README.md say the same: what the tools write is what is committed"
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("nbs", "denoise_study", "pyproject.toml", "settings.ini")


def run(command, cwd, *args):
    "A console script of this environment, found also where the environment isn't activated"
    subprocess.run([Path(sysconfig.get_path("scripts")) / command, *args], cwd=cwd, check=True,
                   capture_output=True)


def committed(root):
    return {f.relative_to(root): f.read_bytes() for d, ext in (("denoise_study", "py"),
                                                               ("nbs", "ipynb"))
            for f in sorted((root / d).rglob(f"*.{ext}"))}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    "A copy of the sources, exported and cleaned once more from nothing"
    copy = tmp_path_factory.mktemp("copy")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name,
                            ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
        else: shutil.copy(ROOT / name, copy)
    for module in (copy / "denoise_study").glob("*.py"):
        if module.name != "__init__.py": module.unlink()
    run("nbdev-export", copy)
    run("nbdev-clean", copy)
    return copy


def test_modules_and_notebooks(exported):
    here, there = committed(ROOT), committed(exported)
    changed = sorted(str(name) for name in here.keys() | there.keys()
                     if here.get(name) != there.get(name))
    assert not changed, f"{changed} out of date: run nbdev-export and nbdev-clean"


def test_readme():
    check = subprocess.run([sys.executable, "docs/readme.py", "--check"], cwd=ROOT,
                           capture_output=True, text=True)
    assert check.returncode == 0, check.stderr
