"The Learner: several processes, lr_find, half precision"

import os
import subprocess
import sys

import pytest
import torch
from helpers import digits, quiet_fit, SCRIPTS
from helpers_training import Linear, small

from denoise_study.core import denoise_learner, image_dls, read_tensors

SCRIPT = SCRIPTS / "run_training.py"
ENV = dict(os.environ, OMP_NUM_THREADS="1", PYTHONWARNINGS="ignore")


def test_two_processes_equal_one(tmp_path):
    """Two CPU processes on half batches against one on the whole: the same losses and weights but
    for the order of sums"""
    script = [str(SCRIPT), str(tmp_path / "two"), "--dropout", "0"]
    # torchrun: accelerate's own launcher starts one process on a CPU, whatever number it is told
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launch += ["--nproc_per_node", "2"]
    alone = [sys.executable, str(SCRIPT), str(tmp_path / "one"), "--dropout", "0"]
    for command in (launch + script, alone):
        subprocess.run(command, check=True, env=ENV, stdout=subprocess.DEVNULL)

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
