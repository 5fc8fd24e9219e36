"What all commands share: help for every option, errors in one line, scripts that lead to them"

import os
import re
import subprocess
import sys
import warnings
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

import pytest
import torch
from helpers_study import command, function_of

from denoise_study.core import FolderInUse, image_dls, Stopped
from denoise_study.denoiser import Blind, NOISE_LAWS
from denoise_study.study import comma_numbers, command_line, COMMANDS, DATA_SETS, open_ddgm
from denoise_study.study import open_model, parser_of, pretrained_models
from denoise_study.study import run_command, shipped_models

ROOT = Path(__file__).parents[2]
OPTIONS = dict(
    study="--second",
    train="--bf16",
    sample="--method {ancestral,ddim}",
    evaluate="--inception",
    splits="--levels",
    transfer="--targets",
    probe="--draws",
    selfguide="--sampler {ancestral,ascend,renoise}",
    rep="--recipe",
)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_option(name, tmp_path):
    text = command(tmp_path, f"denoise-{name}", "--help").stdout
    options, listed = text.split("all commands")
    options = re.findall(r"^  --[\w-]+.*(?:\n {10,}.*)*", options, re.M)
    assert OPTIONS[name] in text and len(options) >= 5
    for o in options:
        assert len(o.split()) > 2, f"{name}: no help for {o}"
    assert [f"denoise-{word}" for word in OPTIONS] == re.findall(r"^  (denoise-\w+)", listed, re.M)


