"What the tests of the study share: commands run as a terminal runs them, in this process"

import importlib
import io
import runpy
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
from PIL import Image

FUNCTIONS = {"denoise-rep": "denoise_rep_command"}  # the others are named as their commands are
COMMANDS = (
    "denoise-train",
    "denoise-sample",
    "denoise-evaluate",
    "denoise-transfer",
    "denoise-splits",
    "denoise-probe",
    "denoise-selfguide",
    "denoise-rep",
    "denoise-study",
)


def function_of(name):
    "The function behind a command"
    study = importlib.import_module("denoise_study.study")
    return getattr(study, FUNCTIONS.get(name, name.replace("-", "_")))


@dataclass
class Ended:
    "How a command ended, what it printed, and the message it left"

    code: int
    stdout: str
    stderr: str


def run_script(path, *args):
    "A script as the main program of this process"
    out, err, code = io.StringIO(), io.StringIO(), 0
    argv = [str(path), *map(str, args)]
    with patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err):
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as e:
            code = e.code
    if isinstance(code, str):  # the interpreter prints the message and exits with 1
        err.write(code)
        code = 1
    return Ended(code or 0, out.getvalue(), err.getvalue())


def command(folder, name, *args, ok=True):
    "A command in a folder, from the script that an installation writes; no process is started"
    function = function_of(name)
    path = Path(folder) / name
    path.write_text(
        f"import sys\nfrom denoise_study import study\nsys.exit(study.{function.__name__}())\n"
    )
    with chdir(folder):
        end = run_script(path, *args)
    path.unlink()
    assert (end.code == 0) == ok, end.stderr[-2000:]
    return end


def color_pictures(root, n=30):
    "Colour pictures of two classes in subfolders, as a user would have them"
    rng = np.random.default_rng(0)
    for k, name in enumerate(("dark", "light")):
        (root / name).mkdir()
        for i in range(n):
            pixels = rng.integers(0, 128, (14, 12, 3)) + 127 * k
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
    return root
