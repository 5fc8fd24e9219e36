"""Record the chapter on the blind denoiser for one data set: python tools/record_blind.py --data
fashion_mnist --root DATA --steps 3200 --bf16

Trains the denoiser, unless a checkpoint of `denoise-train --model blind` is given, and writes
docs/results/blind_NAME.json with the claims of the paper
and their controls, and the figures docs/images/blind_NAME-*.png. Each part's numbers are kept in
the folder: an interrupted run goes on where it was, and
`--parts` does some of them only."""

import json
from pathlib import Path

from recording import arguments, keep

from denoise_study.core import Chapter, claims_table, load_checkpoint, run_info, Study, write_json
from denoise_study.denoiser import denoiser
from denoise_study.representation import blind_claims, blind_dls, blind_models, channels_part
from denoise_study.representation import denoising_part, distance_part, representation_part
from denoise_study.representation import selfguided_part
from denoise_study.study import open_data

PARTS = dict(
    denoising=denoising_part,
    representation=representation_part,
    channels=channels_part,
    selfguided=selfguided_part,
    distance=distance_part,
)


def made(file, study, models, part, sizes):
    "What a part of the chapter wrote, from its file if it was made before"
    if not file.exists():
        c = Chapter("")
        part(study, c, models, *sizes)
        write_json(
            file,
            dict(
                run=run_info(study.dls.device),
                seconds=study.seconds,
                blocks=c.blocks,
                results=c.results,
            ),
        )
    return json.loads(file.read_text())


def record(data, root, folder, checkpoint, parts, n, targets, samples, pairs, steps, bf16, seed):
    dls, source = open_data(data, root, 0, "small", "auto")
    study = Study(
        dls, Path(folder), steps=steps or None, n_eval=n, bf16=bf16, seed=seed, source=source
    )
    if checkpoint:
        trained = denoiser(load_checkpoint(checkpoint, device=dls.device))
        study.models["blind"] = trained, blind_dls(study)
    models = blind_models(study)
    info = models.dls.info
    sizes = dict(
        representation=(n,), channels=(n,), selfguided=(samples, targets), distance=(pairs,)
    )
    done = {
        k: made(study.folder / f"{k}.json", study, models, PARTS[k], sizes.get(k, ()))
        for k in PARTS
        if k in parts or (study.folder / f"{k}.json").exists()
    }
    if set(done) != set(PARTS):
        return print(f"done: {', '.join(done)}")
    c = Chapter(f"What a denoiser of {info.name} sees", sum((done[k]["blocks"] for k in PARTS), []))
    for k in PARTS:
        c.results |= done[k]["results"]
    claims = blind_claims(c.results)
    c.claims(claims, "Claims of the paper")
    trained = load_checkpoint(checkpoint or study.folder / "blind/blind.safetensors").info
    seconds = {k: v for part in done.values() for k, v in part["seconds"].items()}
    keep(
        f"blind_{info.name}",
        c,
        dict(
            run=done["selfguided"]["run"],
            checkpoint=trained,
            data=info.to_dict(),
            seed=seed,
            n=n,
            targets=targets,
            seconds=seconds,
        ),
    )
    print(claims_table(claims).to_string())


if __name__ == "__main__":
    p = arguments(__doc__, "fashion_mnist", "runs/blind")
    p.add_argument("--checkpoint", default="", help="a trained denoiser; default: train one")
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
    record(**vars(p.parse_args()))
