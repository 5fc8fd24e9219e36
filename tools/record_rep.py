"""Record DenoiseRep on one task over several networks: python tools/record_rep.py cifar10
--data cifar10 --checkpoint resnet20.th,resnet32.th,resnet44.th, --folder runs/rep_cifar10

Runs the protocol for each network of the row, joins them, and writes docs/results/rep_NAME.json and
the figure docs/images/rep_NAME-0.png. An interrupted recording goes on where it was. ROWS says what
each row is; --seeds and --steps change how much of it is done, and the record says so."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from dataclasses import dataclass, field

from recording import DOCS

from denoise_study.core import claims_table, run_info, save_figure, write_json
from denoise_study.denoiserep import Budget
from denoise_study.study import open_networks, run_networks


@dataclass
class Row:
    "A row of the table: which networks on which data, and which arms"

    task: str
    data: str
    networks: str
    arms: str = "base,label_free,closed_form,placebo"
    given: dict = field(default_factory=dict)
    budget: dict = field(default_factory=dict)


# squeeze-and-excitation sees one vector a picture, of up to 960 numbers: 331 pictures don't tell
# what could be learned there, and batches of eight don't teach it
PLACES = r"(?!.*\.fc\d|.*\.scale\.).*"

ROWS = dict(
    cifar10=Row(
        "classification",
        "cifar10",
        "resnet20,resnet32,resnet44,resnet8",
        "base,label_free,closed_form,placebo,control",
        given=dict(flip=True, bs=64, steps=7000, lr=1e-2),
    ),
    fashion_mnist=Row(
        "classification",
        "fashion_mnist",
        "resnet8",
        "base,label_free,closed_form,placebo,label_aug,alternate,control",
        given=dict(flip=True, bs=64, steps=900, lr=1e-2),
        budget=dict(steps=300),
    ),
    fashion_mnist_vit=Row(
        "classification",
        "fashion_mnist",
        "vit_small",
        "base,label_free,closed_form,placebo,label_aug,alternate,control",
        # after 1,200 steps, one training each, shifts by 3 pixels cost 4.5 points of validation
        given=dict(flip=True, pad=1, bs=128, steps=6000),
        budget=dict(steps=1700),  # an epoch in each phase of alternate
    ),
    omniglot=Row(
        "retrieval",
        "omniglot",
        "resnet8",
        "base,label_free,closed_form,placebo,label_aug,control",
        given=dict(size=28, bs=64, k=4, neck=True, margin=0.3, steps=2000),
        budget=dict(steps=300),
    ),
    # BCCD in COCO's folders: --data bccd_coco --seeds 3
    bccd=Row(
        "detection",
        "",
        "fasterrcnn_small",
        given=dict(bs=4, steps=2600),
        budget=dict(steps=300),
    ),
    # CamVid's train and test in ADE20K's folders, as training and validation: --data camvid
    camvid=Row(
        "segmentation",
        "",
        "lraspp_mobilenet_v3_large",
        given=dict(
            size=(180, 240),
            n_classes=11,
            first=0,
            void=11,
            flip=True,
            bs=8,
            steps=1640,
            lr=3e-3,
            layers=PLACES,
        ),
        budget=dict(steps=300),
    ),
)


def record(name, data, root, checkpoint, folder, seeds, steps, jobs):
    row = ROWS[name]
    run = run_info("cpu")
    given = dict(data=data or row.data, **row.given)
    if row.task == "classification":
        given["root"] = root
    tasks = open_networks(row.task, row.networks, checkpoint, **given)
    budget = Budget(**row.budget | (dict(steps=steps) if steps else {}))
    found = run_networks(tasks, row.arms.split(","), seeds, budget, folder, jobs=jobs)
    write_json(DOCS / f"results/rep_{name}.json", dict(run=run, seeds=seeds) | found.to_dict())
    save_figure(DOCS / f"images/rep_{name}-0.png", found.plot(), dpi=160)
    print(found.arms().to_string(index=False))
    print(claims_table(found.claims())[["claim", "measured", "learned", "verdict"]].to_string())


if __name__ == "__main__":
    p = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    p.add_argument("name", choices=ROWS)
    p.add_argument("--data", default="", help="a folder or .npz file; default: the row's data set")
    p.add_argument("--root", default="", help="folder of the named data sets")
    p.add_argument("--checkpoint", default="", help="weights of each network; empty: trained here")
    p.add_argument("--folder", required=True, help="scores and base networks are kept here")
    p.add_argument("--seeds", type=int, default=2, help="repetitions; trained networks: how many")
    p.add_argument("--steps", type=int, default=0, help="training steps of an arm; 0: the default")
    p.add_argument("--jobs", type=int, default=1, help="seeds at a time")
    record(**vars(p.parse_args()))
