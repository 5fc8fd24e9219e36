"Paired statistics, the protocol, and the four tasks around DenoiseRep: oracles, rules of the data sets, bad input"
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import nn

from denoise_study.denoiserep import accuracy, ARMS, backbone, baseline, boundary, box_ap
from denoise_study.denoiserep import BoxSource, Budget, CIFARResNet, classification_task
from denoise_study.denoiserep import coco_source, denoise_rep, detection_task, detector
from denoise_study.denoiserep import detector_loss, equivalence, holm, IGNORE, MaskSource, mcnemar
from denoise_study.denoiserep import picture_f1, Prepared, rank_scores, reid_dls, retrieval_task
from denoise_study.denoiserep import run_protocol, score_segmentation, segmenter
from denoise_study.denoiserep import shape_masks, shapes, shift_flip, sign_flip, split_classes
from denoise_study.denoiserep import t_interval, Task, two_level_bootstrap
from denoise_study.core import image_dls


def gen(seed=0): return torch.Generator().manual_seed(seed)


# Statistics, against scipy.

@pytest.mark.parametrize("seed", range(3))
def test_paired_statistics_agree_with_scipy(seed):
    d = torch.randn(8, generator=gen(seed)).double() + .3
    r, lib = t_interval(d), stats.ttest_1samp(d.numpy(), 0).confidence_interval(.95)
    assert (r["low"], r["high"]) == pytest.approx((lib.low, lib.high))
    exact = stats.permutation_test((d.numpy(),), lambda x, axis=-1: np.abs(x.mean(axis)), permutation_type="samples", n_resamples=np.inf, alternative="greater")
    assert sign_flip(d) == pytest.approx(exact.pvalue)
    one = [stats.ttest_1samp(d.numpy(), m, alternative=a).pvalue for m, a in ((-.5, "greater"), (.5, "less"))]
    assert equivalence(d, .5)["p"] == pytest.approx(max(one))


def test_mcnemar_is_a_binomial_test_on_changes():
    a, b = torch.tensor([1, 1, 1, 0, 0, 1, 1]), torch.tensor([1, 0, 0, 1, 0, 0, 0])
    assert mcnemar(a, b) == dict(gained=4, lost=1, p=pytest.approx(stats.binomtest(4, 5).pvalue))
    assert mcnemar(a, a)["p"] == 1


def test_bootstrap_over_images_is_wider_than_over_seeds():
    a = (torch.rand(6, 300, generator=gen()) < .8).double()
    b = a.clone()
    b[:, :12] = 1 - b[:, :12]
    r = two_level_bootstrap(b, a, n_boot=400)
    assert r["value"] == pytest.approx(float((b - a).mean())) and r["low"] < r["value"] < r["high"]


@pytest.mark.parametrize("call, message", [
    (lambda: t_interval([1.]), "at least two seeds"), (lambda: t_interval([1., float("nan")]), "NaN"), (lambda: sign_flip(torch.ones(21)), "at most 20"),
    (lambda: equivalence([1., 2.], 0), "margin: a positive"), (lambda: mcnemar([1, 0], [1]), "the same ones"),
    (lambda: two_level_bootstrap(torch.ones(2, 3), torch.ones(2, 4)), "one shape")])
def test_statistics_refuse(call, message):
    with pytest.raises(ValueError, match=message): call()


def test_holm_never_lets_one_overtake():
    p = [.04, .001, .03, .5]
    assert holm(p) == pytest.approx([.09, .004, .09, .5]) and holm(p)[2] >= holm(p)[1]


# The protocol.

@pytest.fixture(scope="module")
def dls(): return image_dls("digits", bs=128, test=.3, range=(0., 1.), device="cpu")


