"""Record the DAED chapter for one data set: python tools/record_daed.py --data fashion_mnist
--root DATA --folder runs/fmnist

Trains what is missing in the folder, writes docs/results/daed_NAME.json and the figures
docs/images/daed_NAME-*.png. `denoise-study --chapters daed`
does the same with more splits and a report; this takes fewer of both, for machines without a
GPU.

With --start .1 only the denoiser of that level is trained from random weights; those of the other
levels begin with its weights and have --more steps at most. With --second NAME the questions of
transfer are asked of images of that set, resized to the sides of the first; without it, of the
first upside down."""

from pathlib import Path

from recording import arguments, keep

from denoise_study.core import Chapter, claims_table, feature_space, run_info, Study
from denoise_study.daed import daed_claims_of, signal_part, split_part, study_daeds, switch_part
from denoise_study.daed import training_of, transfer_part
from denoise_study.diffusion import study_ddgm
from denoise_study.study import open_data, source_model


def denoisers(study, levels, start, more):
    "A DAED for each level; all but that of `start` learn on from it, if there is one"
    if not start:
        return study_daeds(study, levels)
    (first,) = study_daeds(study, (start,)).values()
    return study_daeds(study, levels, first, more or None)


def record(
    data, second, root, folder, ddgm, levels, start, more, n, n_eval, steps, bf16, compiled, seed
):
    if more and not start:
        raise SystemExit("--more: steps of the denoisers that --start leaves; give that as well")
    dls, source = open_data(data, root, 0, "small", "auto")
    other = open_data(second, root, dls.info.size[0], "small", "auto")[0] if second else None
    study = Study(
        dls,
        Path(folder),
        steps=steps or None,
        n=n,
        n_eval=n_eval,
        bf16=bf16,
        compiled=compiled,
        seed=seed,
        source=source,
        second=other,
    )
    with study.stage("opening the feature space"):
        study.space = feature_space(dls, seed=seed)
    if ddgm:
        study.models["ddgm"] = source_model(ddgm, "auto")
    model, daeds = study_ddgm(study), denoisers(study, levels, start, more)
    c = Chapter(f"DAED on {data}")
    c.results["training"] = training_of({"DDGM": model} | daeds)
    signal_part(study, c, model)
    switch_part(study, c, model)
    split_part(study, c, model, daeds)
    transfer_part(study, c, model, daeds)
    claims = daed_claims_of(c.results)
    c.claims(claims, "Claims of the paper")
    how = dict(
        run=run_info(dls.device),
        data=dls.info.to_dict(),
        second=other.info.to_dict() if other else None,
        seed=seed,
        n=n,
        n_eval=n_eval,
        ddgm=ddgm,
        seconds=study.seconds,
    )
    keep(f"daed_{data}", c, how)
    print(claims_table(claims).to_string())


if __name__ == "__main__":
    p = arguments(__doc__, "fashion_mnist", "runs/daed")
    p.add_argument("--ddgm", default="", help="pretrained name, file or folder; none: train one")
    p.add_argument("--levels", type=lambda s: tuple(map(float, s.split(","))), default=(0.1,))
    p.add_argument(
        "--start", type=float, default=0.0, help="level whose denoiser others start from"
    )
    p.add_argument("--more", type=int, default=0, help="the most steps of those; 0: as the first")
    p.add_argument("--second", default="", help="data set for the questions of transfer")
    p.add_argument("--n", type=int, default=300, help="samples of each model")
    p.add_argument(
        "--n-eval",
        type=int,
        default=128,
        help="half of these test images are used for the switch, a quarter for transfer",
    )
    p.add_argument("--compiled", action="store_true", help="train through torch.compile")
    record(**vars(p.parse_args()))
