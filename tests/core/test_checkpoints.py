"Checkpoints: refused where they do not fit, believed as far as they prove themselves"

import json
import time

import pytest
import torch
from helpers_training import Linear, small
from torch import nn

from denoise_study.core import build, check_state, content_digest, describe, load_checkpoint
from denoise_study.core import load_state
from denoise_study.core import read_tensors, save_checkpoint, write_tensors
from denoise_study.diffusion import DDGM


def test_sampled_weights_are_recorded(tmp_path):
    model, ema = small(), small()
    save_checkpoint(tmp_path / "m.safetensors", model, ema, seed=4)
    for kind, src in (("raw", model), ("ema", ema), (None, ema)):
        m = load_checkpoint(tmp_path / "m.safetensors", weights=kind)
        assert m.info["weights"] == (kind or "ema") and m.info["seed"] == 4 and not m.training
        pairs = zip(m.state_dict().values(), src.state_dict().values())
        assert all(torch.equal(a, b) for a, b in pairs)
    assert describe(m) == describe(model)


def test_what_does_not_fit_is_named(tmp_path):
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, small())
    with pytest.raises(ValueError, match="model.args.sched.*'T': 30.*m.safetensors was saved with"):
        load_checkpoint(path, model=small(30))
    with pytest.raises(ValueError, match="model.class: this model has .*Linear"):
        load_checkpoint(path, model=Linear())
    with pytest.raises(ValueError, match=r"holds \['raw'\] weights, not 'ema'"):
        load_checkpoint(path, weights="ema")
    with pytest.raises(ValueError, match="1 tensors missing .*'bias'.*1 unknown .*'b'.*0 of anoth"):
        load_state(nn.Linear(1, 1), dict(weight=torch.ones(1, 1), b=torch.ones(1)), "f")


def test_weights_left_to_another_file(tmp_path):
    "Half of the tensors in a file beside: the same model, or nothing at all"
    whole, part, beside = (tmp_path / f"{k}.safetensors" for k in ("whole", "part", "beside"))
    save_checkpoint(whole, small(), seed=4)
    tensors, desc = read_tensors(whole)
    own = {k: v for k, v in tensors.items() if "conv" in k}
    others = {k: v for k, v in tensors.items() if k not in own}
    write_tensors(beside, others, desc)
    digest = content_digest(others, {})

    def opened(rest):
        write_tensors(part, own, dict(desc, rest=rest))
        return load_checkpoint(part)

    same = opened(dict(file="beside.safetensors", digest=digest)).state_dict()
    expected = load_checkpoint(whole).state_dict()
    assert all(torch.equal(v, same[k]) for k, v in expected.items())
    with pytest.raises(ValueError, match="beside.safetensors has other weights than those"):
        opened(dict(file="beside.safetensors", digest="0"))
    with pytest.raises(FileNotFoundError, match="away.safetensors"):
        opened(dict(file="away.safetensors", digest=digest))
    with pytest.raises(ValueError, match="rest: a file and a digest are needed, got 5"):
        opened(5)
    # only beside it: a path leads nowhere else
    outside = str(tmp_path.parent / "beside.safetensors")
    assert opened(dict(file=outside, digest=digest)).info["seed"] == 4


def test_a_model_of_somebody_else_is_loaded_into(tmp_path):
    path = tmp_path / "m.safetensors"
    model = Linear()
    model.w.data.fill_(3.0)
    save_checkpoint(path, model)
    with pytest.raises(ValueError, match="which is not a class of this library"):
        load_checkpoint(path)
    assert torch.equal(load_checkpoint(path, model=Linear()).w, model.w)
    assert isinstance(build(describe(small())), DDGM)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    "Tensors and description of a checkpoint"
    path = tmp_path_factory.mktemp("good") / "good.safetensors"
    save_checkpoint(path, small())
    return read_tensors(path)


def net(desc, **args):
    "The description with other arguments of the network"
    desc = json.loads(json.dumps(desc))
    desc["model"]["args"]["net"]["args"] |= args
    return desc


def args(desc, **args):
    "The description with other arguments of the model"
    desc = json.loads(json.dumps(desc))
    desc["model"]["args"] |= args
    return desc


