"""Pages of results, one for each docs/results/*.json: claims, pictures, tables, how it was made.

They are chapters, as those of a report, and so is all that they show. A file that is added appears
on the site at the next build; nothing on these pages is typed but titles, captions and headings,
and their numbers are those of the record."""

import json
import re
from pathlib import Path

import pandas as pd

from denoise_study.core import by_verdict, Chapter, Claim, Interval, steps_behind
from denoise_study.daed import quality_in_words
from denoise_study.denoiserep import arms_in_words
from pictures import pictures

RESULTS = Path(__file__).resolve().parent / "results"
TITLES = {
    "study_digits": ("The study of digits", "`denoise-study` with its default settings."),
    "daed_fashion_mnist": (
        "DAED on FashionMNIST",
        "The claims of Deja et al. (2022), measured with a small network on a CPU. The loss of its "
        "denoiser still fell by {fall} over the last quarter of {dae_steps} steps, where {least} "
        "would be the end: rows and figures of splits and of transfer judge nothing yet.",
    ),
    "table1_digits": (
        "Table 1 of DAED on digits",
        "Diffusion models and jointly trained DAEDs, all from scratch and for the same number of "
        "steps (whether their loss had stopped falling was not asked): claims over {trainings} "
        "trainings that differ in their seed, those with the bound over {vlb}; trainings of the "
        "diffusion model with as many weights as a DAED: {wide}.",
    ),
    "table1_fashion_mnist": (
        "Table 1 of DAED on FashionMNIST",
        "Diffusion models and jointly trained DAEDs, all from scratch and for {steps:,} steps each "
        "(whether their loss had stopped falling was not asked): claims over {trainings} trainings "
        "that differ in their seed. The rows with the bound were not trained.",
    ),
    "daed_budget": (
        "DAED against its budget",
        "What the denoiser of a DAED owes to its training steps, on FashionMNIST.",
    ),
    "coverage": (
        "Coverage of the intervals",
        "How often each kind of nominal {nominal:.0%} interval held the truth, on made-up data.",
    ),
    "blind_fashion_mnist": (
        "A blind denoiser of FashionMNIST",
        "The claims of Kadkhodaie et al. (2025), each with its control, "
        "measured with a small network on a CPU.",
    ),
    "blind_fashion_mnist_even": (
        "Blind denoisers of FashionMNIST that count noise levels about evenly",
        "The same claims over {trainings} trainings of the same network, whose noise is drawn "
        "log-uniformly and whose squared errors are divided by the root of the noise level: so "
        "weak noise counts, which the paper's sum over pixels hardly sees.",
    ),
    "blind_cifar10": (
        "Blind denoisers of CIFAR-10",
        "The same claims on small photographs, over {trainings} trainings of {before} steps and "
        "{steps} more, the first of which ships as `blind-cifar10`: log-uniform noise, squared "
        "errors divided by a power of the noise level, .75 and then 1.",
    ),
    "blind_celeba": (
        "A blind denoiser of faces",
        "The same claims on faces of 64 by 64 pixels (Liu et al. 2015), which have no labels: what "
        "is about classes is not measured. The network is an earlier `blind-cifar10`, which "
        "learned on from faces for {steps} steps; it does not ship.",
    ),
    "blind_digits": (
        "Blind denoisers of digits",
        "The same claims on the smallest images, over {trainings} trainings that differ in their "
        "seed: what is said of denoisers, and not of one of them.",
    ),
    "blind_digits_even": (
        "Blind denoisers of digits that count noise levels about evenly",
        "The smallest images once more, over {trainings} trainings of {steps} steps with "
        "log-uniform noise and squared errors that are divided by the root of the noise level.",
    ),
    "blind_fashion_mnist_transformer": (
        "A transformer that removes noise from FashionMNIST",
        "The same claims, asked of a transformer denoiser of as many weights: which of them are "
        "about convolutional U-Nets, and which about learning to denoise?",
    ),
    "blind_cifar10_transformer": (
        "A transformer that removes noise from CIFAR-10",
        "The same claims on small photographs, of a transformer denoiser that saw {steps} batches "
        "of 64.",
    ),
    "rep_cifar10": (
        "DenoiseRep on CIFAR-10",
        "The claims of Xu et al. (2024) over {networks} networks, {published} published and "
        "{trained} trained here, each arm beside the one that lacks only it.",
    ),
    "rep_omniglot": (
        "DenoiseRep on Omniglot",
        "Retrieval: characters of alphabets that the networks never saw, each drawing searched "
        "among those by other people, by {networks} small networks trained here, with neck and "
        "triplets.",
    ),
    "rep_fashion_mnist_vit": (
        "DenoiseRep on FashionMNIST",
        "The same claims on {networks} small vision transformers trained here for {steps} steps of "
        "{bs} (whether longer training would help was not asked), each judged on the {n_test} test "
        "images.",
    ),
    "rep_bccd": (
        "DenoiseRep on blood cells",
        "Detection: red and white cells and platelets (BCCD), by small Faster R-CNNs trained here "
        "from a random start for {steps} steps of {bs}, each judged on {n_test} photographs.",
    ),
    "rep_camvid": (
        "DenoiseRep on street scenes",
        "Segmentation: eleven classes of CamVid, by LR-ASPP networks trained here from "
        "a random start for {steps} steps (whether longer training would help was not asked), each "
        "judged on {n_test} pictures. Layers that see one vector a picture are left out: with them "
        "label-free denoisers did not learn.",
    ),
    "bad_calls": (
        "Senseless calls",
        "What becomes of calls with arguments that make no sense: counts for each wing.",
    ),
    "kills": (
        "Kills at random moments",
        "Trainings, probes, the protocol, a study and the writing of files, killed "
        "and started again.",
    ),
    "bench_unet": (
        "Speed of the U-Net",
        "A training step beside those of other libraries, on a processor with AVX-512 and AMX.",
    ),
    "bench_unet_one_thread": (
        "Speed of the U-Net on one thread with AVX2",
        "The same training step in float32 on an older processor, in processor seconds.",
    ),
    "bench_unet_two_threads": (
        "Speed of the U-Net on two threads with AVX2",
        "The same training step in float32 on an older processor.",
    ),
    "bench_step": (
        "Where a training step goes",
        "Shares of its parts, in float32 on one thread with AVX2 (attention that is written as "
        "products counts with them), and how fast convolutions are: the gradient of the weights is "
        "their slow part.",
    ),
    "bench_step_bf16": (
        "Where a training step in bfloat16 goes",
        "Shares of its parts on two threads of a processor with AVX-512 and AMX, all models in "
        "channels-last: norms with their activation take as long there as the backward products.",
    ),
    "bench_learner": (
        "Cost of the Learner",
        "What callbacks and the sampling loop add to a bare loop.",
    ),
    "bench_metrics": (
        "Speed of the metrics",
        "Beside other implementations, with the difference of their results.",
    ),
    "bench_compile": (
        "What torch.compile brings",
        "A training step and a forward pass of the U-Net and of blind denoisers (with the channels "
        "of their first level), plain and compiled in turns, beside another process.",
    ),
    "bench_threads": (
        "What waiting threads cost",
        "A training step of a small model under several settings of OpenMP, alone, beside one busy "
        "process, and beside as many as there are cores.",
    ),
    "bench_memory": (
        "Memory of large jobs",
        "Does the peak stay where it is when there are ten times as many images?",
    ),
    "bench_data": ("Speed of the input pipeline", "Images a second, ready to be trained on."),
}
WORDS = dict(
    mnist="MNIST",
    fashion="Fashion",
    cifar10="CIFAR-10",
    celeba="CelebA",
    ddgm="DDGM",
    daed="DAED",
    bench="Benchmark of",
    denoiserep="DenoiseRep",
)


