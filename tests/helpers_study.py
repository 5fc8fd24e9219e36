"What the tests of the study share: commands run as a terminal runs them, in this process"

import io
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
from PIL import Image

from denoise_study.study import command_line, COMMANDS


def function_of(name):
    "The function behind a command"
    return COMMANDS[name.removeprefix("denoise-")]


@dataclass
class Ended:
    "How a command ended, what it printed, and the message it left"

    code: int
    stdout: str
    stderr: str


def command(folder, name, *args, ok=True):
    """A command in a folder, as the script that an installation writes; no process is started.

    ok: it must (not) end well; None: either"""
    out, err, code = io.StringIO(), io.StringIO(), 0
    argv = [f"bin/{name}", *map(str, args)]
    with patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err):
        try:
            with chdir(folder):
                command_line()
        except SystemExit as e:
            code = e.code
    if isinstance(code, str):  # the interpreter prints the message and exits with 1
        err.write(code)
        code = 1
    end = Ended(code or 0, out.getvalue(), err.getvalue())
    assert ok is None or (end.code == 0) == ok, end.stderr[-2000:]
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
