"""What came out of each paper, for its page: a table of verdicts, and its claims beside pictures of
what was measured."""

from denoise_study.core import Claim, steps_behind, Verdict
from pictures import part, pictures
from results import chip, data_of, escape, figure, folded, grid, in_short, numbers
from summaries import record, RESULTS

TRANSFORMERS = sorted(f.stem for f in RESULTS.glob("blind_*_transformer.json"))
KINDS = dict(  # the end of a record's name -> what is different about its networks
    _transformer=" (a transformer)",
    _even=" (levels counted evenly)",
)
# of another network on images that have one in front: folded on the page
AGAIN = ["blind_fashion_mnist", "blind_digits", *TRANSFORMERS]
# a paper's page -> the results files that bear on its claims, the first first
RECORDS = dict(
    daed=[
        "study_digits",
        *sorted(f.stem for f in RESULTS.glob("table1_*.json")),
        *sorted({f.stem for f in RESULTS.glob("daed_*.json")} - {"daed_budget"}),
    ],
    representations=[
        "blind_fashion_mnist_even",
        "blind_cifar10",
        "blind_celeba",
        "blind_digits_even",
        *AGAIN,
    ],
    denoiserep=sorted(f.stem for f in RESULTS.glob("rep_*.json")),
)
NAMES = dict(
    fashion_mnist="FashionMNIST",
    cifar10="CIFAR-10",
    celeba="faces (CelebA)",
    omniglot="Omniglot",
    camvid="CamVid",
    bccd_coco="BCCD",
)
OTHERS = "The same of other networks on the same images"
FEW = 3  # findings of a claim that are written out


def about(name):
    "What a record is about, in words"
    data = data_of(record(name))
    said = NAMES.get(data, data)
    if name.startswith("table1_"):
        said += " (trained jointly)"
    said += "".join(words for end, words in KINDS.items() if name.endswith(end))
    if name.startswith("daed_"):
        said += " (a denoiser of {dae_steps} steps)".format_map(numbers(record(name)))
    trainings = record(name).get("trainings", ())  # how many, or those beside the first
    count = trainings if isinstance(trainings, int) else 1 + len(trainings)
    if count > 1:
        said += f", over {count} trainings"
    return said


def claims_of(paper):
    "What a record is about -> its claims"
    return {
        about(k): [Claim.from_dict(c) for c in part(record(k))["claims"]] for k in RECORDS[paper]
    }


def came_out(paper):
    """Each claim of the paper, with its verdict on every data set: one table, and a line of counts;
    further networks on the same images have a table of their own, folded"""
    claims = claims_of(paper)
    first, again = apart(RECORDS[paper])
    table = verdicts_of({about(name): claims[about(name)] for name in first})
    if not again:
        return table
    more = verdicts_of({about(name): claims[about(name)] for name in again})
    return f"{table}\n\n{folded(OTHERS, more)}"


def apart(names):
    "Records that stand in front, and those of other networks on the same images"
    return [k for k in names if k not in AGAIN], [k for k in names if k in AGAIN]


def verdicts_of(claims):
    "A table of verdicts: what a record is about -> its claims"
    found = {}
    for data, some in claims.items():
        for c in some:
            row = found.setdefault((c.place, c.sentence), {})
            row.setdefault(data, []).append(c.verdict)
    rows = [["**hold, of what was measured**", *map(holding, claims.values())]]
    for (place, sentence), verdicts in found.items():
        cells = [" ".join(map(brief, verdicts.get(data, ()))) for data in claims]
        rows.append([f'{escape(sentence)} <span class="place">{escape(place)}</span>', *cells])
    heads = [data.replace("FashionMNIST", "Fashion&shy;MNIST") for data in claims]  # narrow columns
    table = grid(["claim", *heads], rows)
    return f'<div class="verdicts">\n\n{table}\n\n</div>'


def holding(claims):
    "How many hold, of those that were measured"
    measured = [c for c in claims if c.verdict != Verdict.NOT_MEASURED]
    held = [c for c in measured if c.verdict == Verdict.HOLDS]
    return f"**{len(held)} of {len(measured)}**"


def brief(verdict):
    "A verdict in its colour; nothing where nothing was measured"
    return "" if verdict == Verdict.NOT_MEASURED else chip(verdict)


