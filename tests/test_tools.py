"The tools beside the library: what tutorials link to, which notebooks are run, names on the site"

import ast
import builtins
import io
import json
import re
import sys
from argparse import Namespace
from contextlib import redirect_stdout
from pathlib import Path

import badges
import faces
import gpu_check
import nbformat
import pandas as pd
import pretrained
import pytest
import record_daed_budget
import record_table1
import refresh
import torch
from helpers_training import shorter_chains
from torch import nn

from denoise_study.core import Claim, Finding, Learned, load_checkpoint, share
from denoise_study.diffusion import UNet

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def docs_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")


def notebook(*sources):
    code = [nbformat.v4.new_code_cell(source) for source in sources]
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title"), *code])


# Records


@pytest.fixture
def table1(tmp_path, monkeypatch):
    "`record_table1` with small models and a few samples; its record, and what it trained"
    shorter_chains(monkeypatch, width=16, n_blocks=1)
    monkeypatch.setattr(record_table1, "DOCS", tmp_path)
    arms, trained = record_table1.joint_arms, []

    def watched(study, *args):
        def watch(name, train):
            return lambda: trained.append((name, study.seed)) or train()

        return {name: watch(name, train) for name, train in arms(study, *args).items()}

    monkeypatch.setattr(record_table1, "joint_arms", watched)
    known = dict(
        data="digits", root="", folder=tmp_path / "runs", steps=2, bs=0, bf16=False, seed=0
    )

    def run(*models, trainings=1, n=8, **more):
        trained.clear()
        with redirect_stdout(io.StringIO()):
            record_table1.record(models=models, trainings=trainings, n=n, **(known | more))
        return json.loads((tmp_path / "results/table1_digits.json").read_text())

    return run, trained


def test_a_table_is_recorded_in_parts(table1):
    "What is in the record is not trained again, and stays as it is"
    run, trained = table1
    first = run("DDGM")
    assert trained == [("DDGM", 0)] and len(first["quality"]) == 3  # with floor and ceiling
    whole = run("DDGM", "DAED 0.1, simple", trainings=2)
    assert trained == [("DAED 0.1, simple", 0), ("DDGM", 1), ("DAED 0.1, simple", 1)]
    assert len(whole["quality"]) == 8 and all(row in whole["quality"] for row in first["quality"])
    order = [(row["model"], row["training"]) for row in whole["quality"]]
    assert order[:2] == [("DDGM", 0), ("DDGM", 1)] and order[-1] == ("DAED 0.1, simple", 1)
    assert whole["trainings"] == 2 and len(whole["runs"]) == 2
    assert all(row["commit"] == whole["run"]["commit"] for row in whole["quality"])
    ways = [(r["training"], r["how"]) for r in whole["levels_by_training"]]
    assert ways == [(0, "mean"), (0, "linear"), (1, "mean"), (1, "linear")]
    means = [r["mae"] for r in whole["levels_by_training"] if r["how"] == "mean"]
    assert whole["joint_levels"][0]["mae"] == pytest.approx(sum(means) / 2)
    again = run("DDGM", "DAED 0.1, simple", trainings=2)
    assert trained == [] and again == whole


def test_samples_are_scored_in_another_space_without_being_drawn_again(table1, monkeypatch):
    run, _ = table1
    first = run("DDGM", "DAED 0.1, simple")
    asked, spaces = [], record_table1.feature_space

    def feature_space(dls, inception=None):
        asked.append(inception)
        return spaces(dls)

    def never(*args, **kwargs):
        raise AssertionError("drawn again")

    monkeypatch.setattr(record_table1, "feature_space", feature_space)
    monkeypatch.setattr("denoise_study.diffusion.DDGM.sample", never)
    whole = run("DDGM", "DAED 0.1, simple", inception="weights.npz")
    assert asked == [None, "weights.npz"]
    beside = {r["model"]: r["frechet"] for r in whole["quality_inception"]}
    assert [*beside] == ["DDGM", "DAED 0.1, simple", "training images"]
    assert all(r["training"] == 0 for r in whole["quality_inception"])
    # the space is the same here, and so are the numbers
    assert {r["model"]: r["frechet"] for r in first["quality"]}.items() >= beside.items()
    assert run("DDGM")["quality_inception"] == whole["quality_inception"]  # kept


