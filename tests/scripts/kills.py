"""What survives a kill: trainings, probes, the protocol, a study and the writing of files are
killed at random moments and started again.

python tests/scripts/kills.py [--share .1] [--only ddgm blind] [--out docs/results/kills.json]

Each trial forks after the imports, kills its process up to four times at random moments, looks at
every file and lets it run to its end. Then weights and numbers must be those of a run that nobody
disturbed, bit for bit, and nothing else may be left in the folder. The file of numbers is written
after each kind; started again, what is in it is not tried again."""

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from denoise_study.core import Chapter, content_digest, FolderInUse, image_dls, load_checkpoint
from denoise_study.core import panel, read_tensors, run_info, save_figure, save_images, Study
from denoise_study.core import write_json, write_report
from denoise_study.daed import train_daed
from denoise_study.denoiser import BlindUNet, denoiser, train_blind
from denoise_study.denoiserep import run_protocol
from denoise_study.diffusion import bits_part, samples_part, Schedule, sweep_part, train_ddgm
from denoise_study.representation import channel_averages
from denoise_study.study import CHAPTERS, run_study

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from helpers_tasks import perceptron_task, QUICK  # noqa: E402, it lies in the folder above

FORK = multiprocessing.get_context("fork")
REFUSED = 3  # exit status of a process that found the folder taken
KILLS = 4  # in a trial, before the run that ends


# What is run: function of a folder and a seed


def digits(**kw):
    return image_dls("digits", bs=64, valid=64, test=0.7, device="cpu", **kw)


def tiny():
    return dict(channels=1, width=16, mult=(1,), n_blocks=1, attn=())


def ddgm(folder, seed=0):
    train_ddgm(digits(), folder, steps=24, seed=seed, sched=Schedule.linear(25), net=tiny())


def daed(folder, seed=0):
    train_daed(digits(), folder, steps=16, seed=seed, sched=Schedule.linear(30), width=16)


def blind(folder, seed=0):
    train_blind(digits(range=(0.0, 1.0)), folder, steps=48, seed=seed, width=4)


def probes(folder, seed=0):
    torch.manual_seed(0)
    D = denoiser(BlindUNet(1, (4, 6, 8, 10)), (1, 16, 16))
    dls = digits(range=(0.0, 1.0), size=16)
    path = Path(folder) / "phi.safetensors"
    channel_averages(D, dls.train, draws=4, bs=64, seed=seed, path=path, progress=False)


def protocol(folder, seed=0):
    task = perceptron_task(digits(range=(0.0, 1.0)))
    arms = "label_free", "placebo", "control"
    run_protocol(task, arms, [seed, seed + 1], QUICK, folder, progress=False)


def study(folder, seed=0):
    space = nn.Sequential(nn.AvgPool2d(2), nn.Flatten())
    space.name = "pixels averaged to 4x4"
    run_study(
        Study(digits(), Path(folder), steps=16, n=12, n_eval=4, space=space, seed=seed), ("tiny",)
    )


def tiny_chapter(study):
    "The chapter on a diffusion model, with one that is small"
    folder = study.folder / "ddgm"
    sched = Schedule.linear(30)
    train_ddgm(study.dls, folder, steps=study.steps, seed=study.seed, sched=sched, net=tiny())
    model = load_checkpoint(folder / "ddgm.safetensors")
    c = Chapter("A small diffusion model")
    for part in (samples_part, sweep_part, bits_part):
        part(study, model, c)
    return c


CHAPTERS["tiny"] = tiny_chapter


def write_all(folder, n):
    "One file of each kind, version n"
    folder = Path(folder)
    save_images(folder / "images.npz", torch.full((64, 1, 32, 32), n % 256 / 255), (0, 1))
    write_json(folder / "results.json", dict(version=n, numbers=[n] * 20_000))
    ax = panel(None, (3, 2))
    ax.plot([0, n])
    save_figure(folder / "figure.png", ax)
    c = Chapter("a chapter")
    c.text(f"version {n} " * 1000)
    write_report(folder / "report.html", "title", "lead", [c])


