"""Record the chapter on the blind denoiser for one data set: python tools/record_blind.py --data fashion_mnist --root DATA --steps 3600 --bf16

Trains the denoiser, unless a checkpoint of `denoise-train --model blind` is given, and writes docs/results/blind_NAME.json with the claims of the paper
and their controls, and the figures docs/images/blind_NAME-*.png."""
from pathlib import Path

from recording import arguments, keep

from denoise_study.chapter_blind import (blind_claims, blind_dls, channels_part, denoising_part, distance_part, representation_part, selfguided_part,
                                         study_blind)
from denoise_study.commands import open_data
from denoise_study.denoiser import denoiser
from denoise_study.report import Chapter, Study
from denoise_study.training import load_checkpoint, run_info


def record(data, root, folder, checkpoint, n, targets, samples, pairs, steps, bf16, seed):
    dls, source = open_data(data, root, 0, "small", "auto")
    study = Study(dls, Path(folder), steps=steps or None, n_eval=n, bf16=bf16, seed=seed, source=source)
    if checkpoint: study.models["blind"] = denoiser(load_checkpoint(checkpoint, device=dls.device)), blind_dls(study)
    info = study_blind(study)[1].info
    trained = load_checkpoint(checkpoint or study.folder/"blind/blind.safetensors").info
    c = Chapter(f"What a denoiser of {info.name} sees")
    denoising_part(study, c)
    representation_part(study, c, n)
    channels_part(study, c, n)
    selfguided_part(study, c, samples, targets)
    distance_part(study, c, pairs)
    claims = c.results["claims"] = blind_claims(c.results)
    how = dict(run=run_info(dls.device), checkpoint=trained, data=info.to_dict(), seed=seed, n=n, targets=targets, seconds=study.seconds)
    keep(f"blind_{info.name}", c, how)
    print(claims.to_string())


if __name__ == "__main__":
    p = arguments(__doc__, "fashion_mnist", "runs/blind")
    p.add_argument("--checkpoint", default="", help="a trained denoiser; default: train one")
    p.add_argument("--n", type=int, default=1000, help="test images to read")
    p.add_argument("--targets", type=int, default=20, help="test images to sample around")
    p.add_argument("--samples", type=int, default=4, help="samples around each")
    p.add_argument("--pairs", type=int, default=40, help="pairs of test images between which densities are compared")
    record(**vars(p.parse_args()))
