"All quantities of a representation beside their controls"

import math

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import blind_denoiser, pictures
from helpers_probes import read
from denoise_study.representation import compare_representations, comparison_rows, participation

torch.set_num_threads(1)
D = blind_denoiser()


def test_every_quantity_stands_beside_its_control():
    y = torch.arange(40) % 2
    x = pictures(40)
    t = compare_representations(D, (x, y), draws=2, n_clusters=3, progress=False)
    assert list(t.columns) == [
        *((n, p) for n in ("trained", "untrained", "control") for p in ("value", "low", "high")),
        *((f"minus_{n}", p) for n in ("untrained", "control") for p in ("value", "low", "high")),
        ("control", "what"),
    ]
    for name in (
        "PR of mid.in",
        "PR of mid",
        "dead channels",
        "relative instability",
        "D/S of clusters (median)",
        "linear probe",
        "5-NN label agreement",
    ):
        assert np.isfinite(t.loc[name, ("trained", "value")]) and np.isfinite(
            t.loc[name, ("untrained", "value")]
        )
    a = read(D, x, draws=2)
    assert t.loc["PR of mid", ("trained", "value")] == pytest.approx(
        participation(a.phi.x).mean().item(), rel=1e-5
    )
    assert t.loc["PR of mid", ("control", "value")] == pytest.approx(1 / math.pi)
    assert t.loc["linear probe", ("control", "what")] == "centred pixels"
    low, value, high = (t["trained"][o] for o in ("low", "value", "high"))
    assert ((low <= value) & (value <= high) | low.isna()).all()
    same = compare_representations(D, (x, y), D, draws=2, n_clusters=3, progress=False)
    pd.testing.assert_frame_equal(same["trained"], same["untrained"])
    again = compare_representations(D, (x, y), draws=2, n_clusters=3, progress=False)
    pd.testing.assert_frame_equal(again, t)


def test_without_labels_there_are_no_rows_about_them():
    t = compare_representations(D, pictures(30), draws=2, n_clusters=3, progress=False)
    assert "PR of mid" in t.index and not [
        o for o in t.index if "label" in o or "probe" in o or "classes" in o or "purity" in o
    ]


def test_rows_for_a_file_hold_the_table():
    t = compare_representations(D, pictures(12), draws=2, n_clusters=2, progress=False)
    rows = comparison_rows(t)
    assert [r["quantity"] for r in rows] == list(t.index)
    assert rows[0]["trained_value"] == t["trained", "value"].iloc[0] and set(rows[0]) == {
        "quantity",
        *("_".join(c) for c in t.columns),
    }


def test_differences_are_taken_image_by_image():
    "Two networks of the same scores differ by nothing at all; unpaired intervals could not say so"
    y = torch.arange(40) % 2
    x = pictures(40)
    same = compare_representations(D, (x, y), D, draws=2, n_clusters=3, progress=False)
    for name in ("PR of mid", "5-NN label agreement", "linear probe"):
        gap = same.loc[name, "minus_untrained"]
        assert gap["value"] == gap["low"] == gap["high"] == 0
    t = compare_representations(D, (x, y), draws=2, n_clusters=3, progress=False)
    gap = t.loc["5-NN label agreement"]
    for arm in ("untrained", "control"):
        known = gap["trained", "value"] - gap[arm, "value"]
        assert gap[f"minus_{arm}", "value"] == pytest.approx(known, abs=1e-6)
    assert np.isnan(t.loc["dead channels", ("minus_untrained", "value")])