def title(stem):
    if stem in TITLES:
        return TITLES[stem][0]
    if stem.startswith("pretrained_"):
        return f"Pretrained: {stem.removeprefix('pretrained_')}"
    words = " ".join(WORDS.get(w, w) for w in stem.split("_"))
    words = words.replace("Fashion MNIST", "FashionMNIST")
    return words[0].upper() + words[1:]


def numbers(record):
    "What a lead may say in numbers, if the record has it"
    found = {k: v for k, v in record.items() if isinstance(v, (int, float))}
    if isinstance(record.get("trainings"), list):
        found["trainings"] = 1 + len(record["trainings"])  # besides the one the record is of
    if "checkpoint" in record:
        found["steps"] = f"{record['checkpoint']['steps']:,}"
        found["before"] = f"{record['checkpoint'].get('steps_before', 0):,}"
    training = record.get("training", {}).get("DAED 0.1", {})
    if "fall" in training:  # the denoiser of a diffusion model
        found["dae_steps"] = f"{steps_behind(training):,}"
        found |= {k: f"{training[k]:.1%}" for k in ("fall", "least")}
    if "levels_by_training" in record:  # a table 1, which is recorded in parts
        rows = record["quality"]
        found["vlb"] = len({r["training"] for r in rows if r["loss"] == "vlb"})
        found["wide"] = sum(r["model"] == "DDGM, as many weights" for r in rows)
    about = record.get("about")
    if isinstance(about, dict):
        found |= {k: f"{v:,}" for k, v in about.items() if isinstance(v, int)}
        files = [n["checkpoint"] for n in about.get("networks", [])]
        found["networks"] = record["arms"][0]["n"]
        found["published"] = len([f for f in files if f])
        found["trained"] = found["networks"] - found["published"]
    return found