def measured(claim):
    "Its first findings; its page of results has all"
    texts = list(filter(None, map(in_short, claim.findings)))
    more = [f"and {len(texts) - FEW} more"] * (len(texts) > FEW)
    return ". ".join(texts[:FEW] + more)


def lines(paper, places):
    "Claims that stand at these places: where each has which verdict; the numbers are folded"
    found = {}
    for data, claims in claims_of(paper).items():
        for c in claims:
            if c.place in places:
                found.setdefault(c.sentence, []).append((c.verdict, data, measured(c)))
    if not found:
        return ""
    short, whole = [], []
    for sentence, rows in found.items():
        known = [row for row in rows if row[2]] or rows
        said = f'- "{escape(sentence)}"'
        short.append(f"{said}<br>{by_verdict_in_words(known)}")
        whole.append(said)
        for verdict, data, text in known:
            whole.append(f"  - {chip(verdict)} on {data}{': ' * bool(text)}{text}")
    return "\n".join(short) + "\n\n" + folded("Numbers and intervals", "\n".join(whole))


def by_verdict_in_words(rows):
    "Each verdict of a claim, and the data sets on which it was given"
    where = {}
    for verdict, data, _ in rows:
        name = data.partition(", over ")[0]
        where.setdefault(verdict, {})[name] = True  # a claim may have two forms
    return "; ".join(f"{chip(v)} on {', '.join(names)}" for v, names in where.items())


def shown(paper):
    "Pictures that stand beside a claim: for each claim, the picture of every record that has one"
    found = {}
    for name in RECORDS[paper]:
        for p in pictures(name, record(name)):
            if p.title:
                found.setdefault(p.title, []).append((p, name))
    return list(found.values())


def figures(paper):
    "The claims with pictures: what the paper shows, ours, and the verdicts below"
    out = []
    for found in shown(paper):
        first, _ = found[0]
        out += [f"### {first.title}", f"*{', '.join(first.places)}.* {first.paper}"]
        names = [name for _, name in found] if first.each else [found[0][1]]
        once, again = apart(names)
        seen = {name: figure(p.file(name), f"{p.seen} ({about(name)})") for p, name in found}
        out += [seen[name] for name in once]
        if again:
            out.append(folded(OTHERS, "\n\n".join(seen[name] for name in again)))
        out.append(lines(paper, first.places))
    return "\n\n".join(out)


def others(paper):
    "A section of the claims without a picture, if there are any"
    pictured = {place for found in shown(paper) for place in found[0][0].places}
    every = {c.place: 0 for claims in claims_of(paper).values() for c in claims}
    places = [place for place in every if place not in pictured]
    return f"## Claims without a picture\n\n{lines(paper, places)}" if places else ""


def first_finding(name, sentence):
    "The first number behind a claim of a record"
    (claim,) = [c for c in record(name)["claims"] if c["sentence"] == sentence]
    return Claim.from_dict(claim).findings[0]


def measured_of(name, sentence):
    "That number with its interval, for a sentence on a page"
    return escape(first_finding(name, sentence).measured)


def ahead(name):
    "How many decibels the denoisers of a record are ahead of the best linear one at noise .02"
    return escape(first_finding(name, "It beats the best linear denoiser").difference())


def steps_of(name):
    "For how many steps the denoisers of a record were trained, in one run or in two"
    return f"{steps_behind(record(name)['checkpoint']):,}"


def arrived(name):
    "In which share of its calls the matching arrived, in each training"
    first = record(name)
    every = [r["converged"] for r in (first, *first.get("trainings", ()))]
    return ", ".join(f"{share:.0%}" for share in sorted(every))


def beside(one, other):
    "Claims, folded, and what two records say of each: verdict, and the first of its findings"
    rows = []
    pairs = zip(*(map(Claim.from_dict, record(name)["claims"]) for name in (one, other)))
    for claims in pairs:
        cells = [escape(claims[0].sentence)]
        for c in claims:
            texts = list(filter(None, map(in_short, c.findings)))
            cells.append(" ".join([chip(c.verdict), *texts[:1]]))
        rows.append(cells)
    return folded("All claims side by side", grid(["claim", about(one), about(other)], rows))
