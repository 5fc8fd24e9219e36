"Plots: panels show themselves, names beside curves and grids do not touch, knobs turn"

import numpy as np
import pytest
from matplotlib import rc_context, rcParams
from matplotlib.colors import to_rgb

from denoise_study.core import curve, CYCLE, knob, label_ends, label_grid, names_width, Panel
from denoise_study.core import panel, panels, png, svg, text_color, use_style


def test_the_style_changes_only_on_request():
    with rc_context({"axes.spines.top": True}):
        panel(None)
        assert rcParams["axes.spines.top"]
        use_style()
        assert not rcParams["axes.spines.top"]


def test_new_panels_show_themselves():
    axs = panels(None, 3, ncols=2)
    assert axs.shape == (3,) and len(axs.figure.axes) == 3
    assert all(
        type(ax) is Panel and ax._repr_mimebundle_() == axs._repr_mimebundle_() for ax in axs
    )


def test_a_curve_has_a_band():
    ax = panel(None)
    curve(ax, [0, 1], [1, 2], [0, 1], [2, 3], CYCLE[1], "o--", lw=5)
    (line,), (band,) = ax.lines, ax.collections
    assert (line.get_marker(), line.get_linestyle(), line.get_linewidth()) == ("o", "--", 5)
    assert band.get_paths()[0].get_extents().bounds == (0, 0, 1, 3)


def test_names_of_curves_that_end_together_move_apart():
    ax = panel(None, (4, 3))
    ax.set_ylim(0, 1)
    label_ends(ax, [(1, y, name, CYCLE[0]) for y, name in ((0.5, "b"), (0.9, "c"), (0.5, "a"))])
    heights = [t.xy[1] for t in ax.texts]
    gap = 1.15 * 9 * ax.figure.dpi / 72 / ax.bbox.height
    assert [t.get_text() for t in ax.texts] == ["b", "a", "c"]
    assert heights[1] - heights[0] == pytest.approx(gap, rel=0.01)
    assert sum(heights[:2]) / 2 == pytest.approx(0.5) and heights[2] == pytest.approx(0.9)


def test_letters_are_darker_than_the_curve():
    for color in CYCLE:
        assert np.allclose(text_color(color), 0.75 * np.array(to_rgb(color)))


def test_rows_and_columns_are_named_at_their_middle():
    ax = panel(None)
    label_grid(ax, ["a", "b"], ["x", "y", "z"])
    places = {t.get_text(): t.xy for t in ax.texts}
    assert places["a"] == (0, 0.75) and places["b"] == (0, 0.25) and places["y"] == (0.5, 1)
    assert names_width([]) == 0.12 and names_width(["abc", "a"]) == pytest.approx(0.12 + 0.225)


def shades():
    ax = panel(None, (1, 1))
    ax.imshow([[0, 1]])
    return ax


def test_a_knob_has_a_picture_for_every_position():
    figures = {"lines": panel(None, (1, 1)), "image": shades(), "last": panel(None, (1, 1))}
    slider, stack = knob("n", figures, start=2).children
    assert slider.index == stack.selected_index == 2 and len(stack.children) == 3
    lines, image, _ = stack.children
    assert (lines.format, lines.value) == ("svg+xml", svg(figures["lines"]))
    assert (image.format, image.value) == ("png", png(figures["image"], 160, 24))
    assert image.width == "100"  # of the page: 1.6 pixels for each of it


def test_a_knob_that_does_not_run_is_its_first_picture():
    "Viewers without widgets take the picture of the output"
    from base64 import b64decode

    from IPython.core.formatters import DisplayFormatter

    for start, kind, read in (0, "image/png", b64decode), (1, "image/svg+xml", str.encode):
        box = knob("n", {"image": shades(), "lines": panel(None, (1, 1))}, start=start)
        shown, form = DisplayFormatter().format(box)
        assert form == ({kind: {"width": 100}} if kind == "image/png" else {})
        assert read(shown[kind]) == box.children[1].children[start].value
        assert "application/vnd.jupyter.widget-view+json" in shown
