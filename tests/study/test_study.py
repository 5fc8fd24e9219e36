"The whole study, tiny: every chapter in one report"

import json
import re
from html import escape

import pytest
import torch
from helpers import cut_texts, FORK
from helpers_foreign import saved_pipeline
from helpers_training import shorter_chains
from torch import nn

from denoise_study import load_pretrained
from denoise_study.core import Chapter, Claim, figure_of, FolderInUse, image_dls
from denoise_study.core import load_checkpoint, save_checkpoint, Study, take_folder
from denoise_study.daed import study_daeds, study_joint
from denoise_study.denoiser import denoiser
from denoise_study.diffusion import DDGM, Schedule
from denoise_study.representation import study_blind
from denoise_study.study import CHAPTERS, denoise_study, forget_study, images_chapter, run_study


def test_all_chapters_in_one_report(tmp_path, capsys, monkeypatch):
    "A page that holds them all, with the claims of three of them told at its head"
    shorter_chains(monkeypatch)
    figure, cut = Chapter.figure, []

    def looked_at(self, drawn, *args, **kw):
        cut.extend(cut_texts(figure_of(drawn)))
        figure(self, drawn, *args, **kw)

    monkeypatch.setattr(Chapter, "figure", looked_at)
    dls = image_dls("digits", bs=128, device="cpu")
    study = Study(dls, tmp_path, steps=6, n=20, n_eval=16)
    chapters = run_study(study)["chapters"]
    announced = re.findall(r"\[(\d+)/(\d+)\] ", capsys.readouterr().out)
    assert announced == [(str(i + 1), str(study.stages)) for i in range(study.stages)]
    assert cut == []
    page = (tmp_path / "report.html").read_text()
    claims = [c["claims"] for c in chapters.values() if "claims" in c]
    assert len(chapters) == len(CHAPTERS) == 4 and len(claims) == 3
    assert all(page.count(title) > 1 for title in chapters)  # in the contents and as a heading

    start = page.index(">In short</h2>")
    head = page[start : page.index("<h2>", start)]
    for record in (r for records in claims for r in records):
        claim = Claim.from_dict(record)
        assert claim.verdict == record["verdict"] and claim.findings
        assert escape(claim.sentence) in head and escape(claim.verdict) in head, claim
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["chapters"].keys() == chapters.keys()
    instant = {k for k, v in study.seconds.items() if v == 0}
    assert instant <= {"opening the feature space", "opening an independent classifier"}  # shipped


def test_a_compiled_study_compiles_all_that_it_trains_but_joint_models(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda forward, **kw: forward)
    shorter_chains(monkeypatch, width=16, n_blocks=1)
    dls = image_dls("digits", bs=128, device="cpu")
    study = Study(dls, tmp_path, steps=1, compiled=True, bf16=True)
    study_daeds(study, (0.1,))
    study_joint(study)
    study_blind(study)
    trained = {p.parent.name: load_checkpoint(p) for p in tmp_path.glob("*/*d*.safetensors")}
    plain = {name for name, m in trained.items() if m.info["run"]["precision"] == "bf16"}
    compiled = {k for k, m in trained.items() if m.info["run"]["precision"] == "bf16, compiled"}
    assert plain == {"joint-0.1-simple"} and plain | compiled == set(trained)
    assert len(compiled) == 4 and study.identity()["precision"] == "bf16, compiled"


def test_two_chapters_share_one_walk(tmp_path, monkeypatch):
    "Models that are there from the start are sampled once for both"
    seen = []

    def chapter(study):
        seen.append(study.samples)
        return Chapter("What was drawn")

    for name in ("ddgm", "daed"):
        monkeypatch.setitem(CHAPTERS, name, chapter)
    dls = image_dls("digits", bs=128, device="cpu")
    given = dict(n=3, source=dict(data="digits"), space=nn.Flatten())
    study = Study(dls, tmp_path / "both", **given)
    run_study(study, ("ddgm", "daed"))
    first, second = seen
    assert first is second and len(first) == 5 and study.samples == {}
    alone = study.models["ddgm"].sample(3, seed=0, progress=False)
    assert torch.equal(first["DDGM"], alone)
    run_study(Study(dls, tmp_path / "one", **given), ("ddgm",))
    assert seen[2] == {}  # the chapter draws its own


def test_chapters_of_no_report(tmp_path):
    study = Study(image_dls("digits", device="cpu"), tmp_path / "new")
    with pytest.raises(ValueError, match="chapters: some of ddgm, daed, blind, rep are accepted"):
        run_study(study, ("ddgm", "x"))
    assert not (tmp_path / "new").exists()


@pytest.fixture
def quick(monkeypatch):
    "A chapter that only leaves files, and no feature space"
    done = []

    def chapter(study):
        done.append(study.seed)
        (study.folder / "ddgm/samples").mkdir(parents=True, exist_ok=True)
        for name in ("ddgm/ddgm.safetensors", "ddgm/log.jsonl", "ddgm/samples/epoch-0001.png"):
            (study.folder / name).touch()
        c = Chapter("Quick")
        c.text("Nothing.")
        return c

    monkeypatch.setitem(CHAPTERS, "quick", chapter)
    return done


def quick_study(folder, data="digits", **kw):
    return Study(image_dls(data, device="cpu"), folder, space=nn.Flatten(), **kw)


OTHERS = {
    "seed": dict(seed=1),
    "steps": dict(steps=7),
    "model_size": dict(size="paper"),
    "precision": dict(bf16=True),
    "data": dict(data="fashion_mini"),
}


