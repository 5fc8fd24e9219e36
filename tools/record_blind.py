"""Record the chapter on the blind denoiser for one data set: python tools/record_blind.py --data
fashion_mnist --root DATA --checkpoint blind-fashion_mnist

Takes denoisers by file or by the name of one that ships with the package, and trains one where
none is given. Writes docs/results/blind_NAME.json with the claims of the paper and their controls,
and the figures docs/images/blind_NAME-*.png, which are of the first denoiser. Of several denoisers
the claims are judged over trainings; the numbers of each are in the file. Each part's numbers are
kept in the folder with the commit that made them: an interrupted run goes on where it was, and
`--parts` does some of them only."""

import json
from pathlib import Path

from recording import arguments, keep

from denoise_study.core import Chapter, claims_table, run_info, Study, write_json
from denoise_study.denoiser import denoiser
from denoise_study.representation import blind_dls, blind_models, channels_part, denoising_part
from denoise_study.representation import (
    depth_part,
    distance_part,
    recorded_claims,
    representation_part,
)
from denoise_study.representation import selfguided_part, study_blind
from denoise_study.study import open_data, open_model

PARTS = dict(
    denoising=denoising_part,
    representation=representation_part,
    channels=channels_part,
    selfguided=selfguided_part,
    distance=distance_part,
    depth=depth_part,
)
READ = "denoising", "representation", "channels", "depth"  # parts that need no guidance


def made(folder, study, part, sizes, run, judge):
    "Write what a part of the chapter finds into a file, unless it is there"
    file = folder / f"{part}.json"
    if file.exists():
        return
    # only guided samples are shown to the classifier, which takes minutes to train
    models = blind_models(study, judge and part == "selfguided")
    c = Chapter("")
    before = set(study.seconds)
    PARTS[part](study, c, models, *sizes.get(part, ()))
    seconds = {k: v for k, v in study.seconds.items() if k not in before}
    write_json(file, dict(run=run, seconds=seconds, blocks=c.blocks, results=c.results))


def studied(checkpoint, folder, source, sizes, parts, run, judge, judges, **settings):
    "The parts of one denoiser, as they lie in its folder, and the description of its training"
    dls, arguments_of_dls = source
    study = Study(dls, folder, source=arguments_of_dls, **settings)
    study.models |= judges
    if checkpoint:
        study.models["blind"] = denoiser(open_model(checkpoint, "", "auto")), blind_dls(study)
    study_blind(study)  # trained, if there is no checkpoint
    file = checkpoint or str(folder / "blind/blind.safetensors")
    info = open_model(file, "", "auto").info
    for part in parts:
        made(folder, study, part, sizes, run, judge)
    if "judge" in study.models:
        judges["judge"] = study.models["judge"]
    files = {part: folder / f"{part}.json" for part in PARTS}
    return {k: json.loads(f.read_text()) for k, f in files.items() if f.exists()}, info


def results_of(done, info):
    "The numbers of all parts of one denoiser, and where they come from"
    results = {}
    for part in done.values():
        results |= part["results"]
    seconds = {k: v for part in done.values() for k, v in part["seconds"].items()}
    commits = {k: part["run"]["commit"] for k, part in done.items()}
    return dict(checkpoint=info, commits=commits, seconds=seconds) | results


def record(
    data,
    root,
    folder,
    checkpoint,
    suffix,
    parts,
    n,
    targets,
    samples,
    pairs,
    judge,
    partial,
    steps,
    bf16,
    seed,
):
    run = run_info()  # now: what is written below would make the commit look changed
    source = open_data(data, root, 0, "small", "auto")
    sizes = dict(
        representation=(n,), channels=(n,), selfguided=(samples, targets), distance=(pairs,)
    )
    settings = dict(steps=steps or None, n_eval=n, bf16=bf16, seed=seed)
    folder, judges, found = Path(folder), {}, []
    for k, name in enumerate(checkpoint or [""]):
        place = folder / str(k) if k else folder
        settings["seed"] = seed + k  # each has an untrained network and images of its own
        done, info = studied(name, place, source, sizes, parts, run, judge, judges, **settings)
        if set(done) != set(PARTS) and not (partial and set(done) >= set(READ)):
            return print(f"{name or 'trained here'}: done so far: {', '.join(done)}")
        found.append((done, info))

    done = found[0][0]
    results, *others = [results_of(*o) for o in found]
    title = f"What a denoiser of {source[0].info.name} sees"
    blocks = sum((done[k]["blocks"] for k in PARTS if k in done), [])
    c = Chapter(title, blocks, results | (dict(trainings=others) if others else {}))
    claims = recorded_claims(c.results)
    c.claims(claims, "Claims of the paper")
    how = dict(run=run, data=source[0].info.to_dict(), seed=seed, n=n, targets=targets)
    keep("_".join(filter(None, ["blind", source[0].info.name, suffix])), c, how)
    print(claims_table(claims)[["claim", "verdict"]].to_string())


if __name__ == "__main__":
    p = arguments(__doc__, "fashion_mnist", "runs/blind")
    p.add_argument(
        "--checkpoint",
        nargs="*",
        default=[],
        help="trained denoisers, by file or name; default: train one",
    )
    p.add_argument(
        "--suffix", default="", help="of the record's name, for a second kind of network"
    )
    p.add_argument(
        "--parts",
        type=lambda s: s.split(","),
        default=list(PARTS),
        help=f"some of {','.join(PARTS)}; default: all",
    )
    p.add_argument("--n", type=int, default=1000, help="test images to read")
    p.add_argument("--targets", type=int, default=20, help="test images to sample around")
    p.add_argument("--samples", type=int, default=4, help="samples around each")
    p.add_argument(
        "--pairs",
        type=int,
        default=40,
        help="pairs of test images between which densities are compared",
    )
    p.add_argument(
        "--no-judge",
        dest="judge",
        action="store_false",
        help="train no classifier: the class of guided samples is not measured",
    )
    p.add_argument(
        "--partial",
        action="store_true",
        help="write what there is, once the network was read; the rest is not measured",
    )
    record(**vars(p.parse_args()))
