"""Record how far the verdicts of the DAED chapter depend on what nobody writes down: the training
steps of the denoiser, and the number of images: python tools/record_daed_budget.py
--data fashion_mnist --root DATA --folder runs/daed --ddgm ddgm-fashion_mnist

Takes a diffusion model that exists, trains a denoiser for its first steps until the plateau (or
takes the checks of an interrupted training that are in the folder), and compares its one call with
the diffusion model's own mean after 1, 2, 4, 8 and 16 sixteenths of the longest training, on the
model's own images and on the same upside down. Then the switch, by size of the gap and by number of
images. Writes docs/results/daed_budget.json and docs/images/daed_budget-*.png."""

from pathlib import Path

import pandas as pd
import torch
from recording import arguments, keep

from denoise_study.core import Chapter, claims_table, CYCLE, load_checkpoint, panels
from denoise_study.core import paired_interval, run_info, Study
from denoise_study.daed import daed_claims_of, split, study_daeds, switch_part
from denoise_study.daed import two_sets
from denoise_study.diffusion import reconstruction_sweep
from denoise_study.study import open_data, source_model

WAYS = "mean", "linear"


def checks(study, ddgm, level):
    "Name -> the DAED after some of the checks of its training, in order"
    folder = study.folder / f"dae-{split(ddgm.sched, level=level).n}"
    files = sorted(folder.glob("after-*.safetensors"), key=lambda f: int(f.stem.split("-")[1]))
    return {f"DAED, {f.stem.split('-')[1]} steps": load_checkpoint(f) for f in files}


def against_mean(errors, daed, data):
    "MAE of a DAE's call minus that of the DDGM's mean on the same images, as its share"
    own = errors[(errors.set == data) & (errors.how == "mean")]
    mae = own.pivot_table(index="image", columns="model", values="mae")
    ours, mean = [torch.tensor(mae[name].to_numpy()) for name in (daed, "DDGM")]
    gap = paired_interval(ours, mean, method="normal")
    return gap.map(lambda v: v / mae["DDGM"].mean())


def budget_part(study, c, ddgm, level, n):
    "The DAE's error beside that of the DDGM's mean, against its training steps"
    models = {"DDGM": ddgm} | checks(study, ddgm, level)
    sets, train = two_sets(study, n), two_sets(study, 2000, "train")
    errors = reconstruction_sweep(
        models, sets, level=level, hows=WAYS, seeds=(study.seed,), train=train, progress=False
    )
    linear = errors[errors.how == "linear"].groupby("set").mae.mean()
    rows = []
    for name, m in list(models.items())[1:]:
        row = dict(steps=m.info["steps"], valid_loss=m.info["valid_loss"])
        for data in sets:
            gap = against_mean(errors, name, data)
            row |= gap.columns(data)
            mae = errors[(errors.set == data) & (errors.model == name) & (errors.how == "mean")].mae
            row[f"{data}, MAE"] = mae.mean()
            row[f"{data}, MAE of the linear filter"] = linear[data]
        rows.append(row)
    table = pd.DataFrame(rows)
    c.results["budget"] = table
    c.heading("What does the verdict owe to the budget?")
    c.figure(
        plot_budget(table, sets),
        f"Error of the denoiser's call for noise variance {level:g} minus that of the diffusion "
        f"model's mean, relative, on {n} test images of each set, against the denoiser's training "
        "steps; 95% intervals over images, and the margin of 5%. Right: its validation loss.",
    )
    return table


def plot_budget(table, sets):
    "Relative gap on each set, and the validation loss, against the steps"
    left, right = axs = panels(None, 2, (6.8, 3))
    for data, color in zip(sets, CYCLE):
        value, low, high = [100 * table[data + end] for end in ("", "_low", "_high")]
        error = [value - low, high - value]
        left.errorbar(table.steps, value, error, fmt="o-", c=color, ms=4, capsize=3, label=data)
    left.axhspan(-5, 5, color=".6", alpha=0.25, lw=0)
    left.axhline(0, c=".4", lw=1)
    left.set(xscale="log", xlabel="training steps", ylabel="MAE against the DDGM's mean, %")
    left.legend(frameon=False, fontsize=9)
    right.plot(table.steps, table.valid_loss, "o-", c=CYCLE[3], ms=4)
    right.set(xscale="log", xlabel="training steps", ylabel="validation loss")
    for ax in axs:
        ax.set_xticks(table.steps, labels=map(str, table.steps))
        ax.minorticks_off()
    return axs


def record(data, root, folder, steps, bf16, seed, ddgm, level, n, n_eval, untrained):
    dls, source = open_data(data, root, 0, "small", "auto")
    how = dict(steps=steps or None, bf16=bf16, seed=seed, source=source)
    study = Study(dls, Path(folder), n_eval=n_eval or 2, **how)
    model = study.models["ddgm"] = source_model(ddgm, "auto")
    if not untrained:
        study_daeds(study, (level,))
    c = Chapter(f"DAED on {data}: budget and number of images")
    table = budget_part(study, c, model, level, n)
    print(table.to_string())
    if n_eval:
        switch_part(study, c, model)
        claims = daed_claims_of(dict(c.results))
        claims = [claim for claim in claims if claim.place in ("DAED Fig. 3", "DAED Fig. 4")]
        c.claims(claims, "What the paper says of the switch")
        print(claims_table(claims).to_string())
        print(c.results["switch_by_n"].to_string())
    about = dict(run=run_info(dls.device), data=dls.info.to_dict(), seed=seed, n=n, ddgm=ddgm)
    keep("daed_budget", c, about | dict(seconds=study.seconds))


if __name__ == "__main__":
    p = arguments(__doc__, "fashion_mnist", "runs/daed")
    p.add_argument("--ddgm", default="ddgm-fashion_mnist", help="pretrained name, file or folder")
    p.add_argument("--level", type=float, default=0.1, help="noise variance")
    p.add_argument("--n", type=int, default=500, help="test images of each set")
    p.add_argument(
        "--n-eval", type=int, default=400, help="half of them for the switch; 0: leave it out"
    )
    p.add_argument(
        "--untrained", action="store_true", help="train nothing: take the checks that are there"
    )
    record(**vars(p.parse_args()))
