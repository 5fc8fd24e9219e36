"Retrieval: ranking against its definition, splits, the conventions of the data sets"

from dataclasses import replace

import numpy as np
import pytest
import torch

from denoise_study.denoiserep import rank_scores, reid_dls, retrieval_task, run_protocol
from denoise_study.denoiserep import split_classes
from helpers_tasks import jpg, QUICK


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def naive_ap(sim, g_id, g_cam, pid, cam):
    "One query, by the definition, one picture at a time"
    hits, seen, precisions = 0, 0, []
    for i in sim.argsort(descending=True).tolist():
        if g_id[i] == -1 or (g_id[i] == pid and g_cam[i] == cam):
            continue
        seen += 1
        if g_id[i] == pid:
            hits += 1
            precisions.append(hits / seen)
    return sum(precisions) / len(precisions) if precisions else None


def test_ranking_agrees_with_the_definition():
    q, g = torch.randn(30, 8, generator=gen(1)), torch.randn(90, 8, generator=gen(2))
    q_id = torch.randint(0, 8, (30,), generator=gen(3))
    g_id = torch.randint(-1, 8, (90,), generator=gen(4))
    q_cam = torch.randint(0, 3, (30,), generator=gen(5))
    g_cam = torch.randint(0, 3, (90,), generator=gen(6))
    s = rank_scores(q, g, q_id, g_id, q_cam, g_cam, bs=7)
    normalize = torch.nn.functional.normalize
    sim = normalize(q, dim=1) @ normalize(g, dim=1).T
    each = [naive_ap(sim[i], g_id, g_cam, q_id[i], q_cam[i]) for i in range(30)]
    true = [a for a in each if a is not None]
    assert s.items.tolist() == pytest.approx(true)
    assert s.metrics["mAP"] == pytest.approx(np.mean(true))
    assert s.metrics["rank1"] <= s.metrics["rank5"] <= s.metrics["rank10"] <= 1


def test_splits_are_disjoint_by_class():
    d = split_classes(n_train=6, device="cpu")
    train = set(d.train.dataset.labels.tolist()) | set(d.valid.dataset.labels.tolist())
    assert train == set(range(6)) and set(d.test.ids.tolist()) == set(range(6, 10))


def test_market_convention(tmp_path):
    names = (
        "bounding_box_train/0002_c1s1_000451_03.jpg",
        "bounding_box_train/0010_c6s2_1_00.jpg",
        "query/0003_c5s1_000001_00.jpg",
        "bounding_box_test/-1_c1s1_000401_03.jpg",
        "bounding_box_test/0000_c2_f0046182.jpg",
        "bounding_box_test/0003_c6_f0046182.jpg",
    )
    for name in names:
        jpg(tmp_path / name)
    d = reid_dls(tmp_path, (16, 8), 1, "cpu")
    assert d.test.ids.tolist() == [3, -1, 0, 3] and d.test.camera.tolist() == [5, 1, 2, 6]
    assert d.test.query.tolist() == [True, False, False, False]
    assert len(d.info.classes) == 2
    jpg(tmp_path / "query/me.jpg")
    with pytest.raises(ValueError, match="me.jpg: a name like 0002_c1s1"):
        reid_dls(tmp_path, (16, 8), 1, "cpu")


def test_msmt_convention(tmp_path):
    rows = dict(
        train="0000/0000_000_01_0303morning_0008_0.jpg 0\n0001/0001_000_03_x.jpg 1",
        val="0001/0001_001_04_x.jpg 1",
        query="0007/0007_000_15_x.jpg 7",
        gallery="0007/0007_001_02_x.jpg 7\n0008/0008_000_03_x.jpg 8",
    )
    for k, text in rows.items():
        (tmp_path / f"list_{k}.txt").write_text(text)
        folder = tmp_path / ("train" if k in ("train", "val") else "test")
        for line in text.splitlines():
            jpg(folder / line.split()[0])
    d = reid_dls(tmp_path, (16, 8), 1, "cpu")
    assert d.test.camera.tolist() == [15, 2, 3] and d.test.ids.tolist() == [7, 7, 8]
    assert d.info.n_train + d.info.n_valid == 3


def test_retrieval_minus_acts_on_what_is_compared():
    t = retrieval_task(bs=64, device="cpu", steps=8)
    out = run_protocol(t, ("minus",), 2, replace(QUICK, minus_steps=200), progress=False)
    assert out.arms().set_index("arm").difference["minus"] != 0


def test_nan_is_refused_in_words():
    q, ids = torch.randn(4, 3, generator=gen()), torch.tensor([1, 1, 2, 2])
    bad = q.clone()
    bad[2, 1] = float("nan")
    for name, args in (("q", (bad, q)), ("g", (q, bad))):
        with pytest.raises(ValueError, match=f"{name}: finite features .* in 1 of 4"):
            rank_scores(*args, ids, ids)


def test_a_bad_line_of_msmt_is_named(tmp_path):
    for k in ("train", "query", "gallery"):
        (tmp_path / f"list_{k}.txt").write_text("0000/0000_000_01_x.jpg 0\n")
    for line in ("0000/0000_000_01_x.jpg", "0000/somebody.jpg 3", "0000/0000_000_01_x.jpg three"):
        (tmp_path / "list_query.txt").write_text(f"0000/0000_000_01_x.jpg 0\n{line}\n")
        with pytest.raises(ValueError, match="list_query.txt, line 2: a picture and its identity"):
            reid_dls(tmp_path)