def lead(stem, record):
    return TITLES.get(stem, ("", ""))[1].format_map(numbers(record))


def escape(s):
    text = str(s)
    for sign in "\\|*_$[":
        text = text.replace(sign, "\\" + sign)
    return text.replace("<", "&lt;").replace("\n", " ")


def grid(head, rows):
    return "\n".join("| " + " | ".join(r) + " |" for r in [head, ["---"] * len(head), *rows])


def chip(verdict):
    "A verdict in its colour"
    return f'<span class="{verdict.css}" title="{verdict.meaning}">{verdict}</span>'


# table of a record -> its caption, and its columns in order, of which a record may have some;
# what is not named here is drawn, or for machines
TABLES = {
    "quality": (
        "Samples, and the sets that they are compared with: {n_real} test images in the feature "
        "space {feature_space}; 95% intervals over images.",
        "name model training n_fake frechet precision recall roughness",
    ),
    "quality_inception": (
        "The same samples, and {n_fake} training images, beside {n_real} test images in "
        "{feature_space}; 95% intervals over images. With so few samples a distance is too large "
        "by about that of the training images.",
        "name model training n_fake frechet precision recall roughness",
    ),
    "transfer": (
        "{n} images of each set, noised to a variance of .1 and brought back; the scale is [-1,1].",
        "set model how calls mae mse_ratio ms_ssim",
    ),
    "budget": (
        "After each number of training steps: validation loss, and error against the diffusion "
        "model's mean, relative.",
        "steps valid_loss fashion_mnist upside&down",
    ),
    "compare": (
        "The trained network beside the untrained one, and beside a control.",
        "quantity trained untrained control control_what",
    ),
    "around": ("Samples around test images, beside others.", "measure arm value"),
    "psnr": ("Decibels before and after denoising {n} images.", "denoiser sigma psnr_in psnr"),
    "kinds": (
        "What was killed, and what was found afterwards.",
        "what kills files unreadable lost different leftovers",
    ),
    "table": (
        "What was measured.",
        "model setting images_per_second ours_is_faster_by interval repeats held width four_sd "
        "products,&forward products,&backward norms,&activation attention casts,&copies "
        "optimiser,&average rest",
    ),
    "rows": (
        "What was measured.",
        "what format wing functions calls refused_in_words deep passed hangs denoise_study scipy "
        "pytorch_msssim torchmetrics ratio relative_difference seconds bare streamed adam gd "
        "encoder_images_per_second full_images_per_second encoder_MB full_MB flops plain compiled "
        "first_call earned_back_after busy setting ms_a_step",
    ),
    "images_per_second": ("Images a second.", "what value"),
    "gflop_per_second": (
        "Convolutions alone: 1e9 operations a second.",
        "convolution layout forward gradient&of&the&images gradient&of&the&weights",
    ),
}
HEADINGS = dict(
    n_fake="images",
    frechet="Fréchet distance",
    how="way",
    mae="MAE",
    mse_ratio="MSE / that of the mean",
    ms_ssim="MS-SSIM",
    psnr_in="input",
    psnr="output",
    sigma="noise",
    control_what="the control",
    value="",
    four_sd="four deviations",
)
BARE = "difference", "value", "psnr", "ratio"  # `low` and `high` are the first one's that is there


