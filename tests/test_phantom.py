"""Is anything left on the wrong device? Trainings, samples, measures and whole chapters on a GPU
that is none: it says cuda:0 and refuses to meet tensors and generators of the CPU"""

import pytest
import torch

from denoise_study import load_pretrained
from denoise_study.core import image_dls, Study
from denoise_study.daed import split, train_daed, transfer
from denoise_study.denoiser import denoiser, sample, train_blind
from denoise_study.diffusion import ddgm_from_diffusers, reconstruction_sweep, train_ddgm
from denoise_study.representation import channel_averages, compare_representations, self_guided
from helpers import gen, rand
from helpers_phantom import phantom_gpu, Phantom

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def gpu():
    with phantom_gpu():
        yield


def loaders(**kw):
    return image_dls("digits", bs=16, device="cuda", **kw)


# The device itself


def test_tensors_of_two_devices_do_not_meet():
    here, there = torch.rand(3, 2, device="cuda"), torch.rand(3, 2)
    assert isinstance(here, Phantom) and here.device.type == "cuda" and here.is_cuda
    meetings = [
        lambda: here + there,
        lambda: torch.cat([here, there]),
        lambda: there[here[:, 0] > 0],
        lambda: here.normal_(generator=torch.Generator()),
        lambda: torch.rand(2, generator=torch.Generator("cuda")),
        lambda: torch.where(there > 0, here, 0.0),
    ]
    for meet in meetings:
        with pytest.raises(RuntimeError, match="cuda|CUDA|generator"):
            meet()
    with pytest.raises(TypeError, match="Use Tensor.cpu"):
        here.numpy()


def test_its_numbers_are_those_of_the_cpu():
    x = rand(2, 1, 8, 8)
    net, twin = torch.nn.Conv2d(1, 3, 3), torch.nn.Conv2d(1, 3, 3)
    twin.load_state_dict(net.state_dict())
    twin.cuda()
    net(x).square().sum().backward()
    twin(x.cuda()).square().sum().backward()
    assert twin.weight.device.type == "cuda" and isinstance(twin.weight.grad, Phantom)
    assert torch.allclose(twin.weight.grad.cpu(), net.weight.grad)
    drawn = torch.randn(4, generator=torch.Generator("cuda").manual_seed(3), device="cuda")
    assert drawn.cpu().equal(torch.randn(4, generator=gen(3)))


# What the library does


def test_training(tmp_path):
    kw = dict(steps=2, width=8)
    ddgm = train_ddgm(loaders(), tmp_path / "ddgm", **kw | dict(width=32))
    daed = train_daed(loaders(), tmp_path / "daed", **kw | dict(width=32))
    blind = train_blind(loaders(range=(0.0, 1.0), size=16), tmp_path / "blind", **kw)
    for model in (ddgm, daed, blind):
        assert all(p.is_cuda and p.isfinite().all() for p in model.parameters())


def test_diffusion_models():
    model = load_pretrained("ddgm-digits", "cuda")
    x = model.sample(3, steps=3, progress=False)
    assert x.is_cuda
    clean = ((x + 1) * 127.5).round() / 127.5 - 1
    short = model.respaced(4)
    assert short.bits_per_dim(clean, progress=False)["total"].isfinite().all()
    assert short.reconstruct(clean, 2).is_cuda
    reconstruction_sweep({"a": short}, clean, ts=[1, 3], progress=False)
    transfer({"a": model}, {"own": clean}, level=0.1, progress=False)
    split(load_pretrained("daed-digits", "cuda"), 1)


def test_denoisers_and_representations():
    x = rand(4, 1, 16, 16).cuda()
    D = denoiser(load_pretrained("blind-digits", "cuda"))
    quiet = dict(progress=False)
    phi = channel_averages(D, x, draws=2, **quiet)
    assert len(phi) == 4 and not phi.phi.x.is_cuda
    compare_representations(D, (x, torch.tensor([0, 1, 0, 1])), draws=2, **quiet)
    assert sample(D, 2, sigma=0.3, **quiet).is_cuda
    way = dict(sigmas=[0.5, 0.1], matching=dict(steps=2))
    assert self_guided(D, x[:2], 1, "ancestral", **way)[0].is_cuda
    with pytest.raises(ValueError, match="x: images on cuda:0 are accepted"):
        D(x.cpu())


def test_models_of_diffusers():
    pytest.importorskip("diffusers")
    from helpers_foreign import diffusers_scheduler, diffusers_unet

    model = ddgm_from_diffusers(diffusers_unet(), diffusers_scheduler()).to("cuda")
    assert model.sample(2, steps=2, progress=False).is_cuda
    assert denoiser(model).phi(rand(2, 1, 16, 16).cuda(), 0.3).is_cuda
