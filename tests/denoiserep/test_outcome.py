"Several networks' outcomes as one, over networks and images"

from dataclasses import replace

import pytest

from denoise_study.core import image_dls
from denoise_study.denoiserep import join_networks, run_protocol
from helpers_tasks import perceptron_task, QUICK

ARMS = ("label_free", "closed_form", "placebo")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    "Two published networks of two seeds each, and two that are trained here"
    folder = tmp_path_factory.mktemp("networks")
    dls = image_dls("digits", bs=128, test=0.3, range=(0.0, 1.0), device="cpu")
    task = perceptron_task(dls)
    trained = run_protocol(task, ARMS, 2, QUICK, folder / "trained", progress=False)
    found = {}
    for seed in range(2):
        file = folder / f"trained/{seed}-network.safetensors"
        published = replace(task, checkpoint=file, about=dict(data="digits", checkpoint=file.name))
        found[f"net{seed}"] = run_protocol(published, ARMS, 2, QUICK, progress=False)
    return found | dict(trained=trained)


def test_networks_are_the_units(outcomes):
    joined = join_networks(outcomes)
    assert [n["seeds"] for n in joined.task.about["networks"]] == [[0, 1], [0, 1], [0], [1]]
    d = joined.difference("closed_form", "base")
    assert d.n == 4 and d.unit.startswith("networks x")
    record = joined.to_dict()
    assert record["unit"] == "networks" and set(record["identity"]) == set(outcomes)
    assert all("one published network" not in c.note for c in joined.claims())
    assert (joined.arms().n == 4).all() and joined.plot()


def test_seeds_of_a_published_network_are_averaged_and_the_least_share_counts(outcomes):
    joined = join_networks(outcomes)
    one = outcomes["net0"]
    both = (one.items["placebo", 0].double() + one.items["placebo", 1].double()) / 2
    assert joined.items["placebo", 0].tolist() == pytest.approx(both.tolist())
    shares = one.table[one.table.arm == "label_free"].share
    row = joined.table[(joined.table.arm == "label_free") & (joined.table.seed == 0)]
    assert float(row.share.iloc[0]) == shares.min() < shares.max()
    least = joined.arms().set_index("arm").share["label_free"]
    assert least == min(o.table[o.table.arm == "label_free"].share.min() for o in outcomes.values())


def test_networks_of_other_images_or_budgets_are_not_joined(outcomes):
    dls = image_dls("digits", bs=128, test=0.2, range=(0.0, 1.0), device="cpu")
    other = run_protocol(perceptron_task(dls), ARMS, 1, QUICK, progress=False)
    with pytest.raises(ValueError, match="outcomes: all must have the same test, other has"):
        join_networks(outcomes | dict(other=other))
    longer = replace(QUICK, steps=8)
    task = outcomes["trained"].task
    other = run_protocol(task, ARMS, 1, longer, progress=False)
    with pytest.raises(ValueError, match="outcomes: all must have the same budget, other has"):
        join_networks(outcomes | dict(other=other))
    with pytest.raises(ValueError, match="at least one network"):
        join_networks({})
