"Denoising other images: each thing listed once, differences image by image, foreign checkpoints"

import numpy as np
import pytest
from helpers import close, gauss, images, IMPROVED, normal, openai_state, sweep, trained, WIDE
from helpers_daed import gauss_daed

from denoise_study.daed import show_transfer, transfer_gaps, transfer_table
from denoise_study.diffusion import DDGM, from_openai, Schedule, WAYS_BACK


def test_openai_checkpoint_as_source():
    """A 64-pixel model in OpenAI's format, learned variance, cosine 4000, times scaled to 1000;
    on 32-pixel targets if one says so"""
    net = from_openai(openai_state(**IMPROVED, out=6), heads=4)
    labels, forward = [], net.forward
    net.forward = lambda x, t: (labels.append(t), forward(x, t))[1]
    model = DDGM(
        net, Schedule.cosine(4000), (3, 64, 64), loss="hybrid", var="learned", time_scale=0.25
    )
    x = {"CIFAR": images(2, 32, 3), "CelebA": images(2, 32, 3, seed=1)}
    with pytest.raises(
        ValueError, match="CIFAR: 32x32 pixels, the model was made for 64x64.*other_size=True"
    ):
        sweep(model, x, level=0.1)
    errors = sweep(model, x, level=0.1, hows=("mean", "noisy"), other_size=True)
    assert (
        errors.t.unique().tolist() == [794]
        and (labels[0] == 793 / 4).all()
        and np.isfinite(errors.mae).all()
    )
    errors = sweep(
        {"fast": model.respaced(40)}, x, level=0.1, hows=("ancestral", "mean"), other_size=True
    )
    assert (
        errors.calls[errors.how == "ancestral"].unique().tolist() == [9]
        and errors.step.between(700, 900).all()
    )
    assert (
        transfer_table(errors).groupby("set").how.apply(list).tolist()
        == [["ancestral", "mean"]] * 2
    )
    assert [
        t.get_text()
        for t in show_transfer(model, x["CIFAR"], hows=("mean",), other_size=True).texts
    ] == ["clean", "noisy", "model, mean"]


def test_transfer_table_lists_each_thing_once():
    ddgm, daed = gauss(), gauss_daed()
    errors = sweep(
        {"D": ddgm, "E": daed},
        {"x": normal(20)},
        level=0.1,
        hows=WAYS_BACK,
        draws=2,
        train=normal(100, seed=8),
        scale=WIDE,
    )
    table = transfer_table(errors)
    assert list(zip(table.model, table.how)) == [
        ("D", "ancestral"),
        ("D", "ddim"),
        ("D", "mean"),
        ("D", "average"),
        ("no model", "noisy"),
        ("no model", "linear"),
        ("E", "mean"),
    ]
    assert table.calls.tolist() == [98, 98, 1, 196, 0, 0, 1]
    assert (table[table.how == "mean"].mse_ratio == 1).all()


def test_gaps_are_paired_image_by_image():
    """The difference of two columns, with its own standard error; a summary allows no better
    than the widest difference"""
    errors = sweep(
        {"D": gauss(), "E": gauss_daed()},
        normal(30),
        level=0.1,
        hows=("ancestral", "mean"),
        scale=WIDE,
    )
    wide = errors.pivot_table(index="image", columns=["model", "how"], values="mae")
    d = wide["E", "mean"] - wide["D", "ancestral"]
    row = transfer_gaps(errors).iloc[0]
    close([row.against_sample, row.against_sample_n], [d.mean(), 30], atol=1e-9)
    close(row.against_sample_high - row.against_sample, 1.959964 * d.std() / 30**0.5, rtol=1e-5)
    both = transfer_gaps(transfer_table(errors)).iloc[0]
    close(both.against_sample, row.against_sample, atol=1e-9)
    assert (
        both.against_sample_low < row.against_sample_low
        and both.against_sample_high > row.against_sample_high
    )
    assert transfer_gaps(errors, pairs=[("E", "nobody")]).empty


grey, color = trained(), images(3, 8, 3)
x = images(4)
CALLS = {
    "show an average": (lambda: show_transfer(grey, x, hows=("average",)), "hows: some of"),
    "show a crowd": (lambda: show_transfer(grey, images(129)), "x0: 129 images"),
}


@pytest.mark.parametrize("case", CALLS)
def test_bad_input(case):
    call, message = CALLS[case]
    with pytest.raises((ValueError, TypeError), match=f"(?s){message}"):
        call()
