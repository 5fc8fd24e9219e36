"Detection: detectors, average precision by hand, COCO's format, bad targets"

import json
from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from denoise_study.denoiserep import (
    ap_parts,
    box_ap,
    box_dls,
    BoxSource,
    Budget,
    coco_source,
    denoise_rep,
)
from denoise_study.denoiserep import detection_task, detector, detector_loss, picture_f1
from denoise_study.denoiserep import moved_outputs, raw_detections, run_protocol, shapes
from helpers_tasks import jpg

RETINANET = pytest.param("retinanet_resnet50_fpn", marks=pytest.mark.slow)


@pytest.mark.parametrize("name", ["fasterrcnn_tiny", RETINANET])
def test_detectors_give_losses_and_boxes(name):
    torch.manual_seed(0)
    m, s = detector(name, 2), shapes(2)
    x, y = [s.picture(i) / 255 for i in range(2)], s.targets
    assert float(detector_loss(m.train()(x, y)).detach()) > 0
    assert float(detector_loss(m.eval()(x))) == 0
    if name == "fasterrcnn_tiny":
        assert len(denoise_rep(m, example=[x[0]]).slots) > 10


OTHERS = "ssdlite320_mobilenet_v3_large", "fcos_resnet50_fpn", "transformers/detr"
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in OTHERS]


@pytest.mark.parametrize("name", ["fasterrcnn_tiny", RETINANET, *OTHERS])
def test_what_two_detectors_say_can_be_compared(name):
    "Their boxes can't: there are others, or another number of them"
    torch.manual_seed(0)
    m, s = detector(name, 2).eval(), shapes(2)
    x = [s.picture(i) / 255 for i in range(2)]
    with torch.no_grad():
        said = raw_detections(m, x)
        assert moved_outputs(m, m, [x], "cpu", raw_detections) == 0
        other = deepcopy(m)
        for p in other.parameters():
            p.mul_(1.01)
        assert [r.shape for r in raw_detections(other, x)] == [r.shape for r in said]
        assert 0 < moved_outputs(other, m, [x], "cpu", raw_detections) < 10


def test_the_placebo_of_a_detector_moves_as_far_as_the_closed_form():
    dls = box_dls("shapes", shapes(12), shapes(4, seed=1), shapes(6, seed=2))
    t = detection_task(dls=dls, steps=2)
    arms = "closed_form", "placebo"
    out = run_protocol(t, arms, 1, Budget(n_solve=12), progress=False)
    moved = out.table.set_index("arm").moved
    assert moved.base == 0 and moved.placebo == pytest.approx(moved.closed_form, rel=0.1)


def test_a_detector_of_ones_own_has_no_placebo_unless_it_says_what_to_compare():
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.theirs = detector("fasterrcnn_tiny", 2)

        def forward(self, *args):
            return self.theirs(*args)

    dls = box_dls("shapes", shapes(12), shapes(4, seed=1), shapes(6, seed=2))
    t = detection_task(dls=dls, steps=2, build=Own)
    few = dict(seeds=1, budget=Budget(n_solve=12), progress=False)
    assert run_protocol(t, ["closed_form"], **few).table.moved.isna().all()
    with pytest.raises(ValueError, match="placebo: .* outputs .* are no tensors"):
        run_protocol(t, ["placebo"], **few)
    told = replace(t, raw=lambda net, *args: raw_detections(net.theirs, *args))
    assert run_protocol(told, ["placebo"], **few).table.moved.notna().all()
    with pytest.raises(ValueError, match="raw: what a Identity says .* is not known"):
        raw_detections(torch.nn.Identity(), [])


def test_average_precision_by_hand():
    """Two objects; the first is found with score .9, a false alarm has .8, the second object .7:
    precision 1 up to recall 1/2, then 2/3"""
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    t = [dict(boxes=boxes, labels=torch.tensor([1, 1]))]
    found = torch.tensor([[0.0, 0, 10, 10], [40, 40, 50, 50], [20, 20, 30, 30]])
    f = [dict(boxes=found, labels=torch.ones(3).long(), scores=torch.tensor([0.9, 0.8, 0.7]))]
    assert box_ap(f, t, 1)["AP50"] == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    assert picture_f1(f[0], t[0]) == pytest.approx(0.8)


