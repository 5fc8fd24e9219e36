"What several test files share: seeded draws, small models, OpenAI's layout, scripts to be run"

import builtins
import contextlib
import io
import math
import multiprocessing
import os
import runpy
import socket
import sys
import time
from functools import cache
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import nn

from denoise_study.core import image_dls
from denoise_study.denoiser import BlindUNet, denoiser
from denoise_study.diffusion import DDGM, GaussianNet, reconstruction_sweep, ScaleNorm, Schedule
from denoise_study.diffusion import UNet
from denoise_study.representation import channel_averages

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "tests/scripts"  # programs that tests start in processes of their own
ENV = dict(os.environ, OMP_NUM_THREADS="1", PYTHONWARNINGS="ignore")
FORK = multiprocessing.get_context("fork")
HO = Schedule.linear(1000)  # that of Ho et al. (2020)
WIDE = (-9.0, 9.0)  # a range that Gaussian images keep to
WIDTHS = 6, 10, 14, 22  # all different, so that an index off by one has the wrong length


# Draws and comparisons


def hide_library(monkeypatch, library):
    "As if it were not installed"
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == library:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def rand(*shape, seed=0, **kw):
    return torch.rand(shape, generator=gen(seed), **kw)


def randn(*shape, seed=0, **kw):
    return torch.randn(shape, generator=gen(seed), **kw)


def images(n, side=8, c=1, seed=0):
    return rand(n, c, side, side, seed=seed) * 2 - 1  # in [-1,1]


def normal(n, side=16, s2=0.25, seed=5):
    "Gaussian images of variance s2, those of `gauss`"
    return s2**0.5 * randn(n, 1, side, side, seed=seed)


def pictures(n=12, side=16, seed=0):
    "Smooth pictures in [0,1], each with a pattern of its own"
    small = rand(n, 1, 4, 4, seed=seed)
    return nn.functional.interpolate(small, size=side, mode="bicubic").clamp(0, 1)


def close(a, b, rtol=0.0, atol=0.0):
    "Whether two tensors, arrays or numbers are equal in double precision, but for what is allowed"
    a, b = (torch.as_tensor(v, dtype=torch.float64) for v in (a, b))
    torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


# Models


def digits(bs=64, **kw):
    return image_dls("digits", bs=bs, device="cpu", **kw)


def quiet_fit(learn, n=1, lr=1e-2):
    "Train without bars and tables; the Learner"
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(n, lr)
    return learn


def gauss(sched=HO, s2=0.25, n=16, **kw):
    "The perfect model of Gaussian data"
    return DDGM(GaussianNet(sched, s2), sched, (1, n, n), **dict(dict(range=WIDE), **kw))


def trained(out=1, T=50, channels=1, side=8, **kw):
    "A diffusion model that does something, without training"
    torch.manual_seed(0)
    net = UNet(
        channels=channels, width=32, mult=(1, 2), n_blocks=1, attn=(2,), learn_sigma=out == 2
    )
    for p in net.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.05)
    return DDGM(net, Schedule.linear(T), (channels, side, side), **kw)


def blind_denoiser(seed=0, widths=WIDTHS):
    "Large random gains and some bias: phi depends on image, noise and noise level"
    torch.manual_seed(seed)
    net = BlindUNet(1, widths, (2, 2, 2))
    for m in net.modules():
        if isinstance(m, ScaleNorm):
            nn.init.normal_(m.gain, std=0.5)
        elif getattr(m, "bias", None) is not None:
            nn.init.normal_(m.bias, std=0.05)
    return denoiser(net, (1, 16, 16))


@cache
def averages():
    "What `blind_denoiser` says of `pictures`"
    return channel_averages(blind_denoiser(), pictures(), draws=4, progress=False)


# Errors of reconstruction


def texts_of(fig):
    "Titles, labels of axes and remarks of a figure"
    of_axes = [
        [*ax.texts, ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label] for ax in fig.axes
    ]
    return [t for texts in of_axes for t in texts if t.get_text()]


def cut_texts(fig):
    "What a reader can't see whole"
    FigureCanvasAgg(fig).draw()
    width, height = fig.bbox.size
    cut = []
    for t in texts_of(fig):
        b = t.get_window_extent()
        if b.x0 < -1 or b.y0 < -1 or b.x1 > width + 1 or b.y1 > height + 1:
            cut.append(t.get_text())
    return cut


def sweep(models, x, *args, **kw):
    return reconstruction_sweep(models, x, *args, **dict(dict(progress=False), **kw))


def constructed(
    onset=None, n=(80, 90), ts=(1, 2, 4, 8, 12, 16, 20), size=0.3, spread=0.2, ease=1.0, seed=0
):
    """A table of errors whose gap opens at `onset`, with a linear baseline that knows the `ease` of
    the second set"""
    rng, rows = np.random.default_rng(seed), []
    for name, k, at, factor in (("a", n[0], None, 1.0), ("b", n[1], onset, ease)):
        common = rng.normal(size=k)
        for t in ts:
            base = 0.02 * t * factor * (1 + spread * (0.7 * common + 0.5 * rng.normal(size=k)))
            grown = 1 + (size if at is not None and t >= at else 0.0)
            errors = {
                "ancestral": base * grown * (1 + 0.05 * rng.normal(size=k)),
                "linear": base,
                "noisy": np.full(k, 0.03 * t),
            }
            where = dict(
                model="m",
                set=name,
                t=t,
                step=t,
                share=t / 100,
                level=0.01 * t,
                log_snr=5.0 - 0.1 * t,
                seed=0,
                image=np.arange(k),
            )
            for how, e in errors.items():
                rows.append(pd.DataFrame(dict(where, how=how, mae=e, mse=e**2)))
    return pd.concat(rows, ignore_index=True)


