"""Does memory stay as it is when the job grows? bench_memory.py [--only WHAT ...]
[--jobs N] [--json FILE]

Each job is done with few and with many synthetic images, each time in a process of its
own, whose peak of resident memory is read at its end. Networks and images are tiny, so that the
number of images is all that can count. What has to be kept by nature, such as the vectors that are
the result, is counted, printed beside the peak, and subtracted before the two are compared. Blocks
of a megabyte and more are asked of the system one by one (MALLOC_MMAP_THRESHOLD_), so that the peak
is what was in use, and not the holes that the C library keeps. Seconds are those of the
processor."""

import argparse, json, os, resource, subprocess, sys, tempfile, time, warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import nn

from denoise_study.core import compute_features, Features, image_moments, ImageLoader
from denoise_study.core import knn_precision_recall, run_info, write_json
from denoise_study.denoiser import BlindUNet, denoiser
from denoise_study.diffusion import DDGM, reconstruction_sweep, Schedule, UNet
from denoise_study.representation import channel_averages

# job -> images of both runs; neighbours cost the square, sampling and sweeps look at an image often
SIZES = dict(
    phi=(60_000, 600_000),
    features=(60_000, 600_000),
    moments=(60_000, 600_000),
    sampling=(200, 1_000),
    neighbours=(2_000, 8_000),
    sweep=(200, 1_000),
)
TAP = 64  # channels of the representation that is kept
DIM = 16  # of features


class Synthetic:
    "Images that are made when they are asked for: only their labels are in memory"

    threads, channels, hw = 0, 1, (8, 8)

    def __init__(self, n):
        self.labels = torch.arange(n) % 10

    def __len__(self):
        return len(self.labels)

    def batch(self, idx):
        place = torch.as_tensor(idx).view(-1, 1, 1, 1)
        pixels = torch.arange(64).view(1, 1, 8, 8)
        return (place * 7 + pixels * (place % 13 + 1)).remainder(256).byte()


def loader(n):
    return ImageLoader(Synthetic(n), 256, (0.0, 1.0), device="cpu")


def space():
    net = nn.Sequential(nn.Conv2d(1, DIM, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.name = "random"
    return net


def model():
    return DDGM(UNet(1, 32, (1,), 1, attn=()), Schedule.cosine(4), shape=(1, 8, 8))


# each job returns the bytes that have to be in memory at its end


def phi(n):
    D = denoiser(BlindUNet(1, (4, TAP), (1, 1, 2)), shape=(1, 8, 8))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "phi.safetensors"
        a = channel_averages(D, loader(n), 0.3, ("mid",), 1, path=path, progress=False)
    return a.phi.x.nbytes + 2 * a.labels.nbytes  # of the images, and of the result


def features(n):
    return compute_features(space(), loader(n), progress=False).x.nbytes + 8 * n


def moments(n):
    image_moments(space(), loader(n), progress=False)
    return 8 * n  # the labels


def sampling(n):
    return 2 * model().sample(n, bs=64, progress=False).nbytes  # as batches and as one tensor


def neighbours(n):
    gen = torch.Generator().manual_seed(0)
    real, fake = (Features(torch.randn(n, DIM, generator=gen)) for _ in range(2))
    knn_precision_recall(real, fake)
    # as they came, in double precision, and of 20 halves: whose each is, its radius, who is inside
    return 2 * n * (DIM * (4 + 8) + 20 * (1 + 8 + 2))


def sweep(n):
    x = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    table = reconstruction_sweep(model(), x, [1, 4], ("ancestral", "mean"), progress=False)
    return x.nbytes + int(table.memory_usage().sum())


JOBS = dict(
    phi=phi,
    features=features,
    moments=moments,
    sampling=sampling,
    neighbours=neighbours,
    sweep=sweep,
)


def one(job, n):
    "In a process of its own: peak, and what was kept"
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    JOBS[job](8)  # everything that is loaded at the first call is there
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    start = time.process_time()
    kept = JOBS[job](n)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(dict(n=n, peak=peak, before=before, kept=kept, seconds=seconds)))


def measured(job, n):
    "The same in a fresh process"
    command = [sys.executable, __file__, "--one", job, str(n)]
    env = os.environ | dict(MALLOC_MMAP_THRESHOLD_=str(2**20))
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    return json.loads(done.stdout.splitlines()[-1])


def row(job, few, many):
    "Both runs of a job, and the ratio of what is not kept by nature"
    mb = {k: [round(o[k] / 2**20, 1) for o in (few, many)] for k in ("peak", "kept")}
    rest = [o["peak"] - o["kept"] for o in (few, many)]
    return dict(
        what=job,
        n=few["n"],
        many=many["n"],
        peak_MB=mb["peak"][0],
        many_peak_MB=mb["peak"][1],
        many_kept_MB=mb["kept"][1],
        ratio=rest[1] / rest[0],
        bytes_an_image=(many["peak"] - few["peak"]) / (many["n"] - few["n"]),
        kept_bytes_an_image=(many["kept"] - few["kept"]) / (many["n"] - few["n"]),
        seconds=round(few["seconds"], 2),
        many_seconds=round(many["seconds"], 2),
    )


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--only", nargs="+", choices=JOBS, default=list(JOBS), help="which jobs")
    p.add_argument("--jobs", type=int, default=1, help="processes beside each other")
    p.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    p.add_argument("--json", help="write the results to this file")
    args = p.parse_args()
    if args.one:
        return one(args.one[0], int(args.one[1]))
    info = run_info()
    runs = [(job, n) for job in args.only for n in SIZES[job]]
    with ThreadPoolExecutor(args.jobs) as pool:  # beside each other: that changes no process's peak
        done = iter(pool.map(lambda run: measured(*run), runs))
    rows = []
    for job in args.only:
        rows.append(row(job, next(done), next(done)))
        print("  ".join(f"{k} {v:,.4g}" if k != "what" else v for k, v in rows[-1].items()))
        sys.stdout.flush()
    if args.json:
        write_json(args.json, dict(run=info, threads=1, rows=rows))


if __name__ == "__main__":
    main()
