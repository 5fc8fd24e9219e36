"Identities: names do not tell what was read; parts of images in statistics that are no means"

import numpy as np
import pytest
import torch

from denoise_study.denoiserep import check_identity, classification_task, pseudo_values
from denoise_study.denoiserep import run_protocol, set_digest, shape_masks, box_dls, shapes
from helpers_tasks import QUICK


def data_file(folder, seed):
    "A file of the same name, with other pictures or labels"
    rng = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    labels = np.arange(90) % 3
    images = rng.integers(0, 255, (90, 8, 8), dtype=np.uint8)
    np.savez(folder / "d.npz", images=images, labels=labels)
    return str(folder / "d.npz")


def run(data, folder, checkpoint=None, steps=20):
    task = classification_task(
        data, "resnet8", checkpoint, steps=steps, bs=16, test=0.3, device="cpu"
    )
    return run_protocol(task, ("closed_form",), 1, QUICK, folder, progress=False)


def refused(words):
    return pytest.raises(ValueError, match=words)


def test_another_data_file_of_the_same_stem_is_refused(tmp_path):
    run(data_file(tmp_path / "a", 0), tmp_path / "run")
    with refused(r"its train is [0-9a-f]{16}, here it is [0-9a-f]{16}; give another folder"):
        run(data_file(tmp_path / "b", 1), tmp_path / "run")


def test_another_checkpoint_of_the_same_name_is_refused(tmp_path):
    data = data_file(tmp_path / "a", 0)
    run(data, tmp_path / "nets")
    run(data, tmp_path / "more", steps=25)
    file = tmp_path / "published.safetensors"
    first, second = (tmp_path / k / "0-network.safetensors" for k in ("nets", "more"))
    file.write_bytes(first.read_bytes())
    run(data, tmp_path / "run", file)
    file.write_bytes(second.read_bytes())
    with refused(r"its checkpoint is [0-9a-f]{16}, here it is [0-9a-f]{16}"):
        run(data, tmp_path / "run", file)


def test_a_base_network_of_20_steps_is_not_taken_for_one_of_200(tmp_path):
    data = data_file(tmp_path / "a", 0)
    run(data, tmp_path / "run", steps=20)
    for scores in (tmp_path / "run").glob("*-closed_form*"):
        scores.unlink()
    for scores in (tmp_path / "run").glob("*-base*"):
        scores.unlink()
    with refused("0-network.safetensors is of another run: its base_steps is 20, here it is 200"):
        run(data, tmp_path / "run", steps=200)


def test_an_identity_names_the_field_inside():
    ours = dict(about=dict(pad=4), budget=dict(steps=20))
    with refused("its steps is 10, here it is 20"):
        check_identity(ours, dict(about=dict(pad=4), budget=dict(steps=10)), "f")
    check_identity(ours, ours, "f")
    with refused("its about is None"):
        check_identity(ours, None, "f")


def test_digests_of_boxes_and_masks():
    a, b = (box_dls("s", *[shapes(4, seed=k + s) for k in range(3)]) for s in (0, 3))
    assert set_digest(a.train) == set_digest(a.train) != set_digest(b.train)
    m, other = shape_masks((4, 4, 4)), shape_masks((4, 4, 4))
    assert set_digest(m.test) == set_digest(other.test)
    other.test.dataset.masks[0, 0, 0] = 2
    assert set_digest(m.test) != set_digest(other.test)


def test_parts_of_a_ratio_have_its_spread():
    "Standard error from pseudo-values, against the delta method"
    gen = torch.Generator().manual_seed(0)
    a, b = torch.rand(200, generator=gen).double(), 1 + torch.rand(200, generator=gen).double()
    parts = pseudo_values(lambda w: (w @ a) / (w @ b), 200)
    ratio = a.sum() / b.sum()
    delta = ((a - ratio * b) / b.mean()).std()
    assert float(parts.mean()) == pytest.approx(float(ratio))
    assert float(parts.std()) == pytest.approx(float(delta), rel=0.02)
