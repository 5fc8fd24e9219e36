"""Record table 1 of the DAED paper for one data set: python tools/record_table1.py --data digits
--trainings 3

For each training seed: a diffusion model and jointly trained DAEDs at both noise levels, and a
diffusion model with as many weights as a DAED, all from scratch and for the same number of steps;
samples of each against the test images. All models of a training, then those of the next; --models
takes some of them only.

Writes docs/results/table1_NAME.json, anew after each model. What is in it already is kept and not
trained again, so that a table that takes days can be recorded in parts: each row says at which
commit it was measured, `runs` says how, and a record of other data, sizes or another feature space
is refused. An interrupted run goes on where it was: models, samples and scores are in the folder.

With --inception FILE the samples of all models in the record are scored in that space as well, from
the folder where they were drawn: `quality_inception`, beside what the claims are made from."""

import json
from pathlib import Path

import pandas as pd
from recording import DOCS, arguments

from denoise_study.core import claims_table, feature_space, read_tensors, run_info, Study
from denoise_study.core import Verdict, write_json, write_tensors
from denoise_study.daed import at_their_levels, daed_claims_of, ends_of_quality, FLOOR, joint_arms
from denoise_study.daed import measured_once, quality_table, training_of, weights_digest
from denoise_study.daed import with_training
from denoise_study.diffusion import kind_of
from denoise_study.study import open_data

LOSSES = "simple", "vlb"
LEVELS = 0.1, 0.001
SETTINGS = "data", "n", "bs", "steps", "bf16"  # equal for all rows of a record


def kept(study, name):
    "Where samples of a model are"
    return study.folder / f"samples {name}.safetensors"


def drawn(study, name, model):
    "Samples of a model, drawn once"
    path = kept(study, name)
    about = dict(n=study.n, seed=study.seed, weights=weights_digest(model))
    if path.exists():
        tensors, known_as = read_tensors(path)
        if known_as == about:
            return tensors["x"]
    x = model.sample(study.n, seed=study.seed, progress=False)
    write_tensors(path, dict(x=x), about)
    return x


def scores(study, name, model, real):
    "Row of a model's samples, measured once"

    def measure():
        how = dict(seeds=(study.seed,), progress=False)
        with study.stage(f"sampling {name}"):
            how["samples"] = {name: drawn(study, name, model)}
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


def rows_of(study, name, model, commit):
    "What is measured of one model: its samples, and its denoiser if it has one"
    real = study.images("test", 10_000)
    quality = scores(study, name, model, real)
    if name == "DDGM":
        quality = pd.concat([quality, ends(study, model)], ignore_index=True)
    quality = with_training(quality, training_of({name: model}))
    about = dict(training=study.seed, commit=commit)
    denoiser = pd.DataFrame()
    if kind_of(model) == "DAED":
        denoiser = levels(study, name, model).assign(**about)
    return quality.assign(**about), denoiser


def in_space(studies, quality, space, commit):
    """Scores of the samples of all models of a record in another space; the real images are looked
    at once"""
    done = {(r["model"], r["training"]) for r in quality if r["kind"] != "images"}
    models, samples = {}, {}
    for study in studies:
        for name, train in joint_arms(study, LOSSES, LEVELS).items():
            which = name, study.seed
            if which not in done:
                continue
            if not kept(study, name).exists():  # nor would the model be: it would be trained again
                raise SystemExit(
                    f"--inception: {kept(study, name)} is not there; give its --folder"
                )
            models[which] = train()
            samples[which] = drawn(study, name, models[which])
    first = studies[0]
    models[FLOOR, first.seed] = first.images("train", first.n)
    real = first.images("test", 10_000)
    table = quality_table(models, real, space, first.n, progress=False, samples=samples)
    of_model, of_training = zip(*table.model)
    return table.assign(model=of_model, training=of_training, commit=commit)


def training_means(quality):
    "Steps of each model, and its validation loss, averaged over its trainings"
    trained = quality[quality.kind != "images"].groupby("model")
    means = trained.agg(dict(steps="first", valid_loss="mean"))
    return means.astype(dict(steps=int)).to_dict("index")


