"Facts of core that were tested beside the commands"

import torch
from helpers_study import color_pictures

from denoise_study.core import Chapter, feature_space, image_dls, write_report


def test_space_without_labels(tmp_path):
    "Pictures that are in no subfolders have no labels, and no classifier can be trained"
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    for f in color_pictures(tmp_path / "with").rglob("*.png"):
        (tmp_path / "without" / f"{f.parent.name}-{f.name}").write_bytes(f.read_bytes())
    dls = image_dls(tmp_path / "without", size=16, device="cpu")
    space = feature_space(dls)
    assert dls.info.classes == () and space.name == "pixels averaged to 8x8"
    assert space(torch.zeros(2, 3, 16, 16)).shape == (2, 192)


def test_report_escapes_what_it_is_given(tmp_path):
    c = Chapter("A <b>bold</b> & title")
    c.text("1 < 2")
    c.table([{"x<y": "<script>", "n": 0.123456}], "a & b")
    write_report(tmp_path / "r.html", "t", "l", [c])
    page = (tmp_path / "r.html").read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "0.1235" in page and "1 &lt; 2" in page and page.count("<h2>") == 1
