"""Pages of results, one for each docs/results/*.json, whatever is in it: how it was made, its
claims, its tables, its figures.

A file that is added appears on the site at the next build. Nothing on these pages is typed but the
titles below."""

import json
from pathlib import Path

TITLES = {
    "study_digits": ("The study of digits", "`denoise-study` with its default settings."),
    "daed_fashion_mnist": (
        "DAED on FashionMNIST",
        "The claims of Deja et al. (2022), measured with a small network on a CPU. Its denoisers "
        "had 94 training steps, so the rows and figures of splits and of transfer judge nothing.",
    ),
    "daed_budget": (
        "DAED against its budget",
        "What the denoiser of a DAED owes to its training steps, on FashionMNIST.",
    ),
    "coverage": (
        "Coverage of the intervals",
        "How often each kind of nominal 95% interval held the truth, on made-up data.",
    ),
    "blind_fashion_mnist": (
        "A blind denoiser of FashionMNIST",
        "The claims of Kadkhodaie et al. (2025), each with its control, "
        "measured with a small network on a CPU.",
    ),
    "blind_cifar10": (
        "A blind denoiser of CIFAR-10",
        "The same claims on small photographs, of the denoiser `blind-cifar10` on test images.",
    ),
    "rep_cifar10_resnet20": (
        "DenoiseRep on CIFAR-10",
        "The claims of Xu et al. (2024) on a published ResNet-20, eight "
        "seeds, each arm beside the one that lacks only it.",
    ),
    "rep_fashion_mnist_vit": (
        "DenoiseRep on FashionMNIST",
        "The same claims on small vision transformers trained here, eight "
        "of them, each judged on the 10,000 test images.",
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
    "bench_unet": ("Speed of the U-Net", "A training step beside those of other libraries."),
    "bench_learner": (
        "Cost of the Learner",
        "What callbacks and the sampling loop add to a bare loop.",
    ),
    "bench_metrics": (
        "Speed of the metrics",
        "Beside other implementations, with the difference of their results.",
    ),
    "bench_data": ("Speed of the input pipeline", "Images a second, ready to be trained on."),
}
WORDS = dict(
    mnist="MNIST",
    fashion="Fashion",
    cifar10="CIFAR-10",
    ddgm="DDGM",
    daed="DAED",
    bench="Benchmark of",
    denoiserep="DenoiseRep",
)
LONG = 16  # longer tables are folded
HIDDEN = ("description", "gaps")  # for machines; they are in the file


def title(stem):
    if stem in TITLES:
        return TITLES[stem][0]
    if stem.startswith("pretrained_"):
        return f"Pretrained: {stem.removeprefix('pretrained_')}"
    words = " ".join(WORDS.get(w, w) for w in stem.split("_"))
    words = words.replace("Fashion MNIST", "FashionMNIST")
    return words[0].upper() + words[1:]


def lead(stem):
    return TITLES.get(stem, ("", ""))[1]


def escape(s):
    text = str(s)
    for sign in "\\|*_$[":
        text = text.replace(sign, "\\" + sign)
    return text.replace("<", "&lt;").replace("\n", " ")


def number(v):
    return f"{v:.3g}" if abs(v) < 1e4 else f"{v:,.0f}"


def interval(v):
    return f"{number(v['value'])} [{number(v['low'])}, {number(v['high'])}]"


def is_value(v):
    return isinstance(v, dict) and {"value", "low", "high"} <= set(v)


def is_table(v):
    return isinstance(v, list) and bool(v) and all(isinstance(r, dict) for r in v)


def cell(v):
    if v is None:
        return ""
    if isinstance(v, bool):
        return "yes" if v else "no"
    if isinstance(v, float):
        return number(v)
    if isinstance(v, int):
        return f"{v:,}" if abs(v) >= 1e4 else str(v)
    if is_value(v) and all(isinstance(v[k], (int, float)) for k in ("value", "low", "high")):
        return escape(interval(v))
    if isinstance(v, list):
        return escape(", ".join(map(str, v[:8])) + (" ..." if len(v) > 8 else ""))
    if isinstance(v, dict):
        return ", ".join(f"{escape(k)} {cell(o)}" for k, o in list(v.items())[:6])
    return escape(v)


def is_number(v):
    return isinstance(v, (int, float))


def joined(row):
    "A row whose `x`, `x_low`, `x_high` are one cell"
    # an interval beside both is that of the difference
    whose = next((k for k in ("difference", "value") if k in row), None)
    if whose and {"low", "high"} <= set(row) and is_number(row["low"]):
        one = dict(value=row[whose], low=row["low"], high=row["high"])
        rest = {k: v for k, v in row.items() if k not in ("low", "high")}
        return joined(rest | {whose: one})

    named = [k for k in row if f"{k}_low" in row and f"{k}_high" in row]
    ends = {f"{k}_{end}" for k in named for end in ("low", "high")}
    found = {k: v for k, v in row.items() if k not in ends}
    for k in named:
        values = row[k], row[f"{k}_low"], row[f"{k}_high"]
        if all(map(is_number, values)):
            found[k] = dict(zip(("value", "low", "high"), values))
    return found


def grid(head, rows):
    return "\n".join("| " + " | ".join(r) + " |" for r in [head, ["---"] * len(head), *rows])


def table(rows, fold=True):
    """Markdown of rows; columns that are the same in all of them are said once, empty ones not at
    all; long ones are folded"""
    rows = [joined(r) for r in rows]
    columns = list(dict.fromkeys(k for r in rows for k in r))
    shown = {k: [cell(r.get(k)) for r in rows] for k in columns}
    shown = {k: v for k, v in shown.items() if any(v)}
    same = {k: v[0] for k, v in shown.items() if len(rows) > 1 and len(set(v)) == 1}
    head = [k for k in shown if k not in same] or list(shown)
    md = grid(
        [escape(k.replace("_", " ")) for k in head],
        [[shown[k][i] for k in head] for i in range(len(rows))],
    )
    if same and head != list(shown):
        md += (
            "\n\nIn all rows: "
            + ", ".join(f"{escape(k.replace('_', ' '))} {v}" for k, v in same.items())
            + "."
        )
    return (
        md
        if len(rows) <= LONG or not fold
        else f"<details><summary>{len(rows)} rows</summary>\n\n{md}\n\n</details>"
    )


def parts(record, level=2):
    "Markdown blocks of a record, its tables each under a heading"
    plain, blocks = {}, []
    for k, v in record.items():
        head = f"{'#' * level} {escape(str(k).replace('_', ' '))}"
        if k == "claims" and v:
            blocks += [head, claims_table(v)]
        elif is_table(v):
            blocks += [head, table(v)]
        elif isinstance(v, dict) and v and all(map(is_value, v.values())):
            blocks += [head, table([dict(what=n, **o) for n, o in v.items()])]
        elif is_value(v) or not isinstance(v, dict):
            plain[k] = v
        elif k in HIDDEN:
            continue
        elif any(is_table(o) or isinstance(o, dict) for o in v.values()) and level < 4:
            blocks += [head, *parts(v, level + 1)]
        else:
            blocks += [
                head,
                table([dict(what=n, value=o) for n, o in v.items() if n not in HIDDEN]),
            ]
    return ([table([dict(what=k, value=v) for k, v in plain.items()])] if plain else []) + blocks


def made(record):
    "How a result was made"
    run, data, seconds = (record.get(k) or {} for k in ("run", "data", "seconds"))
    rows = {
        "command": f"`{run.get('command', '')}`",
        "commit": run.get("commit") or "",
        "device": escape(run.get("device", "")),
        "Python": run.get("python", ""),
        "packages": escape(", ".join(f"{k} {v}" for k, v in run.get("versions", {}).items())),
    }
    if data and isinstance(data, dict):
        rows["data"] = escape(
            f"{data['name']}: {data['n_train']:,} training, {data['n_valid']:,} "
            f"validation, {data['n_test']:,} test images of "
            f"{'x'.join(map(str, data['size']))} pixels, split seed "
            f"{data['seed']}"
        )
    rows |= {
        k: cell(record[k])
        for k in ("seed", "n", "n_eval", "steps", "size")
        if isinstance(record.get(k), (int, str))
    }
    if isinstance(seconds, dict) and seconds:
        rows["seconds"] = escape(", ".join(f"{k} {v:.0f}" for k, v in seconds.items()))
    return grid(["", ""], [[k, v] for k, v in rows.items() if v])


def pictures(stem, images):
    found = sorted(
        images.glob(f"{stem}-*.png"),
        key=lambda p: int(p.stem.rpartition("-")[2]) if p.stem.rpartition("-")[2].isdigit() else 0,
    )
    return [
        f"![Figure {i + 1} of the report on {title(stem)}](/images/{p.name})"
        for i, p in enumerate(found)
    ]


def as_claims(records):
    "The claims of a results file as objects; none where the file is older than they are"
    from denoise_study.core import Claim

    if not all("findings" in record for record in records):
        return []
    return [Claim.from_dict(record) for record in records]


def chip(text):
    "A verdict in its colour; as it is where an older file uses another word"
    from denoise_study.core import Verdict

    known = {str(v): v for v in Verdict}
    if text not in known:
        return escape(text)
    return f'<span class="{known[text].css}" title="{known[text].meaning}">{text}</span>'


def earlier(c):
    """A claim of an older file for the reader: what was measured in words, or as a difference, and
    what it stands beside"""
    if "difference" not in c:
        control = {"control": c["control"]} if "control" in c else {}
        return {"claim": c["claim"], "measured": c.get("ours"), **control, "verdict": c["verdict"]}
    numbers = {k: c[k] for k in ("difference", "low", "high")}
    return {
        "claim": c["claim"],
        "arm": c["arm"],
        "against": c["against"],
        **numbers,
        "p (Holm)": c.get("p_holm"),
        "verdict": c["verdict"],
    }


def claims_table(records):
    "Claims, what was measured, and the verdicts in their colours"
    claims = as_claims(records)
    if claims:
        from denoise_study.core import claims_markdown

        return claims_markdown(claims)
    rows = [joined(earlier(c)) for c in records]
    columns = list(dict.fromkeys(k for row in rows for k in row))

    def shown(row, k):
        return chip(row[k]) if k == "verdict" else cell(row.get(k))

    return grid(columns, [[shown(row, k) for k in columns] for row in rows])


def page(stem, record, images):
    "The page of one results file"
    skip = ("run", "data", "seconds", "claims", "seed", "n", "n_eval", "steps", "size", "command")
    out = [f"# {title(stem)}"] + [f"{{.lead}}\n{lead(stem)}"] * bool(lead(stem))
    if "claims" in record:
        out += ["## Claims, and what was measured", claims_table(record["claims"])]
    figures = pictures(stem, images)
    if figures:
        out += ["## Figures", *figures]
    out += parts({k: v for k, v in record.items() if k not in skip})
    out += [
        "## How it was made",
        made(record),
        f"All numbers: {{download}}`{stem}.json </../results/{stem}.json>`.",
    ]
    return "\n\n".join(o for o in out if o) + "\n"


def data_of(record):
    "The name of the data that a result is about"
    if isinstance(record.get("data"), dict) and record["data"]:
        return record["data"]["name"]
    about = record.get("about")
    return about["data"] if isinstance(about, dict) and about else ""


def overview(records, device=False):
    "The list of results; those of benchmarks have their own, with the machine"
    runs = [record.get("run", {}) for record in records.values()]
    columns = {
        "result": [f"[{title(k)}]({k}.md)" for k in records],
        "data": [escape(data_of(record)) for record in records.values()],
        "device": [escape(run.get("device", "")) * device for run in runs],
        "commit": [run.get("commit") or "" for run in runs],
    }
    columns = {k: v for k, v in columns.items() if any(v)}
    return grid(list(columns), list(zip(*columns.values())))


def toctree(names):
    return "```{toctree}\n:hidden:\n\n" + "\n".join(names) + "\n```"


def result_pages(root):
    "Name of each page -> its markdown"
    root = Path(root)
    records = {
        p.stem: json.loads(p.read_text(encoding="utf-8"))
        for p in sorted((root / "docs/results").glob("*.json"))
    }
    speed = {k: r for k, r in records.items() if k.startswith("bench_")}
    rest = {k: r for k, r in records.items() if k not in speed}
    pages = {k: page(k, r, root / "docs/images") for k, r in records.items()}
    pages["index"] = (
        "# Results\n\n{.lead}\nEvery number on these pages comes from a file that a "
        "command wrote, with the commit, the seeds, the device and the time.\n\n"
        "A claim of a paper stands beside what came out here, whether it holds or "
        "not. Intervals are 95%; what they are over, images or trainings, is said "
        "with them. "
        "A Fréchet distance without its feature space and its number of images is "
        "not a number, so both are in each table.\n\n"
        + overview(rest)
        + "\n\n## How good are the samples?\n\n{{summary: quality}}"
        + "\n\n"
        + toctree(rest)
    )
    pages["speed"] = (
        "# Benchmarks\n\n{.lead}\nTime and memory beside other implementations of "
        "the same thing, by the scripts in `tests/benchmarks`.\n\n"
        "Each script has `--help`, and writes the file behind its page. Ratios hold "
        "for the machine that is named.\n\n{{summary: speed}}\n\n## All of them\n\n"
        + overview(speed, device=True)
        + "\n\n"
        + toctree(speed)
    )
    return pages
