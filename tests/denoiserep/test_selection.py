"Which layers: by whole name, type or function; what is refused, and why"

import pytest
import torch
from torch import nn

from helpers_denoiserep import net, X
from denoise_study.denoiserep import denoise_rep


def test_selection_by_whole_name_type_or_function():
    choose = lambda layers, **kw: set(denoise_rep(net(), layers, example=X, **kw).slots)
    assert choose(r"blocks\..*linear\d") == {
        f"blocks.layers.{i}.linear{k}" for i in (0, 1) for k in (1, 2)
    }
    assert choose(nn.Conv2d) == choose((nn.Conv2d,)) == {"stem", "patch", "depth"}
    assert choose(["head", "stem"]) == {"head", "stem"}
    assert choose(lambda n, m: n == "patch") == {"patch"}
    assert choose("all", exclude=r"blocks.*|head") == {"stem", "patch", "depth"}
    assert choose(nn.MultiheadAttention) == {f"blocks.layers.{i}.self_attn" for i in (0, 1)}
    with pytest.raises(ValueError, match="layers: 'mlp' matches nothing"):
        choose("mlp")  # a regex for whole names, no substring


def test_all_reports_what_it_leaves_out():
    m = seq(nn.Conv2d(1, 2, 3), nn.ConvTranspose2d(2, 2, 3), nn.Conv2d(2, 2, 1))
    report = denoise_rep(m, example=X).report().set_index("layer")
    assert report.loc["1"].note.startswith("refused: a transposed convolution") and report.t[
        :2
    ].tolist() == [2, 1]


def tied():
    m = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    m[1].weight = m[0].weight
    return m


def seq(*layers):
    return nn.Sequential(*layers)


def old_weight_norm():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return seq(nn.utils.weight_norm(nn.Linear(4, 4)))


E = torch.randn(2, 4)


REFUSED = {
    "nothing matched": (
        lambda: denoise_rep(net(), "nothing", example=X),
        "layers: 'nothing' matches nothing.*it could be 'head', 'stem'",
    ),
    "no layer at all": (
        lambda: denoise_rep(nn.ReLU(), example=X),
        "matches nothing.*none with weights",
    ),
    "unknown name": (
        lambda: denoise_rep(net(), ["stem", "stam"], example=X),
        r"no module \['stam'\]",
    ),
    "a norm by name": (
        lambda: denoise_rep(net(), ["norm"], example=X),
        "norm: BatchNorm2d: not a linear layer",
    ),
    "tied weights": (
        lambda: denoise_rep(tied(), r"\d", example=E),
        "0: tied: 2 modules share this weight",
    ),
    "transposed": (
        lambda: denoise_rep(seq(nn.ConvTranspose2d(1, 4, 3)), ".*", example=X),
        "transposed convolution",
    ),
    "transposed, by type": (
        lambda: denoise_rep(
            seq(nn.Conv2d(1, 1, 1), nn.ConvTranspose2d(1, 4, 3)), nn.ConvTranspose2d, example=X
        ),
        "transposed convolution",
    ),
    "embedding": (
        lambda: denoise_rep(seq(nn.Embedding(4, 4)), "0", example=torch.tensor([1])),
        "its input is an index",
    ),
    "recurrent": (lambda: denoise_rep(seq(nn.LSTM(4, 4)), "0", example=E), "recurrent"),
    "bilinear": (lambda: denoise_rep(seq(nn.Bilinear(4, 4, 4)), "0", example=E), "two inputs"),
    "lazy": (
        lambda: denoise_rep(seq(nn.LazyLinear(4)), "0", example=E),
        "lazy: call the model once",
    ),
    "weight norm": (
        lambda: denoise_rep(
            seq(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))), "0", example=E
        ),
        "already parametrized",
    ),
    "old weight norm": (lambda: denoise_rep(old_weight_norm(), "0", example=E), "not a parameter"),
    "attention with kdim": (
        lambda: denoise_rep(seq(nn.MultiheadAttention(4, 2, kdim=6)), "0", t=1),
        "kdim or vdim of their own",
    ),
    "bias without a bias": (
        lambda: denoise_rep(seq(nn.Linear(4, 4, bias=False)), example=E, bias=True),
        "bias: .*no bias to fuse it into",
    ),
    "bias and zero padding": (
        lambda: denoise_rep(net(), ["stem"], example=X, bias=True),
        "bias: .*zero padding",
    ),
    "bias unknown": (lambda: denoise_rep(net(), example=X, bias="yes"), "bias: one of"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()