def guesses(targets, seed):
    "Detections near the objects, false alarms, and scores that tell little"
    gen, found = torch.Generator().manual_seed(seed), []
    for t in targets:
        near = t["boxes"] + 2 * torch.randn(t["boxes"].shape, generator=gen)
        corner = 40 * torch.rand(3, 2, generator=gen)
        boxes = torch.cat([near, torch.cat([corner, corner + 12], 1)])
        labels = torch.cat([t["labels"], torch.randint(1, 3, (3,), generator=gen)])
        found.append(dict(boxes=boxes, labels=labels, scores=torch.rand(len(boxes), generator=gen)))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_the_parts_of_pictures_have_cocos_ap_as_their_mean(seed):
    targets = shapes(12, seed=seed).targets
    if seed == 2:  # pictures without objects, and one class
        targets[3] = dict(boxes=torch.zeros(0, 4), labels=torch.zeros(0).long())
        for t in targets:
            t["labels"] = t["labels"] * 0 + 1
    found = guesses(targets, seed)
    parts = ap_parts(found, targets, 2)
    ap = box_ap(found, targets, 2)["AP"]
    assert 0.02 < ap < 0.9 and float(parts.mean()) == pytest.approx(ap, abs=1e-9)
    assert parts.std() > 0


def test_crowds_are_neither_right_nor_wrong():
    "As pycocotools has it: a detection inside of a crowd does not count"
    t = shapes(1, seed=3).targets[0]
    perfect = dict(t, scores=torch.ones(len(t["labels"])))
    one = dict(boxes=t["boxes"][:1], labels=t["labels"][:1] * 0 + 1)
    perfect["labels"] = perfect["labels"] * 0 + 1
    crowd = dict(crowd_boxes=t["boxes"][1:], crowd_labels=t["labels"][1:] * 0 + 1)
    assert box_ap([perfect], [one | crowd], 2)["AP"] == pytest.approx(1)
    parts = ap_parts([perfect] * 2, [one | crowd] * 2, 2)
    assert parts.tolist() == [1, 1]


def test_nan_is_refused_in_words():
    targets = shapes(2).targets
    for field in ("boxes", "scores"):
        found = guesses(targets, 0)
        found[1][field] = found[1][field] * float("nan")
        with pytest.raises(ValueError, match=f"found: finite {field} are needed, picture 1 has"):
            box_ap(found, targets, 2)


NO_AREA = dict(boxes=torch.zeros(1, 4), labels=torch.ones(1))
OUTSIDE = dict(boxes=torch.tensor([[0.0, 0, 1, 1]]), labels=torch.tensor([2]))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: BoxSource([1], [], ("a",)), "one for each is needed"),
        (lambda: BoxSource([1], [NO_AREA], ("a",)), "a box without area"),
        (lambda: BoxSource([1], [OUTSIDE], ("a",)), "outside 1..1"),
        (lambda: detector("yolo", 2), "backbone: one of .*fasterrcnn_tiny"),
        (lambda: coco_source(".", "none.json"), "does not exist"),
    ],
)
def test_detection_refuses(call, message):
    with pytest.raises((ValueError, OSError), match=message):
        call()


def test_bad_annotations(tmp_path):
    for text in ("[", "[]", '{"images": 1}'):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(ValueError, match="not in COCO's format"):
            coco_source(tmp_path, tmp_path / "a.json")


def test_detection_in_the_protocol():
    dls = box_dls("shapes", shapes(12), shapes(4, seed=1), shapes(6, seed=2))
    t = detection_task(dls=dls, steps=2)
    arms = "label_aug", "alternate", "control"
    out = run_protocol(t, arms, 1, Budget(steps=2, lr=1e-5, n_solve=12), progress=False)
    assert list(out.table.arm) == ["base", *arms] and out.table.AP.notna().all()


def test_crowds_and_empty_pictures(tmp_path):
    """A crowd is not trained on; a picture without objects is no training picture, but a test
    picture; numbers of classes have holes"""
    jpg(tmp_path / "a.jpg"), jpg(tmp_path / "b.jpg")
    box = dict(image_id=1, category_id=7, bbox=[1, 2, 3, 4], area=12)
    anns = [dict(box, id=1, iscrowd=0), dict(box, id=2, iscrowd=1, image_id=2)]
    names = (1, "a.jpg"), (2, "b.jpg")
    images = [dict(id=i, file_name=f, width=8, height=16) for i, f in names]
    file = tmp_path / "c.json"
    cats = [dict(id=7, name="cat")]
    file.write_text(json.dumps(dict(images=images, annotations=anns, categories=cats)))
    assert [len(coco_source(tmp_path, file, empty=e)) for e in (True, False)] == [2, 1]
    t = coco_source(tmp_path, file).targets
    assert t[0]["boxes"].tolist() == [[1, 2, 4, 6]] and t[0]["labels"].tolist() == [1]
    assert len(t[1]["boxes"]) == 0
