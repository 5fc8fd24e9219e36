"Retrieval: ranking against its definition, splits, the conventions of the data sets"

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torch.nn import functional as F

from denoise_study.core import ArraySource
from denoise_study.denoiserep import backbone, batch_hard_triplet, denoise_rep, Embedder
from denoise_study.denoiserep import IdentityLoader, rank_scores, read_cuhk03, reid_dls
from denoise_study.denoiserep import retrieval_task, run_protocol, split_classes
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
    assert d.test.ids.tolist() == [3, -1, 0, 3] and d.test.camera.tolist() == [
        5,
        1,
        2,
        6,
    ]
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
    for line in (
        "0000/0000_000_01_x.jpg",
        "0000/somebody.jpg 3",
        "0000/0000_000_01_x.jpg three",
    ):
        (tmp_path / "list_query.txt").write_text(f"0000/0000_000_01_x.jpg 0\n{line}\n")
        with pytest.raises(ValueError, match="list_query.txt, line 2: a picture and its identity"):
            reid_dls(tmp_path)


def hardest(f, ids, margin):
    "One picture at a time, by the definition"
    losses = []
    for i, a in enumerate(f):
        own = [float((a - b).norm()) for j, b in enumerate(f) if ids[i] == ids[j] and i != j]
        others = [float((a - b).norm()) for j, b in enumerate(f) if ids[i] != ids[j]]
        losses.append(max(0.0, max(own, default=0.0) - min(others) + margin))
    return sum(losses) / len(losses)


def test_the_hardest_triplets_are_those_of_the_definition():
    f = torch.randn(12, 5, generator=gen(), dtype=torch.float64, requires_grad=True)
    ids = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4])  # the last has nobody of its own
    for margin in (0.3, 5.0):
        loss = batch_hard_triplet(f, ids, margin)
        assert float(loss.detach()) == pytest.approx(hardest(f.detach(), ids, margin))
    (grad,) = torch.autograd.grad(loss, f)
    assert grad.isfinite().all() and grad.any()
    same = torch.zeros(4, 5, requires_grad=True)  # distances of zero have a gradient, too
    (grad,) = torch.autograd.grad(batch_hard_triplet(same, ids[1:5]), same)
    assert grad.isfinite().all()


def identity_loader(counts, **kw):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    images = torch.zeros(len(labels), 4, 4, dtype=torch.uint8)
    return IdentityLoader(ArraySource.from_array(images, labels), device="cpu", **kw)


def test_batches_hold_the_same_number_of_each_identity():
    dl = identity_loader([9, 4, 2, 5, 8, 4, 4, 4], k=4, bs=16)
    for _ in range(3):
        order = dl.get_idxs()
        batches = [y for _, y in dl]
        assert len(batches) == len(dl) == 2 and dl.used == len(order) == 32
        for y in batches:
            groups = y.view(4, 4)
            assert (groups == groups[:, :1]).all() and len(groups[:, 0].unique()) == 4
        assert not torch.equal(order, dl.get_idxs())  # the next epoch's order is another
    again, short = dl.new(epoch=0), dl.new(batches=1)
    assert torch.equal(again.get_idxs(), dl.new(epoch=0).get_idxs()) and len(short) == 1
    with pytest.raises(ValueError, match="bs: a multiple of k=3 is accepted, got 16"):
        identity_loader([4, 4], k=3, bs=16)
    assert next(iter(identity_loader([1, 1], k=2, bs=4)))[1].sort().values.tolist() == [
        0,
        0,
        1,
        1,
    ]


def test_the_neck_stands_between_distances_and_classes():
    net = Embedder(backbone("resnet8", 16, 4), 4, neck=True, pairs=True)
    assert not net.neck.bias.requires_grad
    x = torch.rand(8, 1, 16, 16, generator=gen())
    found = net(x)
    torch.testing.assert_close(found["out"], net.head(net.neck(found["features"])))
    net.eval()
    dr = denoise_rep(net, exclude="head", example=x)  # a dictionary is no hindrance to fusing
    before = dr.model(x)["out"]
    torch.testing.assert_close(dr.fuse()(x)["out"], before, rtol=1e-4, atol=1e-5)


def test_the_strong_baseline_learns_and_is_asked_what_the_slides_ask():
    t = retrieval_task(bs=64, k=4, device="cpu", steps=30, neck=True, margin=0.3)
    assert isinstance(t.dls.train, IdentityLoader)
    out = run_protocol(t, ("closed_form",), 1, QUICK, progress=False)
    table = out.table.set_index("arm")
    untrained = t.score(t.build().eval(), t.dls.test).metrics["mAP"]
    assert table["mAP"]["base"] > untrained and table.moved["closed_form"] < 0.1


def test_standing_people_go_into_a_transformer_of_timm(tmp_path):
    with pytest.raises(ValueError, match="vit_small takes square pictures, got 256x128"):
        backbone("vit_small", (256, 128), 3)
    net = backbone("timm/vit_tiny_patch16_224", (64, 32), 3).eval()
    x = torch.rand(2, 3, 64, 32, generator=gen())
    assert net(x).shape == (2, 3)
    dr = denoise_rep(net, example=x)
    before = dr.model(x)
    torch.testing.assert_close(dr.fuse()(x), before, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="timm has no 'resnet999'"):
        backbone("timm/resnet999", 32, 3)


def test_veri_and_omniglot_conventions(tmp_path):
    for name in ("image_train/0001_c001_1_0.jpg", "image_query/0002_c002_1_0.jpg"):
        jpg(tmp_path / "veri" / name)
    jpg(tmp_path / "veri/image_test/0002_c019_3_0.jpg")
    d = reid_dls(tmp_path / "veri", (8, 8), 1, "cpu")
    assert d.test.ids.tolist() == [2, 2] and d.test.camera.tolist() == [2, 19]
    for part in (1, 2):
        for c in (1, 2):
            for drawer in (1, 2, 3):
                name = f"images_background_small{part}/A/character0{c}/0{c}_0{drawer}.png"
                jpg(tmp_path / "omniglot" / name)
    d = reid_dls(tmp_path / "omniglot", 8, 2, "cpu", k=2)
    assert d.test.query.all() and d.test.gallery.all() and len(d.test.dataset) == 6
    features = F.one_hot(d.test.ids, 2).float()
    found = rank_scores(features, features, *[d.test.ids] * 2, *[d.test.camera] * 2)
    assert found.metrics["mAP"] == 1 and len(found.items) == 6
    with pytest.raises(FileNotFoundError, match="one of bounding_box_train, image_train"):
        reid_dls(tmp_path)


@pytest.mark.parametrize("bad", ["labels", "train_idx", "noise"])
def test_a_damaged_list_of_cuhk03_is_named(tmp_path, bad):
    lists = dict(
        filelist=["a.png", "b.png"],
        labels=[1, 2],
        camId=[1, 2],
        train_idx=1,
        query_idx=2,
        gallery_idx=2,
    )
    path = tmp_path / "cuhk03_new_protocol_config_labeled.mat"
    savemat(path, lists)
    assert [p.ids for p in read_cuhk03(tmp_path)] == [[1], [2], [2]]
    lists[bad] = [99]
    savemat(path, lists) if bad != "noise" else path.write_bytes(b"noise" * 50)
    with pytest.raises(ValueError, match="filelist, labels, camId, train_idx"):
        read_cuhk03(tmp_path)
