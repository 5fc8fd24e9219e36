"denoise-splits and denoise-transfer: each trains what it needs, leaves a page and numbers"

import json

import pytest
import torch
from helpers import IMPROVED, openai_state
from helpers_foreign import given_models
from helpers_study import command
from helpers_training import shorter_chains

from denoise_study.study import denoise_splits, denoise_transfer, source_model


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
    args = ["--openai", "side=8,schedule=cosine,T=20,heads=4,time_scale=50", "--n-eval", 32]
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


def test_a_pipeline_of_diffusers(tmp_path):
    "Split, with a denoiser trained for it, and transferred as it is"
    words = given_models(tmp_path)["diffusers"]
    short = "--levels", 0.14, "--steps", 2, "--n", 8, "--folder", "split"
    command(tmp_path, "denoise-splits", *words, *short)
    rows = results(tmp_path / "split")["splits"]
    assert [row["model"] for row in rows] == ["DDGM", "DAED 0.14"]
    few = "--targets", "few.npz", "--level", 0.14, "--n-eval", 16, "--folder", "run"
    command(tmp_path, "denoise-transfer", "--source", "pipeline", *few)
    ways = {(row["set"], row["model"], row["how"]) for row in results(tmp_path / "run")["transfer"]}
    assert {("few", "DDGM", how) for how in ("ancestral", "mean", "ddim")} <= ways


TOLD = dict(side=8, schedule="cosine", T=20, heads=4, time_scale=50.0)


def facts(**told):
    return ",".join(f"{k}={v}" for k, v in told.items())


@pytest.mark.parametrize("missing", TOLD)
def test_what_a_file_does_not_tell_is_asked_for(tmp_path, missing):
    torch.save(openai_state(**IMPROVED), tmp_path / "theirs.pt")
    told = facts(**{k: v for k, v in TOLD.items() if k != missing})
    with pytest.raises(ValueError, match=f"^openai: {missing}: the file does not tell; give"):
        source_model(str(tmp_path / "theirs.pt"), "cpu", told)


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
        source_model(str(tmp_path / "theirs.pt"), "cpu", facts(**TOLD))


def test_a_class_and_a_published_name(tmp_path):
    file = str(tmp_path / "theirs.pt")
    torch.save(openai_state(**IMPROVED, n_classes=10), file)
    third = source_model(file, "cpu", facts(label=3, **TOLD))
    assert third.net.n_classes is None and third.time_scale == 50
    published = source_model(file, "cpu", "imagenet64_cond,label=0")
    assert published.shape == (3, 64, 64) and published.sched.T == 4000
    for source in ("ddgm-digits", "digits"):
        with pytest.raises(ValueError, match=f"openai: {source} needs none"):
            source_model(source, "cpu", "imagenet64_cond")


def test_bad_input(tmp_path):
    assert source_model("ddgm-digits", "cpu").sched.T == 200
    assert source_model("digits", "cpu") is None
    with pytest.raises(OSError, match="model: digits does not exist"):
        denoise_splits(model="digits", folder=str(tmp_path))
    torch.save(openai_state(**IMPROVED), tmp_path / "theirs.pt")
    with pytest.raises(ValueError, match="targets: the model is for 3 channels, digits has 1"):
        denoise_transfer(
            str(tmp_path / "theirs.pt"), "digits", str(tmp_path), openai=facts(**TOLD), device="cpu"
        )