def mlp(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
def task(dls, **kw): return Task("classification", dls, mlp, accuracy, "accuracy@1", head="3", steps=20, lr=1e-2, about=dict(data="digits"), **kw)
QUICK = Budget(steps=6, n_solve=200)


@pytest.fixture(scope="module")
def outcome(dls, tmp_path_factory):
    folder = tmp_path_factory.mktemp("protocol")
    return run_protocol(task(dls, merged=dls), None, 3, QUICK, folder, progress=False), folder


def test_every_arm_runs_and_is_told(outcome):
    out, _ = outcome
    assert list(dict.fromkeys(out.table.arm)) == list(ARMS) and len(out.table) == 3 * len(ARMS)
    assert (out.arms().n == 3).all() and out.arms().difference[0] == 0
    c = out.claims()
    assert c.planned.sum() == 4 and c.p_holm.notna().sum() == 4 and (c[c.planned].p_holm >= c[c.planned].p).all()
    assert json.dumps(out.to_dict()["budget"]) and out.plot().get_xlabel().startswith("accuracy@1")


def test_arms_of_a_seed_start_from_the_same_network_and_seeds_differ(outcome):
    out, _ = outcome
    base = [out.items["base", s] for s in range(3)]
    assert not torch.equal(base[0], base[1])
    changed = out.table.set_index(["arm", "seed"]).changed
    assert (changed["base"] == 0).all() and changed["alternate"].max() > changed["closed_form"].max()
    mean = {s: float(out.items["base", s].double().mean()) for s in range(3)}
    assert out.values("base").tolist() == pytest.approx(list(mean.values()))


def test_it_repeats_and_resumes(outcome, dls):
    out, folder = outcome
    some = ("label_free", "closed_form", "control")
    again = run_protocol(task(dls, merged=dls), some, 1, QUICK, progress=False)     # afresh
    for a in some: assert torch.equal(again.items[a, 0], out.items[a, 0]), a
    (folder / "2-control.safetensors").unlink()
    for f in folder.glob("*network*"): f.unlink()
    broken = task(dls, merged=dls)
    broken.score = None     # whatever is known is not judged again
    with pytest.raises(TypeError): run_protocol(broken, None, 3, QUICK, folder, progress=False)
    assert run_protocol(broken, None, 2, QUICK, folder, progress=False).table.equals(out.table[out.table.seed < 2].reset_index(drop=True))
    with pytest.raises(ValueError, match="is of another run"): run_protocol(task(dls, merged=dls), None, 2, replace(QUICK, steps=8), folder, progress=False)


def test_trap_18_what_is_judged_is_the_file(dls, monkeypatch):
    "A file that loses something is noticed in the score"
    import denoise_study.denoiserep.protocol as protocol
    write = protocol.write_tensors
    def lossy(path, tensors, desc):
        write(path, {k: v * 0 if desc["kind"] == "network of an arm" else v for k, v in tensors.items()}, desc)
    monkeypatch.setattr(protocol, "write_tensors", lossy)
    out = run_protocol(task(dls), ("placebo",), 2, QUICK, progress=False)
    assert (out.table["accuracy@1"] < .2).all()


def test_negative_control(dls):
    "Denoisers of zero in the slides' formula: the base network's predictions, bit for bit"
    t = task(dls)
    base = baseline(t, 0, progress=False)
    x = t.example()
    fused = t.equipped(baseline(t, 0, progress=False), mode="slides").fuse()
    with torch.no_grad(): assert torch.equal(fused(x), base(x))


def test_closed_form_denoises_best(outcome):
    side = outcome[0].arms().set_index("arm").side_loss
    assert side.closed_form < side.label_free and side.closed_form < side.placebo


def test_old_checkpoints_load(dls, tmp_path):
    "module. prefixes, a 'state_dict' inside, no counts of batches; a wrapped network; nothing is unpickled"
    net = CIFARResNet(10, 8)
    state = {f"module.{k}": v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(dict(state_dict=state), tmp_path / "old.th")
    t = classification_task(backbone_name="resnet8", checkpoint=tmp_path / "old.th", dls=dls)
    assert torch.equal(baseline(t, 0).net.conv1.weight, net.conv1.weight)
    class Evil:
        def __reduce__(self): return (print, ("unpickled",))
    torch.save(Evil(), tmp_path / "evil.th")
    for name, what in (("evil.th", "can not be read"), ("none.th", "does not exist")):
        with pytest.raises((ValueError, OSError), match=what): baseline(replace(t, checkpoint=tmp_path / name), 0)
    with pytest.raises(ValueError, match="does not fit the model"): baseline(replace(t, build=mlp), 0)


@pytest.mark.parametrize("arms, message", [(("both",), "arms: one of"), (("merged",), "arms: one of")])
def test_unknown_arms(dls, arms, message):
    with pytest.raises(ValueError, match=message): run_protocol(task(dls), arms, 2, QUICK, progress=False)


# Classification.

def test_the_published_architecture():
    "He et al. 2016, table 6: 0.27M and 0.85M weights; shortcuts without weights"
    assert [round(sum(p.numel() for p in CIFARResNet(10, d).parameters()) / 1e6, 2) for d in (20, 56)] == [.27, .85]
    assert not any("short" in k or "down" in k for k in CIFARResNet().state_dict())
    with pytest.raises(ValueError, match="depth: 6n"): CIFARResNet(10, 21)


def test_prepared_normalises_and_repeats_grey():
    net = Prepared(nn.Identity())
    x = torch.rand(2, 1, 4, 4)
    assert torch.allclose(net(x), (x.expand(-1, 3, -1, -1) - net.mean) / net.std) and not net.state_dict()


def test_shift_flip_with_a_flip():
    x = torch.arange(16.).view(1, 1, 4, 4).expand(64, 1, 4, 4) + 1
    y = shift_flip(x, gen(), 0, flip=True)
    mirrored = (y == x.flip(3)).flatten(1).all(1)
    assert ((y == x).flatten(1).all(1) | mirrored).all() and 15 < int(mirrored.sum()) < 50


def test_unlabelled_data_are_refused():
    bare = image_dls(torch.randint(0, 255, (40, 8, 8), dtype=torch.uint8, generator=gen()), range=(0., 1.), device="cpu")
    with pytest.raises(ValueError, match="no classes to learn"): classification_task(dls=bare)
    with pytest.raises(ValueError, match="have no label"): accuracy(Prepared(nn.Flatten()), bare.valid)
    with pytest.raises(ValueError, match="backbone: one of"): backbone("resnet19", 8, 10)


# Retrieval.

def naive_ap(sim, g_id, g_cam, pid, cam):
    "One query, by the definition, one picture at a time"
    hits, seen, precisions = 0, 0, []
    for i in sim.argsort(descending=True).tolist():
        if g_id[i] == -1 or (g_id[i] == pid and g_cam[i] == cam): continue
        seen += 1
        if g_id[i] == pid:
            hits += 1
            precisions.append(hits / seen)
    return sum(precisions) / len(precisions) if precisions else None


def test_ranking_agrees_with_the_definition():
    q, g = torch.randn(30, 8, generator=gen(1)), torch.randn(90, 8, generator=gen(2))
    q_id, g_id = torch.randint(0, 8, (30,), generator=gen(3)), torch.randint(-1, 8, (90,), generator=gen(4))
    q_cam, g_cam = torch.randint(0, 3, (30,), generator=gen(5)), torch.randint(0, 3, (90,), generator=gen(6))
    s = rank_scores(q, g, q_id, g_id, q_cam, g_cam, bs=7)
    sim = torch.nn.functional.normalize(q, dim=1) @ torch.nn.functional.normalize(g, dim=1).T
    true = [a for i in range(30) if (a := naive_ap(sim[i], g_id, g_cam, q_id[i], q_cam[i])) is not None]
    assert s.items.tolist() == pytest.approx(true) and s.metrics["mAP"] == pytest.approx(np.mean(true))
    assert s.metrics["rank1"] <= s.metrics["rank5"] <= s.metrics["rank10"] <= 1


def test_splits_are_disjoint_by_class():
    d = split_classes(n_train=6, device="cpu")
    train = set(d.train.dataset.labels.tolist()) | set(d.valid.dataset.labels.tolist())
    assert train == set(range(6)) and set(d.test.ids.tolist()) == set(range(6, 10))


def jpg(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 8, 3), dtype=np.uint8)).save(path)


