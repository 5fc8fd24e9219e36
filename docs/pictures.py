"""The pictures of results: drawn from the numbers of a record where these suffice, else recorded in
docs/images; each stands beside what the paper shows at that place.

`pictures(stem, record)` lists those of a results file."""

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from fastcore.basics import AttrDict
from matplotlib.ticker import LogLocator, NullFormatter

from denoise_study.core import CYCLE, Interval, panel, panels, svg, t_interval, use_style
from denoise_study.daed import plot_splits
from denoise_study.denoiser import plot_psnr
from denoise_study.denoiserep import plot_arms
from denoise_study.diffusion import plot_sweep, sweep_axes, sweep_curves
from denoise_study.representation import plot_active, plot_noise_level, plot_ratio
from denoise_study.representation import plot_stability

IMAGES = Path(__file__).resolve().parent / "images"
DAED_CHAPTER = "Where generating ends and denoising begins"  # its title in a study's results


def part(record, chapter=DAED_CHAPTER):
    "A chapter of a study, with the data that it is about; any other record as it is"
    if chapter not in record.get("chapters", ()):
        return record
    return dict(data=record["data"]) | record["chapters"][chapter]


@dataclass
class Picture:
    "A picture of a record, and what its paper shows there"

    name: str  # how its file ends: a number, if it was recorded
    seen: str  # what is seen in it
    title: str = ""  # what is asked, on the page of the paper
    places: tuple = ()  # where the paper says so, in the words of the claims
    paper: str = ""  # what the paper's own figure shows
    draw: object = None  # record -> what a figure function returns; None: as it was recorded
    needs: str = ""  # what of the record it is drawn from, where that is not always there
    each: bool = False  # on the paper's page of every record that has it, not only of the first

    def file(self, stem):
        "Its name in the folder of images"
        lines = f"{stem}-{self.name}.svg"
        return lines if self.draw or (IMAGES / lines).exists() else f"{stem}-{self.name}.png"


def of_kind(rows, **wanted):
    "The rows of a table with these values, as a DataFrame"
    table = pd.DataFrame(rows)
    for k, v in wanted.items():
        table = table[table[k] == v]
    return table.reset_index(drop=True)


def own_errors(record):
    errors = part(record)["errors"]
    return plot_sweep(of_kind(errors, set=errors[0]["set"]))


def errors_of_both(record):
    table = of_kind(part(record)["errors"], how="ancestral")
    ax = panel(None, (6.2, 3.4))
    sweep_curves(ax, table, ["set"], "mae")
    sweep_axes(ax, table, "MAE, ancestral")
    return ax


WAYS = {
    "linear": "a linear filter",
    "ancestral": "samples of the\ndiffusion model",
    "mean": "its mean, one call",
    "DAED": "the DAED's denoiser,\none call",
}


def ways(record):
    "Error of each way to bring images back, those of the model and others"
    rows = pd.DataFrame(part(record)["transfer"])
    own = rows.kind == "DAED"
    rows["way"] = rows.how.mask(own, "DAED").map(WAYS)
    ax = panel(None, (4.8, 3))
    for i, name in enumerate(rows.set.unique()):
        table = rows[rows.set == name].set_index("way").loc[list(WAYS.values())]
        error = [table.mae - table.mae_low, table.mae_high - table.mae]
        places = [y + 0.24 * (i - 0.5) for y in range(len(table))]
        ax.errorbar(table.mae, places, xerr=error, fmt="o", c=CYCLE[i], ms=5, lw=2, label=name)
    ax.set(xlabel="MAE after noise of variance .1", ylim=(len(WAYS) - 0.5, -0.5))
    ax.set_xlim(left=0)
    ax.set_yticks(range(len(WAYS)), labels=WAYS.values())
    ax.legend(frameon=False, loc="lower left")
    return ax


def ratio(record):
    return plot_ratio(pd.DataFrame(record["distances"]), AttrDict(record["ratio"]))


def dots(values, label, mark=None, log=False):
    "A row for each name: its number, or its interval"
    ax = panel(None, (6.8, 0.9 + 0.34 * len(values)))
    for i, v in enumerate(values.values()):
        if isinstance(v, Interval):
            ax.plot([v.low, v.high], [i, i], c=CYCLE[0], lw=2)
        ax.plot(float(getattr(v, "value", v)), i, "o", c=CYCLE[0])
    if mark is not None:
        ax.axvline(mark, c=".5", lw=1, ls=":")
    ax.set(xlabel=label, xscale="log" if log else "linear", ylim=(len(values) - 0.5, -0.5))
    if log:  # 200, 500, 1000: as one says them, and few enough to be read
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        ax.set_xlim(left=min(0, ax.get_xlim()[0]))
    ax.set_yticks(range(len(values)), labels=list(values))
    return ax