def cell(row, key):
    "A number with its interval, where it has one"
    found = row.get(key, row.get(f"{key}_value"))
    if isinstance(found, dict):
        return Interval.from_dict(found, n=1, unit="units") if "low" in found else ""
    owner = next((k for k in BARE if k in row), None)
    start = "" if key == owner and "low" in row else f"{key}_"
    if found is None or row.get(f"{start}low") is None:
        return "" if found is None else found
    ends = (row[f"{start}{end}"] for end in ("low", "high"))
    return Interval(found, *ends, n=1, unit="units")


def as_rows(table):
    "A table of a record, or numbers by name, as rows"
    if isinstance(table, list):
        return table
    return [dict(what=k) | (v if isinstance(v, dict) else dict(value=v)) for k, v in table.items()]


def add_tables(c, record):
    "Those tables of a record that a reader wants"
    for name, (caption, columns) in TABLES.items():
        rows = as_rows(record.get(name) or [])
        columns = [k.replace("&", " ") for k in columns.split()]
        cells = [{k: cell(row, k) for k in columns} for row in rows]
        kept = [k for k in columns if any(row[k] != "" for row in cells)]
        head = {k: HEADINGS.get(k, k.replace("_", " ")) for k in kept}
        if len(kept) > 1:  # a single column says nothing
            c.table([{head[k]: row[k] for k in kept} for row in cells], caption.format(**rows[0]))
    if "arms" in record and "budget" in record:
        c.table(*arms_in_words(record))
    if "splits" in record:
        rows = quality_in_words(pd.DataFrame(record["splits"]))
        c.table(rows, "Samples of models that are split at several places.")


def add_made(c, record):
    "How a result was made"
    run, data = record.get("run", {}), record.get("data") or {}
    seconds = record.get("seconds") or {}
    rows = {k: run.get(k) for k in ("command", "commit", "device", "python")}
    rows["packages"] = ", ".join(f"{k} {v}" for k, v in run.get("versions", {}).items())
    if data:
        size = "x".join(map(str, data["size"]))
        rows["data"] = (
            f"{data['name']}: {data['n_train']:,} training, {data['n_valid']:,} validation, "
            f"{data['n_test']:,} test images of {size} pixels, split seed {data['seed']}"
        )
    rows |= {k: record.get(k) for k in ("seed", "seeds", "n", "n_eval", "batch", "threads")}
    rows["seconds"] = ", ".join(f"{k} {v:.0f}" for k, v in seconds.items())
    c.heading("How it was made")
    c.table([dict(what=k, value=str(v)) for k, v in rows.items() if v not in (None, "")], "")


def figure(file, caption):
    "A picture; what is seen in it stands below"
    width = "" if file.endswith(".svg") else ":width: 6.8in\n"
    alt = re.sub(r"<[^>]+>|[*`]", "", caption.partition("\n")[0])
    return f"```{{figure}} /images/{file}\n:alt: {alt}\n{width}\n{caption}\n```"


def folded(summary, text):
    "What is read on request"
    return f"<details>\n<summary>{summary}</summary>\n\n{text}\n\n</details>"


def in_short(finding):
    "A number, what stands beside it, and what the interval is over"
    return escape("; ".join(t for t in finding.texts() if t))


def evidence(claims):
    "What had to be learned first, and was: a line for each kind, with the numbers of all trainings"
    kinds = {}
    for e in dict.fromkeys(e for c in claims for e in c.learned if e.ok):
        score = f"{e.score:.3g}" + f" ({e.note})" * bool(e.note)
        kinds.setdefault((f"{e.arm}: {e.measure}", e.terms), []).append(score)
    lines = [
        f"- {escape(of)}: {escape(', '.join(v))}; {needed}" for (of, needed), v in kinds.items()
    ]
    if not lines:
        return ""
    return "\n".join(["What had to learn first, and has:\n", *lines, "\nThe claims:\n\n"])


