"""What large jobs cost on many GPUs: floating-point operations, bytes and messages, for the page
`further/many`. Operations are counted in the networks themselves, shares are those of `share`."""

from dataclasses import dataclass
from functools import cache, partial

import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from denoise_study.denoiser import BlindUNet, denoiser
from denoise_study.diffusion import UNet
from results import grid

RATE = 1e14  # operations a second that a GPU really does; a fifth to a half of what is advertised
LINK = 1e9  # bytes a second into a machine: Ethernet of 10 Gbit
DISK = 1e9  # bytes a second of the file system that all machines read
WORLDS = 1, 8, 64  # GPUs
STEPS, DRAWS, DIM = 1000, 20, 2048


@dataclass
class Job:
    "One large job: all numbers are of an image, but for those that say otherwise"

    what: str
    n: int  # images
    bs: int  # in a batch: only whole ones are dealt out
    flops: float  # floating-point operations
    read: int  # bytes from the disk
    rows: int  # bytes of the result that every process gets
    sums: int = 0  # bytes of the sums that every process sends, whatever the number of images
    alone: float = 0.0  # operations at the end of all, which are not shared


def flops_of(run):
    "Floating-point operations of a call: two for a multiplication with its addition"
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops()


@cache
def jobs():
    "The three that the page is about"
    with torch.device("meta"):  # shapes without numbers
        unet = UNet.paper("cifar10", channels=3).eval()
        inception = torchvision.models.inception_v3(init_weights=False).eval()
        step = flops_of(lambda: unet(torch.empty(1, 3, 32, 32), torch.zeros(1)))
        look = flops_of(lambda: inception(torch.empty(1, 3, 299, 299)))
    D = denoiser(BlindUNet(3), shape=(3, 64, 64))
    x = torch.rand(1, 3, 64, 64)
    phi = flops_of(lambda: D.averages(x, 0.5, ("mid",)))
    channels = D.averages(x, 0.5, ("mid",))["mid"].shape[1]
    moments = 2 * DIM**2  # an outer product, added
    return {
        "samples": Job("50,000 samples", 50_000, 250, STEPS * step, 0, 4 * 3 * 32**2),
        "phi": Job("phi", 1_281_167, 256, DRAWS * phi, 3 * 64**2, 4 * channels + 8),
        "fid": Job(
            "Fréchet moments", 50_000, 250, look + moments, 3 * 32**2, 0,
            sums=8 * (DIM**2 + DIM), alone=5 * DIM**3,
        ),
    }  # fmt: skip


def cost(job, world):
    "Operations of the busiest process, bytes, messages and seconds on so many GPUs"
    batches = -(-job.n // job.bs)
    most = min(job.n, -(-batches // world) * job.bs)  # the largest `share`
    received = job.n * job.rows * (world - 1) // world + job.sums * (world - 1)
    seconds = dict(
        computing=(most * job.flops + job.alone) / RATE,
        reading=job.n * job.read / DISK,
        gathering=received / LINK,
    )
    return dict(
        gpus=world,
        images=most,
        flops=most * job.flops,
        received=received,
        messages=world * (world - 1),  # each process sends its part to each other, once
        **seconds,
        busiest=max(seconds, key=seconds.get),
        busy=job.n / (most * world),
    )


def saturation(job):
    "The number of GPUs from which on reading or gathering takes longer than computing"
    world = 1
    while world < 2**20:
        c = cost(job, world)
        if c["busiest"] != "computing":
            return world
        world *= 2
    return None


def in_time(seconds):
    if seconds >= 7200:
        return f"{seconds / 3600:,.1f} h"
    return f"{seconds:,.2f} s" if seconds < 120 else f"{seconds / 60:,.1f} min"


def scale(name):
    "A table of one job: a row for each number of GPUs"
    job = jobs()[name]
    rows = []
    for world in WORLDS:
        c = cost(job, world)
        times = [in_time(c[k]) for k in ("computing", "reading", "gathering")]
        size = f"{c['received'] / 1e6:,.0f} MB"
        rows.append([str(world), f"{c['flops']:.2e}", *times, size, f"{c['messages']:,}"])
    head = ["GPUs", "flops of each", "computing", "reading", "gathering", "into each", "messages"]
    return grid(head, rows)


def fact(key, name):
    "A number of a job for a sentence"
    job = jobs()[name]
    if key == "total":
        return f"{job.n * job.flops + job.alone:.1e}"
    if key == "sums":
        return f"{job.sums / 1e6:.0f}"
    if key == "busy":
        return f"{cost(job, WORLDS[-1])['busy']:.0%}"
    world = saturation(job)
    if world is None:
        return "never" if key == "overtaken" else "nothing"
    return f"{world} GPUs" if key == "overtaken" else cost(job, world)["busiest"]


def constant(name):
    "One of the assumptions above"
    return f"{globals()[name]:,.0f}"


# what the page calls
OFFERED = dict(scale=scale, constant=constant) | {
    key: partial(fact, key) for key in ("total", "sums", "busy", "overtaken", "bottleneck")
}
