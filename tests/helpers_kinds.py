"""Kinds of models, tiny and with random weights, and what can be asked of them: the rows and the
columns of the table in docs/pages/kinds.md, which test_kinds.py goes through cell by cell"""

import numpy as np
import torch
from helpers import IMPROVED, openai_state, rand
from helpers_foreign import diffusers_scheduler, diffusers_unet
from torch import nn

from denoise_study import core, daed, denoiser, diffusion, representation
from denoise_study.daed import DAED
from denoise_study.denoiser import BlindTransformer, BlindUNet
from denoise_study.diffusion import DDGM, ddgm_from_diffusers, Schedule, UNet
from denoise_study.study import give_model

SHAPE = 1, 16, 16
SIGMAS = [1.0, 0.3, 0.1]


class Edm(nn.Module):
    "D(x, sigma) of Karras et al. 2022, for images in [-1,1]"

    def __init__(self, data=0.5):
        super().__init__()
        self.inside = nn.Conv2d(2, 8, 3, padding=1)
        self.out = nn.Conv2d(8, 1, 3, padding=1)
        self.data = data

    def forward(self, x, sigma):
        s = sigma.view(-1, 1, 1, 1)
        total = s**2 + self.data**2
        level = (s.log() / 4).expand_as(x)
        found = self.out(self.inside(torch.cat([x / total.sqrt(), level], 1)).relu())
        return x * self.data**2 / total + found * s * self.data / total.sqrt()


class BiasFree(nn.Module):
    "A blind CNN without any bias, which returns the noise"

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(8, 1, 3, padding=1, bias=False),
        )

    def forward(self, x):
        return self.layers(x)


def unet(**kw):
    return UNet(**dict(channels=1, width=32, mult=(1, 2), n_blocks=1, attn=()) | kw)


def of_openai(learned=True, **kw):
    out = 2 if learned else 1
    told = dict(side=16, schedule="cosine", T=20, heads=4, time_scale=50.0)
    return DDGM.from_openai(openai_state(**IMPROVED | kw, channels=1, out=out), **told)


def of_diffusers(pred, kind):
    return ddgm_from_diffusers(diffusers_unet(), diffusers_scheduler(kind, pred))


def of_torchvision():
    from torchvision.models import resnet18

    return denoiser.denoiser(resnet18(), (3, 32, 32), predicts="clean", taps=dict(mid="layer2"))


def of_timm():
    import timm

    net = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2)
    net.reset_parameters = net.init_weights  # how the untrained network is made
    place = dict(mid=("blocks.1", "NTC"))
    return denoiser.denoiser(net, (3, 32, 32), predicts="clean", taps=place)


def foreign(net, **how):
    return denoiser.denoiser(net, SHAPE, **how)


SCHEDULES = "DDPM", "DDIM", "DDPM cosine"
KINDS = {  # row of the table -> name of a variant -> function that makes one
    "`DDGM` of ours": {"": lambda: DDGM(unet(), Schedule.cosine(20), SHAPE)},
    "`Blind` of ours": {
        "": lambda: denoiser.Blind(BlindUNet(1, (4, 8, 8, 8), (2, 2, 2)), SHAPE),
    },
    "transformer": {
        "": lambda: denoiser.Blind(BlindTransformer(SHAPE, width=8, blocks=3, heads=2), SHAPE),
    },
    "diffusers, predicts noise": {s: lambda s=s: of_diffusers("epsilon", s) for s in SCHEDULES},
    "diffusers, predicts v": {s: lambda s=s: of_diffusers("v_prediction", s) for s in SCHEDULES},
    "diffusers, predicts $x_0$": {s: lambda s=s: of_diffusers("sample", s) for s in SCHEDULES},
    "OpenAI, improved-diffusion": {"": of_openai},
    "OpenAI, guided-diffusion": {"": lambda: of_openai(updown=True)},
    "$D(x, \\sigma)$ of Karras et al.": {
        "": lambda: foreign(
            Edm(), predicts="clean", range=(-1.0, 1.0), blind=False, taps=dict(mid="inside")
        ),
    },
    "bias-free blind CNN": {
        "": lambda: foreign(BiasFree(), predicts="residual", taps=dict(mid="layers.3")),
    },
    "any module": {
        "": lambda: foreign(
            nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1)),
            predicts="clean",
            taps=dict(mid="1"),
        ),
    },
    "torchvision": {"": of_torchvision},
    "timm": {"": of_timm},
}


