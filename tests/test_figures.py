"""Every figure function takes the Axes to draw into and returns them. They are found by what they
return: a new one has to be added to CALLS, below"""

import ast
import re
from functools import cache
from types import SimpleNamespace

import faces
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import averages, blind_denoiser, constructed, cut_texts, HO, images, pictures, ROOT
from helpers import sweep, texts_of, trained
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from denoise_study.core import ArraySource, Chapter, CYCLE, figure_of, ImageLoader, label_ends
from denoise_study.core import Panel, panel, panels, Panels, show_images, static_picture
from denoise_study.diffusion import log_snr_curves, plot_log_snr, plot_sweep, show_rows
from denoise_study.diffusion import show_samples, show_ways_back
from denoise_study.daed import plot_splits, plot_transition, show_transfer, transition_point
from denoise_study.denoiser import plot_psnr, psnr_curve
from denoise_study.denoiserep import Budget, Outcome, plot_arms
from denoise_study.representation import active_channels, CLAIMED, plot_active, plot_channels
from denoise_study.representation import plot_clusters, plot_noise_level
from denoise_study.representation import plot_marginals, plot_participation, plot_ratio, plot_rows
from denoise_study.representation import plot_score_difference, plot_stability, plot_subspaces
from denoise_study.representation import ratio_test, separation, show_around, stability

A, D, X = averages(), blind_denoiser(), pictures()
modules = faces.modules()
SCORES = [f"{k}{end}" for k in ("frechet", "precision", "recall") for end in ("", "_low", "_high")]


@cache
def errors():
    return sweep(
        trained(), {"a": images(6), "b": images(6, seed=1)}, [1, 3, 8], ("ancestral", "mean")
    )


@cache
def parting():
    "Errors of two sets, with a switch"
    return constructed(onset=8).assign(ms_ssim=1.0, win=7, scales=1)


@cache
def active():
    table = active_channels(D, X, sigmas=(0.2, 0.5), draws=2, progress=False)
    return pd.concat([table.assign(network=k) for k in ("one", "other")])


def channels():
    return pd.DataFrame(
        {k: np.linspace(0.1, 1, 8) ** (i + 1) for i, k in enumerate(("pr", *CLAIMED))}
    )


def splits():
    places = dict(
        log_snr=[5.0, 4, 2], tenth_log_snr=3.0, feature_space="pixels", n_fake=9, n_real=9
    )
    return pd.DataFrame(
        {"model": ["DDGM", "early", "late"], **places, **{k: [0.2, 0.3, 0.4] for k in SCORES}}
    )


def outcome():
    task = SimpleNamespace(name="made up", about={}, metric="accuracy", checkpoint=None)
    out = Outcome(task, Budget())
    for arm, seed in [(a, s) for a in ("base", "placebo", "control") for s in range(3)]:
        out.add(
            dict(arm=arm, seed=seed, accuracy=0.5 + 0.01 * seed * len(arm)),
            dict(items=torch.zeros(2)),
        )
    return out


def loader():
    return ImageLoader(ArraySource((X * 255).round().byte()), bs=4, device=torch.device("cpu"))


def steady():
    table = stability(D, X, sigmas=(0.2, 0.5), taps=("enc1", "mid"), draws=2, progress=False)
    return pd.concat([table, table.assign(network="other")])


LEVELS = pd.DataFrame(dict(sigma=[0.1, 0.5], ratio=[1.0, 0.9], std=0.1, n=3, N=4))
GROUPS = torch.arange(12) % 2
CALLS = {}  # wing.function -> call with the Axes as keyword argument, shape of what is returned


def drawn(name, *shape):
    "Enter a call under the name of what it draws; the shape is that of its panels, none for one"

    def enter(call):
        CALLS[name] = call, shape or None

    return enter


@drawn("core.show_batch")
def _(**kw):
    return loader().show_batch(**kw)


@drawn("core.show_images")
def _(**kw):
    return show_images(X, (0.0, 1.0), **kw)


@drawn("diffusion.show_samples", 2)
def _(**kw):
    return show_samples(images(9), images(9), (-1.0, 1.0), **kw)


@drawn("diffusion.show_ways_back")
def _(**kw):
    return show_ways_back(trained(), images(1), [1, 9], 0, **kw)


@drawn("diffusion.plot_log_snr", 1, 2)
def _(**kw):
    curves = log_snr_curves(HO, {"a": images(3), "b": images(3) / 2})
    return plot_log_snr(curves, **kw)


@drawn("diffusion.plot_sweep", 2)
def _(**kw):
    return plot_sweep(errors(), **kw)


@drawn("daed.plot_splits", 3)
def _(**kw):
    return plot_splits(splits(), **kw)


@drawn("daed.plot_transition", 2)
def _(**kw):
    point = transition_point(parting(), "a", "b", n_boot=50)
    return plot_transition(parting(), point, **kw)


