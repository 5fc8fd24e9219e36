"One door for every model, and what it refuses"

import pytest
import torch
from PIL import Image

from denoise_study.core import denoise_learner, image_dls
from denoise_study.daed import DAED
from denoise_study.denoiser import ascend, Blind, denoiser, descend, GaussianDenoiser
from denoise_study.denoiser import MixtureDenoiser, noise_levels, psnr_curve, sample
from denoise_study.diffusion import DDGM, Schedule
from helpers import gen, rand
from helpers_denoiser import blind, gens, Tiny, unet


D, told, x = blind(), GaussianDenoiser(torch.zeros(1, 8, 8), torch.ones(1, 8, 8)), rand(2, 1, 8, 8)
ddgm = denoiser(DDGM(unet(), Schedule.linear(50), (1, 8, 8)))
BAD = {
    "sigma in 0..255 units": (lambda: D(x, 25.0), "sigma: 25 .*divided by 255"),
    "negative sigma": (lambda: D(x, -0.1), "sigma: -0.1"),
    "sigma nan": (lambda: told(x, float("nan")), "sigma: nan"),
    "sigma beyond the chain": (lambda: ddgm(x, 1e4), "sigma: 1e.04 .*made for"),
    "one sigma for two images": (
        lambda: told(x, torch.ones(1)),
        "sigma: a number, or 2, one an image",
    ),
    "not blind, without sigma": (lambda: told(x), "sigma: .*not blind"),
    "not blind, reading without sigma": (lambda: ddgm.phi(x), "sigma: .*not blind"),
    "unknown place": (lambda: D.averages(x, taps=("middle",)), "taps: .*middle.*'mid'"),
    "a string for places": (lambda: D.averages(x, taps="mid"), "taps: .*tuple"),
    "no places": (lambda: ddgm.maps(x, 0.1, ()), "taps"),
    "phi of an oracle": (lambda: told.phi(x, 0.1), "taps: .*mid"),
    "odd sides": (lambda: D(torch.zeros(1, 1, 28, 28)), "multiples of 8"),
    "no model": (lambda: denoiser("net"), "model: .* got net"),
    "foreign network without its kind": (lambda: denoiser(Tiny()), "predicts: None"),
    "foreign place that is not there": (
        lambda: denoiser(Tiny(), predicts="clean", taps=dict(mid="c")),
        r"taps: Tiny has no modules \['c'\]",
    ),
    "scheduler of another kind": (
        lambda: denoiser(Tiny(), scheduler=object()),
        "scheduler: .*alphas_cumprod",
    ),
    "covariance of another size": (
        lambda: GaussianDenoiser(torch.zeros(1, 2, 2), torch.eye(3)),
        "var: shape",
    ),
    "negative variance": (
        lambda: GaussianDenoiser(torch.zeros(1, 2, 2), -torch.ones(1, 2, 2)),
        "var: -1",
    ),
    "blind without empty directions": (
        lambda: GaussianDenoiser(torch.zeros(1, 2, 2), torch.ones(1, 2, 2), blind=True),
        "blind",
    ),
    "weights that do not sum to one": (
        lambda: MixtureDenoiser(x, 0.0, torch.tensor([0.5, 0.6])),
        "weights",
    ),
    "linear denoiser of images in [-1,1]": (
        lambda: GaussianDenoiser.fit(2 * x - 1),
        r"images: values from -.*\[0, 1\]",
    ),
    "psnr of images in [-1,1]": (
        lambda: psnr_curve(D, 2 * x - 1),
        r"images: values from -.*\[0, 1\]",
    ),
    "psnr of nan": (lambda: psnr_curve(D, x * float("nan")), "images: holds NaN"),
    "unknown law": (lambda: Blind(D.net, (1, 8, 8), law="cosine"), "law: one of"),
    "log law from 0": (lambda: Blind(D.net, (1, 8, 8), law="log"), "sigmas: .*lo > 0"),
    "power from 0": (lambda: Blind(D.net, (1, 8, 8), power=1.0), "power: .*sigmas from 0"),
    "power of 3": (lambda: Blind(D.net, (1, 8, 8), (0.1, 1), power=3.0), "power: .*got 3"),
    "power of nan": (lambda: Blind(D.net, (1, 8, 8), power=float("nan")), "power: .*nan"),
    "training noise in 0..255 units": (
        lambda: Blind(D.net, (1, 8, 8), (0.0, 255.0)),
        "sigmas: .*data units",
    ),
    "training on odd sides": (lambda: Blind(D.net, (1, 28, 28)), "shape: .*pad_to=8"),
    "training on colour": (lambda: Blind(D.net, (3, 8, 8)), "net: made for 1 channels"),
    "training on [-1,1]": (
        lambda: denoise_learner(image_dls("digits", device="cpu"), Blind(D.net, (1, 8, 8))),
        r"\(0.0, 1.0\).*\(-1.0, 1.0\)",
    ),
    "step of 0": (lambda: next(ascend(D, x, gen(), h0=0)), "h0: a number above 0"),
    "beta above 1": (lambda: next(ascend(D, x, gen(), beta=1.5)), "beta: a number above 0"),
    "start of nan": (lambda: next(ascend(D, x * float("nan"), gen())), "x: holds NaN"),
    "too few generators": (lambda: next(ascend(D, x, gens([0]))), "generator: 1 for 2 images"),
    "rising levels": (lambda: next(descend(D, x, gen(), [0.1, 0.5])), "sigmas: falling"),
    "a level of 0": (lambda: next(descend(D, x, gen(), [1.0, 0.0])), "sigmas: falling"),
    "unknown rule": (lambda: next(descend(D, x, gen(), [1.0], "exact")), "rule: one of"),
    "unknown sampler": (lambda: sample(D, 1, "langevin"), "method: one of"),
    "no images": (lambda: sample(D, 0), "n: a whole number of at least 1"),
    "sample of unknown size": (lambda: sample(denoiser(D.net), 1), "shape: .*give"),
    "levels upside down": (lambda: noise_levels(0.1, 1.0), "hi, lo, n"),
    "an option for another kind": (lambda: denoiser(D.net, clip=False), "clip: a BlindUNet"),
    "a part of a diffusion model": (
        lambda: denoiser(DDGM(unet(), Schedule.linear(50), (1, 8, 8)), part="chain"),
        "part: a DDGM has no use",
    ),
    "another shape for a pretrained one": (
        lambda: denoiser("blind-digits", shape=(1, 64, 64)),
        "shape: a Blind has no use for it",
    ),
    "images of another size": (
        lambda: denoiser(Tiny(), (1, 8, 8), predicts="clean", multiple=None)(rand(1, 1, 16, 16)),
        r"x: images \(1, 8, 8\) are accepted",
    ),
    "one size that nobody said": (
        lambda: denoiser(Tiny(), predicts="clean", multiple=None),
        "multiple: None",
    ),
    "a network that changes the size": (
        lambda: denoiser(torch.nn.MaxPool2d(2), predicts="clean")(x),
        r"net: MaxPool2d returned \(2, 1, 4, 4\)",
    ),
    "pictures of two sizes": (
        lambda: D([Image.new("L", (8, 8)), Image.new("L", (16, 8))]),
        "x: pictures of one size",
    ),
    "unknown part": (
        lambda: denoiser(
            DAED(unet(), unet(), Schedule.linear(50).merge_first(5), (1, 8, 8)), part="all"
        ),
        "part: one of",
    ),
}