def writing(folder, seed=0):
    "Files are written over good ones, until somebody stops it"
    for n in range(1, 500):
        write_all(folder, n)


# What is left


def fault(path):
    "What is wrong with a file; nothing: it is whole"
    try:
        check(path)
    except Exception as e:
        return f"{path.name}: {type(e).__name__} {e}"


def check(path):
    kind = path.suffix
    if kind == ".safetensors":
        read_tensors(path)  # compares the digest
    elif kind == ".npz":
        for array in np.load(path).values():
            assert array.size
    elif kind == ".png":
        Image.open(path).load()
    elif kind == ".json":
        json.loads(path.read_text())
    elif kind == ".html":
        assert path.read_text().endswith("</html>")
    elif kind == ".jsonl":  # appended to: the last line may be short, and is dropped
        for line in path.read_text().split("\n")[:-1]:
            json.loads(line)
    elif kind == ".part":  # appended to: a last row may be short, and is dropped
        head, end, _ = path.read_bytes().partition(b"\n")
        if end:
            json.loads(head)
    else:
        raise ValueError("unknown kind of file")


def files(folder):
    "Files that a reader would look at, and what is beside them only for a while"
    every = [p for p in sorted(Path(folder).rglob("*")) if p.is_file()]
    passing = [p for p in every if p.name == ".lock" or p.suffix in (".tmp", ".part")]
    return [p for p in every if p not in passing], passing


def result(folder):
    "What must not differ: tensors, pictures, numbers (but not times); name -> anything comparable"
    found = {}
    for path in files(folder)[0]:
        name = str(path.relative_to(folder))
        if path.suffix == ".safetensors":
            tensors, desc = read_tensors(path)
            if desc["kind"] == "training state":
                continue  # the checkpoint beside it has the weights
            row = without_times(desc.get("row", {}))
            found[name] = content_digest(tensors, dict(row=row))
        elif path.suffix == ".png":
            found[name] = path.read_bytes()
        elif path.suffix == ".npz":
            found[name] = {k: v.tolist() for k, v in np.load(path).items()}
        elif path.suffix == ".json":
            found[name] = without_times(json.loads(path.read_text())["chapters"])
    return found


def without_times(o):
    "Numbers without those of the clock"
    if isinstance(o, list):
        return [without_times(v) for v in o]
    if isinstance(o, dict):
        return {k: without_times(v) for k, v in o.items() if k != "seconds"}
    return o


# The trials


@dataclass
class Kind:
    run: object  # function of folder and seed
    trials: int  # how often
    ends: bool = True  # does it end by itself?


KINDS = dict(
    writing=Kind(writing, 15, ends=False),
    blind=Kind(blind, 7),
    probes=Kind(probes, 5),
    protocol=Kind(protocol, 6),
    ddgm=Kind(ddgm, 6),
    study=Kind(study, 4),
    daed=Kind(daed, 3),
)


@dataclass
class Count:
    "What happened to one kind"

    runs: int = 0
    kills: int = 0  # of a process that was still at work
    files: int = 0  # that were looked at after a kill
    unreadable: list = field(default_factory=list)
    lost: list = field(default_factory=list)
    different: list = field(default_factory=list)  # files that are not those of an undisturbed run
    leftovers: list = field(default_factory=list)  # after the run that ended
    failed: list = field(default_factory=list)  # runs that ended with an error

    def bad(self):
        return self.unreadable + self.lost + self.different + self.leftovers + self.failed


def quietly(run, folder, seed):
    "In a process of its own: say nothing, and tell by the exit status how it went"
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    try:
        run(folder, seed)
    except FolderInUse:
        os._exit(REFUSED)
    os._exit(0)


def start(run, folder, seed=0):
    process = FORK.Process(target=quietly, args=(run, folder, seed))
    process.start()
    return process


