"Models of diffusers as DDGMs, judged by its own pipelines and schedulers"

import pytest
import torch

diffusers = pytest.importorskip("diffusers")

from denoise_study.core import describe, load_checkpoint, save_checkpoint, untrained  # noqa: E402
from denoise_study.denoiser import denoiser  # noqa: E402
from denoise_study.diffusion import ancestral, ddgm_from_diffusers  # noqa: E402
from denoise_study.diffusion import ddgm_from_pipeline, ddim, load_diffusers  # noqa: E402
from denoise_study.diffusion import reconstructions  # noqa: E402
from helpers import gen, rand  # noqa: E402
from helpers_foreign import BETAS, diffusers_scheduler, diffusers_unet, saved_pipeline  # noqa: E402


def bytes_of(x):
    return (255 * x.clamp(0, 1)).round()


def drawn(model, walk, steps=None):
    g = gen(1)
    xt = torch.randn(4, *model.shape, generator=g)
    with torch.no_grad():
        for _, xt, _ in walk(model.respaced(steps), xt, g):
            pass
    return bytes_of(xt / 2 + 0.5)


def of_pipeline(pipeline, steps, **kw):
    pipeline.set_progress_bar_config(disable=True)
    x = pipeline(4, gen(1), num_inference_steps=steps, output_type="np", **kw).images
    return bytes_of(torch.as_tensor(x).permute(0, 3, 1, 2))


@pytest.mark.parametrize("pred", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("kind", ["DDPM", "DDPM cosine", "DDIM"])
def test_images_are_those_of_the_pipeline_to_the_byte(pred, kind):
    "But for values on the edge between two bytes: a scheduler computes with float32 tables"
    net, scheduler = diffusers_unet(), diffusers_scheduler(kind, pred)
    model = ddgm_from_diffusers(net, scheduler)
    if kind == "DDIM":
        ours = drawn(model, ddim, "ddim10")
        pipeline = diffusers.DDIMPipeline(net, scheduler)
        theirs = of_pipeline(pipeline, 10, eta=0.0, use_clipped_model_output=True)
    else:
        ours = drawn(model, ancestral)
        theirs = of_pipeline(diffusers.DDPMPipeline(net, scheduler), 20)
    off = (ours - theirs).abs()
    assert off.max() <= 1 and (off > 0).float().mean() < 0.005
    assert ours.std() > 20  # there is something to compare


def test_learned_variance_is_that_of_the_scheduler():
    net = diffusers_unet(out_channels=2)
    scheduler = diffusers.DDPMScheduler(20, **BETAS, variance_type="learned_range")
    model = ddgm_from_diffusers(net, scheduler)
    xt, t = rand(2, 1, 16, 16), 7
    with torch.no_grad():
        out = net(xt, t - 1).sample
        theirs = scheduler.step(out, t - 1, xt, generator=gen(3)).prev_sample
        mean, log_var, _ = model.p_mean_var(xt, t)
        ours = mean + (0.5 * log_var).exp() * torch.randn(xt.shape, generator=gen(3))
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_clipping_is_the_schedulers():
    xt = 5 * rand(2, 1, 16, 16)
    for clips in (True, False):
        scheduler = diffusers.DDPMScheduler(20, **BETAS, clip_sample=clips)
        model = ddgm_from_diffusers(diffusers_unet(), scheduler)
        with torch.no_grad():
            x0 = model.respaced(10).p_mean_var(xt, 5)[2]
        assert (x0.abs().max() <= 1) == clips


def test_a_saved_folder_is_the_same_model_and_denoiser(tmp_path):
    pipeline = saved_pipeline(tmp_path)
    one, other = ddgm_from_pipeline(pipeline), load_diffusers(tmp_path)
    x = rand(2, 1, 16, 16)
    D = denoiser(tmp_path)
    with torch.no_grad():
        assert one.predict(x, 3)[0].equal(other.predict(x, 3)[0])
        assert D(x, 0.3).equal(denoiser(pipeline)(x, 0.3))
        assert D(x, 0.3).equal(denoiser(pipeline.unet, scheduler=pipeline.scheduler)(x, 0.3))
        assert set(D.averages(x, 0.3, D.taps)) == set(D.taps) >= {"enc2.in", "mid", "dec2"}
        elsewhere = denoiser(other, taps=dict(mid="net.conv_in"))
        assert elsewhere.phi(x, 0.3).shape == (2, 8)
    save_checkpoint(tmp_path / "own.safetensors", other)
    again = load_checkpoint(tmp_path / "own.safetensors")
    with torch.no_grad():
        assert again.predict(x, 3)[0].equal(one.predict(x, 3)[0])
    assert describe(again)["args"]["clips"] and str(tmp_path) not in str(describe(again))
    assert not untrained(D, 1).net.net.conv_in.weight.equal(D.net.net.conv_in.weight)


def test_everything_of_a_ddgm_is_asked(tmp_path):
    saved_pipeline(tmp_path)
    model = load_diffusers(tmp_path)
    x0 = (rand(2, 1, 16, 16) * 255).round() / 127.5 - 1
    assert model.sample(3, steps=4, progress=False).shape == (3, 1, 16, 16)
    assert model.bits_per_dim(x0, progress=False)["total"].isfinite().all()
    assert model.reconstruct(x0, 5).shape == x0.shape
    assert len(list(reconstructions(model, x0, [5, 10], ("mean", "ancestral")))) == 4


WRONG = dict(
    thresholding=dict(thresholding=True),
    clip_sample_range=dict(clip_sample_range=2.0),
    rescale_betas_zero_snr=dict(rescale_betas_zero_snr=True),
    variance_type=dict(variance_type="learned"),
)


@pytest.mark.parametrize("name", WRONG)
def test_what_a_ddgm_does_not_do_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"scheduler.config.{name}"):
        ddgm_from_diffusers(diffusers_unet(), diffusers.DDPMScheduler(20, **WRONG[name]))


def test_networks_that_want_more_than_a_time_are_refused():
    with pytest.raises(ValueError, match="num_class_embeds"):
        ddgm_from_diffusers(diffusers_unet(num_class_embeds=3), diffusers_scheduler("DDPM"))
    with pytest.raises(ValueError, match="model_index.json"):
        load_diffusers("nowhere")
