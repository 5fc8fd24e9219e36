"denoise-rep: recipes come with the arms that they must be compared with"

import json

import pytest
from helpers_study import command
from helpers_tasks import market

from denoise_study.denoiserep import ARMS
from denoise_study.study import arms_of, open_task, RECIPE_ARMS


def test_a_recipe_has_its_arms():
    task = open_task("classification", data="", bs=None, device="cpu")
    assert all(set(arms) <= set(ARMS) and arms[0] == "base" for arms in RECIPE_ARMS.values())
    assert arms_of("label_free", task) == ["base", "label_free", "placebo"]
    assert arms_of("base,minus", task) == ["base", "minus"]
    lacking = {"minus": task.head, "merged": task.merged}
    assert arms_of("all", task) == [a for a in ARMS if lacking.get(a, True)]


def test_options_that_a_task_does_not_take():
    with pytest.raises(ValueError, match="classification does not take all of these arguments"):
        open_task("classification", wings=2)


def test_rep(tmp_path):
    out = command(
        tmp_path,
        "denoise-rep",
        "--recipe",
        "closed_form",
        "--seeds",
        2,
        "--steps",
        5,
        "--base-steps",
        10,
    ).stdout
    r = json.loads((tmp_path / "rep.json").read_text())
    assert [row["arm"] for row in r["arms"]] == ["base", "closed_form", "placebo"] and r[
        "seeds"
    ] == 2
    assert (tmp_path / "rep.png").exists() and "2 seeds" in out


def test_several_networks_are_one_interval(tmp_path):
    out = command(
        tmp_path,
        *("denoise-rep", "--recipe", "closed_form", "--backbone", "resnet8,vit_small"),
        *("--seeds", 2, "--base-steps", 4, "--n-solve", 64, "--margin", 0.002, "--jobs", 2),
    ).stdout
    r = json.loads((tmp_path / "rep.json").read_text())
    assert r["about"]["backbone"] == "resnet8, vit_small" and r["unit"] == "networks"
    assert len(r["about"]["networks"]) == 4 and r["margin"] == 0.002
    assert r["comparisons"][0]["interval"]["unit"].startswith("networks x")
    assert r["budget"]["n_solve"] == 64 and "moved" in out
    assert all(len(i["test"]) == 16 for i in r["identity"].values())


def test_a_transformer_is_told_who_took_the_picture(tmp_path):
    command(
        tmp_path,
        *("denoise-rep", "--task", "retrieval", "--data", market(tmp_path / "Market")),
        *("--backbone", "vit_small", "--image-size", 16, "--bs", 4, "--n-solve", 8),
        *("--neck", "--triplet", 0.3, "--k", 2, "--cameras", 3),
        *("--recipe", "closed_form", "--seeds", 2, "--base-steps", 4),
    )
    r = json.loads((tmp_path / "rep.json").read_text())
    about = {k: r["about"][k] for k in ("neck", "margin", "cameras")}
    assert about == dict(neck=True, margin=0.3, cameras=3) and r["metric"] == "mAP"


def test_options_of_retrieval_are_refused_elsewhere(tmp_path):
    said = command(tmp_path, "denoise-rep", "--cameras", 3, ok=False).stderr
    assert "cameras: the task retrieval has it, classification has not" in said