# refused before the first step, by the name of the option as it was typed
ERRORS = [
    (("denoise-train", "--steps", "-5"), "--steps: a number in 0..1000000000 is accepted, got -5"),
    (("denoise-train", "--seed", "-1"), "--seed: a number in 0.."),
    (("denoise-train", "--width", "-3"), "--width: a number in 0..8192 is accepted, got -3"),
    (("denoise-train", "--T", "-1"), "--T: a number in 0..100000"),
    (("denoise-train", "--level", "nan", "--model", "daed"), "--level: a number in 0..1"),
    (("denoise-train", "--image-size", "-1"), "--image-size: a number in 0.."),
    (("denoise-train", "--image-size", "7"), "--image-size: 7x7 pixels; sides must be multiples"),
    (("denoise-train", "--device", "tpu"), "--device: cpu, cuda, cuda:1, ..., mps or auto"),
    (("denoise-train", "--device", "cuda:x"), "--device: cpu, cuda, cuda:1, ..., mps or auto"),
    (("denoise-train", "--folder", "a-file", "--steps", "1"), "folder can't be written"),
    (("denoise-train", "--noise-law", "log"), "--noise-law: for blind models only"),
    (("denoise-train", "--noise-power", "1"), "--noise-power: for blind models only"),
    (("denoise-train", "--lr", "-1"), "--lr: a number in 0..10"),
    (
        ("denoise-train", "--model", "daed", "--compiled"),
        "--compiled: the networks of a DAED that are trained together",
    ),
    (
        ("denoise-train", "--model", "blind", "--noise-power", "3"),
        "--noise-power: a number in 0..2",
    ),
    (("denoise-train", "--start", "blind-digits", "--width", "8"), "--width: that of blind-digits"),
    (("denoise-train", "--start", "nowhere", "--steps", "1"), "--start: nowhere does not exist"),
    (("denoise-sample", "ddgm-digits", "--n", "0"), "--n: a number in 1.."),
    (("denoise-sample", "ddgm-digits", "--steps", "-1"), "--steps: a number in 0.."),
    (("denoise-sample", "ddgm-digits", "--steps", "999"), "--steps: a number of steps in"),
    (("denoise-sample", "ddgm-digits", "--seed", "-1"), "--seed: a number in 0.."),
    (("denoise-sample", "ddgm-digits", "--method", "magic"), "argument --method: invalid choice"),
    (("denoise-sample", "ddgm-digits", "--out", "x.npz"), "x.npz: a picture is one of"),
    (("denoise-sample", "ddgm-digits", "--out", "a-file/x.png"), "x.png can't be written"),
    (("denoise-sample", "blind-digits"), "--model: blind-digits holds a Blind"),
    (("denoise-evaluate", "ddgm-digits", "--n", "-1"), "--n: a number in 1.."),
    (("denoise-evaluate",), "--model: nothing does not exist"),
    (("denoise-probe", "a", "--model", "b"), "error: model: one is accepted, got b and a"),
    (("denoise-evaluate", "ddgm-digits", "--samples", "digits"), "--model: samples have none"),
    (("denoise-evaluate", "--samples", "nowhere"), "--samples: 'nowhere' is no name"),
    (("denoise-evaluate", "--samples", "fashion_mini"), "--data: images (1, 28, 28) are to be"),
    (("denoise-evaluate", "--samples", "digits", "--n", "9999"), "--n: up to 1797 images"),
    (("denoise-evaluate", "--samples", "digits", "--n", "5"), "--samples: at least 8 images"),
    (("denoise-evaluate", "--samples", "digits", "--weights", "ema"), "--weights: samples have"),
    (("denoise-sample", "ddgm-digits", "--openai", "T=9"), "--openai: ddgm-digits needs none"),
    (("denoise-sample", __file__, "--openai", "T=many"), "--openai: the name of a published"),
    (("denoise-study", "--openai", "T=9"), "--openai: of a model that is given"),
    (("denoise-evaluate", "ddgm-digits", "--out", "."), "--out: a name in .json is needed"),
    (("denoise-evaluate", "ddgm-digits", "--out", "a-file/x.json"), "can't be written"),
    (("denoise-evaluate", "ddgm-digits", "--inception", "no"), "no"),
    (("denoise-study", "--steps", "-1"), "--steps: a number in 0.."),
    (("denoise-study", "--n", "0"), "--n: a number in 1.."),
    (("denoise-study", "--seed", "-1"), "--seed: a number in 0.."),
    (("denoise-study", "--device", "tpu"), "--device: cpu, cuda"),
    (("denoise-study", "--image-size", "7"), "--image-size: 7x7 pixels; sides must be multiples"),
    (("denoise-study", "--chapters", ","), "--chapters: some of"),
    (("denoise-study", "--second", "nowhere"), "nowhere"),
    (("denoise-study", "--folder", "a-file"), "folder can't be written"),
    (("denoise-study", "--data", "nowhere"), "nowhere"),
    (("denoise-study", "--size", "huge"), "argument --size: invalid choice"),
    (("denoise-train", "--loss", "l1"), "argument --loss: invalid choice"),
    (("denoise-sample", "missing.safetensors"), "--model: missing.safetensors does not exist"),
    (("denoise-sample", __file__), "a .safetensors of ours"),
    (("denoise-train", "--device", "cuda"), "PyTorch sees no GPU"),
    (("denoise-train", "--model", "gan"), "--model: invalid choice: 'gan' (choose from 'ddgm'"),
    (("denoise-train", "-t", "50"), "unrecognized arguments: -t 50"),
    (("denoise-train", "--step", "5"), "unrecognized arguments: --step 5"),
    (("denoise-splits", "--model", "nothing"), "--model: nothing does not exist"),
    (("denoise-transfer", "--targets", "nothing"), "--targets: 'nothing' is no name"),
    (("denoise-splits", "--levels", "a,b"), "levels: numbers with commas"),
    (("denoise-study", "--chapters", "x"), "chapters: some of"),
    (("denoise-rep", "--task", "painting"), "argument --task: invalid choice"),
]


@pytest.mark.parametrize("args, message", ERRORS, ids=lambda v: v if isinstance(v, str) else v[0])
def test_errors_are_one_line(args, message, tmp_path):
    if "cuda" in args and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    (tmp_path / "a-file").touch()
    error = command(tmp_path, *args, ok=False).stderr
    assert message in error and "Traceback" not in error
    assert error.strip().splitlines()[-1].startswith(f"{args[0]}: ")


