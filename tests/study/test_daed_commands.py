"denoise-splits and denoise-transfer: each trains what it needs, leaves a page and numbers"

import json

from helpers_study import command


def test_splits_and_transfer(tmp_path):
    "What one has trained, the other finds"
    out = command(
        tmp_path, "denoise-splits", "--folder", "run", "--steps", 11, "--levels", ".1,.3", "--n", 20
    ).stdout
    r = json.loads((tmp_path / "run/results.json").read_text())
    assert [row["model"][:4] for row in r["splits"]] == ["DDGM", "DAED", "DAED"]
    assert "training the diffusion model" in out
    for row in r["splits"]:
        assert row["n_fake"] == 20
        assert row["frechet_low"] <= row["frechet"] <= row["frechet_high"]
    assert "<img" in (tmp_path / "run/report.html").read_text()

    command(tmp_path, "denoise-transfer", "--source", "digits", "--folder", "run", "--steps", 11)
    r = json.loads((tmp_path / "run/results.json").read_text())
    ways = {(row["set"], row["model"], row["how"]) for row in r["transfer"]}
    assert {
        ("digits", "DDGM", "mean"),
        ("upside down", "DDGM", "ancestral"),
        ("upside down", "no model", "linear"),
        ("upside down", "no model", "noisy"),
    } <= ways
    assert any(model.startswith("DAED") for _, model, _ in ways)
