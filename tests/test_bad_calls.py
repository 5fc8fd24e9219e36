"Systematic senseless calls of the public functions of core, diffusion and denoiser"

import inspect
from collections import Counter

import pytest
import torch
from helpers_calls import become, calls, DEEP, HANGS, PASSED, try_all, WORDS
from helpers_commands import become as become_command
from helpers_commands import try_commands

from denoise_study import core, denoiser, diffusion
from denoise_study.study import COMMANDS

CALLS = calls()


@pytest.mark.parametrize("name", CALLS)
def test_each_call_works_before_it_is_spoilt(name):
    f, arguments = CALLS[name]
    outcome, message = become(f, arguments, "")
    assert outcome == PASSED, message


@pytest.mark.slow
def test_senseless_calls_are_refused_in_words():
    "At most 2% end in somebody else's code, none hangs; counts are in docs/results/bad_calls.json"
    rows = list(try_all())
    kinds = Counter(kind for *_, kind, _ in rows)
    deep = [row for row in rows if row[3] == DEEP]
    assert len(rows) > 3500 and kinds[HANGS] == 0
    assert kinds[DEEP] <= 0.02 * len(rows), deep
    assert kinds[WORDS] >= 0.9 * len(rows), kinds


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_senseless_options_are_refused_before_the_work(name):
    "Of each command, each option; what passes is a large noise level, or rate"
    rows = list(try_commands(name))
    let_through = {row[1:3] for row in rows if row[3] != WORDS}
    assert len(rows) > 20
    assert let_through <= {(key, "1.5") for key in ("sigma", "lr", "lr_backbone")}


def test_an_option_is_refused_before_the_first_pass_through_a_network():
    "A trial of each kind, and one that a command has to let through"
    assert become_command("sample", ["ddgm-digits", "--n=-1"])[0] == WORDS
    assert become_command("probe", ["blind-digits", "--root=/dev/null/x"])[0] == WORDS
    assert become_command("rep", ["--lam=nan"])[0] == WORDS
    assert become_command("sample", ["ddgm-digits", "--n=2"])[0] == PASSED


SENSIBLE = {
    "bfloat16": lambda x: x.bfloat16(),
    "double": lambda x: x.double(),
    "requires_grad": lambda x: x.clone().requires_grad_(),
    "not contiguous": lambda x: x.transpose(-1, -2),
}


def images(v):
    return isinstance(v, torch.Tensor) and v.ndim == 4 and v.is_floating_point()


IMAGES = {name: c for name, c in CALLS.items() if any(images(v) for v in c[1].values())}


@pytest.mark.parametrize("kind", SENSIBLE)
@pytest.mark.parametrize("name", IMAGES)
def test_images_of_other_types_work_or_are_refused_in_words(name, kind):
    f, arguments = IMAGES[name]
    change = SENSIBLE[kind]
    given = {k: change(v) if images(v) else v for k, v in arguments.items()}
    named = next(k for k, v in arguments.items() if images(v))
    outcome, message = become(f, given, named)
    assert outcome in (PASSED, WORDS), message


# Figures of tables and files, parts of a study's page, and what trains: for their own tests
LEFT_OUT = set(
    """
    as_seen bits_part copies_part curve ddgm_chapter ddgm_from_diffusers fit
    folder_sources knob label_ends label_grid load_diffusers model_from open_picture panel panels
    picture_files picture_head
    plot_log_snr plot_psnr preview sample_quality samples_part split_folders study_ddgm
    sweep_axes sweep_curves sweep_part train_blind train_ddgm
    """.split()
)


def test_every_function_with_a_door_is_tried():
    missing = set()
    for wing in (core, diffusion, denoiser):
        for name in wing.__all__:
            f = getattr(wing, name)
            door = inspect.isfunction(f) and f.__code__.co_name == "door"
            if door and f"{f.__module__.split('.')[1]}.{name}" not in CALLS:
                missing.add(name)
    assert missing == LEFT_OUT