def test_samples_that_are_gone_are_refused_and_nothing_is_trained_again(
    table1, tmp_path, monkeypatch
):
    run, trained = table1
    spaces = record_table1.feature_space
    monkeypatch.setattr(record_table1, "feature_space", lambda dls, inception=None: spaces(dls))
    run("DDGM")
    with pytest.raises(SystemExit, match="--inception: .*samples DDGM.* is not there"):
        run("DDGM", inception="weights.npz", folder=tmp_path / "elsewhere")
    assert trained == []


def test_weights_that_are_not_there_are_refused_before_the_work(table1):
    run, trained = table1
    with pytest.raises(FileNotFoundError, match="nowhere.npz"):
        run("DDGM", inception="nowhere.npz")
    assert trained == []


def test_a_record_of_other_settings_is_refused(table1):
    run, trained = table1
    run("DDGM")
    with pytest.raises(SystemExit, match="'n': 8.*remove it to begin anew"):
        run("DDGM", trainings=2, n=9)
    assert trained == []


def test_a_model_that_there_is_not_is_refused_before_the_work(table1):
    run, trained = table1
    with pytest.raises(SystemExit, match="--models: {'DDGM, VLB'} is none of"):
        run("DDGM", "DDGM, VLB")
    assert trained == []


def test_a_mean_over_trainings_is_not_replaced_by_that_of_the_new_ones():
    "An earlier record has means only; the rows of a later training are not all there are"
    new = pd.DataFrame([dict(kind="DAED", model="a", set="x", how="mean", mae=0.3, training=5)])
    earlier = [dict(kind="DAED", model="a", set="x", how="mean", mae=0.1)]
    quality = pd.DataFrame(dict(model="a", training=range(6)))
    assert record_table1.level_means(new, earlier, quality) == earlier
    alone = record_table1.level_means(new, [], quality[5:])
    assert [r["mae"] for r in alone] == [0.3]


def test_a_denoiser_is_compared_with_the_mean_image_by_image():
    mae = dict(DDGM=[0.1, 0.2, 0.3], DAED=[0.11, 0.21, 0.31])
    rows = [
        dict(model=name, image=i, mae=v, set="own", how="mean")
        for name, values in mae.items()
        for i, v in enumerate(values)
    ]
    gap = record_daed_budget.against_mean(pd.DataFrame(rows), "DAED", "own")
    assert gap.value == pytest.approx(0.05) and gap.high - gap.low == pytest.approx(0, abs=1e-9)


# Models that ship


def test_a_recipe_may_be_two_trainings(tmp_path, monkeypatch):
    "The second goes on from the first with other noise; the file says how, and how long both were"
    before = dict(steps=2, noise_law="log", noise_power=0.5)
    recipe = dict(data="digits", model="blind", before=before, steps=3, noise_power=1.0)
    monkeypatch.setitem(pretrained.RECIPES, "made", recipe)
    with redirect_stdout(io.StringIO()):
        model = load_checkpoint(pretrained.trained("made", tmp_path, ""))
    assert (model.info["steps"], model.info["steps_before"]) == (3, 2)
    assert (model.law, model.power) == ("log", 1.0)
    early, late = pretrained.spelled(recipe).split(" && ")
    assert early.endswith("--steps 2 --noise-power 0.5 --noise-law log --folder early")
    assert (
        late
        == "denoise-train --data digits --steps 3 --noise-power 1.0 --start early/blind.safetensors"
    )


# Pages of results


def test_what_had_to_be_learned_is_a_line_for_each_kind():
    import results

    known = dict(arm="denoiser", measure="dB", needed=0, steps=13_000)
    first, second = Learned(score=0.5, **known), Learned(score=0.7, note="seed 1", **known)
    other = Learned("matching", "share", 0.98, 0.9)
    bad = Learned("guidance", "share", 0.5, 0.9)  # stands with the claim that it decides
    of = lambda *learned: Claim("it learns", "fig. 1", Finding("dB"), than=0, learned=learned)
    said = results.evidence([of(first, other), of(first, second, bad)])
    assert said.splitlines()[2:4] == [
        "- denoiser: dB: 0.5, 0.7 (seed 1); at least 0 needed, 13,000 steps",
        "- matching: share: 0.98; at least 0.9 needed",
    ]
    assert "guidance" not in said and results.evidence([of(bad)]) == ""


