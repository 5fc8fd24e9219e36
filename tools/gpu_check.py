"""What only a GPU can show, in five minutes: python tools/gpu_check.py --out gpu_check.json

Stages, each with a time limit and in a process of its own; the file is written again after each
row, so that a run that is killed keeps what it has:

    machine   what it is, and which packages are there
    peak      products of matrices and a convolution alone: what the machine can do
    training  images a second of the DDGM's U-Net and of the blind one, in fp32 and bf16
    sampling  images a second of ancestral sampling, in fp32 and bf16
    phi       images a second of the representation, in fp32 and bf16
    tests     pytest -m cuda
    cells     the `#| cuda` cells of the notebooks: their code, few steps, made-up images
    compiled  training, sampling and phi once more, with torch.compile

Speeds are beside those of other libraries where these are installed (tests/benchmarks), and as
shares of the matrix product of the same run. `--device cpu --tiny` is the dry run. What can't be
run is skipped, and the file says why; without fastai that is sampling, tests and cells."""

import argparse
import ast
import importlib
import json
import os
import re
import subprocess
import sys
import time
import traceback
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
for folder in (ROOT, ROOT / "tests", ROOT / "tests/benchmarks"):
    sys.path.insert(0, str(folder))

PACKAGES = "torch torchvision fastai nbdev fastcore pytest pytest-xdist diffusers timm transformers"
PACKAGES += " smalldiffusion denoising-diffusion-pytorch triton"
NEEDS = dict(diffusers="diffusers", smalldiffusion="smalldiffusion")
NEEDS |= dict(lucidrains="denoising_diffusion_pytorch")  # peer -> module


# The machine, and what it can do


def machine(a):
    import torch

    row = dict(python=sys.version.split()[0], device=a.device, threads=torch.get_num_threads())
    if a.device == "cuda":
        about = torch.cuda.get_device_properties(0)
        row |= dict(name=about.name, memory_GB=about.total_memory / 2**30, cuda=torch.version.cuda)
    row["packages"] = {}
    for name in PACKAGES.split():
        try:
            row["packages"][name] = version(name)
        except PackageNotFoundError:
            row["packages"][name] = None
    yield row