@drawn("diffusion.show_rows")
def _(**kw):
    rows = {"DDGM, ancestral": images(14), "b": images(14)}
    return show_rows(rows, titles=range(14), **kw)


@drawn("daed.show_transfer")
def _(**kw):
    return show_transfer({"m": trained(T=200)}, images(3), **kw)


@drawn("denoiser.plot_psnr")
def _(**kw):
    curve = psnr_curve({"a": D, "b": D}, X, (0.1, 0.5), progress=False)
    return plot_psnr(curve, **kw)


@drawn("representation.plot_channels", len(CLAIMED))
def _(**kw):
    return plot_channels(channels(), channels(), **kw)


@drawn("representation.plot_rows")
def _(**kw):
    rows = {"channel 12: PR 0.23, purity 1.00": [0, 1, 2], "two": [3]}
    return plot_rows(X, rows, **kw)


@drawn("representation.plot_clusters", 2)
def _(**kw):
    found = separation(A.phi, dict(c=GROUPS))
    return plot_clusters(found, A.phi, GROUPS, perplexity=3, **kw)


@drawn("representation.plot_participation", 3)
def _(**kw):
    return plot_participation(A, A, taps=("enc2", "mid", "dec2"), **kw)


@drawn("representation.plot_active", 2)
def _(**kw):
    return plot_active(active(), **kw)


@drawn("representation.plot_stability", 2)
def _(**kw):
    return plot_stability(steady(), **kw)


@drawn("representation.plot_noise_level")
def _(**kw):
    return plot_noise_level(LEVELS, label="x", **kw)


@drawn("representation.plot_ratio")
def _(**kw):
    table = pd.DataFrame(
        dict(dphi2=[1e-9, 1.0, 2, 3, 4, 5], d2=[1.0, 1, 2, 3, 4, 6], se=0.1, floor=0.1)
    )
    return plot_ratio(table, ratio_test(table.d2, table.dphi2, 1e-6, n_perm=19), **kw)


@drawn("representation.plot_marginals", 2)
def _(**kw):
    return plot_marginals(A.phi, A.phi.x.mean(0).topk(2)[1], **kw)


@drawn("representation.plot_subspaces", 3)
def _(**kw):
    return plot_subspaces(A.phi, dict(even=[0, 2, 4], odd=[1, 3]), [0, 1, 2], **kw)


@drawn("representation.plot_score_difference", 2)
def _(**kw):
    return plot_score_difference(D, X[:2], X[2:4], (0.5,), steps=1, **kw)


@drawn("representation.show_around", 3)
def _(**kw):
    return show_around(X[:2], X[:6], X[:8], **kw)


@drawn("denoiserep.plot")
def _(**kw):
    return outcome().plot(**kw)


@drawn("denoiserep.plot_arms")
def _(**kw):
    return plot_arms(outcome().to_dict(), **kw)


each_call = pytest.mark.parametrize("call,shape", CALLS.values(), ids=CALLS)


def is_function(node):
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))


def is_figure(node):
    "Whether a function returns Axes or a figure, or takes them"
    returns = ast.unparse(node.returns) if node.returns else ""
    given = {a.arg for a in [*node.args.args, *node.args.kwonlyargs]}
    shows = any(kind in returns for kind in ("Axes", "Panel", "Figure"))
    return not node.name.startswith("_") and bool(shows or given & {"ax", "axs", "fig"})


# of `plot_sweep`, into axes it gives; what fastai calls, into a figure of pyplot as its own
PARTS = ["diffusion.sweep_curves", "diffusion.sweep_axes", "core.show_results"]


@cache
def figure_functions():
    "wing.name -> node of every figure function"
    found = {}
    for path in modules:
        if path.stem in ("drawing", "plots"):
            continue  # the mechanism itself, below
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in filter(is_figure, filter(is_function, ast.walk(tree))):
            name = f"{path.parent.name}.{node.name}"
            if name in PARTS:
                continue
            assert name not in found, f"{name} is there twice"
            found[name] = node
    return found


def test_every_figure_function_is_called_here():
    assert set(figure_functions()) == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_signatures_say_the_rule(name):
    "`ax:Axes|None=None` and Axes, or `axs=None` and Panels"
    node, several = figure_functions()[name], CALLS[name][1] is not None
    args = [*node.args.args, *node.args.kwonlyargs]
    defaults = dict(
        zip(
            [a.arg for a in node.args.args][::-1],
            [ast.unparse(d) for d in node.args.defaults[::-1]],
        )
    )
    taken = [
        (a.arg, a.annotation and ast.unparse(a.annotation), defaults[a.arg])
        for a in args
        if a.arg in ("ax", "axs")
    ]
    assert taken == [("axs", None, "None") if several else ("ax", "Axes | None", "None")]
    assert ast.unparse(node.returns) == ("Panels" if several else "Axes")


