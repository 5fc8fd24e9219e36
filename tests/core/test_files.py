"Files: replaced in one step, and results written as they are"
import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from denoise_study.core import Claim, Finding, image_dls, Interval, Learned, read_tensors
from denoise_study.core import replacing, run_info, save_images, write_json, write_tensors
from denoise_study.core import write_text


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path/"new/a.txt"
    write_text(path, "old")
    with pytest.raises(OSError, match="a.txt could not be written .no space.*untouched"):
        with replacing(path) as tmp:
            tmp.write_text("half")
            raise OSError("no space")
    assert path.read_text() == "old" and [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_the_mode_of_a_file_is_that_of_others(tmp_path):
    write_text(tmp_path/"a.txt", "x")
    write_tensors(tmp_path/"b.safetensors", dict(w=torch.ones(1)), {})
    (tmp_path/"c.txt").write_text("x")
    assert len({p.stat().st_mode for p in tmp_path.iterdir()}) == 1


def test_tensors_and_description_round_trip(tmp_path):
    path = tmp_path/"a.safetensors"
    write_tensors(path, dict(w=torch.eye(3).T[:, :2]), dict(kind="x", steps=[1, 2]))
    tensors, desc = read_tensors(path)
    assert torch.equal(tensors["w"], torch.eye(3)[:, :2]) and desc == dict(kind="x", steps=[1, 2])


def test_other_files_are_refused(tmp_path):
    path = tmp_path/"a.safetensors"
    with pytest.raises(FileNotFoundError, match="does not exist"): read_tensors(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="not a readable safetensors file"): read_tensors(path)
    save_file(dict(w=torch.ones(1)), path)
    with pytest.raises(ValueError, match="its header has no description"): read_tensors(path)


RECALL = Interval(.61, .58, .64, 500, "images")
LOW = RECALL.map(lambda v: v/2)
CLAIM = Claim("It does", "Fig. 1", Finding("recall", RECALL, "untrained", LOW),
              learned=Learned("net", "share", float("nan"), .9))


def test_objects_anywhere_in_results_are_their_records(tmp_path):
    frame = pd.DataFrame(dict(n=[np.int64(1), np.int64(2)], r=[RECALL, None]))
    record = dict(a=[RECALL, (CLAIM,)], b=dict(verdict=CLAIM.verdict), c=frame, claims=[CLAIM])
    write_json(tmp_path/"r.json", record)
    r = json.loads((tmp_path/"r.json").read_text())
    assert Interval.from_dict(r["a"][0]) == RECALL
    assert r["b"]["verdict"] == "not learned" == r["claims"][0]["verdict"]
    assert r["c"] == [dict(n=1, r=RECALL.to_dict()), dict(n=2, r=None)]
    assert r["claims"][0]["learned"][0]["score"] is None        # NaN: JSON has no word for it
    assert str(Claim.from_dict(r["a"][1][0])) == str(CLAIM)


def test_numbers_that_json_has_not_are_null(tmp_path):
    record = dict(a=float("nan"), b=(1, np.float32(.5)), c=np.inf, d={3: True})
    write_json(tmp_path/"r.json", record)
    text = (tmp_path/"r.json").read_text()
    assert json.loads(text) == dict(a=None, b=[1, .5], c=None, d={"3": True})


def test_circumstances_have_no_local_paths(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/home/somebody/bin/denoise-study", "--steps", "3"])
    info = run_info()
    assert info["command"] == "denoise-study --steps 3" and "/home" not in json.dumps(info)
    assert list(info) == ["command", "commit", "device", "python", "versions"]


def test_images_are_kept_as_bytes_that_image_dls_reads(tmp_path):
    x = torch.linspace(-1, 1, 8*3*4*5).view(8, 3, 4, 5)
    save_images(tmp_path/"new/x.npz", x, (-1, 1))
    images = np.load(tmp_path/"new/x.npz")["images"]
    assert images.shape == (8, 4, 5, 3) and images.dtype == np.uint8
    dls = image_dls(tmp_path/"new/x.npz", bs=8, valid=0, test=0, device="cpu")
    batch = dls.train.one_batch()[0]
    order = batch.flatten(1).sum(1).argsort()
    assert (batch[order] - x).abs().max() <= 1.01/255
