"The page of a report: text is text, objects print themselves, verdicts have their colours"

import re

import pandas as pd

from denoise_study.core import Chapter, Claim, Finding, Interval, panel, Verdict, verdict_css
from denoise_study.core import write_report

RECALL = Interval(0.61, 0.58, 0.64, 500, "images")
LOW = Interval(0.02, 0.01, 0.04, 500, "images")


def claims():
    return [
        Claim("A < B", "Fig. 1", Finding("recall", RECALL, "untrained", LOW)),
        Claim("B > A", "Fig. 2", Finding("recall", LOW, "other", RECALL)),
    ]


def test_a_table_of_claims_has_its_caption_and_colors():
    c = Chapter("A chapter")
    c.claims(claims(), "What became of A & B")
    block = c.blocks[-1]
    assert block.startswith("<div class=scroll tabindex=0><table")
    assert block.count("<table") == block.count("</table>") == 1
    assert "<caption>What became of A &amp; B</caption><thead>" in block and "A &lt; B" in block
    for verdict in (Verdict.HOLDS, Verdict.FAILS):
        assert f'class="{verdict.css}"' in block


def test_claims_are_kept_among_the_results():
    c = Chapter("A chapter")
    first, second = claims()
    c.claims([first], "one")
    c.claims([second], "another")
    assert [Claim.from_dict(r) for r in c.results["claims"]] == [first, second]


def test_the_page_has_the_look_of_every_verdict(tmp_path):
    c = Chapter("A chapter")
    c.claims(claims(), "claims")
    write_report(tmp_path / "r.html", "T", "L", [c])
    page = (tmp_path / "r.html").read_text()
    style = re.search(r"<style>(.*?)</style>", page, re.S)[1]
    assert verdict_css() in style
    assert {*re.findall(r'class="(verdict-[\w-]+)"', page)} <= {v.css for v in Verdict}


def test_cells_print_themselves():
    c = Chapter("A chapter")
    rows = [dict(name="a", value=1 / 3, n=4, over=RECALL, found=Verdict.SMALLER, none=float("nan"))]
    for given in (rows, pd.DataFrame(rows)):
        c.table(given, "cells")
        assert c.blocks[-1].endswith(
            "<tbody><tr><td>a</td><td class=n>0.3333</td><td class=n>4</td>"
            f'<td>{RECALL}</td><td class="verdict-smaller">smaller than claimed</td>'
            "<td class=n></td></tr></tbody></table></div>"
        )
    assert "<caption>cells</caption><thead><tr><th>name</th>" in c.blocks[-1]


def test_headings_lead_to_their_chapter(tmp_path):
    a, b = Chapter("One & two"), Chapter("Three")
    a.heading("It's here")
    write_report(tmp_path / "r.html", "A <page>", "L", [a, b])
    page = (tmp_path / "r.html").read_text()
    for link in re.findall(r'href="#([^"]+)"', page):
        assert f'id="{link}"' in page
    assert 'href="#one-two-it-s-here"' in page and "<title>A &lt;page&gt;</title>" in page
    assert "<h2>One &amp; two</h2>" in page


def test_a_picture_says_what_it_shows():
    c = Chapter("A chapter")
    c.figure(panel(None), 'A "caption"')
    c.figure(panel(None), "A caption", alt="two axes")
    assert 'alt="A &quot;caption&quot;"' in c.blocks[0] and 'alt="two axes"' in c.blocks[1]
    assert all('src="data:image/svg+xml;base64,' in block for block in c.blocks)


def test_what_may_scroll_is_reached_from_the_keyboard():
    "On a phone, or in a window as narrow: figures and tables"
    c = Chapter("a chapter")
    c.figure(panel(None), "A figure")
    c.table(pd.DataFrame(dict(n=[1])), "A table")
    assert all(re.search("<(figure|div class=scroll) tabindex=0>", b) for b in c.blocks)


def test_a_picture_of_an_image_is_pixels():
    c = Chapter("A chapter")
    ax = panel(None)
    ax.imshow([[0, 1]])
    c.figure(ax, "Two pixels")
    assert 'src="data:image/png;base64,' in c.blocks[0]


def pictured():
    "A chapter with a figure of lines and one of an image"
    c = Chapter("A chapter & more")
    lines, image = panel(None, (2, 1)), panel(None, (2, 1))
    lines.plot([1, 2])
    image.imshow([[0, 1]])
    c.figure(lines, "lines")
    c.figure(image, "an image")
    return c


def test_pictures_are_files_of_their_own(tmp_path):
    "PNG and SVG of each, the same bytes again; those of a run before that had more go"
    c = pictured()
    names = [f"a-chapter-more-{i}.{kind}" for i in (1, 2) for kind in ("png", "svg")]
    assert [p.name for p in c.write_figures(tmp_path)] == names
    read = [(tmp_path / name).read_bytes() for name in names]
    assert read[0].startswith(b"\x89PNG") and read[1].startswith(b"<svg")
    assert b"<image" in read[3] and b"<image" not in read[1]  # lines around pixels
    assert [data for picture in pictured().figures for data in picture.values()] == read
    (tmp_path / "another-1.png").write_bytes(b"")
    c.figures.pop()
    c.write_figures(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [*names[:2], "another-1.png"]