def clock(device):
    "Seconds, when the device has done all that it was asked for"
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of(call, device, rounds):
    "Median seconds of a call, after two to warm up"
    times = []
    for _ in range(rounds + 2):
        start = clock(device)
        call()
        times.append(clock(device) - start)
    return sorted(times[2:])[rounds // 2]


def peak(a):
    "Products of square matrices; TF32 is what a GPU may use in place of float32 if it is allowed"
    import torch

    n = 256 if a.tiny else 8192
    rounds = 3 if a.tiny else 10
    kinds = dict(fp32=torch.float32, bf16=torch.bfloat16)
    if a.device == "cuda":
        kinds["tf32"] = torch.float32
    for kind, dtype in kinds.items():
        torch.backends.cuda.matmul.allow_tf32 = kind == "tf32"
        x = torch.randn(n, n, device=a.device, dtype=dtype)
        seconds = seconds_of(lambda: x @ x, a.device, rounds)
        yield dict(what="matrix product", format=kind, n=n, tflops=2 * n**3 / seconds / 1e12)
    from bench_unet import conv_limit

    for kind in ("fp32", "bf16"):
        found = conv_limit(kinds[kind], 2 if a.tiny else 512, device=torch.device(a.device))
        yield dict(what="convolution", format=kind, tflops=found / 1e3)


def peak_of(a, kind):
    "TFLOP/s of the matrix product in this run; None: it was not measured"
    if not a.out.exists():
        return None
    rows = json.loads(a.out.read_text()).get("stages", {}).get("peak", {}).get("rows", [])
    formats = ("tf32", "fp32") if kind == "fp32" else (kind,)  # convolutions may use TF32
    found = {r["format"]: r["tflops"] for r in rows if r["what"] == "matrix product"}
    return next((found[f] for f in formats if f in found), None)


# Speed


def peers():
    "The U-Nets of the benchmark whose libraries are installed"
    from bench_unet import PEERS

    there = [name for name in PEERS if name not in NEEDS or find_spec(NEEDS[name])]
    return there, [name for name in PEERS if name not in there]


def training(a, compiled=False):
    from statistics import median

    import bench_unet

    names, missing = peers()
    if a.tiny or compiled:
        names = names[:1]
    batch, rounds = (2, 1) if a.tiny else (256, 5)
    rows, _ = bench_unet.measure(
        names, batch, rounds, compiled, a.device, size=16 if a.tiny else 32
    )
    for (name, setting), r in rows.items():
        rate = batch / median(r["seconds"])
        tflops, limit = rate * r["gflop"] / 1e3, peak_of(a, setting[:4])
        row = dict(network=name, setting=setting, compiled=compiled, images_per_second=rate)
        yield row | dict(tflops=tflops, share_of_peak=limit and tflops / limit)
    if missing and not compiled:
        yield dict(skipped=", ".join(missing), why="not installed")
    if not compiled:
        yield from blind_training(a)


def blind_net(a):
    "Arguments of the blind U-Net, batch, side of the images, rounds"
    import bench_blind

    return (bench_blind.QUICK, 2, 16, 1) if a.tiny else (bench_blind.FULL, 128, 64, 5)


def blind_training(a):
    import bench_blind

    config, batch, size, rounds = blind_net(a)
    for row in bench_blind.training(config, batch, size, rounds, a.device):
        yield dict(row, network="BlindUNet")


def phi(a, compiled=False):
    import bench_blind
    import torch

    config, batch, size, rounds = blind_net(a)
    for bf16 in (False, True):
        if not compiled:
            yield bench_blind.reading(config, batch, size, rounds, a.device, bf16)
            continue
        net = bench_blind.BlindUNet(**config).to(a.device)
        x = torch.rand(batch, 3, size, size, device=a.device)
        read = torch.compile(lambda x: net.averages(x)["mid"])
        with torch.no_grad(), torch.autocast(a.device, torch.bfloat16, enabled=bf16):
            seconds = seconds_of(lambda: read(x), a.device, rounds)
        kind = "bf16" if bf16 else "fp32"
        yield dict(what="phi", compiled=True, format=kind, images_per_second=batch / seconds)


def sampling(a, compiled=False):
    "The same sampler around each network, so that its cost is in all of them"
    import bench_unet
    import torch
    from denoise_study.diffusion import DDGM, Schedule

    class Net(torch.nn.Module):
        def __init__(self, made):
            super().__init__()
            self.net, self.made = made if isinstance(made, tuple) else (made, made)

        def forward(self, x, t):
            return self.made(x, t)

    names, missing = peers()
    if a.tiny or compiled:
        names = names[:1]
    n, side, steps, rounds = (2, 16, 2, 1) if a.tiny else (256, 32, 20, 3)
    for name in names:
        net = Net(bench_unet.PEERS[name]()).to(a.device)
        model = DDGM(net, Schedule.linear(1000), (1, side, side))
        if compiled:
            model.net.compile()
        for bf16 in (False, True):
            with torch.autocast(a.device, torch.bfloat16, enabled=bf16):
                call = lambda: model.sample(n, steps=steps, bs=n, progress=False)
                seconds = seconds_of(call, a.device, rounds)
            row = dict(network=name, format="bf16" if bf16 else "fp32", compiled=compiled)
            yield row | dict(steps=steps, image_steps_per_second=n * steps / seconds)
    if missing and not compiled:
        yield dict(skipped=", ".join(missing), why="not installed")


def compiled(a):
    if a.device == "cuda" and not find_spec("triton"):
        raise ImportError("torch.compile needs triton")
    yield from training(a, True)
    yield from phi(a, True)
    yield from sampling(a, True)


# Tests


def tests(a):
    "Files in which something is marked, and nothing else is collected"
    for name in ("pytest", "xdist", "fastai"):
        importlib.import_module(name)
    files = [p for p in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.cuda" in p.read_text()]
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "-n", "0", "-q", "--tb=short", "-rfE"]
    if a.tiny:
        command += ["--collect-only"]
    ended = subprocess.run([*command, *map(str, files)], cwd=ROOT, capture_output=True, text=True)
    lines = ended.stdout.strip().splitlines()
    bad = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    yield dict(
        status=ended.returncode, summary=lines[-1] if lines else ended.stderr[-500:], bad=bad
    )
    if bad:
        yield dict(output=ended.stdout[-6000:])


# Cells


def code_cells(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]


def cuda_cells():
    "(notebook, number of the code cell) of each `#| cuda` cell"
    for path in sorted((ROOT / "nbs").rglob("[0-9a-z]*.ipynb")):
        for i, source in enumerate(code_cells(path)):
            if source.startswith("#| cuda"):
                yield path, i


def defined(statement):
    "Names that a statement binds"
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return {statement.name}
    bound = [n for n in ast.walk(statement) if isinstance(n, ast.Name)]
    return {n.id for n in bound if isinstance(n.ctx, ast.Store)}


def used(statement):
    return {n.id for n in ast.walk(statement) if isinstance(n, ast.Name)}


def names_for(path, i):
    """What cell `i` finds in its notebook: the module that is exported from it, all imports, and
    the statements before it that define what it still lacks"""
    sources = code_cells(path)
    module = re.search(r"#\| default_exp (\S+)", "\n".join(sources))
    names = {}
    if module:
        names |= vars(importlib.import_module(f"denoise_study.{module[1]}"))
    earlier = []
    for source in sources[:i]:
        try:
            body = ast.parse(source).body
        except SyntaxError:  # with commands of Jupyter
            continue
        for statement in body:
            if not isinstance(statement, (ast.Import, ast.ImportFrom)):
                earlier.append(statement)
            elif not getattr(statement, "level", 0):
                run(statement, names)

    body = ast.parse(sources[i]).body
    lacking = set().union(*map(used, body)) - set().union(*map(defined, body)) - names.keys()
    needed = []
    for statement in reversed(earlier):
        if defined(statement) & lacking:
            needed.append(statement)
            lacking |= used(statement) - names.keys()
    for statement in reversed(needed):
        run(statement, names)
    return names


def run(statement, names):
    code = ast.Module([statement], [])
    exec(compile(code, "notebook", "exec"), names)


SIZES = dict(fashion_mnist=(28, 28), cifar10=(32, 32, 3), imagenet=(64, 64, 3))


class Short:
    "What the cells call, with made-up images instead of data sets, and few steps"

    def __init__(self, a, folder, names):
        self.a, self.folder, self.names = a, Path(folder), names

    def replacements(self):
        found = {k: getattr(self, k) for k in vars(Short) if k in self.names and k[0] != "_"}
        if "UNet" in self.names and self.a.tiny:
            found["UNet"] = type("UNet", (), dict(paper=staticmethod(self.small_unet)))
        if "BlindUNet" in self.names and self.a.tiny:
            found["BlindUNet"] = self.small_blind
        return found

    def small_unet(self, name):
        return self.names["UNet"](channels=1, width=32, mult=(1,), n_blocks=1, attn=())

    def small_blind(self):
        return self.names["BlindUNet"](widths=(8, 8, 8, 8), depths=(1, 1, 2))

    def pictures(self, name, n):
        "A file of noise, in the form of a data set"
        import numpy as np

        rng, path = np.random.default_rng(0), self.folder / f"{name}.npz"
        images = rng.integers(0, 256, (n, *SIZES.get(name, (64, 64, 3))), dtype=np.uint8)
        np.savez(path, images=images, labels=np.arange(n) % 10)
        return str(path)

    def image_dls(self, data="digits", bs=128, **kw):
        bs = min(bs, 8) if self.a.tiny else bs
        if data in SIZES:
            data = self.pictures(data, 4 * bs)
        return self.names["image_dls"](data, bs=bs, **kw)

    def denoise_learner(self, dls, model, folder=None, **kw):
        folder = folder and self.folder / folder
        loaders = [loader.new(batches=2) for loader in dls.loaders]
        few = type(dls)(*loaders, info=dls.info, device=dls.device)
        learn = self.names["denoise_learner"](few, model, folder=folder, **kw)
        fit = learn.fit
        learn.fit = lambda n, *args, **kwargs: fit(min(n, 2), *args, **kwargs)
        return learn

    def train_ddgm(self, dls, folder, size, **kw):
        size = "small" if self.a.tiny else size
        return self.names["train_ddgm"](dls, self.folder / folder, size, steps=3, **kw)

    def self_guided(self, D, images, n, **kw):
        kw["matching"] = kw.get("matching", {}) | dict(steps=3)
        return self.names["self_guided"](D, images, n, max_steps=5, **kw)

    def classification_task(self, data, backbone, checkpoint, size, bs, **kw):
        if self.a.tiny:
            backbone, size, bs = "resnet8", 16, 8
        pictures = self.pictures(data, 4 * bs)
        return self.names["classification_task"](
            pictures, backbone, None, 2, size=size, bs=bs, **kw
        )

    def retrieval_task(self, data, backbone, **kw):
        from helpers_tasks import market

        if self.a.tiny:
            backbone = "timm/vit_tiny_patch16_224"
            kw |= dict(size=(64, 32))
        people = market(self.folder / data)
        return self.names["retrieval_task"](people, backbone, **kw | dict(steps=2, bs=8))

    def detection_task(self, data, backbone, checkpoint, bs, device):
        from denoise_study.denoiserep import box_dls, shapes

        if self.a.tiny:
            backbone, bs = "fasterrcnn_tiny", 2
        dls = box_dls("shapes", *[shapes(2 * bs, seed=s) for s in range(3)], bs, device)
        return self.names["detection_task"](backbone_name=backbone, steps=2, dls=dls)

    def segmentation_task(self, data, backbone, checkpoint, size, device):
        from denoise_study.denoiserep import shape_masks

        if self.a.tiny:
            backbone = "fcn_tiny"
        dls = shape_masks((16, 8, 8), bs=8, device=device)
        return self.names["segmentation_task"](backbone_name=backbone, steps=2, dls=dls)

    def run_protocol(self, task, seeds, budget, folder):
        from denoise_study.denoiserep import Budget

        few = Budget(steps=2, n_solve=50, lr_backbone=budget.lr_backbone)
        how = dict(budget=few, folder=self.folder / folder, progress=False)
        return self.names["run_protocol"](task, ("alternate",), 2, **how)


def on_cpu(source):
    "A cell for the dry run: on a processor, and shorter still"
    for old, new in (
        ("'cuda'", "'cpu'"),
        (".cuda()", ""),
        (".is_cuda", ".device.type == 'cpu'"),
        ("sample(32, steps=100)", "sample(2, steps=2)"),
    ):
        source = source.replace(old, new)
    return re.sub(r"(?m)^.*\.compile\(\)$", "", source)


def cell(a, path, i):
    "Run one cell; the row says how long it took, or what went wrong"
    import matplotlib

    matplotlib.use("agg")
    source = code_cells(path)[i]
    row = dict(cell=f"{path.relative_to(ROOT / 'nbs').with_suffix('')}", number=i)
    if "torchrun" in source:
        return row | dict(skipped="two GPUs and their launcher are a test of their own")
    start = time.perf_counter()
    try:
        with TemporaryDirectory() as folder:
            names = names_for(path, i)
            source = on_cpu(source) if a.device == "cpu" else source
            names = names | Short(a, folder, names).replacements()
            exec(compile(source, str(path), "exec"), names)
    except ImportError as e:
        return row | dict(skipped=str(e))
    except Exception:
        row["error"] = traceback.format_exc()[-3000:]
    clock(a.device)  # an error of a kernel is told at the next call
    return row | dict(seconds=round(time.perf_counter() - start, 1))


def cells(a):
    "Those that compile last: it may take longer than all others"
    importlib.import_module("fastai.learner")
    chosen = [(path, i) for path, i in cuda_cells() if a.cell in str(path)]
    chosen.sort(key=lambda at: ".compile()" in code_cells(at[0])[at[1]])
    for path, i in chosen:
        yield cell(a, path, i)


# The run

STAGES = dict(  # name -> function of the arguments, most seconds
    machine=(machine, 20),
    peak=(peak, 20),
    training=(training, 60),
    sampling=(sampling, 40),
    phi=(phi, 20),
    tests=(tests, 60),
    cells=(cells, 90),
    compiled=(compiled, 90),
)
MARK = "row: "


def write(path, record):
    "In one step, so that whoever looks finds a whole file"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(record, indent=1))
    os.replace(temporary, path)


