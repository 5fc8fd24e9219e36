"The Learner: several processes, lr_find, half precision, fastai's own verbs"

import os
import subprocess
import sys
import warnings

import matplotlib.pyplot as plt
import pytest
import torch
from helpers import digits, quiet_fit, ROOT, run_script
from helpers_coredata import random_images, save_all
from helpers_training import Linear, small

from denoise_study.core import averaged, denoise_learner, image_dls, read_tensors


@pytest.mark.parametrize("how", [(), ("--compiled",)])
def test_two_processes_equal_one(tmp_path, monkeypatch, how):
    """Two CPU processes on half batches against one on the whole: the same losses and weights but
    for the order of sums; also where torch.compile traces what each of them trains"""
    whole = torch.compile

    def traced(forward, **kwargs):
        (tmp_path / f"traced-{os.getpid()}").touch()
        return whole(forward, backend="eager", **kwargs)  # the compilers take a minute

    monkeypatch.setattr(torch, "compile", traced)
    run_script("run_training", tmp_path / "two", "--dropout", 0, *how, processes=2)
    assert len([*tmp_path.glob("traced-*")]) == 2 * len(how)
    run_script("run_training", tmp_path / "one", "--dropout", 0)
    one, done = read_tensors(tmp_path / "one/model.safetensors")
    two, dtwo = read_tensors(tmp_path / "two/model.safetensors")
    assert (done["info"]["processes"], dtwo["info"]["processes"]) == (1, 2)
    losses = torch.tensor(done["info"]["losses"])
    torch.testing.assert_close(losses, torch.tensor(dtwo["info"]["losses"]), rtol=1e-4, atol=1e-5)
    # Adam blows up the order of sums where a gradient is nearly 0: single biases differ by 4e-5
    for k in one:
        torch.testing.assert_close(
            one[k], two[k], rtol=1e-3, atol=2e-4, msg=lambda m, k=k: f"{k}: {m}"
        )
    assert losses[-1] < 0.8 * losses[0]  # there was something to agree on


def test_lr_find_and_half_precision_work(tmp_path):
    learn = denoise_learner(digits(), Linear(), folder=tmp_path)
    with learn.no_bar():
        suggestion = learn.lr_find(num_it=20, show_plot=False)
    assert 1e-7 < suggestion.valley < 10 and not (tmp_path / "state.safetensors").exists()
    learn = quiet_fit(denoise_learner(digits(), small(), bf16=True), 1, 1e-3)
    assert all(p.dtype == torch.float32 for p in learn.model.parameters())
    assert torch.isfinite(torch.stack(learn.recorder.losses)).all()
    assert not torch.is_autocast_enabled("cpu")


def test_model_and_data_have_to_fit():
    with pytest.raises(ValueError, match=r"of shape \(1, 8, 8\), the data set .* has \(1, 28"):
        denoise_learner(image_dls("fashion_mini", device="cpu"), Linear())
    with pytest.raises(ValueError, match=r"range \(-1.0, 1.0\), the data .* \(0.0, 1.0\)"):
        denoise_learner(image_dls("digits", range=(0, 1), device="cpu"), Linear())


# Loaders of somebody else, and fastai's own verbs


def blocks(folder, *tfms):
    "Loaders of a fastai DataBlock over grey pictures of 8x8"
    from fastai.vision.all import DataBlock, get_image_files, ImageBlock, PILImageBW
    from fastai.vision.all import RandomSplitter

    save_all(folder, random_images(24))
    block = DataBlock(
        blocks=ImageBlock(PILImageBW),
        get_items=get_image_files,
        splitter=RandomSplitter(0.25),
        batch_tfms=list(tfms),
    )
    return block.dataloaders(folder, bs=8, device="cpu", num_workers=0)


def test_a_datablock_trains_and_its_range_is_looked_at_once(tmp_path):
    from fastai.vision.all import Normalize

    with pytest.warns(UserWarning, match=r"dls: .*values from 0.* to .*\(-1.0, 1.0\).*Normalize"):
        denoise_learner(blocks(tmp_path), Linear())
    mapped = blocks(tmp_path, Normalize.from_stats([0.5], [0.5], cuda=False))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        learn = denoise_learner(mapped, Linear())
    quiet_fit(learn)
    assert torch.isfinite(torch.stack(learn.recorder.losses)).all()
    wild = blocks(tmp_path, Normalize.from_stats([0.5], [0.1], cuda=False))
    with pytest.raises(
        ValueError, match=r"dls, first batch: values from -[45][.0-9]* to .*\[-1, 1\]"
    ):
        denoise_learner(wild, Linear())
    other = Linear()
    other.shape = 1, 28, 28
    with pytest.raises(ValueError, match="dls, first batch: got 8x8 pixels; 28x28"):
        denoise_learner(blocks(tmp_path), other)
    with pytest.raises(TypeError, match="data: .*loaders of fastai go to `denoise_learner`"):
        image_dls(mapped)


def test_a_learner_is_exported_and_loaded(tmp_path):
    "Without its images; model, average and description come back"
    from fastai.learner import load_learner

    learn = denoise_learner(digits(), small(), ema=0.9, folder=tmp_path / "run", path=tmp_path)
    quiet_fit(learn)
    learn.export("learner.pkl")
    assert len(learn.dls.train) == 1437 // 64  # its own loaders are still there
    loaded = load_learner(tmp_path / "learner.pkl")
    assert loaded.dls.info == learn.dls.info and len(loaded.dls.train) == 0
    for ours, theirs in ((learn.model, loaded.model), (averaged(learn), averaged(loaded))):
        assert all(map(torch.equal, ours.parameters(), theirs.parameters()))
    same = [m.sample(2, steps=4, progress=False) for m in (learn.model, loaded.model)]
    assert torch.equal(*same)


def test_results_are_shown_and_predict_says_what_to_use_instead():
    learn = denoise_learner(digits(), small())
    with learn.no_bar():
        learn.show_results()
    labels = [t.get_text() for t in plt.gca().texts]
    assert len(labels) == 9 and all(0 < float(t) < 100 for t in labels)  # the losses
    plt.close("all")
    with pytest.raises(NotImplementedError, match=r"predict: .*denoiser\(learn.model\)"):
        learn.predict(learn.dls.train.dataset[0][0])


def test_training_leaves_filters_of_warnings_as_they_were():
    "In a process of its own: torch imports its packages once"
    code = (
        "import warnings, torch; from torch import nn\n"
        "from helpers import digits, quiet_fit\n"
        "from helpers_training import Linear\n"
        "from denoise_study.core import denoise_learner\n"
        "before = list(warnings.filters)\n"
        "quiet_fit(denoise_learner(digits(), Linear()))\n"
        "assert warnings.filters == before, warnings.filters\n"
    )
    path = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])
    env = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=path)
    subprocess.run([sys.executable, "-c", code], check=True, env=env)


@pytest.mark.parametrize("clip", [-1, 0, float("nan"), "1", True])
def test_a_norm_of_the_gradient_is_a_positive_number(clip):
    with pytest.raises(ValueError, match="clip: a number above 0, or None"):
        denoise_learner(digits(), Linear(), clip=clip)
