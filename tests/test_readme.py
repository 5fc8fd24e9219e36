"""docs/readme.py turns a notebook into a README: what is kept, what is dropped, and when it calls
the result stale"""

import base64
import importlib.util
import json
import re
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location(
    "readme", Path(__file__).parents[1] / "docs/readme.py"
)
readme = importlib.util.module_from_spec(spec)
spec.loader.exec_module(readme)

PNG = b"\x89PNG not really"
STDOUT = dict(output_type="stream", name="stdout", text=["one\n", "two\n"])
STDERR = dict(output_type="stream", name="stderr", text=["a warning\n"])
PLOT = dict(
    output_type="display_data",
    metadata={},
    data={"image/png": base64.b64encode(PNG).decode(), "text/plain": ["<Figure>"]},
)
TABLE = dict(
    output_type="execute_result",
    metadata={},
    data={"text/html": ["<table></table>"], "text/plain": ["a table"]},
)
VALUE = dict(output_type="execute_result", metadata={}, data={"text/plain": ["42"]})


@pytest.fixture
def build(tmp_path):
    "Write a notebook of the given cells into an empty project; returns the project's root"

    def _build(*cells):
        (tmp_path / "nbs").mkdir(exist_ok=True)
        (tmp_path / "nbs/index.ipynb").write_text(json.dumps(dict(cells=cells)))
        return tmp_path

    return _build


def md(text):
    return dict(cell_type="markdown", source=[text])


def code(text, *outputs):
    return dict(cell_type="code", source=[text], outputs=list(outputs))


@pytest.mark.parametrize(
    "source, output, kept, dropped",
    [
        ("1 + 41", VALUE, ["```python\n1 + 41\n```", "```text\n42\n```"], []),
        ("f()", STDOUT, ["```text\none\ntwo\n```"], []),
        ("f()", STDERR, ["f()"], ["a warning"]),
        ("df", TABLE, ["<table></table>"], ["a table"]),
        ("#| hide\nsecret()", VALUE, [], ["secret", "42"]),
        ("#| echo: false\nsecret()", VALUE, ["42"], ["secret", "#|"]),
        ("#| eval: false\ndanger()", VALUE, ["danger()"], ["42", "#|"]),
        ("#| output: false\nf()", VALUE, ["f()"], ["42", "#|"]),
        (
            '#| fig-alt: "A digit"\nplot()',
            PLOT,
            ["![A digit](docs/images/index-0-0.png)"],
            ["<Figure>", "#|"],
        ),
        ("#| slow\nf()", VALUE, ["f()", "42"], ["#|"]),
    ],
)
def test_code_cell(build, source, output, kept, dropped):
    text = readme.render(build(code(source, output)) / "nbs/index.ipynb")["README.md"].decode()
    assert [k for k in kept if k not in text] == [] and [d for d in dropped if d in text] == []


@pytest.mark.parametrize(
    "source, expected",
    [
        ("[a](00_a.ipynb#x)", "[a](nbs/00_a.ipynb#x)"),
        ("[c](../CONTRIBUTING.md)", "[c](CONTRIBUTING.md)"),
        (
            "[w](https://example.org/a) [h](#use) [m](mailto:a@b.c)",
            "[w](https://example.org/a) [h](#use) [m](mailto:a@b.c)",
        ),
        ("```\nf[i](x)\n``` and `g[i](x)`", "```\nf[i](x)\n``` and `g[i](x)`"),
    ],
)
def test_links_are_seen_from_the_root(source, expected):
    assert readme.relink(source) == expected


def test_fence_outlasts_the_text():
    assert readme.fence("```", "text") == "````text\n```\n````"


def test_lines_are_files_of_svg(build):
    lines = dict(output_type="execute_result", metadata={}, data={"image/svg+xml": ["<svg>", "é"]})
    files = readme.render(build(code("plot()", lines)) / "nbs/index.ipynb")
    assert files["docs/images/index-0-0.svg"] == "<svg>é".encode()
    assert "](docs/images/index-0-0.svg)" in files["README.md"].decode()