# Badges


def test_names_are_found_in_every_form_of_import():
    nb = notebook(
        "import torch\nfrom denoise_study.daed import DAED, split",
        "DAED()",
        "from denoise_study import load_pretrained",
        "from denoise_study.core import (\n    panel,\n    image_dls,\n)",
    )
    assert set(badges.imported(nb)) == {"DAED", "split", "load_pretrained", "panel", "image_dls"}


def test_a_tutorial_links_to_the_notebooks_of_its_names():
    nb = notebook("from denoise_study.daed import DAED\nfrom denoise_study.core import panel")
    links = badges.used(nb)
    ((wing, room),) = faces.homes()["DAED"]
    assert links.startswith("`core` (") and "), `daed` (" in links
    assert f"[{room}](../{wing}/" in links
    assert all(
        (ROOT / "nbs/tutorials" / target.split(")")[0]).resolve().exists()
        for target in links.split("](")[1:]
    )


def test_a_tutorial_is_dressed_once():
    first = badges.dressed(notebook("from denoise_study.daed import DAED"), "x")
    again = badges.dressed(first, "x")
    assert [c.source for c in first.cells] == [c.source for c in again.cells]
    assert len(again.cells) == 4 and "/nbs/tutorials/x.ipynb)" in again.cells[1].source


# Refresh


@pytest.fixture
def project(tmp_path):
    for name in "index", "a/00_one", "a/01_two", "b/00_one":
        (tmp_path / name).parent.mkdir(exist_ok=True)
        nbformat.write(notebook("1"), tmp_path / f"{name}.ipynb")
    return tmp_path


@pytest.mark.parametrize(
    "names, found",
    [
        ([], ["a/00_one", "a/01_two", "b/00_one", "index"]),
        (["a/00_one"], ["a/00_one"]),
        (["a/00_one.ipynb"], ["a/00_one"]),
        (["00_one"], ["a/00_one", "b/00_one"]),
        (["b"], ["b/00_one"]),
        (["index", "01_two", "index"], ["index", "a/01_two"]),
    ],
)
def test_notebooks_are_chosen_by_name(project, names, found):
    chosen = refresh.chosen(names, project)
    assert [p.relative_to(project).with_suffix("").as_posix() for p in chosen] == found


def test_a_notebook_is_chosen_by_path(project):
    path = project / "b/00_one.ipynb"
    assert refresh.chosen([str(path)], project) == [path]
    with pytest.raises(SystemExit, match="00_three: no such notebook"):
        refresh.chosen(["00_three"], project)


# The site


def test_a_name_is_found_under_module_wing_and_alone():
    from links import Names

    names = Names(
        {
            "a.one": "def f(): pass\nclass C:\n    'c'\n    def g(self): 'g'",
            "b.two": "def h(): pass\ndef both(): pass",
            "b.three": "def both(): pass",
        }
    )
    full = "denoise_study.a.one.f"
    for written in "f", "f()", "one.f", "a.f", "a.one.f", "denoise_study.a.f", full:
        assert names.target(written) == full, written
    assert names.target("C.g") == names.target("a.C.g") == "denoise_study.a.one.C.g"
    assert names.target("both") is None and names.target("a.h") is None
    assert (
        names.target("both", "b.three")
        == names.target("three.both")
        == ("denoise_study.b.three.both")
    )


def test_an_entry_has_both_of_its_names():
    from apidoc import block, entries

    entry = next(entries("def f(\n    x:int, # how many\n):\n    'Count'"))
    md = block(entry, "a.one", str, str)
    assert ":module: denoise_study.a.one" in md and ":canonical: denoise_study.a.f" in md
    assert 'id="denoise_study.a.f"' in md and "| `x` | int | how many |" in md


