"The protocol: every arm from the same network, judged as a file gives it back, resumed, refused"

import json
import sys
from dataclasses import replace
from subprocess import PIPE, Popen

import pytest
import torch
from safetensors.torch import save_file

from denoise_study.core import FolderInUse, image_dls
from denoise_study.denoiserep import ARMS, backbone_digest, baseline, EquippedModel, run_protocol
from helpers_tasks import perceptron_task, QUICK


@pytest.fixture(scope="module")
def dls():
    return image_dls("digits", bs=128, test=0.3, range=(0.0, 1.0), device="cpu")


@pytest.fixture(scope="module")
def outcome(dls, tmp_path_factory):
    folder = tmp_path_factory.mktemp("protocol")
    task = perceptron_task(dls, merged=dls)
    return run_protocol(task, None, 3, QUICK, folder, progress=False), folder


def test_every_arm_runs_and_is_told(outcome):
    out, _ = outcome
    assert list(dict.fromkeys(out.table.arm)) == list(ARMS) and len(out.table) == 3 * len(ARMS)
    assert (out.arms().n == 3).all() and out.arms().difference[0] == 0
    c = out.comparisons()
    assert c.planned.sum() == 4 and c.p_holm.notna().sum() == 4
    assert (c[c.planned].p_holm >= c[c.planned].p).all()
    assert json.dumps(out.to_dict()["budget"]) and json.dumps(out.to_dict()["claims"])
    assert out.plot().get_xlabel().startswith("accuracy@1")


def test_arms_of_a_seed_start_from_the_same_network_and_seeds_differ(outcome):
    out, _ = outcome
    base = [out.items["base", s] for s in range(3)]
    assert not torch.equal(base[0], base[1])
    changed = out.table.set_index(["arm", "seed"]).changed
    assert (changed["base"] == 0).all()
    assert changed["alternate"].max() > changed["closed_form"].max()
    mean = {s: float(out.items["base", s].double().mean()) for s in range(3)}
    assert out.values("base").tolist() == pytest.approx(list(mean.values()))


def test_the_moments_of_a_network_are_computed_once(dls, monkeypatch):
    "All arms of a seed share those of the base network; a backbone that moved has its own"
    passes = []
    look = EquippedModel.input_moments

    def counted(dr, *args, **kwargs):
        passes.append(backbone_digest(dr.model))
        return look(dr, *args, **kwargs)

    monkeypatch.setattr(EquippedModel, "input_moments", counted)
    task = perceptron_task(dls)
    arms = "label_free", "closed_form", "placebo", "label_aug", "alternate"
    shared = run_protocol(task, arms, 2, QUICK, progress=False)
    assert len(passes) == len(set(passes)) == 4 and task.moments is None

    for arm in arms:  # alone, it says the same
        alone = run_protocol(perceptron_task(dls), [arm], 1, QUICK, progress=False)
        assert torch.equal(alone.items[arm, 0], shared.items[arm, 0]), arm
        first, again = (o.table.query(f"arm == '{arm}' and seed == 0") for o in (shared, alone))
        assert first.side_loss.tolist() == again.side_loss.tolist(), arm


def test_it_repeats_and_resumes(outcome, dls):
    out, folder = outcome
    task = perceptron_task(dls, merged=dls)
    some = ("label_free", "closed_form", "control")
    again = run_protocol(task, some, 1, QUICK, progress=False)  # afresh
    for a in some:
        assert torch.equal(again.items[a, 0], out.items[a, 0]), a
    (folder / "2-control.safetensors").unlink()
    for f in folder.glob("*network*"):
        f.unlink()
    broken = perceptron_task(dls, merged=dls)
    broken.score = None  # whatever is known is not judged again
    with pytest.raises(TypeError):
        run_protocol(broken, None, 3, QUICK, folder, progress=False)
    known = run_protocol(broken, None, 2, QUICK, folder, progress=False).table
    assert known.equals(out.table[out.table.seed < 2].reset_index(drop=True))
    with pytest.raises(ValueError, match="is of another run"):
        run_protocol(task, None, 2, replace(QUICK, steps=8), folder, progress=False)


@pytest.mark.parametrize("published", [False, True])
def test_seeds_in_processes_of_their_own_give_the_same_numbers(
    dls, tmp_path, published, monkeypatch
):
    import denoise_study.denoiserep.protocol as protocol

    task = perceptron_task(dls)
    if published:
        file = tmp_path / "published.safetensors"
        save_file(baseline(task, 5, progress=False).state_dict(), file)
        task = replace(task, checkpoint=file)
    arms = "label_free", "closed_form"
    one = run_protocol(task, arms, 2, QUICK, progress=False)
    if not published:  # its base is made here, for all
        monkeypatch.setattr(protocol, "_one_arm", None)  # not in the other processes
    two = run_protocol(task, arms, 2, QUICK, tmp_path / "two", progress=False, jobs=2)
    assert two.table.drop(columns="seconds").equals(one.table.drop(columns="seconds"))
    assert all(torch.equal(two.items[k], one.items[k]) for k in one.items)
    base = {f.name for f in (tmp_path / "two").glob("*-base.safetensors")}
    assert base == (
        {"all-base.safetensors"} if published else {f"{s}-base.safetensors" for s in (0, 1)}
    )