def test_check(build, capsys):
    root = build(md("# A title"), code("plot()", PLOT))
    assert readme.main(["--check"], root) == 1 and "README.md" in capsys.readouterr().err
    assert readme.main([], root) == 0 and (root / "docs/images/index-1-0.png").read_bytes() == PNG
    assert "![Output of the example in section A title]" in (root / "README.md").read_text()
    assert readme.main(["--check"], root) == 0

    build(md("# A title"))
    assert readme.main(["--check"], root) == 1 and "index-1-0.png" in capsys.readouterr().err
    assert readme.main([], root) == 0 and not (root / "docs/images/index-1-0.png").exists()


def test_unknown_argument():
    with pytest.raises(SystemExit, match="--check"):
        readme.main(["--chekc"])


def test_tables_are_those_of_the_results_files(monkeypatch):
    "What nbs/index.ipynb keeps of the findings is what docs/results/*.json say now"
    root = Path(__file__).parents[1]
    monkeypatch.syspath_prepend(root / "docs")
    from summaries import summary

    cells = [
        c
        for c in json.loads((root / "nbs/index.ipynb").read_text())["cells"]
        if c["cell_type"] == "code"
    ]
    kept = {
        m[1]: "".join(c["outputs"][0]["data"]["text/markdown"])
        for c in cells
        if (m := re.search(r"summary\('(\w+)'\)", "".join(c["source"])))
    }
    assert kept.keys() == {"findings"}
    stale = [name for name, text in kept.items() if text != summary(name)]
    assert stale == [], "run python tools/refresh.py index and python docs/readme.py"


def test_drawn_findings_are_drawn_from_the_records(monkeypatch, tmp_path):
    "A picture of the front page that is drawn from numbers shows those of docs/results now"
    root = Path(__file__).parents[1]
    monkeypatch.syspath_prepend(root / "docs")
    from summaries import draw_findings

    paths = re.compile('<path[^>]* d="[^"]*"/>')  # letters depend on fonts
    drawn = draw_findings(tmp_path)
    for picture in drawn:
        now, kept = ((f / picture).read_text() for f in (tmp_path, root / "docs/images"))
        assert paths.findall(now) == paths.findall(kept), "run python docs/summaries.py"
    assert drawn


def test_a_reader_is_through_in_two_minutes():
    text = (Path(__file__).parents[1] / "README.md").read_text()
    for markup in (
        r"<!--.*?-->",
        r"<[^>]*>",
        r"!\[[^\]]*\]\([^)]*\)",
        r"(?<=\])\([^)]*\)",
        r"[|#>*-]",
    ):
        text = re.sub(markup, " ", text, flags=re.S)
    assert len(text.split()) <= 600


@pytest.mark.parametrize(
    "row, key, said",
    [
        (dict(value=0.8, low=0.7, high=0.9), "value", "0.8 [0.7, 0.9]"),
        (
            dict(value=0.8, difference=0.01, low=-0.01, high=0.03),
            "difference",
            "0.01 [-0.01, 0.03]",
        ),
        (dict(value=0.8, difference=0.01, low=-0.01, high=0.03), "value", "0.8"),
        (dict(psnr=20.0, psnr_low=19.0, psnr_high=21.0), "psnr", "20 [19, 21]"),
        (dict(trained_value=2.0, trained_low=1, trained_high=3), "trained", "2 [1, 3]"),
        (dict(frechet=dict(value=1.0, low=0.123456, high=2)), "frechet", "1 [0.123, 2]"),
        (dict(ratio=1.5), "ratio", "1.5"),
        (dict(ratio=None, low=None, high=None), "ratio", ""),
    ],
)
def test_an_interval_stands_beside_its_number(monkeypatch, row, key, said):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "docs")
    from results import cell

    assert str(cell(row, key)) == said


def test_the_front_page_has_the_numbers_of_the_records(monkeypatch):
    "What nbs/index.ipynb keeps of `summary(...)` is what the records say today"
    root = Path(__file__).parents[1]
    monkeypatch.syspath_prepend(root / "docs")
    from summaries import summary

    kept = {}
    for cell in json.loads((root / "nbs/index.ipynb").read_text(encoding="utf-8"))["cells"]:
        called = re.search(r"Markdown\(summary\('(\w+)'\)\)", "".join(cell["source"]))
        if called:
            kept[called[1]] = "".join(cell["outputs"][0]["data"]["text/markdown"])
    assert kept and kept == {name: summary(name) for name in kept}