def test_single_images_pictures_and_types_are_taken_as_they_come():
    grey = Image.fromarray((255 * x[0, 0]).byte().numpy())
    pixels = (255 * x[:1]).byte() / 255
    with torch.no_grad():
        want = D(pixels)
        for one in (grey, grey.convert("RGB"), pixels[0]):
            assert D(one).shape == (1, 8, 8)
            assert torch.allclose(D(one), want[0], atol=1e-6)
            assert torch.allclose(D.phi(one), D.phi(pixels)[0], atol=1e-7)
        assert torch.allclose(D([grey, grey])[1], want[0], atol=1e-6)
        for dtype in (torch.float16, torch.bfloat16, torch.float64):
            assert D(x.to(dtype)).dtype == dtype and D.phi(x.to(dtype)).dtype == torch.float32
        assert torch.allclose(D(x.double()).float(), D(x), atol=1e-6)
        assert torch.allclose(told.score(x[0], 0.5), told.score(x, 0.5)[0])


def test_networks_of_another_type_are_given_theirs():
    half = denoiser(Tiny().double(), predicts="residual", taps=dict(mid="a"))
    with torch.no_grad():
        assert half(x).dtype == torch.float32 and half.phi(x).dtype == torch.float32
        assert torch.allclose(half(x).double(), half(x.double()), atol=1e-6)


def test_a_function_is_a_denoiser():
    def smooth(y, sigma):
        return y / (1 + sigma.view(-1, 1, 1, 1))

    S = denoiser(smooth, predicts="clean", blind=False)
    assert S.name.startswith("smooth-0-") and torch.allclose(S(x, 0.5), x / 1.5)


@pytest.mark.parametrize("call, message", BAD.values(), ids=BAD)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