def images(D, n=12):
    "Smooth images of the size of a denoiser, dark and light ones in turn, in [0,1]"
    x = torch.nn.functional.interpolate(rand(n, D.shape[0], 4, 4), D.shape[1:], mode="bilinear")
    y = torch.arange(n) % 2
    return x.clamp(0, 1) * 0.4 + 0.6 * y.view(-1, 1, 1, 1), y


def span_of(model):
    "The range of the images of a model"
    return model.range if isinstance(model, DDGM) else (0.0, 1.0)


def in_range(model, n=12):
    "Images in the range of a model"
    low, high = span_of(model)
    return low + (high - low) * images(denoiser.denoiser(model), n)[0]


def sample(model, n=3):
    if isinstance(model, DDGM):
        return model.sample(n, progress=False)
    D = denoiser.denoiser(model)
    return denoiser.sample(D, n, "descend", sigmas=SIGMAS, progress=False)


def switch(model):
    x = in_range(model, 4)
    sets = dict(same=x, turned=daed.rotated(x))
    errors = diffusion.reconstruction_sweep(model, sets, [2, 10], progress=False)
    point = daed.transition_point(errors, "same", "turned", n_boot=10)
    return [float(point.found), *errors.mae]


def split(model):
    parts = DAED.from_ddgm(model, 3, unet())
    drawn = daed.same_noise(model, dict(parts=parts), 2, progress=False)
    assert drawn["parts"].shape == drawn["DDGM"].shape == (2, *model.shape)
    return drawn["parts"]


def transfer(model):
    hows = "ancestral", "mean", "noisy"
    sets = dict(other=in_range(model, 4))
    errors = diffusion.reconstruction_sweep(model, sets, [3], hows, progress=False)
    table = daed.transfer_table(errors)
    assert set(table.how) == set(hows)
    return table.mae.to_numpy()


def probe(model):
    D = denoiser.denoiser(model)
    table = representation.compare_representations(
        D, images(D), sigma=0.3, low=0.2, n_clusters=2, draws=1, progress=False
    )
    return table["trained", "value"].dropna().to_numpy(float)


def guide(model):
    D = denoiser.denoiser(model)
    how = dict(sigmas=SIGMAS, n_noise=2, matching=dict(method="gd", steps=2), progress=False)
    drawn, report = representation.self_guided(D, images(D)[0][:1], 2, **how)
    assert drawn.shape == (2, *D.shape) and len(report)
    return drawn


def evaluate(model):
    drawn = sample(model, 8)
    space = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    span = span_of(model)
    sets = dict(drawn=drawn.clamp(*span))
    (row,) = core.scored_sets(space, in_range(model), sets, span)
    return [row[k]["value"] for k in ("frechet", "precision", "recall", "diversity")]


def study(model, folder):
    "The first part of each chapter about it"
    x, y = images(denoiser.denoiser(model), 60)
    pixels = (255 * x).byte().permute(0, 2, 3, 1).numpy()
    form = dict(data=(pixels, y.numpy()), device="cpu")
    space = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    work = core.Study(
        core.image_dls(**form, range=span_of(model)),
        folder,
        n=8,
        n_eval=6,
        source=form,
        space=space,
    )
    found = []
    without = give_model(work, model)
    for name in ("ddgm", "blind"):
        if name in without:
            continue
        c = core.Chapter(name)
        if name == "ddgm":
            diffusion.bits_part(work, diffusion.study_ddgm(work), c)
            found += [v["value"] for v in c.results["bits_per_dim"].values()]
        else:
            models = representation.blind_models(work, judge=False)
            found += list(representation.denoising_part(work, c, models).psnr)
    return np.array(found)


ASK = {  # column of the table -> function of a model
    "sample": sample,
    "switch": switch,
    "split": split,
    "transfer": transfer,
    "probe": probe,
    "self-guide": guide,
    "evaluate": evaluate,
    "study": study,
}