def without(desc, *names):
    return {k: v for k, v in desc.items() if k not in names}


NAN = float("nan")
BAD = {  # (tensors, description) -> those of a bad file; what the message says
    "no model": (lambda t, d: (t, without(d, "model")), "has no model in its description"),
    "no info": (lambda t, d: (t, without(d, "info")), "has no info in its description"),
    "info is a list": (lambda t, d: (t, d | dict(info=[1])), "has no info .*got .1."),
    "model is a word": (lambda t, d: (t, d | dict(model="net")), "has no model .*got net"),
    "no kind": (lambda t, d: (t, without(d, "kind")), "holds None, not .checkpoint."),
    "no tensors": (lambda t, d: ({}, d), "weights: .*holds .. weights"),
    "names without a kind": (
        lambda t, d: ({k[4:]: v for k, v in t.items()}, d),
        "weights: .*weights, not 'raw'",
    ),
    "wide": (lambda t, d: (t, net(d, width=1024)), "does not fit the model"),
    "wider than any memory": (lambda t, d: (t, net(d, width=2**40)), "not made by|fit"),
    "a million blocks": (lambda t, d: (t, net(d, n_blocks=10**6)), "a model of more than"),
    "a million levels": (lambda t, d: (t, net(d, mult=[1] * 10**5)), "lists of up to 1000"),
    "a network in words": (
        lambda t, d: (t, args(d, net="unet")),
        "does not fit the model|not made by",
    ),
    "a network that is a number": (
        lambda t, d: (t, args(d, net=3)),
        "does not fit the model|not made by",
    ),
    "less than nothing": (lambda t, d: (t, net(d, width=-32)), "width"),
    "halves": (lambda t, d: (t, net(d, width=32.5)), "width|not made"),
    "colour": (lambda t, d: (t, net(d, channels=3)), "made for 3 channels|does not fit"),
    "NaN": (lambda t, d: ({k: v * NAN for k, v in t.items()}, d), "holds NaN or infinity in"),
    "infinity": (lambda t, d: ({k: v / 0 for k, v in t.items()}, d), "holds NaN or infinity in"),
    "whole numbers": (
        lambda t, d: ({k: v.to(torch.int8) for k, v in t.items()}, d),
        "of another type .*torch.int8 instead of torch.float32",
    ),
    "complex numbers": (
        lambda t, d: ({k: v.to(torch.complex64) for k, v in t.items()}, d),
        "of another type .*torch.complex64 instead of torch.float32",
    ),
    "no tensor of a name": (lambda t, d: (dict(list(t.items())[1:]), d), "1 tensors missing"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_is_believed_as_far_as_it_proves_itself(good, tmp_path, case):
    change, message = BAD[case]
    path = tmp_path / "bad.safetensors"
    write_tensors(path, *change(*good))
    start = time.perf_counter()
    with pytest.raises(ValueError, match=f"(?s)bad.safetensors.*({message})|{message}"):
        load_checkpoint(path)
    assert time.perf_counter() - start < 10  # nothing of that size was made


def test_half_precision_fits_and_other_threads_build_meanwhile(good, tmp_path):
    tensors, desc = good
    path = tmp_path / "half.safetensors"
    write_tensors(path, {k: v.half() for k, v in tensors.items()}, desc)
    assert next(load_checkpoint(path).parameters()).dtype == torch.float32
    with pytest.raises(ValueError, match="1 of another type"):
        check_state(nn.Linear(1, 1, False), dict(weight=torch.ones(1, 1).bool()), "f")


def test_loading_leaves_the_random_state_alone(good, tmp_path):
    write_tensors(tmp_path / "m.safetensors", *good)
    before = torch.get_rng_state()
    load_checkpoint(tmp_path / "m.safetensors")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_says_which_weights_it_has(tmp_path):
    path = tmp_path / "m.safetensors"
    model, ema = small(), small()
    save_checkpoint(path, model, ema)
    names = {kind: load_checkpoint(path, weights=kind).info["digest"] for kind in ("raw", "ema")}
    assert len(set(names.values())) == 2
    save_checkpoint(path, model, ema, other="words")
    assert load_checkpoint(path, weights="raw").info["digest"] == names["raw"]
