"""Speed of the metrics beside their peers: python bench_metrics.py [--dim 2048] [--repeat 3]
[--json FILE]

The Fréchet distance against scipy's `sqrtm` on the same float64 covariances, SSIM against
torchmetrics on the same
images. Times are the best of `--repeat` runs, interleaved, so that other processes disturb both
sides alike."""

import argparse, time

import numpy as np, torch
from pytorch_msssim import ssim
from scipy.linalg import sqrtm
from torchmetrics.functional.image import structural_similarity_index_measure

from denoise_study.core import Features, frechet, frechet_interval, knn_precision_recall, Moments
from denoise_study.core import ms_ssim, run_info, write_json


def best(fs, repeat):
    "Least seconds of each function over `repeat` rounds, and the last results"
    secs, res = {k: [] for k in fs}, {}
    for _ in range(repeat):
        for k, f in fs.items():
            start = time.perf_counter()
            res[k] = f()
            secs[k].append(time.perf_counter() - start)
    return {k: min(v) for k, v in secs.items()}, res


def bench_frechet(dim, repeat):
    "The distance from two sets of moments"
    gen = torch.Generator().manual_seed(0)
    mix = torch.randn(dim, dim, generator=gen) / dim**0.5  # correlated features, as a network's are
    a, b = (
        Features(torch.randn(2 * dim, dim, generator=gen) @ mix * s + m, "bench")
        for s, m in ((1.0, 0.0), (1.2, 0.1))
    )
    m, n = Moments().update(a), Moments().update(b)

    def by_scipy():
        root = sqrtm((m.cov @ n.cov).numpy())
        means = (m.mean - n.mean).square().sum().item()
        return means + (m.cov + n.cov).trace().item() - 2 * np.trace(root).real

    secs, res = best(dict(denoise_study=lambda: frechet(m, n), scipy=by_scipy), repeat)
    yield dict(
        what=f"Frechet distance, {dim} dims, float64",
        **secs,
        ratio=secs["scipy"] / secs["denoise_study"],
        relative_difference=abs(res["denoise_study"] / res["scipy"] - 1),
    )
    small = [Features(o.x[:, :256]) for o in (a, b)]
    secs, _ = best(
        dict(denoise_study=lambda: frechet_interval(*small, n_boot=20, progress=False)), 1
    )
    yield dict(what=f"Frechet interval, 20 resamples, n={len(a)}, 256 dims", **secs)
    secs, _ = best(dict(denoise_study=lambda: knn_precision_recall(*small)), 1)
    yield dict(what=f"k-NN precision and recall, n={len(a)}, 256 dims", **secs)


def bench_ssim(repeat):
    "Single scale, where every library applies, and the three scales of 32 pixels"
    x = torch.rand(256, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    y = (x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    fs = {
        "denoise_study": lambda: ms_ssim(x, y, win=11, scales=1).mean().item(),
        "pytorch_msssim": lambda: ssim(x, y, data_range=1.0).item(),
        "torchmetrics": lambda: structural_similarity_index_measure(x, y, data_range=1.0).item(),
    }
    secs, res = best(fs, max(repeat, 5))
    yield dict(
        what="SSIM, 256x1x32x32, window 11",
        **secs,
        ratio=secs["torchmetrics"] / secs["denoise_study"],
        relative_difference=abs(res["denoise_study"] / res["torchmetrics"] - 1),
    )
    secs, _ = best(dict(denoise_study=lambda: ms_ssim(x, y)), max(repeat, 5))
    yield dict(what="MS-SSIM, 256x1x32x32, window 7, 3 scales", **secs)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument(
        "--dim", type=int, default=2048, help="feature dimension of the Frechet distance"
    )
    p.add_argument("--repeat", type=int, default=3, help="rounds; the best counts")
    p.add_argument("--json", help="write the results to this file")
    args = p.parse_args()
    rows = []
    for row in (*bench_ssim(args.repeat), *bench_frechet(args.dim, args.repeat)):
        rows.append(row)
        row = dict(row)
        what, ratio = row.pop("what"), row.pop("ratio", None)
        diff = row.pop("relative_difference", None)
        times = "  ".join(f"{k} {v * 1e3:,.1f} ms" for k, v in row.items())
        extra = f"  ratio {ratio:.1f}, relative difference {diff:.1e}" if ratio else ""
        print(f"{what:<58}{times}{extra}", flush=True)
    if args.json:
        res = dict(run=run_info(), threads=torch.get_num_threads(), repeat=args.repeat, rows=rows)
        write_json(args.json, res)


if __name__ == "__main__":
    main()
