"The commands as a user runs them: help, small jobs on digits and on a folder, results that say what they are, errors in one line"
import json
import os
import re
import subprocess
import sys
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from denoise_study.core import Chapter, DataInfo, feature_space, image_dls, load_checkpoint, Study
from denoise_study.core import write_report
from denoise_study.diffusion import DDGM, histogram_bits, preset, Schedule, UNet
from denoise_study.representation import Averages
from denoise_study.study import CHAPTERS, run_study

BIN = Path(sys.executable).parent
ENV = dict(os.environ, OMP_NUM_THREADS="2", MPLBACKEND="agg")


def command(name, *args, ok=True, cwd=None):
    out = subprocess.run([str(BIN/name), *map(str, args)], capture_output=True, text=True, env=ENV, cwd=cwd)
    assert (out.returncode == 0) == ok, out.stderr[-2000:]
    return out


@pytest.mark.parametrize("name,option", [("denoise-train", "--bf16"), ("denoise-sample", "--method"), ("denoise-evaluate", "--inception"), ("denoise-study", "--second"),
                                         ("denoise-transfer", "--target"), ("denoise-splits", "--levels"), ("denoise-probe", "--draws"), ("denoise-selfguide", "--sampler"), ("denoise-rep", "--recipe")])
def test_help_explains_every_option(name, option):
    text = command(name, "--help").stdout
    options = re.findall(r"^  --[\w-]+.*(?:\n {10,}.*)*", text, re.M)
    assert option in text and len(options) >= 5
    for o in options: assert len(o.split()) > 3, f"{name}: no help for {o}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "Colour pictures of two classes in subfolders, as a user would have them"
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for k, name in enumerate(("dark", "light")):
        (root/name).mkdir()
        for i in range(30): Image.fromarray((rng.integers(0, 128, (14, 12, 3)) + 127*k).astype(np.uint8)).save(root/name/f"{i}.png")
    return root


def test_train_sample_evaluate_on_a_folder(folder, tmp_path):
    command("denoise-train", "--data", folder, "--image-size", 8, "--folder", tmp_path/"run", "--steps", 3, "--loss", "hybrid")
    checkpoint = tmp_path/"run/ddgm.safetensors"
    model = load_checkpoint(checkpoint)
    assert model.shape == (3, 8, 8) and model.loss == "hybrid" and model.info["weights"] == "ema" and model.info["data"]["n_train"] > 0
    assert list((tmp_path/"run/samples").glob("*.png"))
    out = command("denoise-sample", checkpoint, "--out", tmp_path/"s.png", "--n", 6, "--steps", 5, "--weights", "raw").stdout
    assert "raw weights" in out and np.load(tmp_path/"s.npz")["images"].shape == (6, 8, 8, 3) and Image.open(tmp_path/"s.png").size[0] > 100
    again = image_dls(tmp_path/"s.npz", device="cpu")                              # what it writes, the library reads
    assert again.info.channels == 3
    out = command("denoise-evaluate", checkpoint, "--data", folder, "--image-size", 8, "--n", 12, "--out", tmp_path/"e.json").stdout
    r = json.loads((tmp_path/"e.json").read_text())
    assert {"run", "checkpoint", "data", "seed", "seconds", "quality", "sweep", "bits_per_dim", "nearest_rms"} <= r.keys()
    assert [q["name"] for q in r["quality"]] == ["model", "training images", "untrained network"] and "bits per dimension" in out
    for q in r["quality"]: assert q["feature_space"].startswith("cnn-64") and q["n_fake"] == 12 and q["frechet"]["low"] <= q["frechet"]["value"]
    assert r["run"]["versions"]["torch"] and str(tmp_path) not in json.dumps(r["run"])
    error = command("denoise-evaluate", checkpoint, "--data", "digits", "--out", tmp_path/"e2.json", ok=False).stderr
    assert "data: the model makes images (3, 8, 8)" in error and "Traceback" not in error


def test_all_chapters_in_one_report(tmp_path):
    "Every chapter, tiny: a page that holds them all, with the claims of three of them told at its head"
    study = Study(image_dls("digits", bs=128, device="cpu"), tmp_path, steps=11, n=20, n_eval=16)
    chapters = run_study(study)["chapters"]
    page, claims = (tmp_path/"report.html").read_text(), [pd.DataFrame(c["claims"]) for c in chapters.values() if "claims" in c]
    assert len(chapters) == len(CHAPTERS) == 4 and all(page.count(title) > 1 for title in chapters)     # in the contents and as a heading
    assert len(claims) == 3 and all({"claim", "ours", "verdict"} <= set(t) for t in claims)
    head = page[page.index(">In short</h2>"):page.index("<h2>", page.index(">In short</h2>"))]
    for t in claims:
        for row in t.itertuples(): assert escape(row.claim) in head and escape(row.verdict) in head, row.claim
    assert json.loads((tmp_path/"results.json").read_text())["chapters"].keys() == chapters.keys()
    assert set(study.seconds) == {k for k, v in study.seconds.items() if v > 0}


def test_splits_and_transfer(tmp_path):
    "Each trains what it needs, leaves a page and numbers, and finds its models when asked again"
    out = command("denoise-splits", "--folder", tmp_path, "--steps", 11, "--levels", ".1,.3", "--n", 40).stdout
    r = json.loads((tmp_path/"results.json").read_text())
    assert [row["model"][:4] for row in r["splits"]] == ["DDGM", "DAED", "DAED"] and "training the diffusion model" in out
    assert all(row["n_fake"] == 40 and row["frechet_low"] <= row["frechet"] <= row["frechet_high"] for row in r["splits"]) and "<img" in (tmp_path/"report.html").read_text()
    command("denoise-transfer", "--source", "digits", "--folder", tmp_path, "--steps", 11)
    r = json.loads((tmp_path/"results.json").read_text())
    ways = {(row["set"], row["model"], row["how"]) for row in r["transfer"]}
    assert {("digits", "DDGM", "mean"), ("upside down", "DDGM", "ancestral"), ("upside down", "no model", "linear"), ("upside down", "no model", "noisy")} <= ways
    assert any(model.startswith("DAED") for _, model, _ in ways)


