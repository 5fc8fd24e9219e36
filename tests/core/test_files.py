"Tensors with their description, results as they are, and every bit of both"

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from denoise_study.core import Claim, content_digest, Finding, image_dls, Interval, Learned, panel
from denoise_study.core import read_tensors, run_info, save_figure, save_images, write_json
from denoise_study.core import write_tensors


def test_tensors_are_written_through_one_file(tmp_path, monkeypatch):
    "A writer that goes through a file with a name of its own leaves it there when it is killed"
    inodes = []
    touch = Path.touch

    def seen(self, *args, **kw):
        touch(self, *args, **kw)
        inodes.append(self.stat().st_ino)

    monkeypatch.setattr(Path, "touch", seen)
    path = tmp_path / "a.safetensors"
    write_tensors(path, dict(w=torch.ones(2)), dict(kind="x"))
    assert inodes == [path.stat().st_ino]


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


def test_tensors_that_share_memory_are_written(tmp_path):
    w = torch.randn(4, 4)
    shared = dict(a=w, b=w, c=w[:2], d=w.T)
    write_tensors(tmp_path / "a.safetensors", shared, {})
    back, _ = read_tensors(tmp_path / "a.safetensors")
    assert all(torch.equal(back[k], shared[k]) for k in shared)


def test_a_bit_that_turns_is_noticed_in_every_byte(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = dict(w=torch.randn(3, 4), n=torch.arange(3), half=torch.ones(2).half())
    tensors |= dict(yes=torch.tensor([True]), one=torch.tensor(2.0), none=torch.ones(0, 3))
    write_tensors(path, tensors, dict(kind="example", sizes=(1, 2), rate=1e-3))
    good = path.read_bytes()
    silent = []
    for i in range(len(good)):
        turned = bytearray(good)
        turned[i] ^= 1 << i % 8
        path.write_bytes(turned)
        try:
            found, _ = read_tensors(path)
        except ValueError:
            continue
        if {k: v.tolist() for k, v in found.items()} != {k: v.tolist() for k, v in tensors.items()}:
            silent.append(i)
    assert not silent
    path.write_bytes(good)
    assert read_tensors(path)[1] == dict(kind="example", sizes=[1, 2], rate=1e-3)


def test_a_file_without_a_digest_is_read(tmp_path):
    "Those of earlier versions"
    path = tmp_path / "a.safetensors"
    save_file(dict(w=torch.ones(2)), path, metadata=dict(denoise_study=json.dumps(dict(kind="x"))))
    assert read_tensors(path)[1] == dict(kind="x")


@pytest.mark.parametrize("text", ["", "x", "[1]", "3", "null", "{", "[" * 100_000])
def test_a_header_that_is_no_description(tmp_path, text):
    path = tmp_path / "a.safetensors"
    save_file(dict(w=torch.ones(2)), path, metadata=dict(denoise_study=text))
    with pytest.raises(ValueError, match="a.safetensors .*(no description)"):
        read_tensors(path)


def test_a_digest_is_of_names_types_shapes_numbers_and_words():
    w = torch.arange(4.0)
    all = [
        (dict(w=w), {}),
        (dict(v=w), {}),
        (dict(w=w.view(2, 2)), {}),
        (dict(w=w.double()), {}),
        (dict(w=-w), {}),
        (dict(w=w), dict(a=1)),
    ]
    assert len({content_digest(*one) for one in all}) == len(all)
    assert content_digest(dict(a=w, b=w), {}) == content_digest(dict(b=w, a=w.clone()), {})
