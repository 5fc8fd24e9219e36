"Claims: the verdict follows from the evidence, and every table is made from them"

import json
from html.parser import HTMLParser

import pytest

from denoise_study.core import by_verdict, Claim, claims_html, claims_markdown, claims_table
from denoise_study.core import COLUMNS, Finding, Interval, Learned, Verdict

V = Verdict


def i(low, high, unit="images"):
    return Interval((low + high) / 2, low, high, 100, unit)


def claim(finding, **terms):
    return Claim("It does", "Fig. 1", finding, **terms)


BOTH = Finding("share", i(0.6, 0.7), "untrained", i(0.5, 0.6))  # they touch
APART = Finding("share", i(0.6, 0.7), "untrained", i(0.4, 0.5))
PAIRED = Finding("share", i(0.6, 0.7), "untrained", i(0.5, 0.6), paired=i(0.05, 0.15))
WORSE = Finding("share", i(0.6, 0.7), "untrained", i(0.5, 0.6), paired=i(-0.15, -0.05))
ALONE = Finding("share", i(0.6, 0.7))
STEP = Finding("step", Interval.of_formula(0.225))


@pytest.mark.parametrize(
    "findings, terms, expected",
    [
        # against what stands beside it
        (APART, {}, V.HOLDS),
        (BOTH, {}, V.UNDECIDED),
        (PAIRED, {}, V.HOLDS),
        (WORSE, {}, V.FAILS),
        (APART, dict(relation="below"), V.FAILS),
        (WORSE, dict(relation="below"), V.HOLDS),
        (PAIRED, dict(size=0.3), V.SMALLER),
        (APART, dict(size=0.25), V.HOLDS),
        (PAIRED, dict(relation="equal", margin=0.2), V.HOLDS),
        (BOTH, dict(relation="equal", margin=0.1), V.UNDECIDED),
        # against a number, with what stands beside it as a yardstick
        (ALONE, dict(than=0.5), V.HOLDS),
        (ALONE, dict(than=0.8), V.FAILS),
        (ALONE, dict(than=0.65), V.UNDECIDED),
        (APART, dict(than=0.3), V.HOLDS),
        (BOTH, dict(than=0.3), V.SHARED),
        (PAIRED, dict(than=0.3), V.HOLDS),
        (WORSE, dict(than=0.3), V.SHARED),
        (BOTH, dict(than=0.55), V.UNDECIDED),
        (ALONE, dict(relation="equal", than=0.62, margin=0.1), V.HOLDS),
        (BOTH, dict(relation="equal", than=0.6, margin=0.15), V.SHARED),
        # what is missing
        (Finding("share"), dict(than=0.5), V.NOT_MEASURED),
        (Finding("share", i(0.6, 0.7), "untrained"), {}, V.NOT_MEASURED),
        # the control was not measured
        (Finding("share", i(0.6, 0.7), "untrained"), dict(than=0.5), V.UNDECIDED),
        (Finding("share", i(0.6, 0.7), "untrained"), dict(than=0.8), V.FAILS),
        ((), {}, V.NOT_MEASURED),
        # several
        ([APART, PAIRED], {}, V.HOLDS),
        ([APART, BOTH], {}, V.UNDECIDED),
        ([APART, BOTH, WORSE], {}, V.FAILS),
        # an exact number
        (STEP, dict(relation="equal", than=0.2, margin=0.05), V.HOLDS),
        (STEP, dict(relation="equal", than=0.3, margin=0.05), V.FAILS),
        # what had to be learned
        (APART, dict(learned=Learned("net", "share", 0.4, 0.9)), V.NOT_LEARNED),
        (APART, dict(learned=[Learned("net", "share", 0.95, 0.9)]), V.HOLDS),
    ],
)
def test_verdict_of_a_claim(findings, terms, expected):
    assert claim(findings, **terms).verdict is expected


def test_compared_with_nothing_is_refused():
    with pytest.raises(ValueError, match="'It does' is compared with nothing; give a number"):
        claim(ALONE)
    with pytest.raises(ValueError, match="compared with nothing"):
        claim([APART, ALONE])


def test_wide_margin_is_refused():
    with pytest.raises(ValueError, match="0.1 is not below the claimed effect of 0.07"):
        claim(APART, size=0.07, margin=0.1)


FULL = Claim(
    "A < B & C | d*",
    "DAED Fig. 4",
    [PAIRED, BOTH],
    than=0.2,
    size=0.1,
    margin=0.05,
    learned=Learned("net", "share", 0.95, 0.9, 40, note="raw"),
    printed="2.9 [3]",
    note="one training\nonly",
)


