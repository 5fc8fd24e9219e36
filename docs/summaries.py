"""The tables of results that README.md, the papers' pages and the overview of results show:
`summary(name)` builds one from docs/results/*.json.

nbs/index.ipynb shows the findings by calling it; a page in docs/pages says {{ summary("name") }}.
Claims and settings are repeated word for word from the files. `python docs/summaries.py` draws
those pictures of the findings that are made from numbers."""

import json

import pandas as pd

from denoise_study.core import Claim, Interval
from pictures import draw_pictures, IMAGES, part
from results import escape, grid, RESULTS


def record(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def interval(v):
    return escape(Interval.from_dict(v, n=1, unit="images"))


def quality():
    "Samples of the study's diffusion model, and the sets that they are compared with"
    study = record("study_digits")
    rows = study["chapters"]["A diffusion model"]["quality"]
    measures = ["frechet", "precision", "recall"]
    said = (
        f"`{study['run']['command']}` on digits, seed {study['seed']}, "
        f"{study['run']['device']}: samples against {rows[0]['n_real']} test images, "
        f"feature space {rows[0]['feature_space']}, 95% intervals over images, one training "
        f"run."
    )
    return said, grid(
        ["set", "n", "Fréchet distance", "precision", "recall"],
        [[r["name"], str(r["n_fake"]), *(interval(r[m]) for m in measures)] for r in rows],
    )


def beside_peers(unet, where=""):
    "How many times as long the fastest other library takes, in each setting"
    peers, lines = {}, {}
    for r in unet["table"]:
        if r["model"] != "denoise_study":
            peers.setdefault(r["setting"].split(",")[0], []).append(r)
    for setting, rows in peers.items():
        best = min(rows, key=lambda r: r["ours_is_faster_by"])
        against = f"against the fastest of {len(rows)} libraries ({best['model']})"
        lines[f"training step, {setting}{where}, {against}"] = f"{best['ours_is_faster_by']:.2f}x"
    return lines


def speed():
    "What the benchmarks say, in one line each"
    unet, learner, rep = (record(f"bench_{k}") for k in ("unet", "learner", "denoiserep"))
    lines = beside_peers(unet, f", {unet['threads']} threads with AVX-512 and AMX")
    for threads in ("one thread", "two threads"):
        other = record(f"bench_unet_{threads.replace(' ', '_')}")
        lines |= beside_peers(other, f", {threads} with AVX2")
    fastest = unet["best_against_fastest_peer_fp32"]
    lines["training step, our bf16+fused against the fastest fp32"] = f"{fastest:.2f}x"
    frechet = next(r for r in record("bench_metrics")["rows"] if "scipy" in r)
    lines["Fréchet distance, 2048 dimensions, against scipy"] = f"{frechet['ratio']:.1f}x"
    lines["what the Learner adds to a bare loop, a step"] = f"{learner['overhead, ms']:.2f} ms"
    loop = learner["ancestral loop over its forward passes"]
    lines["what the sampling loop adds to its forward passes"] = f"{loop:.1%}"
    cost = {
        k: f"{r['ratio']:.2f}x [{r['low']:.2f}, {r['high']:.2f}]" for k, r in rep["rows"].items()
    }
    lines["a network with its denoising layers fused, against the plain one"] = cost["fused"]
    behind = "the same, denoising behind the backbone (DenoiseRep^-), not fused"
    lines[behind] = cost["DenoiseRep^-"]
    rate = record("bench_data")["images_per_second"]["digits"]
    lines["input pipeline, digits"] = f"{rate:,.0f} images/s"
    said = f"Speed, by the scripts in `tests/benchmarks` ({unet['run']['device']}):"
    return said, grid(["what", "measured"], [[k, v] for k, v in lines.items()])


def daed_budget():
    "The denoiser of a DAED against its training steps"
    r = record("daed_budget")
    rows = r["budget"]
    names = [k.removesuffix("_n") for k in rows[0] if k.endswith("_n")]
    said = (
        f"The denoiser's call minus the mean of the diffusion model, MAE relative to the latter, "
        f"on {r['n']} test images of each set (`{r['run']['command']}`): training steps of the "
        "denoiser, its validation loss, 95% intervals over images, one training."
    )
    table = []
    for row in rows:
        cells = [str(row["steps"]), f"{row['valid_loss']:.4f}"]
        for name in names:
            low, high = row[f"{name}_low"], row[f"{name}_high"]
            cells.append(f"{row[name]:+.1%} [{low:+.1%}, {high:+.1%}]")
        table.append(cells)
    return said, grid(["steps", "validation loss", *names], table)


def switch():
    "Where the error on the other set is larger by so much, from fewer and more images"
    from denoise_study.daed import by_n_in_words

    r = record("daed_fashion_mnist")
    rows = by_n_in_words(pd.DataFrame(r["switch_by_n"]))
    said = (
        f"Share of the steps from which the error on garments that stand upside down is larger by "
        f"so much, `{r['ddgm']}` on test images, 95% intervals over images "
        f"(`{r['run']['command']}` at {r['run']['commit']}):"
    )
    return said, grid(rows[0], [[escape(v) for v in row.values()] for row in rows])


def rep():
    "The slides' table of Xu et al. (2024), and what it lacks"
    from denoise_study.denoiserep import rep_sentence, slides_table

    records = [record(f.stem) for f in sorted(RESULTS.glob("rep_*.json"))]
    rows = slides_table(records).to_dict("records")
    shown = [[f"{v:.2f}" if isinstance(v, float) else escape(v) for v in r.values()] for r in rows]
    said = (
        f"{escape(rep_sentence(records))} Each arm against the one that lacks only it, in per "
        "cent, with 95% intervals over what the row says:"
    )
    return said, grid(rows[0], shown)


FINDINGS = {
    "First a generator, then a denoiser": dict(
        page="daed",
        record="study_digits",
        claim="DAED transfers better than the DDGM: upside down",
        picture="study_digits-transfer.svg",
        alt="Error of four ways to bring noisy digits back, upright ones and others",
    ),
    "A denoiser sorts images by kind": dict(
        page="representations",
        record="blind_fashion_mnist",
        claim="Neighbours share a class, more than before training",
        picture="blind_fashion_mnist-3.png",
        alt="Garments and their neighbours",
    ),
    "Denoising inside a classifier": dict(
        page="denoiserep",
        record="rep_cifar10",
        claim="best possible denoisers improve the checkpoint",
        picture="rep_cifar10-0.png",
        alt="Accuracy of each arm",
    ),
}


def claim_of(name, sentence):
    "One claim of a results file"
    claims = map(Claim.from_dict, part(record(name))["claims"])
    found = [c for c in claims if c.sentence == sentence]
    if not found:
        raise SystemExit(f"docs/results/{name}.json has no claim {sentence!r}")
    return found[0]


def finding(title, found):
    "A column of the front page: picture, sentence of the paper, what came out"
    claim = claim_of(found["record"], found["claim"])
    texts = {k: escape(v) for k, v in claim.texts().items()}
    beside = texts["beside it"].partition(" (paired")[0]
    beside = f"; {beside}" if beside else ""
    return [
        f"[{title}](../docs/pages/papers/{found['page']}.md)",
        f"![{found['alt']}](../docs/images/{found['picture']})",
        f'"{texts["claim"]}"',
        f"**{claim.verdict}**: {texts['measured']}{beside}, over {texts['over']}",
    ]


def findings():
    "One claim of each paper, as its record has it; links are those of nbs/index.ipynb"
    columns = [finding(title, found) for title, found in FINDINGS.items()]
    rows = list(zip(*columns))
    return grid(rows[0], rows[1:])


def draw_findings(folder):
    "Write the pictures of the findings that are drawn from the records, and name them"
    drawn = [f for f in FINDINGS.values() if f["picture"].endswith(".svg")]
    for found in drawn:
        draw_pictures(found["record"], record(found["record"]), folder, found["picture"])
    return [found["picture"] for found in drawn]


WRITERS = dict(
    ddgm="training a diffusion model",
    daed="training a DAED",
    blind="training a blind denoiser",
    probes="reading a representation",
    protocol="the protocol of DenoiseRep",
    study="a study",
    writing="images, figures, pages and numbers over good ones",
)


def kills():
    "What was killed, how often, and what became of it"
    r = record("kills")
    total, two = r["total"], r["two_in_a_folder"]
    bad = "unreadable", "lost", "different", "leftovers"
    head = ["what was at work", "kills", "files read after them", *bad]
    rows = []
    for row in r["kinds"]:
        counts = "kills", "files", *bad
        rows.append([WRITERS[row["what"]], *(str(row[k]) for k in counts)])
    said = (
        f"{total['kills']} kills of {len(rows)} kinds of work, {total['files']} files read after "
        f"them: {total['unreadable']} unreadable, {total['lost']} lost, {total['different']} "
        f"different in the end, {total['leftovers']} left over. Two trainings with different seeds "
        f"in one folder, {two['trials']} times: one refused {two['one_refused']} times, the result "
        f"that of one run {two['result_of_one_run']} times. (`{r['run']['command']}` at "
        f"{r['run']['commit']}, torch {r['run']['versions']['torch']}.)"
    )
    return said, grid(head, rows)


def bad_calls():
    "What became of calls and options that make no sense"
    r = record("bad_calls")
    *wings, total = r["rows"]
    counts = "calls", "refused_in_words", "deep", "passed", "hangs"
    head = ["where", "functions, commands", *(k.replace("_", " ") for k in counts)]
    rows = [[str(row[k]) for k in ("wing", "functions", *counts)] for row in wings]
    said = (
        f"Each argument of {total['functions']} functions and commands was replaced by values that "
        f"make no sense, {total['calls']:,} times: {total['refused_in_words']:,} were refused in "
        f"words that name the argument, {total['deep']} ended inside another library, "
        f"{total['passed']} passed (many of them harmless, as 3 for true), {total['hangs']} hung. "
        f"Of a command what counts is what happens before the first pass through a network. "
        f"(`{r['run']['command']}` at {r['run']['commit']}.)"
    )
    return said, grid(head, rows)


def compiled():
    "What torch.compile brings, a network a row"
    r = record("bench_compile")
    rows = []
    for row in r["rows"]:
        times = [f"{1000 * row[k]:,.0f} ms" for k in ("plain", "compiled")]
        first, after = f"{row['first_call']:.0f} s", f"{row['earned_back_after']:,.0f}"
        rows.append([escape(row["what"]), *times, f"{row['ratio']:.2f}x", first, after])
    head = ["what", "plain", "compiled", "faster", "the first one", "earned back after"]
    said = (
        f"{r['batch']} images at a time, on {r['threads']} thread beside another process, plain "
        f"and compiled in turns, medians of {r['rounds']} (`{r['run']['command']}` at "
        f"{r['run']['commit']}):"
    )
    return said, grid(head, rows)


SUMMARIES = dict(
    findings=findings,
    compiled=compiled,
    quality=quality,
    speed=speed,
    daed_budget=daed_budget,
    switch=switch,
    rep=rep,
    kills=kills,
    bad_calls=bad_calls,
)


def summary(name):
    "One of the tables as markdown, under the sentence that says how it was measured"
    made = SUMMARIES[name]()
    return made if isinstance(made, str) else "\n\n".join(made)


if __name__ == "__main__":
    draw_findings(IMAGES)
