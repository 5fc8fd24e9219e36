"""Record table 1 of the DAED paper for one data set: python tools/record_table1.py --data digits
--trainings 3

For each training seed: a diffusion model and jointly trained DAEDs at both noise levels, each with
both losses, and a diffusion model with as many
weights as a DAED, all from scratch and for the same number of steps; samples of each against the
test images. Writes docs/results/table1_NAME.json.
An interrupted run goes on where it was."""

from pathlib import Path

import pandas as pd
from recording import DOCS, arguments

from denoise_study.core import Chapter, claims_table, feature_space, run_info, Study, write_json
from denoise_study.daed import daed_claims_of, joint_part, study_joint
from denoise_study.study import open_data


def record(data, root, folder, trainings, n, steps, bf16, seed):
    dls, source = open_data(data, root, 0, "small", "auto")
    space, tables, seconds = feature_space(dls), [], {}
    for seed in range(seed, seed + trainings):
        study = Study(
            dls,
            Path(folder) / str(seed),
            steps=steps or None,
            n=n,
            space=space,
            bf16=bf16,
            seed=seed,
            source=source,
        )
        models = study_joint(study, ("simple", "vlb"), (0.1, 0.001))
        tables.append(joint_part(study, Chapter("table 1"), models).assign(training=seed))
        seconds |= {f"{k}, seed {seed}": v for k, v in study.seconds.items()}
    quality = pd.concat(tables, ignore_index=True)
    claims = daed_claims_of(dict(quality=quality))
    how = dict(
        run=run_info(dls.device),
        data=dls.info.to_dict(),
        trainings=trainings,
        n=n,
        steps=steps,
        bf16=bf16,
        seconds=seconds,
    )
    write_json(DOCS / f"results/table1_{data}.json", dict(how, quality=quality, claims=claims))
    measures = quality.groupby("model", sort=False)[["frechet", "precision", "recall", "roughness"]]
    print(measures.agg(["mean", "std"]).to_string(float_format="{:.3g}".format))
    print(claims_table(claims).to_string())


if __name__ == "__main__":
    p = arguments(__doc__, "digits", "runs/table1")
    p.add_argument(
        "--trainings",
        type=int,
        default=3,
        help="how many times everything is trained, with seeds from --seed on",
    )
    p.add_argument("--n", type=int, default=500, help="samples of each model")
    record(**vars(p.parse_args()))