def test_round_trip():
    equal = claim(Finding("x", beside="y"), relation="equal", margin=1.0)
    for c in (FULL, claim(ALONE, than=0), claim(()), equal):
        record = json.loads(json.dumps(c.to_dict()))
        assert Claim.from_dict(record) == c and record["verdict"] == c.verdict


def test_verdict_of_a_file_is_computed():
    record = FULL.to_dict() | dict(verdict="does not hold")
    assert Claim.from_dict(record).verdict is FULL.verdict is not V.FAILS
    with pytest.raises(TypeError, match="sentance"):
        Claim.from_dict(record | dict(sentance=""))


def test_verdict_can_not_be_written():
    with pytest.raises(AttributeError):
        FULL.verdict = V.HOLDS


def test_one_line():
    text = str(claim(PAIRED))
    assert text == repr(claim(PAIRED)) and "\n" not in text
    assert text == (
        "holds: It does (Fig. 1): share 0.65 [0.6, 0.7], "
        "beside it untrained 0.55 [0.5, 0.6] "
        "(paired difference +0.1 [+0.05, +0.15])"
    )
    assert str(claim(Finding("x"), than=0)) == "not measured: It does (Fig. 1)"


def test_table():
    row = claims_table([FULL]).iloc[0]
    assert tuple(row.index) == COLUMNS
    assert row.claim == "A < B & C | d*" and row.place == "DAED Fig. 4"
    # said once for both
    assert row.measured == "share 0.65 [0.6, 0.7]" and row.over == "100 images"
    assert row["beside it"].count("untrained 0.55") == 2
    assert "(paired difference +0.1" in row["beside it"]
    assert row.learned == "net: share 0.95, at least 0.9 needed, 40 steps, raw"
    assert row.printed == "2.9 [3]"
    assert row.verdict == FULL.verdict.value and row.note == "one training\nonly"


def test_missing_control_is_said():
    table = claims_table([claim(Finding("share", i(0.6, 0.7), "untrained"))])
    assert table.iloc[0]["beside it"] == "untrained not measured"


def test_exact_number_is_over_nothing():
    table = claims_table([claim(Finding("step", Interval.of_formula(0.2)), than=0)])
    assert table.iloc[0].over == ""


class Cells(HTMLParser):
    "Rows of text, and the classes of a page"

    def __init__(self, page):
        super().__init__()
        self.rows, self.classes = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.classes += [v for k, v in attrs if k == "class"]

    def handle_data(self, data):
        # not between rows
        if self.rows and self.rows[-1] and data != "\n":
            self.rows[-1][-1] += data


def test_html_holds_text_not_markup():
    page = claims_html([FULL, claim(APART)])
    assert "A &lt; B &amp; C" in page and "A < B" not in page
    found = Cells(page)
    table = claims_table([FULL, claim(APART)])
    assert [r[0] for r in found.rows] == ["claim", "A < B & C | d*", "It does"]
    assert found.rows[1:] == table.values.tolist()
    assert found.classes == ["claims", FULL.verdict.css, V.HOLDS.css]


def test_markdown_holds_text_not_markup():
    lines = claims_markdown([FULL, claim(APART)]).splitlines()
    assert len(lines) == 4 and lines[2].startswith(r"| A &lt; B &amp; C \| d\* |")
    assert r"2.9 \[3\]" in lines[2] and "one training only" in lines[2]
    assert f'<span class="{V.HOLDS.css}" title="{V.HOLDS.meaning}">holds</span>' in lines[3]
    unescaped = [line.replace(r"\|", "").count("|") for line in lines]
    assert len(set(unescaped)) == 1


def test_empty_columns_are_left_out():
    head = claims_markdown([claim(ALONE, than=0)]).splitlines()[0]
    assert head == "| claim | place | measured | over | verdict |"
    page = Cells(claims_html([claim(ALONE, than=0)]))
    assert page.rows[0] == ["claim", "place", "measured", "over", "verdict"]


def test_no_claims():
    assert list(claims_table([])) == list(COLUMNS) and len(claims_table([])) == 0
    assert by_verdict([]) == {} and "<tbody></tbody>" in claims_html([])
    assert len(claims_markdown([]).splitlines()) == 2


def test_groups_follow_the_vocabulary():
    no, again = claim(ALONE, than=0.8), claim(ALONE, than=0.9)
    claims = [no, claim(Finding("x"), than=0), claim(APART), again]
    groups = by_verdict(claims)
    assert list(groups) == [V.HOLDS, V.FAILS, V.NOT_MEASURED]
    assert groups[V.FAILS] == [no, again]
