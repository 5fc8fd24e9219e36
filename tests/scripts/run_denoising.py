"""Denoising layers trained and fused by every process that the launcher started, for a test:
run_denoising.py FOLDER"""

import os
import sys

import torch
from safetensors.torch import save_file
from torch import nn

from denoise_study.core import distributed, image_dls
from denoise_study.denoiserep import denoise_rep, denoiserep_learner


def main(folder):
    rank = os.environ.get("RANK", "0")
    torch.manual_seed(0)  # the same network everywhere, as if loaded from a checkpoint
    torch.set_num_threads(1)
    dls = image_dls("digits", bs=64, valid=64, test=0.7, device="cpu")
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )
    if rank == "0":
        save_file(model.state_dict(), f"{folder}/base.safetensors")
    dr = denoise_rep(
        model, t=100, example=torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    )
    learn = denoiserep_learner(dls, dr, seed=3)
    with learn.no_bar(), learn.no_logging(), distributed(learn):
        learn.fit(8, 1e-2)
        processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    losses = torch.stack(learn.recorder.losses)
    fused = dr.fuse()
    save_file(
        dict(fused.state_dict(), losses=losses, processes=torch.tensor(processes)),
        f"{folder}/fused{rank}.safetensors",
    )


if __name__ == "__main__":
    main(sys.argv[1])