def test_market_convention(tmp_path):
    for name in ("bounding_box_train/0002_c1s1_000451_03.jpg", "bounding_box_train/0010_c6s2_1_00.jpg", "query/0003_c5s1_000001_00.jpg",
                 "bounding_box_test/-1_c1s1_000401_03.jpg", "bounding_box_test/0000_c2_f0046182.jpg", "bounding_box_test/0003_c6_f0046182.jpg"): jpg(tmp_path / name)
    d = reid_dls(tmp_path, (16, 8), 1, "cpu")
    assert d.test.ids.tolist() == [3, -1, 0, 3] and d.test.camera.tolist() == [5, 1, 2, 6] and d.test.query.tolist() == [True, False, False, False]
    assert len(d.info.classes) == 2
    jpg(tmp_path / "query/me.jpg")
    with pytest.raises(ValueError, match="me.jpg: a name like 0002_c1s1"): reid_dls(tmp_path, (16, 8), 1, "cpu")


def test_msmt_convention(tmp_path):
    rows = dict(train="0000/0000_000_01_0303morning_0008_0.jpg 0\n0001/0001_000_03_x.jpg 1", val="0001/0001_001_04_x.jpg 1", query="0007/0007_000_15_x.jpg 7",
                gallery="0007/0007_001_02_x.jpg 7\n0008/0008_000_03_x.jpg 8")
    for k, text in rows.items():
        (tmp_path / f"list_{k}.txt").write_text(text)
        for line in text.splitlines(): jpg(tmp_path / ("train" if k in ("train", "val") else "test") / line.split()[0])
    d = reid_dls(tmp_path, (16, 8), 1, "cpu")
    assert d.test.camera.tolist() == [15, 2, 3] and d.test.ids.tolist() == [7, 7, 8] and d.info.n_train + d.info.n_valid == 3