def test_claims_are_shown_in_their_colors():
    from denoise_study.core import Claim, Finding, Interval, Learned, Verdict
    from results import claims_list

    measured = Finding("share", Interval(0.6, 0.5, 0.7, 9, "images"))
    learned = Learned("network", "share of the learnable", 0.95, 0.9)
    claim = Claim("It *is*", "Fig. 1", measured, than=0.2, learned=learned)
    silent = Learned("network", "share of the learnable", 0.1, 0.9)
    not_learned = Claim("It was", "Fig. 2", measured, than=0.2, learned=silent, note="a trap")
    text = claims_list([claim.to_dict(), not_learned.to_dict()])
    above, _, below = text.partition("\nThe claims:\n\n")
    assert "- network: share of the learnable: 0.95; at least 0.9 needed\n" in above
    assert "0.1" not in above
    first, second = re.split(r"\n(?=- )", below)
    assert f'class="{Verdict.HOLDS.css}"' in first and '"It \\*is\\*" (Fig. 1)' in first
    assert "share 0.6 \\[0.5, 0.7]; 9 images" in first
    assert f'class="{Verdict.NOT_LEARNED.css}"' in second
    assert "not learned: network" in second and "a trap" in second


def test_what_came_out_has_every_claim_and_every_verdict():
    from papers import came_out, claims_of, figures, others, RECORDS
    from results import chip, escape

    for paper in RECORDS:
        claims = claims_of(paper)
        page = figures(paper) + others(paper)
        seen = []
        for table in came_out(paper).split('<div class="verdicts">')[1:]:
            lines = [line.split(" | ") for line in table.splitlines() if line[:1] == "|"]
            head, _, counts, *rows = lines
            names = [cell.strip(" |").replace("&shy;", "") for cell in head[1:]]
            seen += names
            for k, name in enumerate(names, 1):
                found = claims[name]
                measured = [c for c in found if c.verdict != "not measured"]
                held = sum(c.verdict == "holds" for c in measured)
                assert counts[k].strip(" |") == f"**{held} of {len(measured)}**"
                chips = "".join(row[k] for row in rows)
                for verdict in {c.verdict for c in measured}:
                    want = sum(c.verdict == verdict for c in measured)
                    assert chips.count(chip(verdict)) == want, (paper, k, verdict)
                sentences = "".join(row[0] for row in rows)
                assert all(escape(c.sentence) in sentences for c in found)
        assert seen == list(claims)
        for found in claims.values():
            assert [c.sentence for c in found if escape(c.sentence) not in page] == []


def test_numbers_and_other_networks_are_folded():
    "What is seen at once: pictures of the networks in front, and each claim with its verdicts"
    from papers import AGAIN, claims_of, figures
    from results import chip, escape

    page = figures("representations")
    seen = re.sub(r"<details>.*?</details>", "", page, flags=re.S)
    assert "<details>" not in seen and "</details>" not in seen
    for name in AGAIN:
        assert f"/images/{name}-" in page and f"/images/{name}-" not in seen, name
    for claims in claims_of("representations").values():
        for c in claims:
            (line,) = [x for x in seen.splitlines() if x.startswith(f'- "{escape(c.sentence)}"')]
            if c.verdict != "not measured":
                assert chip(c.verdict) in line


def test_every_verdict_has_a_color_in_reports_and_on_the_site(tmp_path):
    from denoise_study.core import Chapter, Verdict, write_report

    sys.path.insert(0, str(ROOT / "docs"))
    from build import verdict_colors

    verdict_colors(tmp_path)
    site = (tmp_path / "verdicts.css").read_text(encoding="utf-8")
    write_report(tmp_path / "report.html", "Title", "Lead", [Chapter("One")])
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    rules = [f".{v.css}{{background:{v.color}}}" for v in Verdict]
    assert [rule for rule in rules if rule not in site or rule not in report] == []


# The check on a GPU


@pytest.fixture
def dry(tmp_path):
    return Namespace(device="cpu", tiny=True, out=tmp_path / "check.json", cell="16_loaders")


def test_the_dry_run_measures_and_runs_a_cell(dry):
    rows = {name: list(gpu_check.STAGES[name][0](dry)) for name in ("peak", "phi", "cells")}
    assert {r["format"] for r in rows["peak"]} == {"fp32", "bf16"}
    assert all(r["tflops"] > 0 for r in rows["peak"])
    assert all(r["encoder_images_per_second"] > 0 for r in rows["phi"])
    (cell,) = rows["cells"]
    assert cell["cell"] == "core/16_loaders" and "error" not in cell, cell


