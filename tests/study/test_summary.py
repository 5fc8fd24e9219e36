"The first and the last page of a report"

from html import escape

from denoise_study.core import Chapter, Claim, Finding, image_dls, Interval, run_info, Study
from denoise_study.study import made_chapter, short_chapter


def scores(value, n=500):
    return Interval(value, 0.9 * value, 1.1 * value, n, "images")


def claim(sentence, measured, control):
    return Claim(sentence, "Fig. 1", Finding("score", scores(measured), "other", scores(control)))


def test_claims_are_sorted_by_verdict():
    c = Chapter("Numbers")
    c.claims(
        [claim("a < b", 1.0, 2.0), claim("c > d", 2.0, 1.0), claim("e > f", 4.0, 2.0)], "Claims"
    )
    page = "".join(short_chapter([c]).blocks)
    for sentence in ("a < b", "c > d; e > f"):
        assert escape(sentence) in page
    assert "what became of 3 claims" in page


def test_distances_have_their_yardsticks():
    "As records with and without the number of images and what the interval is over"
    c = Chapter("Samples")
    rows = []
    for value in (2.0, 0.1, 40.0):
        record = dict(value=value, low=0.9 * value, high=1.1 * value)
        rows.append(dict(frechet=record, n_fake=500, feature_space="cnn-64"))
    rows[0]["frechet"] = scores(2.0).to_dict()
    c.results["quality"] = rows
    page = "".join(short_chapter([c]).blocks)
    assert "2 [1.8, 2.2]" in page and "0.1 [0.09, 0.11]" in page and "40 [36, 44]" in page
    assert "cnn-64" in page


def test_nothing_to_tell():
    assert "No chapter" in short_chapter([Chapter("Empty")]).blocks[0]


def test_how_it_was_made(tmp_path):
    study = Study(image_dls("digits", device="cpu"), tmp_path, seconds={"training": 3.5}, seed=7)
    page = made_chapter(study, run_info("cpu") | dict(commit=None)).blocks[0]
    for text in ("not a checkout", "training 3.5 s", "torch", "digits: "):
        assert text in page
