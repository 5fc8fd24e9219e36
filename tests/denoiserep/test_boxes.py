"COCO's files through a checked door: file, annotation, field, what is accepted"

import json

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from denoise_study.denoiserep import coco_dls, coco_source


def write(folder, n=4, masks=False, **changes):
    "A small set in COCO's folders, whose annotations are changed"
    (folder / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        pictures = folder / f"{split}2017"
        pictures.mkdir()
        anns = []
        for i in range(n):
            pixels = np.full((16, 16, 3), i, np.uint8)
            Image.fromarray(pixels).save(pictures / f"{i}.png")
            ann = dict(id=i + 1, image_id=i, category_id=1, bbox=[1, 2, 5, 6], area=30, iscrowd=0)
            if masks:
                ann["segmentation"] = [[1, 2, 6, 2, 6, 8, 1, 8]]
            anns.append(ann | changes)
        images = [dict(id=i, file_name=f"{i}.png", height=16, width=16) for i in range(n)]
        text = dict(images=images, annotations=anns, categories=[dict(id=1, name="a")])
        (folder / f"annotations/instances_{split}2017.json").write_text(json.dumps(text))
    return folder


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(category_id=99), r"annotation 1: category_id: one of 1 is accepted, got 99"),
        (dict(image_id=50), r"annotation 1: image_id: the id of one of the images .* got 50"),
        (dict(bbox=[1, 2, 3]), r"annotation 1: bbox: four finite numbers .* got \[1, 2, 3\]"),
        (dict(bbox=[1, 2, "3", 4]), r"annotation 1: bbox: four finite numbers"),
        (dict(bbox=[1, 2, float("nan"), 4]), r"annotation 1: bbox: four finite numbers"),
        (dict(iscrowd=2), r"annotation 1: iscrowd: 0 or 1 is accepted, got 2"),
    ],
)
def test_a_bad_annotation_is_named(tmp_path, change, words):
    with pytest.raises(ValueError, match="instances_train2017.json: " + words):
        coco_dls(write(tmp_path / "c", **change))


def test_one_picture_is_too_few(tmp_path):
    with pytest.raises(ValueError, match="at least two training pictures .* got 1"):
        coco_dls(write(tmp_path / "c", n=1))


def test_boxes_without_area_are_counted(tmp_path):
    folder = write(tmp_path / "c", bbox=[1, 2, 0, 6])
    with pytest.warns(UserWarning, match="4 boxes without area are left out"):
        coco_source(folder / "val2017", folder / "annotations/instances_val2017.json")


def test_crowds_are_kept_for_the_test_alone(tmp_path):
    folder = write(tmp_path / "c", iscrowd=1)
    file = folder / "annotations/instances_val2017.json"
    (target, *_) = coco_source(folder / "val2017", file, crowds=True).targets
    assert target["crowd_boxes"].tolist() == [[1, 2, 6, 8]] and not len(target["boxes"])
    assert "crowd_boxes" not in coco_source(folder / "val2017", file).targets[0]


def test_masks_are_decoded_when_a_batch_asks(tmp_path):
    dls = coco_dls(write(tmp_path / "c", masks=True), bs=2, masks=True)
    assert callable(dls.train.dataset.targets[0]["masks"])
    _, targets, _ = next(iter(dls.train))
    masks = targets[0]["masks"]
    assert isinstance(masks, Tensor) and masks.shape == (1, 16, 16) and masks.sum() > 20