def test_probe_and_selfguide(tmp_path):
    "A blind denoiser trained, read and sampled from; the files are what the library reads"
    command("denoise-train", "--model", "blind", "--image-size", 16, "--folder", tmp_path/"run", "--steps", 11)
    checkpoint = tmp_path/"run/blind.safetensors"
    out = command("denoise-probe", checkpoint, "--out", tmp_path/"phi.safetensors", "--draws", 2, "--taps", "enc3,mid").stdout
    a, r = Averages.load(tmp_path/"phi.safetensors"), json.loads((tmp_path/"phi.json").read_text())
    assert set(a.taps) == {"enc3", "mid"} and a.taps["mid"].shape == (180, 128) and len(set(a.labels.tolist())) == 10 and "PR of mid" in out
    assert r["compare"][0].keys() >= {"quantity", "trained_value", "untrained_value"} and a.run["draws"] == 2
    command("denoise-selfguide", checkpoint, "--out", tmp_path/"s.png", "--images", "3,5", "--n", 2, "--levels", 5, "--matching", 3)
    r = json.loads((tmp_path/"s.json").read_text())
    assert np.load(tmp_path/"s.npz")["images"].shape == (4, 16, 16, 1) and r["images"] == [3, 5] and Image.open(tmp_path/"s.png").size[0] > 100
    assert {row["arm"] for row in r["around"]} >= {"samples"} or r["around"]
    error = command("denoise-selfguide", checkpoint, "--images", "three", ok=False, cwd=tmp_path).stderr
    assert "images: numbers with commas" in error and "Traceback" not in error


ERRORS = [(("denoise-study", "--data", "nowhere"), "nowhere"), (("denoise-study", "--size", "huge"), "size: 'small' or 'paper'"),
          (("denoise-train", "--loss", "l1"), "loss: one of"), (("denoise-sample", "missing.safetensors"), "missing.safetensors does not exist"),
          (("denoise-sample", __file__), "not a readable safetensors file"), (("denoise-train", "--device", "cuda"), "PyTorch sees no GPU"),
          (("denoise-train", "--model", "gan"), "model: one of"), (("denoise-splits", "--levels", "a,b"), "levels: numbers with commas"),
          (("denoise-study", "--chapters", "x"), "chapters: some of")]


@pytest.mark.parametrize("args,message", ERRORS, ids=lambda v: v if isinstance(v, str) else v[0])
def test_errors_are_one_line(args, message, tmp_path):
    if "cuda" in args and torch.cuda.is_available(): pytest.skip("there is a GPU")
    error = command(*args, ok=False, cwd=tmp_path).stderr
    assert message in error and "Traceback" not in error


def test_presets_are_the_papers():
    "Parameters, steps and batch sizes of notes on DAED's code; other sizes take the nearest"
    info = lambda c, s: DataInfo("x", c, (s, s), (-1., 1.), (), 1, 1, 1)
    for c, s, count, T, bs, steps in ((1, 28, 8_799_105, 500, 128, 100_000), (3, 32, 52_542_979, 1000, 160, 500_000), (3, 64, 121_060_483, 1000, 160, 200_000)):
        p = preset(info(c, s), "paper")
        with torch.device("meta"): net = UNet(**p["net"])
        assert (sum(v.numel() for v in net.parameters()), p["T"], p["bs"], p["steps"], p["net"]["dropout"]) == (count, T, bs, steps, .3)
    for s in (8, 16, 28, 32, 64):
        net = UNet(**preset(info(1, s), "small")["net"])
        assert s % net.factor == 0 and DDGM(net, Schedule.linear(200), (1, s, s))(torch.zeros(1, 1, s, s), torch.tensor([1]), torch.zeros(1, 1, s, s)).shape == (1,)


def test_space_without_labels(folder, tmp_path):
    for f in folder.rglob("*.png"): (tmp_path/f"{f.parent.name}-{f.name}").write_bytes(f.read_bytes())
    dls = image_dls(tmp_path, size=16, device="cpu")
    assert dls.info.classes == () and feature_space(dls).name == "pixels averaged to 8x8" and feature_space(dls)(torch.zeros(2, 3, 16, 16)).shape == (2, 192)


def test_histogram_bits():
    "Two equally frequent levels cost one bit; a level that was never seen costs log2 of all counts"
    train = torch.tensor([0, 255]*5000, dtype=torch.uint8).view(-1, 1, 1, 2)
    bits = histogram_bits(train, torch.tensor([[[[0, 255]]], [[[7, 7]]]], dtype=torch.uint8))
    assert abs(float(bits[0]) - 1) < .05 and abs(float(bits[1]) - np.log2(10_000 + 256)) < 1e-6


def test_report_escapes_what_it_is_given(tmp_path):
    c = Chapter("A <b>bold</b> & title")
    c.text("1 < 2")
    c.table([{"x<y": "<script>", "n": .123456}], "a & b")
    write_report(tmp_path/"r.html", "t", "l", [c])
    page = (tmp_path/"r.html").read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page and "0.1235" in page and "1 &lt; 2" in page and page.count("<h2>") == 1