def counted(rows, name, key):
    return {row[name]: row[key] for row in rows if row.get(key) is not None}


def quality(rows):
    return {r["name"]: Interval.from_dict(r["frechet"], n=r["n_fake"], unit="images") for r in rows}


SCORES = dict(frechet="Fréchet distance", precision="precision", recall="recall")


def against_ddgm(rows, measure):
    "Score of each model minus that of the DDGM with the same loss and seed, training by training"
    table = of_kind([r for r in rows if r["kind"] != "images"])
    by_training = table.pivot_table(index="training", columns=["loss", "model"], values=measure)
    found = {}
    arms = table.sort_values(["loss", "kind"], ascending=[True, False], kind="stable")
    for loss, model in arms[["loss", "model"]].drop_duplicates().itertuples(index=False):
        first = of_kind(table, loss=loss, kind="DDGM").model[0]
        if model != first:
            gaps = by_training[loss, model] - by_training[loss, first]
            found[model] = gaps.dropna().to_numpy()
    return found


def gaps_panel(ax, gaps, label):
    "A row for each model: a dot for each training, and the interval of their mean"
    for i, values in enumerate(gaps.values()):
        ax.plot(values, [i] * len(values), "o", c=CYCLE[0], alpha=0.35, ms=4)
        mean = t_interval(values, unit="trainings")
        ax.plot([mean.low, mean.high], [i, i], c=CYCLE[1], lw=2)
        ax.plot(mean.value, i, "o", c=CYCLE[1])
    ax.axvline(0, c=".5", lw=1, ls=":")
    ax.set(xlabel=label, ylim=(len(gaps) - 0.5, -0.5))
    ax.locator_params(axis="x", nbins=4)  # three panels stand side by side
    ax.set_yticks(range(len(gaps)), labels=list(gaps))


def joint_scores(record, table="quality"):
    axs = panels(None, 3, (8.6, 2.8), sharey=True)
    for ax, (measure, name) in zip(axs, SCORES.items()):
        gaps_panel(ax, against_ddgm(record[table], measure), name)
    return axs


def joint_roughness(record):
    ax = panel(None, (6.8, 2.6))
    gaps_panel(ax, against_ddgm(record["quality"], "roughness"), "roughness minus the DDGM's")
    return ax


def budget(record):
    "The denoiser's error against that of the mean, in per cent, after each budget"
    table = pd.DataFrame(record["budget"])
    ax = panel(None, (6.2, 3.2))
    for k, color in zip([k[:-2] for k in table if k.endswith("_n")], CYCLE):
        value, low, high = [100 * table[k + end] for end in ("", "_low", "_high")]
        error = [value - low, high - value]
        ax.errorbar(table.steps, value, error, fmt="o-", c=color, ms=4, capsize=3, label=k)
    ax.axhspan(-5, 5, color=".6", alpha=0.25, lw=0)
    ax.axhline(0, c=".4", lw=1)
    ax.set(xscale="log", xlabel="training steps", ylabel="MAE against the DDGM's mean, %")
    ax.set_xticks(table.steps, labels=map(str, table.steps))
    ax.minorticks_off()
    ax.legend(frameon=False)
    return ax