def killed(kind, folder, seconds, count):
    "Start, wait, kill, look; did it still run?"
    known = {p for p in files(folder)[0]}
    process = start(kind.run, folder)
    process.join(seconds)
    alive = process.is_alive()
    process.kill()
    process.join()
    count.runs += 1
    count.kills += alive
    now, _ = files(folder)
    count.files += len(now)
    count.lost += [p.name for p in known - set(now)]
    count.unreadable += [f for f in map(fault, now) if f]
    return alive


def ended(kind, folder, count):
    "A run that nobody disturbs; how long it took"
    began = time.perf_counter()
    process = start(kind.run, folder)
    process.join()
    count.runs += 1
    if process.exitcode:
        count.failed.append(f"exit {process.exitcode}")
    return time.perf_counter() - began


def trial(kind, folder, seconds, whole, rng, count):
    "Four kills at most and a run to the end, in one folder"
    if not kind.ends:
        write_all(folder, 0)
    for _ in range(KILLS):
        if not killed(kind, folder, rng.uniform(0, 0.6 * seconds), count):
            break  # it was faster
    if kind.ends:
        ended(kind, folder, count)
        now = result(folder)
        count.different += [k for k in {*now, *whole} if now.get(k) != whole.get(k)]
    else:
        write_all(folder, 1)  # the next start
    count.leftovers += [p.name for p in files(folder)[1]]


def tried(name, share, rng, tmp):
    "All trials of a kind"
    kind, count = KINDS[name], Count()
    seconds, whole = 1.5, {}
    if kind.ends:
        seconds = ended(kind, tmp / f"{name}-whole", count)
        whole = result(tmp / f"{name}-whole")
        assert whole, name
    for i in range(max(1, round(kind.trials * share))):
        trial(kind, tmp / f"{name}-{i}", seconds, whole, rng, count)
    return count


def doubled(tmp, trials):
    "Two trainings with different seeds in one folder, started together"
    whole = []
    for seed in (0, 1):
        start(blind, tmp / f"alone-{seed}", seed).join()
        whole.append(result(tmp / f"alone-{seed}"))
    refused = own = 0
    for i in range(trials):
        both = [start(blind, tmp / f"both-{i}", seed) for seed in (0, 1)]
        for process in both:
            process.join()
        codes = [process.exitcode for process in both]
        refused += sorted(codes) == [0, REFUSED]
        own += result(tmp / f"both-{i}") in whole
    return dict(trials=trials, one_refused=refused, result_of_one_run=own)


def record_of(rows, two, seed):
    total = {k: sum(r[k] for r in rows) for k in vars(Count())}
    return dict(run=run_info(), seed=seed, total=total, kinds=rows, two_in_a_folder=two)


def main(share=1.0, only=(), out="", seed=0):
    torch.set_num_threads(1)
    rows, two, bad = [], None, []
    if out and Path(out).exists():  # kinds that were finished before
        before = json.loads(Path(out).read_text())
        rows, two = before["kinds"], before["two_in_a_folder"]
    with tempfile.TemporaryDirectory() as tmp:
        two = two or doubled(Path(tmp), max(1, round(8 * share)))
        print(two, flush=True)
        for name in only or KINDS:
            if name in [r["what"] for r in rows]:
                continue
            count = tried(name, share, random.Random(f"{seed} {name}"), Path(tmp))
            numbers = {k: v if isinstance(v, int) else len(v) for k, v in vars(count).items()}
            rows.append(dict(what=name, **numbers))
            bad += count.bad()
            print(rows[-1], *count.bad(), flush=True)
            if out:
                write_json(out, record_of(rows, two, seed))
    good = two["trials"] == two["one_refused"] == two["result_of_one_run"]
    raise SystemExit(0 if good and not bad else 1)


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    p.add_argument("--share", type=float, default=1.0, help="of the trials of each kind")
    p.add_argument("--only", nargs="*", default=(), choices=list(KINDS), help="kinds")
    p.add_argument("--out", default="", help="file for the numbers, .json")
    p.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    main(**vars(p.parse_args()))
