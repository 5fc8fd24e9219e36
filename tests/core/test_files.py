"Files: replaced in one step, and results written as they are"

import json
import os
import subprocess

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from denoise_study.core import Claim, clean_leftovers, Finding, image_dls, Interval, Learned, panel
from denoise_study.core import process_lives, read_tensors, replacing, run_info, save_figure
from denoise_study.core import save_images, write_json, write_tensors, write_text


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "new/a.txt"
    write_text(path, "old")
    with pytest.raises(OSError, match="a.txt could not be written .no space.*untouched"):
        with replacing(path) as tmp:
            tmp.write_text("half")
            raise OSError("no space")
    assert path.read_text() == "old" and [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_the_mode_of_a_file_is_that_of_others(tmp_path):
    write_text(tmp_path / "a.txt", "x")
    write_tensors(tmp_path / "b.safetensors", dict(w=torch.ones(1)), {})
    (tmp_path / "c.txt").write_text("x")
    assert len({p.stat().st_mode for p in tmp_path.iterdir()}) == 1


def test_tensors_and_description_round_trip(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, dict(w=torch.eye(3).T[:, :2]), dict(kind="x", steps=[1, 2]))
    tensors, desc = read_tensors(path)
    assert torch.equal(tensors["w"], torch.eye(3)[:, :2]) and desc == dict(kind="x", steps=[1, 2])


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_tensors(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        read_tensors(path)
    save_file(dict(w=torch.ones(1)), path)
    with pytest.raises(ValueError, match="its header has no description"):
        read_tensors(path)


RECALL = Interval(0.61, 0.58, 0.64, 500, "images")
LOW = RECALL.map(lambda v: v / 2)
CLAIM = Claim(
    "It does",
    "Fig. 1",
    Finding("recall", RECALL, "untrained", LOW),
    learned=Learned("net", "share", float("nan"), 0.9),
)


def test_objects_anywhere_in_results_are_their_records(tmp_path):
    frame = pd.DataFrame(dict(n=[np.int64(1), np.int64(2)], r=[RECALL, None]))
    record = dict(a=[RECALL, (CLAIM,)], b=dict(verdict=CLAIM.verdict), c=frame, claims=[CLAIM])
    write_json(tmp_path / "r.json", record)
    r = json.loads((tmp_path / "r.json").read_text())
    assert Interval.from_dict(r["a"][0]) == RECALL
    assert r["b"]["verdict"] == "not learned" == r["claims"][0]["verdict"]
    assert r["c"] == [dict(n=1, r=RECALL.to_dict()), dict(n=2, r=None)]
    assert r["claims"][0]["learned"][0]["score"] is None  # NaN: JSON has no word for it
    assert str(Claim.from_dict(r["a"][1][0])) == str(CLAIM)


def test_numbers_that_json_has_not_are_null(tmp_path):
    record = dict(a=float("nan"), b=(1, np.float32(0.5)), c=np.inf, d={3: True})
    write_json(tmp_path / "r.json", record)
    text = (tmp_path / "r.json").read_text()
    assert json.loads(text) == dict(a=None, b=[1, 0.5], c=None, d={"3": True})


def test_circumstances_have_no_local_paths(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/opt/somebody/bin/denoise-study", "--steps", "3"])
    info = run_info()
    assert info["command"] == "denoise-study --steps 3" and "/opt" not in json.dumps(info)
    assert list(info) == ["command", "commit", "device", "python", "versions"]


def test_images_are_kept_as_bytes_that_image_dls_reads(tmp_path):
    x = torch.linspace(-1, 1, 8 * 3 * 4 * 5).view(8, 3, 4, 5)
    save_images(tmp_path / "new/x.npz", x, (-1, 1))
    images = np.load(tmp_path / "new/x.npz")["images"]
    assert images.shape == (8, 4, 5, 3) and images.dtype == np.uint8
    dls = image_dls(tmp_path / "new/x.npz", bs=8, valid=0, test=0, device="cpu")
    batch = dls.train.one_batch()[0]
    order = batch.flatten(1).sum(1).argsort()
    assert (batch[order] - x).abs().max() <= 1.01 / 255


def test_an_interrupt_leaves_no_half_file(tmp_path):
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a.txt") as tmp:
        tmp.write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    with replacing(tmp_path / "a.txt") as one, replacing(tmp_path / "a.txt") as two:
        assert one != two
        one.write_text("one")
        two.write_text("two")
    assert (tmp_path / "a.txt").read_text() == "one"  # the last to end
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


WRITERS = {
    "x.npz": lambda path: save_images(path, torch.zeros(2, 1, 4, 4), (-1, 1)),
    "x.png": lambda path: save_figure(path, panel(None, (1, 1))),
    "x.json": lambda path: write_json(path, dict(a=1)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_was_there_survives_a_writer_that_is_stopped(tmp_path, name, monkeypatch):
    path = tmp_path / name
    path.write_bytes(b"good")

    def cut(*args):
        raise KeyboardInterrupt  # before it replaces the old file

    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr("os.replace", cut)
        WRITERS[name](path)
    assert path.read_bytes() == b"good" and len(list(tmp_path.iterdir())) == 1
    WRITERS[name](path)
    assert path.read_bytes() != b"good"


def test_leftovers_are_removed_when_their_writer_is_gone(tmp_path):
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    names = [f".a.npz.{pid}-01234567.tmp" for pid in (gone.pid, os.getpid())]
    for name in [*names, ".other.tmp", "a.npz"]:
        (tmp_path / name).touch()
    assert clean_leftovers(tmp_path) == [names[0]] and not process_lives(gone.pid)
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {names[1], ".other.tmp", "a.npz"} and clean_leftovers(tmp_path / "none") == []


def test_tensors_that_share_memory_are_written(tmp_path):
    w = torch.randn(4, 4)
    shared = dict(a=w, b=w, c=w[:2], d=w.T)
    write_tensors(tmp_path / "a.safetensors", shared, {})
    back, _ = read_tensors(tmp_path / "a.safetensors")
    assert all(torch.equal(back[k], shared[k]) for k in shared)