# OpenAI's published layout, written down independently: name -> tensor

IMPROVED = dict(width=32, mult=(1, 2), n_blocks=2, attn=(2,))


class OpenAIState:
    "A state dict with the names and shapes of OpenAI's U-Nets, and random numbers in it"

    def __init__(self, width, scale_shift=True, seed=0):
        self.tensors, self.generator = {}, gen(seed)
        self.embedding, self.scale_shift = 4 * width, scale_shift

    def put(self, name, *shape, bias=True, gain=1.0):
        noise = torch.randn(shape, generator=self.generator)
        fan = math.prod(shape[1:]) or 1
        self.tensors[f"{name}.weight"] = (
            noise * gain / math.sqrt(fan) if len(shape) > 1 else 1 + 0.2 * noise
        )
        if bias:
            self.tensors[f"{name}.bias"] = 0.2 * torch.randn(shape[0], generator=self.generator)

    def block(self, at, i, o):
        self.put(f"{at}.in_layers.0", i)
        self.put(f"{at}.in_layers.2", o, i, 3, 3)
        self.put(f"{at}.emb_layers.1", (1 + self.scale_shift) * o, self.embedding)
        self.put(f"{at}.out_layers.0", o)
        self.put(f"{at}.out_layers.3", o, o, 3, 3)
        if i != o:
            self.put(f"{at}.skip_connection", o, i, 1, 1)

    def attention(self, at, c):
        self.put(f"{at}.norm", c)
        self.put(f"{at}.qkv", 3 * c, c, 1, gain=2.0)
        self.put(f"{at}.proj_out", c, c, 1)


def openai_state(
    width,
    mult,
    n_blocks,
    attn,
    channels=3,
    out=3,
    n_classes=None,
    updown=False,
    conv=True,
    scale_shift=True,
    seed=0,
):
    "The state dict of one of OpenAI's U-Nets"
    sd = OpenAIState(width, scale_shift, seed)
    widths = [int(width * m) for m in mult]
    sd.put("time_embed.0", sd.embedding, width)
    sd.put("time_embed.2", sd.embedding, sd.embedding)
    if n_classes:
        sd.put("label_emb", n_classes, sd.embedding, bias=False)

    sd.put("input_blocks.0.0", widths[0], channels, 3, 3)
    c, kept, n = widths[0], [widths[0]], 1
    for level, w in enumerate(widths):
        for _ in range(n_blocks):
            sd.block(f"input_blocks.{n}.0", c, w)
            if 2**level in attn:
                sd.attention(f"input_blocks.{n}.1", w)
            c, n = w, n + 1
            kept.append(c)
        if level < len(widths) - 1:
            if updown:
                sd.block(f"input_blocks.{n}.0", c, c)
            elif conv:
                sd.put(f"input_blocks.{n}.0.op", c, c, 3, 3)
            kept.append(c)
            n += 1

    sd.block("middle_block.0", c, c)
    sd.attention("middle_block.1", c)
    sd.block("middle_block.2", c, c)

    n = 0
    for level in reversed(range(len(widths))):
        for j in range(n_blocks + 1):
            sd.block(f"output_blocks.{n}.0", c + kept.pop(), widths[level])
            c, k = widths[level], 1
            if 2**level in attn:
                sd.attention(f"output_blocks.{n}.1", c)
                k = 2
            if level and j == n_blocks:
                if updown:
                    sd.block(f"output_blocks.{n}.{k}", c, c)
                elif conv:
                    sd.put(f"output_blocks.{n}.{k}.conv", c, c, 3, 3)
            n += 1
    sd.put("out.0", c)
    sd.put("out.2", out, c, 3, 3)
    return sd.tensors


# Programs


TORCHRUN = "torch.distributed.run --standalone --nproc_per_node"
# without --multi_gpu it starts one process on a CPU, whatever number it is told
ACCELERATE = "accelerate.commands.launch --multi_gpu --num_machines 1 --mixed_precision no"
ACCELERATE += " --dynamo_backend no --main_process_port 0 --num_processes"


def script(name, *args, processes=0, launcher=TORCHRUN):
    "Command that runs a file of tests/scripts, in several processes where that is asked for"
    start = ["-m", *launcher.split(), str(processes)] if processes else []
    return [sys.executable, *start, str(SCRIPTS / f"{name}.py"), *map(str, args)]


def _in_a_group(told, name, args):
    "A script as one of several processes; forked, as what takes seconds is imported already"
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)  # an earlier test may have been alone
    os.environ.update(told)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    run_script(name, *args)


def run_script(name, *args, processes=0):
    """Run it to its end: here, or in processes that know of each other, as a launcher tells them.
    What it says here"""
    if not processes:
        words = io.StringIO()
        told = [f"{name}.py", *map(str, args)]
        with patch.object(sys, "argv", told), contextlib.redirect_stdout(words):
            runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
        return words.getvalue()

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    group = dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE=str(processes))
    running = []
    for rank in map(str, range(processes)):
        told = group | dict(RANK=rank, LOCAL_RANK=rank)
        running.append(FORK.Process(target=_in_a_group, args=(told, name, args)))
    for p in running:
        p.start()
    while any(p.is_alive() for p in running) and not any(p.exitcode for p in running):
        time.sleep(0.05)
    codes = [p.exitcode for p in running]
    for p in running:
        p.kill()  # whoever waits for one that has failed
    assert codes == [0] * processes