def python(*args):
    env = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, *args], capture_output=True, text=True, env=env)
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize(
    "words, code, shown",
    [
        ("--version", 0, metadata.version("denoise_study")),
        ("--help", 0, "denoise-selfguide"),
        ("study --help", 0, "--chapters"),
        ("trian", 2, "invalid choice: 'trian'"),
        ("train --model gan", 2, "denoise-train: error: argument --model: invalid choice"),
        ("train --data digit", 1, "denoise-train: --data: 'digit' is no name (digits, "),
        ("sample ddgm-digts", 1, "denoise-sample: --model: ddgm-digts does not exist"),
    ],
)
def test_a_process_answers_before_anything_large_is_loaded(words, code, shown):
    "`-X importtime` names every module that is imported"
    done = python("-X", "importtime", "-m", "denoise_study", *words.split())
    imports = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    loaded = {line.split("|")[-1].strip().split(".")[0] for line in imports}
    assert done.returncode == code and shown in done.stdout + done.stderr
    assert "denoise_study" in loaded
    assert not loaded & {"torch", "torchvision", "fastai", "numpy", "matplotlib", "pandas"}


def test_scripts_lead_to_the_commands():
    "Each console script of settings.ini is named as a command, and begins where all do"
    ini = ConfigParser(delimiters=["="], interpolation=None)
    ini.read(ROOT / "settings.ini", encoding="utf-8")
    lines = ini["DEFAULT"]["console_scripts"].split()
    scripts = dict(line.split("=") for line in lines)
    assert set(scripts) == {f"denoise-{word}" for word in COMMANDS}
    for name, target in scripts.items():
        assert metadata.EntryPoint(name, target, "console_scripts").load() is command_line


def test_words_are_those_of_the_library():
    "What the command line offers, without having loaded it, is what there is"
    words = {a.dest: a.choices for a in parser_of(COMMANDS["train"], "train")._actions}
    assert words["noise_law"] == list(NOISE_LAWS)
    with pytest.raises(OSError, match=re.escape(f"({', '.join(DATA_SETS)})")):
        image_dls("nowhere")


def test_models_are_known_before_they_are_read():
    assert shipped_models() == sorted(pretrained_models().index)


def test_ctrl_c_and_a_folder_in_use(capsys):
    def stop(error):
        def f(n: int = 1):
            raise error

        with pytest.raises(SystemExit) as e:
            run_command(f, "name", [])
        return e.value.code

    assert stop(KeyboardInterrupt()) == 130 and capsys.readouterr().out == "name: stopped\n"
    assert stop(Stopped("saved")) == 130 and capsys.readouterr().out == "saved\n"
    assert stop(FolderInUse("busy")) == "name: busy"
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        run_command(lambda: (_ for _ in ()).throw(RuntimeError("a mistake of ours")), "name", [])


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


@pytest.mark.parametrize("words", [["m", "--n", "3"], ["--n", "3", "m"], ["--model=m", "--n=3"]])
def test_a_model_is_the_first_word_or_an_option(words):
    def f(model: str = "", n: int = 1):
        "A command"

    assert vars(parser_of(f, "f").parse_intermixed_args(words)) == dict(model="m", n=3)


def test_numbers_with_commas():
    assert comma_numbers("levels", ".1,.3") == [0.1, 0.3]
    assert comma_numbers("images", "3, 5", int) == [3, 5]
    with pytest.raises(ValueError, match="images: numbers with commas between .* got '1.5'"):
        comma_numbers("images", "1.5", int)


def test_a_warning_is_read_once_whatever_libraries_do_to_the_memory():
    "Each `catch_warnings` that is left wipes what Python remembers of having warned"

    def noisy():
        "Warns three times"
        for _ in range(3):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
            warnings.warn("few images")
        warnings.warn("other images")

    said = []
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = lambda message, *args, **kwargs: said.append(str(message))
        run_command(noisy, "noisy", [])
    assert said == ["few images", "other images"]
