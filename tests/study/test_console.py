"What all commands share: help for every option, errors in one line, scripts that lead to them"

import os
import re
import subprocess
import sys
from configparser import ConfigParser
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from helpers_study import command, COMMANDS, function_of

from denoise_study.denoiser import Blind
from denoise_study.study import comma_numbers, open_ddgm, open_model

ROOT = Path(__file__).parents[2]
OPTIONS = dict(
    zip(
        COMMANDS,
        (
            "--bf16",
            "--method",
            "--inception",
            "--target",
            "--levels",
            "--draws",
            "--sampler",
            "--recipe",
            "--second",
        ),
    )
)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_option(name, tmp_path):
    text = command(tmp_path, name, "--help").stdout
    options = re.findall(r"^  --[\w-]+.*(?:\n {10,}.*)*", text, re.M)
    assert OPTIONS[name] in text and len(options) >= 5
    for o in options:
        assert len(o.split()) > 3, f"{name}: no help for {o}"


# refused before the first step, by the name of the option as it was typed
ERRORS = [
    (("denoise-train", "--steps", "-5"), "--steps: a number in 0..1000000000 is accepted, got -5"),
    (("denoise-train", "--seed", "-1"), "--seed: a number in 0.."),
    (("denoise-train", "--width", "-3"), "--width: a number in 0..8192 is accepted, got -3"),
    (("denoise-train", "--t", "-1"), "--t: a number in 0..100000"),
    (("denoise-train", "--level", "nan", "--model", "daed"), "--level: a number in 0..1"),
    (("denoise-train", "--image-size", "-1"), "--image-size: a number in 0.."),
    (("denoise-train", "--image-size", "7"), "--image-size: 7x7 pixels; sides must be multiples"),
    (("denoise-train", "--device", "tpu"), "--device: cpu, cuda, cuda:1, ..., mps or auto"),
    (("denoise-train", "--device", "cuda:x"), "--device: cpu, cuda, cuda:1, ..., mps or auto"),
    (("denoise-train", "--folder", "denoise-train", "--steps", "1"), "folder can't be written"),
    (("denoise-train", "--noise-law", "log"), "--noise-law: for blind models only"),
    (("denoise-train", "--start", "blind-digits", "--width", "8"), "--width: that of blind-digits"),
    (("denoise-train", "--start", "nowhere", "--steps", "1"), "nowhere does not exist"),
    (("denoise-sample", "ddgm-digits", "--n", "0"), "--n: a number in 1.."),
    (("denoise-sample", "ddgm-digits", "--steps", "-1"), "--steps: a number in 0.."),
    (("denoise-sample", "ddgm-digits", "--steps", "999"), "--steps: a number of steps in"),
    (("denoise-sample", "ddgm-digits", "--seed", "-1"), "--seed: a number in 0.."),
    (("denoise-sample", "ddgm-digits", "--method", "magic"), "--method: one of"),
    (("denoise-sample", "ddgm-digits", "--out", "x.npz"), "x.npz: a picture is one of"),
    (("denoise-sample", "ddgm-digits", "--out", "denoise-sample/x.png"), "x.png can't be written"),
    (("denoise-sample", "blind-digits"), "checkpoint: blind-digits holds a Blind"),
    (("denoise-evaluate", "ddgm-digits", "--n", "-1"), "--n: a number in 1.."),
    (("denoise-evaluate", "ddgm-digits", "--out", "."), "--out: a name in .json is needed"),
    (("denoise-evaluate", "ddgm-digits", "--out", "denoise-evaluate/x.json"), "can't be written"),
    (("denoise-evaluate", "ddgm-digits", "--inception", "no"), "no"),
    (("denoise-study", "--steps", "-1"), "--steps: a number in 0.."),
    (("denoise-study", "--n", "0"), "--n: a number in 1.."),
    (("denoise-study", "--seed", "-1"), "--seed: a number in 0.."),
    (("denoise-study", "--device", "tpu"), "--device: cpu, cuda"),
    (("denoise-study", "--image-size", "7"), "--image-size: 7x7 pixels; sides must be multiples"),
    (("denoise-study", "--chapters", ","), "--chapters: some of"),
    (("denoise-study", "--second", "nowhere"), "nowhere"),
    (("denoise-study", "--folder", "denoise-study"), "folder can't be written"),
    (("denoise-study", "--data", "nowhere"), "nowhere"),
    (("denoise-study", "--size", "huge"), "size: one of"),
    (("denoise-train", "--loss", "l1"), "loss: one of"),
    (("denoise-sample", "missing.safetensors"), "missing.safetensors does not exist"),
    (("denoise-sample", __file__), "not a readable safetensors file"),
    (("denoise-train", "--device", "cuda"), "PyTorch sees no GPU"),
    (("denoise-train", "--model", "gan"), "model: one of"),
    (("denoise-splits", "--levels", "a,b"), "levels: numbers with commas"),
    (("denoise-study", "--chapters", "x"), "chapters: some of"),
    (("denoise-rep", "--task", "painting"), "task: one of"),
]


@pytest.mark.parametrize("args, message", ERRORS, ids=lambda v: v if isinstance(v, str) else v[0])
def test_errors_are_one_line(args, message, tmp_path):
    if "cuda" in args and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    error = command(tmp_path, *args, ok=False).stderr
    assert message in error and "Traceback" not in error
    assert error.strip().splitlines()[-1].startswith(f"{args[0]}: ")


def test_a_process_ends_with_the_line(tmp_path):
    "The same in a process of its own, once"
    program = tmp_path / "denoise-train"
    program.write_text("from denoise_study.study import denoise_train\ndenoise_train()\n")
    out = subprocess.run(
        [sys.executable, str(program), "--model", "gan"],
        capture_output=True,
        text=True,
        env=dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT)),
    )
    assert out.returncode == 1 and "Traceback" not in out.stderr
    assert out.stderr.strip().startswith("denoise-train: --model: one of")


def test_scripts_lead_to_the_commands():
    "Each console script of settings.ini is one of the functions of the study"
    ini = ConfigParser(delimiters=["="], interpolation=None)
    ini.read(ROOT / "settings.ini", encoding="utf-8")
    lines = ini["DEFAULT"]["console_scripts"].split()
    scripts = dict(line.split("=") for line in lines)
    assert set(scripts) == set(COMMANDS)
    for name, target in scripts.items():
        assert EntryPoint(name, target, "console_scripts").load() is function_of(name)


def test_in_python_errors_stay_exceptions():
    denoise_train = function_of("denoise-train")
    with pytest.raises(ValueError, match="model: one of"):
        denoise_train(model="gan")


def test_a_model_by_name_or_file():
    assert isinstance(open_model("blind-digits", "", "cpu"), Blind)
    with pytest.raises(ValueError, match="no others"):
        open_model("blind-digits", "raw", "cpu")
    with pytest.raises(ValueError, match="DDGM is needed"):
        open_ddgm("blind-digits", "", "cpu")
    with pytest.raises(OSError, match="does not exist"):
        open_model("blind.safetensors", "", "cpu")


def test_numbers_with_commas():
    assert comma_numbers("levels", ".1,.3") == [0.1, 0.3]
    assert comma_numbers("images", "3, 5", int) == [3, 5]
    with pytest.raises(ValueError, match="images: numbers with commas between .* got '1.5'"):
        comma_numbers("images", "1.5", int)
