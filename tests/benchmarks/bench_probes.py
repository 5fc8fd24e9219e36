"""Speed of the probes: python bench_probes.py [--n 10000] [--widths 64 128 256 512] [--repeat 3]
[--json FILE]

Reading phi of a data set, streamed to a file, against the bare encoder passes on the same noisy
images; peak memory of
the result; neighbours and k-means on 50,000 x 512. Rounds are interleaved, the best counts."""

import argparse, tempfile, time
from pathlib import Path

import torch

from denoise_study.core import ArraySource, ImageLoader, run_info, write_json
from denoise_study.denoiser import BlindUNet, denoiser
from denoise_study.representation import Averages, channel_averages, clusters, neighbours


CLOCK = time.perf_counter


def seconds(f, device):
    "Time of one call, the device's queue emptied before and after"
    sync = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    sync()
    start = CLOCK()
    res = f()
    sync()
    return CLOCK() - start, res


def bench_streaming(args, device):
    "Images from a loader, noise, averages over draws and a file, against nothing but the network"
    D = denoiser(BlindUNet(1, tuple(args.widths), (2, 3, 2))).to(device)
    u = torch.randint(
        256, (args.n, 1, args.side, args.side), generator=torch.Generator().manual_seed(0)
    ).byte()
    loader = ImageLoader(ArraySource(u), bs=128, range=(0.0, 1.0), device=device)
    noisy = torch.rand(args.bs // args.draws * args.draws, 1, args.side, args.side, device=device)

    def bare():
        with torch.no_grad():
            for _ in range(-(-args.n * args.draws // len(noisy))):
                D.averages(noisy, 0.5, ("mid",))

    def streamed(path):
        return channel_averages(
            D, loader, taps=("mid",), draws=args.draws, bs=args.bs, path=path, progress=False
        )

    times = dict(bare=[], streamed=[])
    with tempfile.TemporaryDirectory() as folder:
        for i in range(args.repeat):
            times["bare"].append(seconds(bare, device)[0])
            path = Path(folder) / f"{i}.safetensors"
            times["streamed"].append(seconds(lambda: streamed(path), device)[0])
        kept = path.stat().st_size
        assert len(Averages.load(path)) == args.n
    best = {k: min(v) for k, v in times.items()}
    yield dict(
        what=f"phi of {args.n} images, {args.side} px, {args.draws} draws",
        **best,
        overhead=best["streamed"] / best["bare"] - 1,
        file_mb=kept / 2**20,
    )


def bench_arrays(args, device):
    "The paper's sizes: 50,000 validation images, 512 channels"
    phi = torch.randn(args.rows, 512, generator=torch.Generator().manual_seed(0)).relu()
    for n in (2000, args.rows):
        t = min(
            seconds(lambda: neighbours(phi[:n], phi, 10), device)[0]
            for _ in range(args.repeat if n < args.rows else 1)
        )
        yield dict(what=f"10 neighbours of {n:,} among {args.rows:,} x 512", seconds=t)
    for k, batch, n_init in (10, None, 1), (100, 4096, 3):
        t, found = seconds(lambda: clusters(phi, k, n_init, batch), device)
        how = "all rows" if batch is None else f"mini-batches of {batch}"
        yield dict(
            what=f"k-means, {k} clusters, {n_init} starts, {how}",
            seconds=t,
            inertia_per_row=found.inertia / len(phi),
        )


def main():
    global CLOCK
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--n", type=int, default=10_000, help="images to stream")
    p.add_argument("--side", type=int, default=32, help="pixels a side")
    p.add_argument("--draws", type=int, default=4, help="noise draws of each image")
    p.add_argument("--bs", type=int, default=256, help="noisy images in a pass")
    p.add_argument(
        "--widths", type=int, nargs=4, default=(16, 32, 64, 128), help="channels of the network"
    )
    p.add_argument("--rows", type=int, default=50_000, help="rows for neighbours and k-means")
    p.add_argument("--repeat", type=int, default=3, help="rounds; the best counts")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument(
        "--cpu-time",
        action="store_true",
        help="one thread, and count its processor seconds: for a machine that others use too",
    )
    p.add_argument("--json", help="write the results to this file")
    args = p.parse_args()
    if args.cpu_time:
        torch.set_num_threads(1)
        CLOCK = time.process_time
    device, rows = torch.device(args.device), []
    for row in (*bench_streaming(args, device), *bench_arrays(args, device)):
        rows.append(row)
        print(
            row["what"].ljust(60),
            "  ".join(f"{k} {v:.3g}" for k, v in row.items() if k != "what"),
            flush=True,
        )
    if args.json:
        settings = {k: v for k, v in vars(args).items() if k != "json"}
        write_json(
            args.json,
            dict(
                run=run_info(device),
                threads=torch.get_num_threads(),
                clock=CLOCK.__name__,
                settings=settings,
                rows=rows,
            ),
        )


if __name__ == "__main__":
    main()