def claims_list(records):
    "Each claim under its verdict: what was measured, what did not learn, what else is to be known"
    claims = [Claim.from_dict(r) for r in records]
    out = []
    for c in claims:
        said = [in_short(f) for f in c.findings]
        said += [f"not learned: {escape(e)}" for e in c.learned if not e.ok]
        said += [f"printed in the paper: {escape(c.printed)}"] * bool(c.printed) + [escape(c.note)]
        out.append(f'- {chip(c.verdict)} "{escape(c.sentence)}" ({escape(c.place)})')
        out += [f"  - {text}" for text in said if text]
    return evidence(claims) + "\n".join(out)


def chapter(stem, record):
    "A results file as a chapter"
    c = Chapter(title(stem))
    if record.get("claims"):
        c.heading("Claims, and what was measured")
        c.blocks.append(claims_list(record["claims"]))
    shown = pictures(stem, record)
    if shown:
        c.heading("Pictures")
        c.blocks += [figure(p.file(stem), p.seen) for p in shown]
    if "measured" in record:
        c.text(record["measured"] + ".")
    c.heading("Numbers")
    add_tables(c, record)
    for name, part in record.get("chapters", {}).items():
        c.heading(name)
        if part.get("claims"):
            c.blocks.append(claims_list(part["claims"]))
        add_tables(c, part)
    add_made(c, record)
    return c


def as_page(c):
    "The blocks of a chapter as a page: headings are those of the page, the rest is HTML"
    text = "\n\n".join(c.blocks).replace("<caption></caption>", "")
    text = re.sub(r'<h3 id="[^"]*">(.*?)</h3>', r"## \1", text)
    return re.sub(r"## Numbers\n\n(?=## )", "", text)


def page(stem, record):
    "The page of one results file"
    said = lead(stem, record)
    out = [f"# {title(stem)}", f"{{.lead}}\n{said}" * bool(said)]
    if (RESULTS / f"{stem}.html").exists():
        link = f'<a href="../reports/{stem}.html">The whole report</a>'
        out.append(f"{link}, as the command wrote it: pictures, tables, claims.")
    out.append(as_page(chapter(stem, record)))
    out.append(f"All numbers: {{download}}`{stem}.json </../results/{stem}.json>`.")
    return "\n\n".join(o for o in out if o) + "\n"


def data_of(record):
    "The name of the data that a result is about"
    if isinstance(record.get("data"), dict) and record["data"]:
        return record["data"]["name"]
    about = record.get("about")
    return about["data"] if isinstance(about, dict) and about else ""


def counts(record):
    "How many claims of a record came out how"
    parts = [record, *record.get("chapters", {}).values()]
    claims = [Claim.from_dict(c) for part in parts for c in part.get("claims") or ()]
    groups = by_verdict(claims).items()
    return " ".join(f"{chip(v)}&nbsp;{len(group)}" for v, group in groups)


def overview(records):
    "The list of results, those with claims first: a picture, what it is, what became of the claims"
    rows = []
    for name, r in sorted(records.items(), key=lambda item: not counts(item[1])):
        shown = pictures(name, r)[:1]
        first = [f"![{p.seen}](/images/{p.file(name)}){{width=200px}}" for p in shown]
        where = " ".join(filter(None, (data_of(r), r.get("run", {}).get("device"))))
        said = f"[{title(name)}]({name}.md)<br>{lead(name, r)} {escape(where)}"
        rows.append(["".join(first), said, counts(r)])
    if not any(row[2] for row in rows):
        rows = [row[:2] for row in rows]
    head = ["", "result", "claims"]
    return f":::{{container}} overview\n{grid(head[: len(rows[0])], rows)}\n:::"


def records(benchmarks=None):
    "Name -> what the file holds; benchmarks, or all but those, or everything"
    files = sorted(RESULTS.glob("*.json"))
    wanted = [f for f in files if benchmarks in (None, f.stem.startswith("bench_"))]
    return {f.stem: json.loads(f.read_text(encoding="utf-8")) for f in wanted}
