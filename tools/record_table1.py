"""Record table 1 of the DAED paper for one data set: python tools/record_table1.py --data digits
--trainings 3

For each training seed: a diffusion model and jointly trained DAEDs at both noise levels, and a
diffusion model with as many weights as a DAED, all from scratch and for the same number of steps;
samples of each against the test images. First all trainings with the simple loss, then the large
diffusion models, then all with the bound (--losses simple leaves these out). Writes
docs/results/table1_NAME.json, anew after each training. An interrupted run goes on where it was:
models and their scores are in the folder."""

from pathlib import Path

import pandas as pd
from recording import DOCS, arguments

from denoise_study.core import claims_table, feature_space, run_info, Study, Verdict, write_json
from denoise_study.daed import at_their_levels, daed_claims_of, ends_of_quality, measured_once
from denoise_study.daed import quality_table, study_joint, training_of, weights_digest
from denoise_study.daed import with_training
from denoise_study.diffusion import kind_of
from denoise_study.study import open_data


def scores(study, name, model, real):
    "Row of a model's samples, measured once"

    def measure():
        how = dict(seeds=(study.seed,), progress=False)
        with study.stage(f"sampling {name}"):
            return quality_table({name: model}, real, study.space, study.n, **how)

    about = dict(n=study.n, space=study.space.name, weights=weights_digest(model))
    return measured_once(study, f"scores {name}", measure, **about)


def ends(study, ddgm):
    "Rows of the floor and the ceiling, measured once"
    about = dict(n=study.n, space=study.space.name, net=ddgm.net.config)
    return measured_once(study, "ends", lambda: ends_of_quality(study, ddgm), **about)


def levels(study, name, daed):
    "Rows of a DAED's denoiser and of the linear filter at its level, measured once"
    about = dict(weights=weights_digest(daed))
    return measured_once(
        study, f"level {name}", lambda: at_their_levels(study, {name: daed}), **about
    )


def table_of(study, losses, wide):
    """The rows of one training seed, with steps and validation loss; those of its denoisers beside
    linear filters"""
    real = study.images("test", 10_000)
    models = study_joint(study, losses, (0.1, 0.001), wide)
    rows = [scores(study, name, m, real) for name, m in models.items()]
    table = pd.concat([*rows, ends(study, models["DDGM"])], ignore_index=True)
    table = with_training(table, training_of(models)).assign(training=study.seed)
    denoisers = [levels(study, name, m) for name, m in models.items() if kind_of(m) == "DAED"]
    return table, pd.concat(denoisers)


def training_means(quality):
    "Steps of each model, and its validation loss, averaged over its trainings"
    trained = quality[quality.kind != "images"].groupby("model")
    means = trained.agg(dict(steps="first", valid_loss="mean"))
    return means.astype(dict(steps=int)).to_dict("index")


def record(data, root, folder, trainings, losses, n, bs, steps, bf16, seed):
    dls, source = open_data(data, root, 0, "small", "auto")
    space = feature_space(dls)
    for loader in dls.loaders:
        loader.bs = bs or loader.bs
    how = dict(run=run_info(dls.device), data=dls.info.to_dict())
    how |= dict(trainings=trainings, n=n, bs=dls.bs, steps=steps, bf16=bf16)
    studies = []
    for s in range(seed, seed + trainings):
        about = dict(n=n, space=space, bf16=bf16, seed=s, source=source)
        studies.append(Study(dls, Path(folder) / str(s), steps=steps or None, **about))

    tables = {}
    first, *others = losses.split(",")
    stages = [((first,), False), ((first,), True)]
    if others:
        stages.append(((first, *others), True))
    for stage in stages:
        for study in studies:
            tables[study.seed] = table_of(study, *stage)
            write(data, how, tables)


def write(data, how, tables):
    "The record as far as it goes"
    quality, denoisers = [pd.concat(t, ignore_index=True) for t in zip(*tables.values())]
    rows = denoisers.groupby(["kind", "model", "set", "how"], sort=False, dropna=False)
    results = dict(
        quality=quality,
        training=training_means(quality),
        joint_levels=rows.mean(numeric_only=True).reset_index(),
    )
    claims = daed_claims_of(results)
    record = dict(how, **results, claims=claims)
    write_json(DOCS / f"results/table1_{data}.json", record)
    measures = quality.groupby("model", sort=False)[["frechet", "precision", "recall", "roughness"]]
    print(measures.agg(["mean", "std"]).to_string(float_format="{:.3g}".format))
    measured = [c for c in claims if c.verdict != Verdict.NOT_MEASURED]
    print(claims_table(measured).to_string(), flush=True)


if __name__ == "__main__":
    p = arguments(__doc__, "digits", "runs/table1")
    p.add_argument(
        "--trainings",
        type=int,
        default=3,
        help="how many times everything is trained, with seeds from --seed on",
    )
    p.add_argument("--losses", default="simple,vlb", help="in this order")
    p.add_argument("--n", type=int, default=500, help="samples of each model")
    p.add_argument("--bs", type=int, default=0, help="images a step; 0: those of the small size")
    record(**vars(p.parse_args()))
