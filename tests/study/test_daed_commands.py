"denoise-splits and denoise-transfer: each trains what it needs, leaves a page and numbers"

import json

import pytest
import torch
from helpers import IMPROVED, openai_state
from helpers_study import command
from helpers_training import shorter_chains

from denoise_study.study import denoise_splits, denoise_transfer, openai_ddgm, source_model


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_splits_and_transfer(tmp_path, monkeypatch):
    "What one has trained, the other finds; a DAE has as many steps as were asked for, at most"
    shorter_chains(monkeypatch)
    out = command(
        tmp_path, "denoise-splits", "--folder", "run", "--steps", 6, "--levels", ".1,.3", "--n", 20
    ).stdout
    r = results(tmp_path / "run")
    assert [row["model"][:4] for row in r["splits"]] == ["DDGM", "DAED", "DAED"]
    assert "training the diffusion model" in out
    for row in r["splits"]:
        assert row["n_fake"] == 20
        assert row["frechet_low"] <= row["frechet"] <= row["frechet_high"]
        assert row["steps"] == 6 and row["valid_loss"] > 0
    two_step = {
        c["verdict"] for c in r["claims"] if c["place"] == "not of Table 1: two-step models"
    }
    assert two_step <= {"not learned", "not measured"} and "not learned" in two_step
    assert "<img" in (tmp_path / "run/report.html").read_text()

    command(tmp_path, "denoise-transfer", "--source", "digits", "--folder", "run", "--steps", 6)
    r = results(tmp_path / "run")
    ways = {(row["set"], row["model"], row["how"]) for row in r["transfer"]}
    assert {
        ("digits", "DDGM", "mean"),
        ("upside down", "DDGM", "ancestral"),
        ("upside down", "no model", "linear"),
        ("upside down", "no model", "noisy"),
    } <= ways
    assert any(model.startswith("DAED") for _, model, _ in ways)
    of_table2 = {c["verdict"] for c in r["claims"] if c["place"] == "DAED Table 2"}
    assert of_table2 == {"not learned"}


def test_transfer_of_a_checkpoint_in_openais_format(tmp_path):
    "Nothing is trained: means and samples of made-up weights, on two data sets"
    state = openai_state(**IMPROVED, channels=1, out=2)
    torch.save(state, tmp_path / "theirs.pt")
    args = ["--schedule", "cosine", "--T", 20, "--heads", 4, "--time-scale", 50]
    args += ["--image-size", 8, "--n-eval", 32]
    args += ["--source", "theirs.pt", "--targets", "digits,fashion_mini", "--folder", "run"]
    command(tmp_path, "denoise-transfer", *args)
    r = results(tmp_path / "run")
    rows = {(row["set"], row["model"], row["how"]) for row in r["transfer"]}
    for name in ("digits", "fashion_mini"):
        assert {(name, "DDGM", how) for how in ("ancestral", "mean", "ddim")} <= rows
        assert (name, "no model", "linear") in rows
    assert not any(model.startswith("DAED") for _, model, _ in rows)
    assert not list(tmp_path.rglob("daed.safetensors"))


def test_splits_of_a_model_that_exists(tmp_path):
    "The shipped model of digits: nothing but DAEs is trained, on the data set that its file names"
    denoise_splits(
        model="ddgm-digits", folder=str(tmp_path / "run"), levels=".1", steps=2, n=10, device="cpu"
    )
    r = results(tmp_path / "run")
    assert r["data"]["name"] == "digits" and not (tmp_path / "run/ddgm").exists()
    assert [row["steps"] for row in r["splits"]] == [2002, 2]


TOLD = dict(schedule="cosine", T=20, heads=4, time_scale=50.0)


@pytest.mark.parametrize("missing", TOLD)
def test_what_a_file_does_not_tell_is_asked_for(tmp_path, missing):
    torch.save(openai_state(**IMPROVED), tmp_path / "theirs.pt")
    with pytest.raises(ValueError, match=f"^{missing}: the file does not tell; give"):
        openai_ddgm(tmp_path / "theirs.pt", "cpu", 8, **TOLD | {missing: type(TOLD[missing])()})


@pytest.mark.parametrize(
    "state,message",
    [
        (dict(channels=6, out=6), "super-resolution"),
        (dict(n_classes=10), "label: this network wants a class, 0..9"),
    ],
)
def test_networks_that_generate_nothing_alone_are_refused(tmp_path, state, message):
    torch.save(openai_state(**IMPROVED, **state), tmp_path / "theirs.pt")
    with pytest.raises(ValueError, match=message):
        openai_ddgm(tmp_path / "theirs.pt", "cpu", 8, **TOLD)


def test_a_class_and_a_published_name(tmp_path):
    torch.save(openai_state(**IMPROVED, n_classes=10), tmp_path / "theirs.pt")
    third = openai_ddgm(tmp_path / "theirs.pt", "cpu", 8, label=3, **TOLD)
    assert third.net.n_classes is None and third.time_scale == 50
    published = openai_ddgm(tmp_path / "theirs.pt", "cpu", 0, "imagenet64_cond", label=0)
    assert published.shape == (3, 64, 64) and published.sched.T == 4000
    with pytest.raises(ValueError, match="published: for a source in a .pt file"):
        source_model("ddgm-digits", "cpu", published="imagenet64_cond", label=-1)
    with pytest.raises(ValueError, match="label: for a source in a .pt file"):
        source_model("ddgm-digits", "cpu", label=0)
    assert source_model("ddgm-digits", "cpu", published="", label=-1, T=0).sched.T == 200


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="schedule: for a source in a .pt file"):
        source_model("ddgm-digits", "cpu", schedule="cosine")
    assert source_model("digits", "cpu") is None
    with pytest.raises(OSError, match="model: digits does not exist"):
        denoise_splits(model="digits", folder=str(tmp_path))
    with pytest.raises(ValueError, match="targets: digits has 1 channels, the source 3"):
        torch.save(openai_state(**IMPROVED), tmp_path / "theirs.pt")
        denoise_transfer(
            str(tmp_path / "theirs.pt"), "digits", str(tmp_path), image_size=8, **TOLD, device="cpu"
        )
