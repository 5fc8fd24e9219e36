"The whole study, tiny: every chapter in one report"

import json
from html import escape

import pytest

from denoise_study.core import Claim, image_dls, Study
from denoise_study.study import CHAPTERS, run_study


def test_all_chapters_in_one_report(tmp_path):
    "A page that holds them all, with the claims of three of them told at its head"
    dls = image_dls("digits", bs=128, device="cpu")
    study = Study(dls, tmp_path, steps=11, n=20, n_eval=16)
    chapters = run_study(study)["chapters"]
    page = (tmp_path / "report.html").read_text()
    claims = [c["claims"] for c in chapters.values() if "claims" in c]
    assert len(chapters) == len(CHAPTERS) == 4 and len(claims) == 3
    assert all(page.count(title) > 1 for title in chapters)  # in the contents and as a heading

    start = page.index(">In short</h2>")
    head = page[start : page.index("<h2>", start)]
    for record in (r for records in claims for r in records):
        claim = Claim.from_dict(record)
        assert claim.verdict == record["verdict"] and claim.findings
        assert escape(claim.sentence) in head and escape(claim.verdict) in head, claim
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["chapters"].keys() == chapters.keys()
    assert set(study.seconds) == {k for k, v in study.seconds.items() if v > 0}


def test_chapters_of_no_report(tmp_path):
    study = Study(image_dls("digits", device="cpu"), tmp_path / "new")
    with pytest.raises(ValueError, match="chapters: some of ddgm, daed, blind, rep are accepted"):
        run_study(study, ("ddgm", "x"))
    assert not (tmp_path / "new").exists()
