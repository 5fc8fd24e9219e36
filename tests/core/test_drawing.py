"Drawings: a figure of lines is SVG that any page can show, all else a small sharp PNG"

import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure
from PIL import Image

from denoise_study.core import figure_of, is_drawing, panel, panels, png, static_picture, svg

SPACE = "{http://www.w3.org/2000/svg}"


def opened(data):
    return Image.open(io.BytesIO(data))


def drawn(plot, *args, **kwargs):
    "A figure with the result of one method of Axes in it"
    ax = panel(None, (2, 1))
    getattr(ax, plot)(*args, **kwargs)
    return ax


def elements(ax, kind):
    return list(ElementTree.fromstring(svg(ax)).iter(SPACE + kind))


def test_a_png_has_the_size_and_colors_that_were_asked_for():
    ax = drawn("imshow", np.random.default_rng(0).random((20, 40, 3)))
    for dpi, colors in ((80, 64), (50, 7)):
        picture = opened(png(ax, dpi, colors))
        assert picture.size == (2 * dpi, dpi) and len(picture.getcolors()) <= colors
    # shown 100 pixels an inch, whatever it has
    picture = static_picture(ax, 50, 7)
    assert (picture.data, picture.kind, picture.width) == (png(ax, 50, 7), "png", 200)


def test_only_axes_and_figures_have_a_figure():
    axs = panels(None, (2, 2))
    assert figure_of(axs) is figure_of(axs[0, 0]) is figure_of([axs[1, 1]]) is axs.figure
    part = Figure().subfigures(1, 2)[0]
    assert figure_of(part.subplots()) is part.figure  # the whole figure, not a part of it
    for wrong in ("a name", [], None):
        with pytest.raises(TypeError, match="drawn: Axes, several of them, or a Figure"):
            figure_of(wrong)


SOME, MANY = np.arange(50), np.arange(5000)
LINES = {
    "a curve": ("plot", MANY, MANY),
    "bars": ("bar", SOME, SOME),
    "a band": ("fill_between", SOME, SOME, SOME + 1),
    "error bars": ("errorbar", SOME, SOME, SOME),
    "some marks": ("scatter", SOME, SOME),
}
PIXELS = {
    "an image": ("imshow", SOME.reshape(5, 10)),
    "a mesh": ("pcolormesh", SOME.reshape(5, 10)),
    "a cloud": ("scatter", MANY, MANY),
    "a cloud of a line": ("plot", MANY, MANY, "."),
}


@pytest.mark.parametrize("what", LINES | PIXELS)
def test_lines_are_drawn_and_images_are_pixels(what):
    ax = drawn(*(LINES | PIXELS)[what])
    data, shown = DisplayFormatter().format(ax)
    kind = "image/svg+xml" if what in LINES else "image/png"
    assert is_drawing(ax) == (what in LINES)
    assert set(data) == {kind, "text/plain"}
    assert shown == ({} if what in LINES else {kind: dict(width=200)})  # lines say their own width
    assert static_picture(ax).url.startswith(f"data:{kind};base64,")


def test_hatches_are_left_to_pixels():
    "They would be missing"
    assert is_drawing(drawn("bar", [0], [1])) and not is_drawing(drawn("bar", [0], [1], hatch="/"))


def test_a_page_that_strips_what_it_does_not_trust_leaves_it_whole():
    "GitHub and nbviewer take `use` and styles away, and with them letters and marks"
    ax = drawn("plot", SOME, SOME**2, "o--", alpha=0.5)
    ax.set(title="$x^2$ & more", xlabel="x < y")
    kinds = {e.tag.removeprefix(SPACE) for e in ElementTree.fromstring(svg(ax)).iter()}
    assert kinds == {"svg", "defs", "clipPath", "path", "text"}
    assert not re.search(rb"style=|class=|href|<!", svg(ax))


def test_the_same_figure_is_the_same_file():
    def once():
        ax = drawn("plot", SOME, SOME**2, "o")
        ax.set_title("a title")
        return svg(ax)

    assert once() == once()


def test_a_drawing_looks_like_its_picture():
    "Where a line goes, how wide it is, and in what color"
    ax = Figure(figsize=(1, 1)).add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.set_axis_off()
    ax.plot([0.25, 0.75, 0.75], [0.5, 0.5, 1], color="#ff0000", lw=9, ls=(0, (1, 2)), alpha=0.5)
    line = elements(ax, "path")[-1]
    assert line.get("d") == "m400 800l800 0l0-800"  # 1600 steps an inch, downwards
    assert line.get("stroke") == "#ff0000" and line.get("stroke-opacity", "0.5") == "0.5"
    assert line.get("stroke-width") == "200" and line.get("stroke-dasharray") == "200 400"
    assert line.get("fill") is None  # the drawing says none
    root = ElementTree.fromstring(svg(ax))
    assert [root.get(k) for k in ("width", "height", "viewBox", "fill")] == [
        "100",
        "100",
        "0 0 1600 1600",
        "none",
    ]


def test_what_leaves_its_axes_is_cut():
    ax = drawn("plot", [0, 1], [0, 1])
    ax.set_xlim(0.4, 0.6)
    (line,) = [p for p in elements(ax, "path") if p.get("stroke") == "#0072b2"]
    regions = {e.get("id"): e for e in elements(ax, "clipPath")}
    assert line.get("clip-path").removeprefix("url(#").removesuffix(")") in regions


def test_text_is_text_of_the_width_that_was_counted_on():
    ax = drawn("plot", SOME, SOME)
    ax.set_title("iiii")
    ax.set_xlabel("MMMM", fontweight="bold", rotation=30)
    found = {t.text: t for t in elements(ax, "text")}
    label, title = found["MMMM"], found["iiii"]
    size = int(label.get("font-size"))
    assert size == round(ax.xaxis.label.get_size() * 160 / 72 * 10)  # points -> pixels -> steps
    # the width of a letter in the font's own table, of an em of 2048
    wide = 4 * 569 / 2048 * int(title.get("font-size"))
    assert int(title.get("textLength")) == pytest.approx(wide, abs=1)
    assert label.get("font-weight") == "bold" and "rotate(-30 " in label.get("transform")


def test_formulas_are_outlines():
    ax = drawn("plot", SOME, SOME)
    before = len(elements(ax, "text")), len(elements(ax, "path"))
    ax.set_title(r"$\bar\alpha_t$")
    after = len(elements(ax, "text")), len(elements(ax, "path"))
    assert after == (before[0], before[1] + 1)


def test_drawing_leaves_the_figure_as_it_was():
    ax = drawn("plot", SOME, SOME)
    before = ax.figure.dpi
    svg(ax)
    assert ax.figure.dpi == before