DAED = [
    Picture(
        "0",
        "Log-SNR of training images along a linear (above) and a cosine schedule, and its change "
        "from one step to the next.",
        "How much signal is left?",
        ("DAED Fig. 2",),
        "Figure 2 of the paper draws the same for FashionMNIST and CIFAR-10: curves that fall most "
        "steeply at the very beginning.",
    ),
    Picture(
        "sweep",
        "Error (left) and similarity (right) of images that were noised to a step and brought "
        "back, with 95% bands: by ancestral sampling, by one call, by a linear filter.",
        "How far does an image come back?",
        ("DAED Fig. 3",),
        "Figure 3 shows the error rising and the similarity falling without a break over the first "
        "fifth of the steps; at a tenth the error is about .1.",
        own_errors,
        "errors",
    ),
    Picture(
        "sets",
        "Error of images of both sets, noised to a step and brought back by the same model, with "
        "95% bands.",
        "Where does it begin to draw on what it has learned?",
        ("DAED Fig. 4",),
        "Figure 4 shows a model of CIFAR-10 on CIFAR-10 and on faces: one curve up to about a "
        "tenth of the steps, two from there on.",
        errors_of_both,
        "errors",
    ),
    Picture(
        "splits",
        "Quality of samples against the log-SNR at which the denoiser takes over; grey: the "
        "undivided model.",
        "What does the split cost?",
        ("DAED Fig. 5",),
        "Figure 5 shows Fréchet distances for three data sets: level up to about a tenth of the "
        "steps, then worse.",
        lambda r: plot_splits(pd.DataFrame(part(r)["splits"])),
        "splits",
    ),
    Picture(
        "3",
        "Samples from the same noise: the undivided model, and two splits.",
        "What is lost?",
        ("not of Table 1: two-step models",),
        "Figure 6 shows such rows: the more noise is left to the denoiser, the fewer details.",
    ),
    Picture(
        "transfer",
        "Error of images of both sets after noise of variance .1, by each way to bring them back, "
        "with 95% intervals over images.",
        "Does the denoiser work on other images?",
        ("DAED Table 2", "a control"),
        "Table 2 and figure 7 show it on CIFAR-100 and on faces, with errors a quarter to a third "
        "below those of the diffusion model's samples.",
        ways,
        "transfer",
    ),
    Picture(
        "4",
        "Images of the other set: clean, noisy, brought back by the diffusion model (mean, "
        "sample) and by the DAED's denoiser.",
        "Does the denoiser work on other images?",
        ("DAED Table 2", "a control"),
        "Table 2 and figure 7 show it on CIFAR-100 and on faces, with errors a quarter to a third "
        "below those of the diffusion model's samples.",
    ),
]
JOINT = [
    Picture(
        "quality",
        "Scores of samples minus those of the diffusion model with the same loss: each training "
        "beside that of the same seed (pale), their mean and its 95% interval over trainings.",
        "And if the two are trained together?",
        ("DAED Table 1",),
        "Table 1 scores jointly trained pairs on three data sets: those whose denoiser is left a "
        "tenth of the noise lose diversity; with a thousandth they are close to the whole model.",
        joint_scores,
        each=True,
    ),
    Picture(
        "roughness",
        "Roughness of samples, where that of test images is 1, minus that of the diffusion model "
        "with the same loss: each training beside that of the same seed (pale), their mean and its "
        "95% interval over trainings; left of 0 they are smoother.",
        "Does it smooth?",
        ("DAED sec. 6.2",),
        "The paper says so of DAEDs that leave a tenth of the steps to the denoiser.",
        joint_roughness,
        each=True,
    ),
    Picture(
        "inception",
        "The same samples in the features of Inception: scores minus those of the diffusion model "
        "of the same seed (pale), their mean and its 95% interval over trainings.",
        draw=lambda r: joint_scores(r, "quality_inception"),
        needs="quality_inception",
    ),
]
BUDGET = [
    Picture(
        "budget",
        "Error of the denoiser's call against that of the diffusion model's mean, after "
        "more and more training steps; grey: the margin of 5%.",
        draw=budget,
    )
]
BLIND = [
    Picture(
        "psnr",
        "PSNR of the output against that of the input, for the network, the best linear "
        "denoiser, and the untrained network.",
        "Has it learned to denoise?",
        ("check",),
        "The paper takes it for granted.",
        lambda r: plot_psnr(pd.DataFrame(r["psnr"])),
    ),
    Picture(
        "1",
        "How sparse the channels' averages are at the input (orange) and output (green) of each "
        "block, over images; dashed: untrained.",
        "Where does it become sparse?",
        ("Kadkhodaie fig. 1",),
        "Figure 1 shows such histograms for a network of ImageNet: those of outputs are further "
        "left in the middle block and in the decoder.",
    ),
    Picture(
        "stability",
        "How much the averages turn between noise .5 and other levels, in units of the distance "
        "between images, in each block; right: untrained.",
        "What is stable under noise?",
        ("Kadkhodaie fig. 2",),
        "Figure 2 shows cosines between two noise levels: closest to 1 in the middle block, "
        "and falling apart where the noise ends.",
        lambda r: plot_stability(pd.DataFrame(r["stability"])),
    ),
    Picture(
        "6",
        "The images that excite six selective channels most.",
        "What do channels answer to?",
        ("Kadkhodaie fig. 3",),
        "Figure 3 shows channels of lattices, of birds on branches, of cylinders and of dogs' "
        "faces.",
    ),
    Picture(
        "8",
        "Each point is a channel: five of its properties against its participation ratio; "
        "circles: untrained.",
        "Does selectivity go with other properties?",
        ("Kadkhodaie fig. 13",),
        "Figure 13 shows the same trends in four networks, without a network that has not learned.",
    ),
    Picture(
        "3",
        "Left of each row an image, then its nearest in the representation and in pixels.",
        "What is near an image?",
        ("Kadkhodaie fig. 5",),
        "The paper shows a butterfly among butterflies and a tray of food among collections of "
        "things, and pixels that find neither.",
    ),
    Picture(
        "5",
        "Distance of the centroids of two clusters against their spread, beside pairs of classes "
        "and clusters of a Gaussian; right: the clusters on a plane (t-SNE).",
        "Are there clusters?",
        ("Kadkhodaie fig. 6",),
        "Figure 6 shows all of 100 pairs of clusters above the line of two deviations, and classes "
        "that overlap.",
    ),
    Picture(
        "9",
        "The first eight test images that were drawn, images sampled around each, and as many "
        "without guidance from the same noise. Nothing was chosen.",
        "Can images be made from it?",
        ("Kadkhodaie fig. 7",),
        "Figure 7 shows eight samples around each of many photographs: other images with the same "
        "arrangement.",
        each=True,
    ),
    Picture(
        "ratio",
        "Distance of the densities around two images against the squared distance of their "
        "representations; each point is a pair of images.",
        "Do distances mean something?",
        ("Kadkhodaie fig. 8", "Kadkhodaie eq. 3"),
        "Figure 8 shows a narrow band for random pairs of images.",
        ratio,
        "distances",
    ),
    Picture(
        "15",
        "Four pairs of images, and the difference of the scores that know the one or the other, "
        "from the first image with less and less noise; grey: none.",
        "How do two conditions differ?",
        ("Kadkhodaie fig. 21",),
        "Figure 21 shows this difference for one pair of photographs.",
    ),
    Picture(
        "level",
        "Noise left in an image after it was moved towards a target, over that before.",
        "Does guidance leave the noise alone?",
        ("Kadkhodaie fig. 20",),
        "Figure 20 shows the noise before and after on the diagonal.",
        lambda r: plot_noise_level(pd.DataFrame(r["noise_level"])),
        "noise_level",
    ),
    Picture(
        "active",
        "How many channels of each block are active for an image (participation ratio times "
        "channels), at five noise levels; grey: all that there are; right: untrained.",
        "How many channels are active, and where?",
        ("Kadkhodaie discussion",),
        "The paper names the interaction of depth and noise level as essential to characterise, "
        "and leaves it open.",
        lambda r: plot_active(pd.DataFrame(r["active"])),
        "active",
        each=True,
    ),
    Picture("4", "Images from each of ten clusters."),
    Picture("7", "What two selective and two common channels answer to the test images."),
    Picture("10", "The middle of ten images of a class, and an image sampled around it."),
    Picture("11", "The same for a second class."),
    Picture("12", "A walk from one image to another, and images sampled on the way."),
    Picture("13", "Images sampled where only the channels that vary most are matched."),
]
# images without classes: nothing is shown of clusters, and of one middle only
WITHOUT_CLASSES = {
    "6": "4",
    "7": "5",
    "8": "6",
    "9": "7",
    "10": "8",
    "12": "9",
    "13": "10",
    "15": "12",
}
REP = [
    Picture(
        "arms",
        "Score of each arm against the network that it started from, mean and 95% interval over "
        "what is grey, seeds or networks; shaded: the margin within which a gain is none.",
        "Is it better?",
        ("DenoiseRep slides",),
        "The slides have tables: gains of about .1 to 1.5 points in nearly all rows, without "
        "intervals and without training of the same length as a control.",
        plot_arms,
        each=True,
    )
]