def rows_of(name, a):
    "What a stage's own process does: each row on a line of its own"
    try:
        for row in STAGES[name][0](a):
            print(f"\n{MARK}{json.dumps(row)}", flush=True)  # a bar may have left its line open
    except ImportError as e:
        print(f"\n{MARK}{json.dumps(dict(skipped=name, why=str(e)))}", flush=True)


def stage(name, a, seconds, record):
    "Run a stage in a process, take its rows as they come, end it when its time is over"
    command = [sys.executable, __file__, "--stage", name, "--device", a.device, "--out", str(a.out)]
    command += ["--cell", a.cell] + ["--tiny"] * a.tiny
    found = record["stages"][name] = dict(rows=[], state="running", limit=round(seconds, 1))
    write(a.out, record)
    start = time.monotonic()
    with open(a.out.with_suffix(f".{name}.log"), "w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        ended = None
        while ended is None:
            time.sleep(0.2)
            ended = process.poll()
            if ended is None and time.monotonic() - start > seconds:
                process.kill()
                process.wait()
                ended = "out of time"
            log.seek(0)
            text = log.read()
            lines = [line for line in text.split("\n")[:-1] if line.startswith(MARK)]
            if len(lines) > len(found["rows"]) or ended is not None:
                found["rows"] = [json.loads(line.removeprefix(MARK)) for line in lines]
                found["seconds"] = round(time.monotonic() - start, 1)
                write(a.out, record)
    found["state"] = {0: "done"}.get(ended, str(ended))
    if ended:
        found["output"] = text[-3000:]
    Path(log.name).unlink()
    write(a.out, record)


def main(argv=None):
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--out", type=Path, default=Path("gpu_check.json"), help="file to write")
    p.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    p.add_argument("--tiny", action="store_true", help="smallest sizes: for the dry run")
    p.add_argument("--only", nargs="*", default=list(STAGES), choices=list(STAGES))
    p.add_argument("--cell", default="", help="only cells of notebooks with this in their path")
    p.add_argument("--seconds", type=float, default=295, help="of everything")
    p.add_argument("--stage", choices=list(STAGES), help=argparse.SUPPRESS)
    a = p.parse_args(argv)
    if a.stage:
        return rows_of(a.stage, a)
    end = time.monotonic() + a.seconds
    words = dict(device=a.device, tiny=a.tiny, begun=time.strftime("%Y-%m-%d %H:%M:%S"))
    record = words | dict(stages={})
    for name in a.only:
        left = end - time.monotonic()
        if left < 5:
            record["stages"][name] = dict(rows=[], state="no time was left")
            write(a.out, record)
            continue
        limit = STAGES[name][1] * (10 if a.device == "cpu" else 1)
        stage(name, a, min(limit, left), record)
        found = record["stages"][name]
        print(f"{name}: {found['state']}, {found['seconds']} s", flush=True)
        for row in found["rows"]:
            print(f"  {json.dumps(row)[:300]}", flush=True)
    print(f"written to {a.out}")


if __name__ == "__main__":
    main()