def test_figures_begin_in_one_place():
    "No module or tool makes figures on its own, and none imports pyplot"
    files = [*modules, *(ROOT / "tools").glob("*.py"), *(ROOT / "docs").glob("*.py")]

    def having(pattern):
        return {p.stem for p in files if re.search(pattern, p.read_text(encoding="utf-8"), re.M)}

    # a figure to try the disk with; fastai's `show_results`
    assert having(r"\bFigure\(") == {"files", "plots"}
    assert having(r"^\s*(import|from) .*\bpyplot\b") == {"loaders"}


@each_call
def test_draws_into_the_axes_it_is_given(call, shape):
    fig = Figure(figsize=(9, 4))
    grid = fig.subplots(1, int(np.prod(shape or 1)) + 1, squeeze=False)[0]
    mine, other, before = grid[:-1], grid[-1], list(fig.get_children())
    made = call(ax=mine[0]) if shape is None else call(axs=list(mine))
    if shape is None:
        assert made is mine[0]
    else:
        assert isinstance(made, Panels) and made.shape == shape and list(made.flat) == list(mine)
    # no axes, title or legend beside them
    assert fig.get_children() == before and fig.get_suptitle() == ""
    assert all(ax.has_data() for ax in mine) and not other.has_data() and not plt.get_fignums()


@each_call
def test_makes_a_figure_of_its_own(call, shape):
    made = call()
    assert isinstance(made, Panel if shape is None else Panels)
    assert shape is None or made.shape == shape
    fig = made.figure
    assert fig.axes == list(np.ravel(made)) and not plt.get_fignums()
    # for a phone; in the library's style
    assert fig.get_figwidth() <= 7.2 and not fig.axes[0].spines["top"].get_visible()
    assert min((t.get_fontsize() for t in texts_of(fig)), default=9) >= 8
    assert cut_texts(fig) == []
    picture = static_picture(made)
    assert picture.width == round(100 * fig.get_figwidth())
    # lines alone are drawn as lines; nothing here has thousands of marks
    images = any(ax.get_images() for ax in fig.axes)
    assert picture.kind == ("png" if images else "svg+xml")


@each_call
def test_wrong_axes_are_refused_by_name(call, shape):
    name, n = ("ax", 1) if shape is None else ("axs", int(np.prod(shape)))
    for wrong, got in (Figure().subplots(1, n + 1), n + 1), (Figure(), "a Figure"), ([], 0):
        needed = f"^{name}: {n} Axes are needed, one for each panel, got {got}"
        with pytest.raises(ValueError, match=needed):
            call(**{name: wrong})


def test_single_axes_and_nested_ones_are_understood():
    left, right = Figure().subplots(1, 2)
    assert panels(left, 1)[0] is left
    assert panels([[left], [right]], 2)[1] is right
    assert panels([left, right], (2, 1)).shape == (2, 1)
    assert panels(panels([left, right], 2), 2)[0] is left


def test_many_panels_go_into_rows():
    axs = panels(None, 5, ncols=3)
    rows = {ax.get_subplotspec().rowspan.start for ax in axs}
    assert rows == {0, 1} and axs.figure.axes == list(axs)


def test_nothing_changes_beside_the_figure():
    before = dict(plt.rcParams)
    panel(None)
    assert dict(plt.rcParams) == before


def test_pyplot_figures_are_left_to_pyplot():
    "Jupyter shows them by itself: a second picture would be one too many"
    fig, ax = plt.subplots()
    assert panels(ax, 1)._repr_mimebundle_() == ({}, {}) and panel(None)._repr_mimebundle_()[0]
    plt.close(fig)


def test_names_at_the_ends_keep_apart_on_any_scale():
    for scale in "linear", "log":
        ax = panel(None)
        ax.set_yscale(scale)
        ends = [(1, y, f"{y}", c) for y, c in zip((1, 1.001, 1.002, 100.0), CYCLE)]
        for x, y, *_ in ends:
            ax.plot([0, x], [1, y])
        label_ends(ax, ends)
        FigureCanvasAgg(ax.figure).draw()
        boxes = sorted((t.get_window_extent() for t in ax.texts), key=lambda b: b.y0)
        assert all(a.y1 <= b.y0 + 2 for a, b in zip(boxes, boxes[1:]))
        names = [t.get_text() for t in sorted(ax.texts, key=lambda t: t.xy[1])]
        assert names == ["1", "1.001", "1.002", "100.0"]


def test_reports_take_axes_arrays_and_figures():
    c, axs = Chapter("x"), panels(None, 2)
    for drawn in axs, list(axs), axs[0], axs.figure:
        c.figure(drawn, "two")
    assert len(set(c.blocks)) == 1 and figure_of(axs[:1]) is axs.figure
    for wrong in [], "a.png", None:
        with pytest.raises(TypeError, match="^drawn: Axes"):
            c.figure(wrong, "nothing")