def test_no_jobs_are_refused(dls):
    with pytest.raises(ValueError, match="jobs: a whole number of at least 1"):
        run_protocol(perceptron_task(dls), ["base"], 1, QUICK, progress=False, jobs=0)


def test_what_is_judged_is_the_file(dls, monkeypatch):
    "A file that loses something is noticed in the score"
    import denoise_study.denoiserep.protocol as protocol

    write = protocol.write_tensors

    def lossy(path, tensors, desc):
        if desc["kind"] == "network of an arm":
            tensors = {k: v * 0 for k, v in tensors.items()}
        write(path, tensors, desc)

    monkeypatch.setattr(protocol, "write_tensors", lossy)
    out = run_protocol(perceptron_task(dls), ("placebo",), 2, QUICK, progress=False)
    assert (out.table["accuracy@1"] < 0.2).all()


def test_negative_control(dls):
    "Denoisers of zero in the slides' formula: the base network's predictions, bit for bit"
    t = perceptron_task(dls)
    base = baseline(t, 0, progress=False)
    x = t.example()
    fused = t.equipped(baseline(t, 0, progress=False), mode="slides").fuse()
    with torch.no_grad():
        assert torch.equal(fused(x), base(x))


def test_closed_form_denoises_best(outcome):
    side = outcome[0].arms().set_index("arm").side_loss
    assert side.closed_form < side.label_free and side.closed_form < side.placebo


def test_a_folder_of_another_process_is_refused(dls, tmp_path):
    "As a training's is; what a kill left there goes"
    script = "from denoise_study.core import take_folder\nimport sys, time\n"
    script += "take_folder(sys.argv[1])\nprint('held', flush=True)\ntime.sleep(600)"
    other = Popen([sys.executable, "-c", script, tmp_path], stdout=PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(FolderInUse, match=f"process {other.pid}"):
            run_protocol(perceptron_task(dls), ["base"], 1, QUICK, tmp_path, progress=False)
    finally:
        other.kill()
        other.wait()
    run_protocol(perceptron_task(dls), ["base"], 1, QUICK, tmp_path, progress=False)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("arms", [("both",), ("merged",)])
def test_unknown_arms(dls, arms):
    with pytest.raises(ValueError, match="arms: one of"):
        run_protocol(perceptron_task(dls), arms, 2, QUICK, progress=False)


def test_no_interval_over_networks_from_one_checkpoint(outcome, dls):
    "Seeds of one published network are no networks, and the claims say so"
    out, _ = outcome
    assert out.difference("alternate", "control").unit.startswith("networks")
    task, own = out.task, out.task.about
    try:
        told = own | dict(checkpoint="published.pth")
        out.task, out.unit = replace(task, checkpoint="published.pth", about=told), "seeds"
        assert out.difference("alternate", "control").unit.startswith("seeds")
        assert all("one published network" in c.note for c in out.claims())
    finally:
        out.task, out.unit = task, "networks"


def test_denoise_rep_writes_a_row_of_the_table(tmp_path, capsys):
    from denoise_study.denoiserep import slides_table
    from denoise_study.study import denoise_rep_command

    out = tmp_path / "r.json"
    denoise_rep_command(
        task="segmentation",
        recipe="alternate",
        out=str(out),
        seeds=2,
        steps=2,
        base_steps=4,
        device="cpu",
    )
    r = json.loads(out.read_text())
    assert {"command", "commit", "versions", "device"} <= r["run"].keys()
    assert out.with_suffix(".png").exists() and "mIoU, 2 seeds" in capsys.readouterr().out
    (row,) = slides_table([r]).to_dict("records")
    told = row["task"], row["arm"], row["against"], row["n networks"]
    assert told == ("segmentation", "alternate", "control", 2)
    value = {a["arm"]: a["value"] for a in r["arms"]}
    assert row["with"] == round(100 * value["alternate"], 2)
    assert row["without"] == round(100 * value["control"], 2)
    wrong = [
        (dict(task="depth"), "task: one of"),
        (dict(recipe="both"), "arms: one of"),
        (dict(task="detection", flip=True, data="."), "does not take all"),
        (dict(backbone="resnet8,resnet20", checkpoint="a.th"), "checkpoint: one for each of 2"),
    ]
    for bad, message in wrong:
        given = dict(out=str(tmp_path / "x.json"), device="cpu") | bad
        with pytest.raises(ValueError, match=message):
            denoise_rep_command(**given)