def test_retrieval_minus_acts_on_what_is_compared():
    t = retrieval_task(bs=64, device="cpu", steps=8)
    out = run_protocol(t, ("minus",), 2, replace(QUICK, minus_steps=200), progress=False)
    assert out.arms().set_index("arm").difference["minus"] != 0


# Detection.

@pytest.mark.parametrize("name", ["fasterrcnn_tiny", pytest.param("retinanet_resnet50_fpn", marks=pytest.mark.slow)])
def test_detectors_give_losses_and_boxes(name):
    torch.manual_seed(0)
    m, s = detector(name, 2), shapes(2)
    x, y = [s.picture(i) / 255 for i in range(2)], s.targets
    assert float(detector_loss(m.train()(x, y)).detach()) > 0 and float(detector_loss(m.eval()(x))) == 0
    if name == "fasterrcnn_tiny": assert len(denoise_rep(m, example=[x[0]]).slots) > 10


def test_average_precision_by_hand():
    "Two objects; the first is found with score .9, a false alarm has .8, the second object .7: precision 1 up to recall 1/2, then 2/3"
    boxes = torch.tensor([[0., 0, 10, 10], [20, 20, 30, 30]])
    t = [dict(boxes=boxes, labels=torch.tensor([1, 1]))]
    f = [dict(boxes=torch.tensor([[0., 0, 10, 10], [40, 40, 50, 50], [20, 20, 30, 30]]), labels=torch.ones(3).long(), scores=torch.tensor([.9, .8, .7]))]
    assert box_ap(f, t, 1)["AP50"] == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    assert picture_f1(f[0], t[0]) == pytest.approx(.8)


@pytest.mark.parametrize("call, message", [
    (lambda: BoxSource([1], [], ("a",)), "one for each is needed"), (lambda: BoxSource([1], [dict(boxes=torch.zeros(1, 4), labels=torch.ones(1))], ("a",)), "a box without area"),
    (lambda: BoxSource([1], [dict(boxes=torch.tensor([[0., 0, 1, 1]]), labels=torch.tensor([2]))], ("a",)), "outside 1..1"),
    (lambda: detector("yolo", 2), "backbone: fasterrcnn_tiny or one of"), (lambda: coco_source(".", "none.json"), "does not exist")])
def test_detection_refuses(call, message):
    with pytest.raises((ValueError, OSError), match=message): call()


def test_bad_annotations(tmp_path):
    for text in ("[", "[]", '{"images": 1}'):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(ValueError, match="not in COCO's format"): coco_source(tmp_path, tmp_path / "a.json")