@pytest.mark.slow
def test_the_dry_run_of_every_cell_and_speed(dry):
    dry.cell = ""
    for row in gpu_check.cells(dry):
        assert "error" not in row, row
    speeds = [*gpu_check.training(dry), *gpu_check.sampling(dry)]
    assert {"denoise_study", "BlindUNet"} <= {r["network"] for r in speeds if "network" in r}


def test_a_failing_cell_says_why(dry, monkeypatch):
    (path,) = [p for p, _ in gpu_check.cuda_cells() if dry.cell in str(p)]
    monkeypatch.setattr(gpu_check, "code_cells", lambda path: ["#| cuda\nx = 1/0"])
    assert "ZeroDivisionError" in gpu_check.cell(dry, path, 0)["error"]


def test_every_cell_finds_its_names():
    "In the module of its notebook, in the imports, or in what was defined before it"
    cells = list(gpu_check.cuda_cells())
    assert len(cells) > 10
    for path, i in cells:
        names = gpu_check.names_for(path, i)
        body = ast.parse(gpu_check.code_cells(path)[i]).body
        own = set().union(*map(gpu_check.defined, body)) | {"subprocess"}
        used = set().union(*map(gpu_check.used, body)) - own - vars(builtins).keys()
        assert used <= names.keys(), (path, used - names.keys())


def test_a_stage_out_of_time_leaves_a_whole_file(dry):
    record = dict(stages={})
    gpu_check.stage("machine", dry, 0.0, record)
    assert json.loads(dry.out.read_text())["stages"]["machine"]["state"] == "out of time"
    command = ["--device", "cpu", "--tiny", "--only", "machine", "--out", str(dry.out)]
    gpu_check.main(command)
    found = json.loads(dry.out.read_text())["stages"]["machine"]
    assert found["state"] == "done" and found["rows"][0]["packages"]["torch"]
    assert [p.name for p in dry.out.parent.iterdir()] == [dry.out.name]


def products(net, *inputs):
    "Operations of its convolutions and linear layers, counted from the shapes of their outputs"
    found = []

    def count(layer, given, out):
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            found.append(2 * out.numel() * layer.weight[0].numel())

    for layer in net.modules():
        layer.register_forward_hook(count)
    with torch.no_grad():
        net(*inputs)
    return sum(found)


def test_costs_of_large_jobs_are_those_of_the_code():
    from jinja2 import Environment, StrictUndefined

    from scale import cost, jobs, OFFERED, RATE, saturation

    samples, phi, fid = jobs().values()
    with torch.device("meta"):
        unet = UNet.paper("cifar10", channels=3).eval()
        each = products(unet, torch.empty(1, 3, 32, 32), torch.zeros(1))
    assert 0.85 < 1000 * each / samples.flops <= 1  # the rest is attention
    # Szegedy et al. 2016, and an outer product
    assert fid.flops == pytest.approx(2 * 5.71e9, rel=0.01)

    one, eight, many = (cost(samples, world) for world in (1, 8, 64))
    assert one["messages"] == one["received"] == 0 and eight["messages"] == 56
    assert eight["received"] == 50_000 * 3 * 32 * 32 * 4 * 7 // 8
    assert (one["images"], eight["images"], many["images"]) == (50_000, 6250, 1000)
    for job in (samples, phi):
        shares = [len(share(job.n, job.bs, (rank, 64))) for rank in range(64)]
        assert sum(shares) == job.n and max(shares) == cost(job, 64)["images"]
    assert many["computing"] == pytest.approx(1000 * samples.flops / RATE)
    assert cost(fid, 64)["received"] == 63 * 8 * (2048**2 + 2048)
    for job in (phi, fid):
        world = saturation(job)
        assert cost(job, world)["busiest"] != "computing" == cost(job, world // 2)["busiest"]

    text = (ROOT / "docs/pages/further/many.md").read_text(encoding="utf-8")
    page = Environment(undefined=StrictUndefined).from_string(text).render(OFFERED, of=str)
    assert OFFERED["scale"]("phi") in page and f"{eight['received'] / 1e6:,.0f} MB" in page