def level_means(by_training, earlier, quality):
    """Each denoiser at its level, averaged over its trainings; `earlier` ones are means already, of
    trainings whose own rows may not be there"""
    if by_training.empty:
        return earlier
    whole = quality.groupby("model").training.nunique()
    there = by_training.groupby("model").training.nunique()
    complete = [name for name in there.index if there[name] == whole[name]]
    by_training = by_training[by_training.model.isin(complete)]
    keys = ["kind", "model", "set", "how"]
    rows = by_training.groupby(keys, sort=False, dropna=False)
    means = rows.mean(numeric_only=True).drop(columns="training").reset_index()
    kept = [r for r in earlier if r["model"] not in set(means.model)]
    return [*kept, *means.to_dict("records")]


def known(path, how, space):
    "The record as far as it goes; one of other settings is refused"
    if not path.exists():
        return {}
    record = json.loads(path.read_text(encoding="utf-8"))
    same = json.loads(json.dumps({k: how[k] for k in SETTINGS}))
    other = {k: record[k] for k in SETTINGS if record[k] != same[k]}
    spaces = {row["feature_space"] for row in record["quality"]}
    if spaces != {space}:
        other["feature space"] = ", ".join(sorted(spaces))
    if other:
        raise SystemExit(f"{path} has {other}: ask for the same, or remove it to begin anew")
    for row in record["quality"]:
        row.setdefault("commit", record["run"]["commit"])
    return record


def record(data, root, folder, trainings, models, n, bs, steps, bf16, seed, inception=""):
    dls, source = open_data(data, root, 0, "small", "auto")
    for loader in dls.loaders:
        loader.bs = bs or loader.bs
    settings = dict(data=dls.info.to_dict(), n=n, bs=dls.bs, steps=steps, bf16=bf16)
    space = feature_space(dls)
    second = feature_space(dls, inception) if inception else None  # refused before the work
    path = DOCS / f"results/table1_{data}.json"
    before = known(path, settings, space.name)
    quality = before.get("quality", [])
    denoisers = before.get("levels_by_training", [])
    run = run_info(dls.device)  # now: what is written below would make the commit look changed

    studies = []
    for s in range(seed, seed + trainings):
        about = dict(n=n, space=space, bf16=bf16, seed=s, source=source)
        studies.append(Study(dls, Path(folder) / str(s), steps=steps or None, **about))
    runs = [*before.get("runs", filter(None, [before.get("run")])), run]
    how = dict(run=run, runs=runs, **settings)
    known_names = [*joint_arms(studies[0], LOSSES, LEVELS)]
    unknown = set(models or ()) - set(known_names)
    if unknown:
        raise SystemExit(f"--models: {unknown} is none of {known_names}")
    for study in studies:
        arms = joint_arms(study, LOSSES, LEVELS)
        for name in models or arms:
            if any((r["model"], r["training"]) == (name, study.seed) for r in quality):
                continue
            rows, denoiser = rows_of(study, name, arms[name](), run["commit"])
            quality += rows.to_dict("records")
            denoisers += denoiser.to_dict("records")
            write(path, how, quality, denoisers, before)
    if second:
        table = in_space(studies, quality, second, run["commit"])
        write(path, how, quality, denoisers, dict(before, quality_inception=table))


def in_order(names):
    "Place of each model among the models, as they were first recorded"
    return names.map({name: i for i, name in enumerate(names.unique())})


def write(path, how, quality, denoisers, before):
    "The record as far as it goes, models together"
    quality = pd.DataFrame(quality).sort_values("training", kind="stable")
    quality = quality.sort_values("model", key=in_order, kind="stable", ignore_index=True)
    results = dict(
        trainings=quality.training.nunique(),
        quality=quality,
        training=training_means(quality),
    )
    means = level_means(pd.DataFrame(denoisers), before.get("joint_levels", []), quality)
    if means:  # some model has a denoiser
        results |= dict(levels_by_training=denoisers, joint_levels=means)
    if "quality_inception" in before:
        results |= dict(quality_inception=before["quality_inception"])
    claims = daed_claims_of(results)
    write_json(path, dict(how, **results, claims=claims))
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
    p.add_argument("--models", nargs="*", help='names, such as "DDGM, vlb"; default: all')
    p.add_argument("--n", type=int, default=500, help="samples of each model")
    p.add_argument("--bs", type=int, default=0, help="images a step; 0: those of the small size")
    p.add_argument("--inception", default="", help="file with Inception weights (768 channels)")
    record(**vars(p.parse_args()))
