"denoise-train: what is left behind, and what does not go together"

import pytest
from helpers_study import color_pictures, command

from denoise_study.core import load_checkpoint
from denoise_study.study import denoise_train, MODELS, SCHEDULES


def test_trains_on_a_folder(tmp_path):
    "Colour pictures of a user: a checkpoint that says what it is, and pictures beside it"
    (tmp_path / "pictures").mkdir()
    color_pictures(tmp_path / "pictures")
    out = command(
        tmp_path,
        "denoise-train",
        "--data",
        "pictures",
        "--image-size",
        8,
        "--folder",
        "run",
        "--steps",
        3,
        "--loss",
        "hybrid",
    ).stdout
    model = load_checkpoint(tmp_path / "run/ddgm.safetensors")
    assert model.shape == (3, 8, 8) and model.loss == "hybrid"
    assert model.info["weights"] == "ema" and model.info["data"]["n_train"] > 0
    assert list((tmp_path / "run/samples").glob("*.png"))
    assert "The model is in run/ddgm.safetensors" in out


def test_words_of_the_command_line():
    assert list(MODELS) == ["ddgm", "daed", "blind"] and list(SCHEDULES) == ["linear", "cosine"]


def test_noise_law_is_for_blind_models():
    with pytest.raises(ValueError, match="noise_law: for blind models only, got 'log' for 'ddgm'"):
        denoise_train(noise_law="log")


@pytest.mark.parametrize(
    "given",
    [
        dict(model="blind", loss="vlb"),
        dict(model="blind", T=50),
        dict(model="blind", schedule="cosine"),
        dict(model="blind", level=0.2),
        dict(model="ddgm", level=0.2),
    ],
)
def test_options_of_other_models_are_refused(given):
    "Not dropped without a word"
    name = list(given)[1]
    with pytest.raises(ValueError, match=f"^{name}: for .* models only, got .* for"):
        denoise_train(**given)