def pretrained(record):
    if "psnr" in record:
        return plot_psnr(pd.DataFrame(record["psnr"]))
    return dots(quality(record["quality"]), "Fréchet distance from test images")


def single(draw, seen):
    return [Picture("drawn", seen, draw=draw)]


def rates(record):
    return {f"{r['model']}, {r['setting']}": r["images_per_second"] for r in record["table"]}


def costs(record):
    rows = record["rows"].items()
    return {k: Interval.of(r, "ratio", ends="", n=record["rounds"], unit="turns") for k, r in rows}


def threads(rows):
    "Each setting, alone and beside busy processes"

    def beside(busy):
        return f"beside {busy} busy" if busy else "alone"

    return {f"{r['setting']}, {beside(r['busy'])}": r["ms_a_step"] for r in rows}


def step_parts(rows):
    "Seconds of each model's step by kind of work"
    about = "model", "seconds"
    kinds = [k for k in rows[0] if k not in about]
    return {f"{k}, {r['model']}": r[k] * r["seconds"] for k in kinds for r in rows}


def held(record):
    rows = record["table"]
    return {r["interval"]: Interval.of(r, "held", n=r["repeats"], unit="repeats") for r in rows}


# the beginning of a file's name -> its pictures; the first that fits
OF = {
    "daed_budget": BUDGET,
    "daed_": DAED,
    "table1_": JOINT,
    "blind_": BLIND,
    "rep_": REP,
    "pretrained_": single(pretrained, "What it can do, beside its yardsticks."),
    "study_": [
        *single(
            lambda r: plot_sweep(pd.DataFrame(r["chapters"]["A diffusion model"]["sweep"])),
            "How far an image can be noised and still comes back.",
        ),
        *[p for p in DAED if p.draw],
    ],
    "coverage": single(
        lambda r: dots(held(r), "share of intervals that held the truth", r["nominal"]),
        "How often the intervals held the truth; dotted: how often they should.",
    ),
    "kills": single(
        lambda r: dots(counted(r["kinds"], "what", "kills"), "kills"),
        "How often each kind of work was killed. Nothing was lost.",
    ),
    "bad_calls": single(
        lambda r: dots(
            counted(r["rows"], "wing", "share_deep"), "share of errors from deep inside"
        ),
        "Calls that failed deep inside instead of being refused, of all calls without sense.",
    ),
    "bench_unet": single(
        lambda r: dots(rates(r), "images a second"), "Images a second in a training step."
    ),
    "bench_step": single(
        lambda r: dots(step_parts(r["table"]), "seconds of a step"),
        "Seconds of a training step, by model and kind of work.",
    ),
    "bench_learner": single(
        lambda r: dots({k: r[k] for k in ("bare, ms", "Learner, ms")}, "milliseconds a step"),
        "A step of a bare loop, and one with all callbacks.",
    ),
    "bench_metrics": single(
        lambda r: dots(counted(r["rows"], "what", "denoise_study"), "seconds", log=True),
        "Seconds of each metric.",
    ),
    "bench_data": single(
        lambda r: dots(r["images_per_second"], "images a second", log=True),
        "Images a second, ready to be trained on.",
    ),
    "bench_compile": single(
        lambda r: dots(counted(r["rows"], "what", "ratio"), "plain over compiled, seconds", 1),
        "How many times as fast the compiled networks are.",
    ),
    "bench_threads": single(
        lambda r: dots(threads(r["rows"]), "milliseconds a step", log=True),
        "Milliseconds of a training step under each setting.",
    ),
    "bench_memory": single(
        lambda r: dots(
            counted(r["rows"], "what", "ratio"), "peak memory with many images over few", 1
        ),
        "Peak memory of each job with many images over that with few (ten times as many, or four "
        "or five where an image costs much), what is kept by nature taken off.",
    ),
    "bench_denoiserep": single(
        lambda r: dots(costs(r), "time, relative to the plain network", 1),
        "Time of a network with denoising layers, fused and not.",
    ),
    "bench_blind": single(
        lambda r: dots(counted(r["rows"], "format", "ratio"), "whole network over its encoder", 1),
        "What is saved by running no more than the encoder.",
    ),
    "bench_probes": single(
        lambda r: dots(counted(r["rows"], "what", "seconds"), "seconds"),
        "Seconds of each step.",
    ),
    "bench_selfguided": single(
        lambda r: dots(r["rows"][0]["ratio"], "time, relative to the bare encoder", 1),
        "An iteration of guidance beside its parts.",
    ),
    "bench_daed": single(
        lambda r: dots(r["training"]["ratio"], "time of a step, relative to a diffusion model", 1),
        "A training step of a DAED beside one of a diffusion model.",
    ),
}


def without_classes(pictures):
    "Those that there are of images without classes, under the numbers that they have there"
    found = []
    for p in pictures:
        if p.name == "10":
            p = replace(p, seen="The middle of ten images, and an image sampled around it.")
        if p.draw or p.name in ("1", "3", *WITHOUT_CLASSES):
            found.append(replace(p, name=WITHOUT_CLASSES.get(p.name, p.name)))
    return found


def pictures(stem, record):
    "Those of a results file that there are"
    known = [pictures for start, pictures in OF.items() if stem.startswith(start)]
    found = known[0] if known else [Picture(str(i), "Recorded with it.") for i in range(20)]
    if found is BLIND and not record["data"]["classes"]:
        found = without_classes(found)
    recorded = [p for p in found if p.draw or (IMAGES / p.file(stem)).exists()]
    return [p for p in recorded if not p.needs or part(record).get(p.needs)]


def draw_pictures(stem, record, folder, wanted=None):
    "Write those that are made from the numbers, or only the one with this file name"
    use_style()
    for p in pictures(stem, record):
        if p.draw and wanted in (None, p.file(stem)):
            (folder / p.file(stem)).write_bytes(svg(p.draw(record)))