def test_detection_in_the_protocol():
    from denoise_study.denoiserep import box_dls
    t = detection_task(dls=box_dls("shapes", shapes(12), shapes(4, seed=1), shapes(6, seed=2)), steps=2)
    out = run_protocol(t, ("label_aug", "alternate", "control"), 2, Budget(steps=2, lr=1e-5), progress=False)
    assert out.table.groupby("arm").size().eq(2).all() and out.table.AP.notna().all()


def test_crowds_and_empty_pictures(tmp_path):
    "A crowd is not trained on; a picture without objects is no training picture, but a test picture; numbers of classes have holes"
    jpg(tmp_path / "a.jpg"), jpg(tmp_path / "b.jpg")
    box = dict(image_id=1, category_id=7, bbox=[1, 2, 3, 4], area=12)
    anns = [dict(box, id=1, iscrowd=0), dict(box, id=2, iscrowd=1, image_id=2)]
    images = [dict(id=i, file_name=f, width=8, height=16) for i, f in ((1, "a.jpg"), (2, "b.jpg"))]
    (tmp_path / "c.json").write_text(json.dumps(dict(images=images, annotations=anns, categories=[dict(id=7, name="cat")])))
    assert [len(coco_source(tmp_path, tmp_path / "c.json", empty=e)) for e in (True, False)] == [2, 1]
    t = coco_source(tmp_path, tmp_path / "c.json").targets
    assert t[0]["boxes"].tolist() == [[1, 2, 4, 6]] and t[0]["labels"].tolist() == [1] and len(t[1]["boxes"]) == 0


# Segmentation.

def test_boundary_agrees_with_erosion():
    from scipy.ndimage import binary_erosion
    m = torch.rand(3, 24, 30, generator=gen()) < .9
    for d in (1, 2, 4):
        true = [a & ~binary_erosion(a, np.ones((3, 3)), iterations=d) for a in m.numpy()]
        assert np.array_equal(boundary(m, d).numpy(), np.stack(true))


def test_pixels_that_nobody_knows_count_nowhere():
    d = shape_masks((8, 8, 8), bs=8)
    class Net(nn.Module):
        def forward(self, x): return dict(out=torch.nn.functional.one_hot(self.y, 3).permute(0, 3, 1, 2).float())
    net, (x, y) = Net(), d.test.one_batch()
    net.y = y.clone()
    net.y[:, :20] = 2     # nonsense where nobody knows
    masks = d.test.dataset.masks.clone()
    masks[:, :20] = IGNORE
    loader = d.test.new(dataset=MaskSource(d.test.dataset.pictures, masks))
    s = score_segmentation(net, loader).metrics
    assert s["aAcc"] == 1 and s["mIoU"] == 1
    with pytest.raises(ValueError, match="masks: 8 of them"): MaskSource(d.test.dataset.pictures, masks[:3])
    with pytest.raises(ValueError, match="backbone: fcn_tiny or one of"): segmenter("unet", 3)


# The command.

def test_denoise_rep_writes_a_row_of_the_table(tmp_path, capsys):
    from denoise_study.study import denoise_rep
    from denoise_study.denoiserep import slides_table
    out = tmp_path / "r.json"
    denoise_rep(task="segmentation", recipe="alternate", out=str(out), seeds=2, steps=2, base_steps=4, device="cpu")
    r = json.loads(out.read_text())
    assert {"command", "commit", "versions", "device"} <= r["run"].keys() and out.with_suffix(".png").exists() and "mIoU, 2 seeds" in capsys.readouterr().out
    row, = slides_table([r]).to_dict("records")
    assert (row["task"], row["arm"], row["against"], row["n seeds"]) == ("segmentation", "alternate", "control", 2)
    value = {a["arm"]: a["value"] for a in r["arms"]}
    assert row["+DenoiseRep"] == round(100 * value["alternate"], 2) and row["baseline"] == round(100 * value["control"], 2)
    for bad, message in ((dict(task="depth"), "task: one of"), (dict(recipe="both"), "arms: one of"), (dict(task="segmentation", flip=True, data="."), "does not take all")):
        with pytest.raises(ValueError, match=message): denoise_rep(**{**dict(out=str(tmp_path / "x.json"), device="cpu"), **bad})