@pytest.mark.parametrize("field", OTHERS)
def test_a_folder_is_of_one_study(tmp_path, quick, field):
    results = run_study(quick_study(tmp_path), ("quick",))
    assert results["identity"]["seed"] == 0 and results["identity"]["images"]
    before = (tmp_path / "results.json").read_bytes()
    with pytest.raises(ValueError, match=f"{field}: this run has .*results.json .*--fresh"):
        run_study(quick_study(tmp_path, **OTHERS[field]), ("quick",))
    assert (tmp_path / "results.json").read_bytes() == before and len(quick) == 1
    run_study(quick_study(tmp_path, n=20), ("quick",))  # measured anew, on the same models


def test_a_study_begins_anew_if_asked_to(tmp_path, quick):
    run_study(quick_study(tmp_path), ("quick",))
    (tmp_path / "notes.txt").touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/ddgm.safetensors").touch()
    forget_study(tmp_path)
    left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert left == ["mine/ddgm.safetensors", "notes.txt"]
    run_study(quick_study(tmp_path), ("quick",))
    results = run_study(quick_study(tmp_path, seed=1), ("quick",), fresh=True)
    assert results["identity"]["seed"] == 1 and quick == [0, 0, 1]


@pytest.fixture
def looks(monkeypatch):
    "Chapters that only look at what they were given, and no feature space"
    found = []

    def chapter(name):
        def write(study):
            found.append((name, *study.models))
            return Chapter(name)

        return write

    for name in CHAPTERS:
        monkeypatch.setitem(CHAPTERS, name, chapter(name))
    monkeypatch.setattr("denoise_study.core.feature_space", lambda *a, **kw: nn.Flatten())
    return found


def test_a_given_model_is_examined_and_nothing_is_trained(tmp_path, looks):
    denoise_study(model="ddgm-digits", folder=str(tmp_path))
    models = "given", "blind", "ddgm"
    assert looks == [("ddgm", *models), ("blind", *models)]
    identity = json.loads((tmp_path / "results.json").read_text())["identity"]
    assert identity["model"] == denoiser(load_pretrained("ddgm-digits")).name
    with pytest.raises(ValueError, match="this run has .*--fresh"):
        denoise_study(model="blind-digits", folder=str(tmp_path))
    denoise_study(model="blind-digits", folder=str(tmp_path), fresh=True)
    assert looks[2:] == [("blind", "given", "blind")]


def test_what_a_given_model_has_no_use_for_is_refused(tmp_path, looks):
    for wrong, message in (
        (dict(chapters="rep"), "chapters: ddgm, blind can be written"),
        (dict(steps=9), "steps: nothing is trained"),
        (dict(model="blind-cifar10"), "data: the model is for 3 channels"),
        (dict(model="nothing-here"), "model: nothing-here does not exist"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            denoise_study(**dict(model="ddgm-digits", folder=str(tmp_path)) | wrong)
    assert looks == []


def test_a_chain_that_ends_in_little_noise_is_told_before_anything_is_done(tmp_path, looks, capsys):
    "The chapter on the representation asks at noise that such a model never saw"
    net = load_pretrained("ddgm-digits").net
    short = DDGM(net, Schedule.linear(200, 1e-5, 1e-3), (1, 8, 8))
    save_checkpoint(tmp_path / "short.safetensors", short)
    given = dict(model=str(tmp_path / "short.safetensors"), folder=str(tmp_path / "run"))
    with pytest.raises(
        ValueError, match="written about this model, blind can not: it asks at noise"
    ):
        denoise_study(**given, chapters="blind")
    denoise_study(**given)
    assert [name for name, *_ in looks] == ["ddgm"]
    assert "Left out: blind, as it asks at noise of up to 1, this model knows 0.4" in (
        capsys.readouterr().out
    )


def test_who_trained_a_given_model_is_not_claimed(tmp_path):
    study = quick_study(tmp_path)
    assert "All models were trained here" in images_chapter(study, {}).blocks[-1]
    study.models["given"] = "Net-12-abc"
    assert "given: Net-12-abc. It was not trained here" in images_chapter(study, {}).blocks[-1]


@pytest.mark.slow
def test_a_pipeline_that_nobody_trained_reads_not_learned(tmp_path):
    "Nothing that is said of a denoiser is judged on one with random weights"
    pytest.importorskip("diffusers")
    saved_pipeline(tmp_path / "theirs")
    denoise_study(model=str(tmp_path / "theirs"), folder=str(tmp_path / "run"), n=60)
    chapters = json.loads((tmp_path / "run/results.json").read_text())["chapters"]
    assert list(chapters) == ["A diffusion model", "What a denoiser sees"]
    check, *claims = chapters["What a denoiser sees"]["claims"]
    assert {c["verdict"] for c in claims} <= {"not learned", "not measured"} and len(claims) > 12
    assert check["sentence"] == "It beats the best linear denoiser"
    assert check["verdict"] == "does not hold"
    assert (
        "It is not learned: its samples are no nearer" in (tmp_path / "run/report.html").read_text()
    )


def test_results_of_somebody_else_are_refused(tmp_path, quick):
    (tmp_path / "results.json").write_text("{half")
    with pytest.raises(ValueError, match="results.json is no JSON: damaged"):
        run_study(quick_study(tmp_path), ("quick",))
    (tmp_path / "results.json").write_text("{}")
    with pytest.warns(UserWarning, match="does not say which run it is of"):
        run_study(quick_study(tmp_path), ("quick",))


def test_the_second_study_in_a_folder_is_refused(tmp_path, quick):
    with FORK.Pool(1) as pool:
        pool.apply(take_folder, (tmp_path,))
        with pytest.raises(FolderInUse, match="is training into this folder"):
            run_study(quick_study(tmp_path), ("quick",))
    assert not quick
