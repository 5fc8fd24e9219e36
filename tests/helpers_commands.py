"""Senseless words for each option of each command: are they refused before the work begins?

The work begins with the first pass through a network. Until then everything that can be known to be
wrong has to be said, in one line that names the option."""

import os
import tempfile
import traceback
from typing import get_args
from unittest.mock import patch

from fastcore.docments import docments
from helpers_calls import DEEP, PASSED, WORDS
from helpers_study import command
from torch import nn

from denoise_study.study import COMMANDS, option_name

# what a command needs besides
NEEDED = dict(
    sample=dict(model="ddgm-digits"),
    evaluate=dict(model="ddgm-digits"),
    probe=dict(model="blind-digits"),
    selfguide=dict(model="blind-digits"),
    splits=dict(model="ddgm-digits"),
    transfer=dict(source="ddgm-digits"),
)
NUMBERS = "-1", "nan", "inf", "1.5", "x", "", "9" * 30
NOWHERE = "/dev/null/x"  # a file is no folder: nothing can be read or written there
WORDS_OF_NOTHING = "nowhere/at/all", ",", "\n", NOWHERE
WRITTEN = "folder", "out"  # where any name will do


class WorkBegins(BaseException):
    "The first pass through a network"


def begin(*args, **kwargs):
    raise WorkBegins


def senseless(key, parameter):
    "Words that make no sense for an option"
    if parameter.anno in (int, float):
        return NUMBERS
    if get_args(parameter.anno):
        return "x", "-1"
    if parameter.anno is bool:
        return ()
    return (NOWHERE,) if key in WRITTEN else WORDS_OF_NOTHING


def become(name, words):
    "What becomes of a command: (kind, message)"
    with tempfile.TemporaryDirectory() as folder, patch.object(nn.Module, "__call__", begin):
        try:
            end = command(folder, f"denoise-{name}", *words, ok=None)
        except WorkBegins:
            return PASSED, ""
        except Exception as e:
            at = traceback.extract_tb(e.__traceback__)[-1]
            return DEEP, f"{type(e).__name__}: {e} ({os.path.basename(at.filename)})"[:200]
    return (WORDS if end.code else PASSED), end.stderr.strip().splitlines()[-1:]


def try_commands(only=""):
    "Yields (command, option, word, kind, message) for every senseless word"
    for name, f in COMMANDS.items():
        if only and only not in name:
            continue
        for key, parameter in docments(f, full=True, returns=False, eval_str=True).items():
            for word in senseless(key, parameter):
                options = NEEDED.get(name, {}) | {key: word}
                given = [f"{option_name(k)}={v}" for k, v in options.items()]
                yield name, key, word, *become(name, given)
