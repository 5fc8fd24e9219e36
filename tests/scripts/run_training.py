"""A small training run in a process of its own, for tests that kill it or start several:
run_training.py FOLDER [--every N] [--stop-at N] [--dropout P] [--daed] [--compiled]"""

import argparse
import os
import time

import torch
from fastai.callback.core import Callback

from denoise_study.daed import DAED
from denoise_study.core import averaged, denoise_learner, distributed, image_dls, save_checkpoint
from denoise_study.diffusion import DDGM, Schedule, UNet


class Tell(Callback):
    "Say each step aloud, so that somebody can pull the plug; wait for that at a given one"

    order = 99

    def __init__(self, stop_at):
        self.stop_at = stop_at

    def after_batch(self):
        if not self.training:
            return
        print(f"step {self.train_iter}", flush=True)
        if self.train_iter == self.stop_at:
            time.sleep(600)


def main(folder, every=4, stop_at=0, dropout=0.2, daed=False, compiled=False):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    dls = image_dls("digits", bs=64, valid=64, test=0.7, device="cpu")
    # dropout draws from the global state, which a resume must restore; several processes draw it
    # separately, so their test does without
    unet = lambda: UNet(channels=1, width=32, mult=(1, 2), n_blocks=1, attn=(), dropout=dropout)
    # uniform times on a long chain: in most steps the DAE has no work in any process, in some it
    # has in one of them
    if daed:
        model = DAED(
            unet(), unet(), Schedule.linear(200).merge_first(40), shape=(1, 8, 8), sampler="uniform"
        )
    else:
        model = DDGM(unet(), Schedule.linear(50), shape=(1, 8, 8), sampler="loss_second_moment")
    how = dict(ema=0.9, clip=1.0, seed=3, folder=folder, compiled=compiled)
    learn = denoise_learner(dls, model, cbs=Tell(stop_at), **how)
    learn.resume.steps, learn.json_log.every = every, 1
    with learn.no_bar(), distributed(learn):
        learn.fit_one_cycle(3, 1e-3)
        processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    if os.environ.get("RANK", "0") == "0":
        save_checkpoint(
            f"{folder}/model.safetensors",
            learn.model,
            averaged(learn),
            losses=[float(v) for v in learn.recorder.losses],
            processes=processes,
        )


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("folder")
    p.add_argument("--every", type=int, default=4)
    p.add_argument("--stop-at", type=int, default=0)
    p.add_argument("--dropout", type=float, default=0.2)
    p.add_argument("--daed", action="store_true")
    p.add_argument("--compiled", action="store_true")
    main(**vars(p.parse_args()))
