"Models by path or name"

import pytest
import torch

from denoise_study import load_pretrained
from denoise_study.core import save_checkpoint
from denoise_study.denoiser import denoiser, model_from
from denoise_study.diffusion import DDGM, Schedule, to_openai
from helpers import rand
from helpers_denoiser import unet


def test_our_file_a_shipped_name_and_openai_weights(tmp_path):
    torch.manual_seed(0)
    net = unet(learn_sigma=True).eval()
    sched = Schedule.cosine(200)
    torch.save(to_openai(net), tmp_path / "ema.pt")
    told = dict(side=8, schedule="cosine", T=200, time_scale=5.0, heads=4)
    opened = model_from(tmp_path / "ema.pt", told)
    assert (opened.var, opened.time_scale, opened.sched) == ("learned", 5.0, sched)
    save_checkpoint(tmp_path / "own.safetensors", opened)
    own, x = model_from(tmp_path / "own.safetensors"), rand(2, 1, 8, 8)
    with torch.no_grad():
        want = net(x, torch.full((2,), 9 * 5.0)).chunk(2, 1)[0]
        assert torch.allclose(own.predict(x, 10)[0], want, atol=1e-6)
    D = denoiser(str(tmp_path / "ema.pt"), openai=told, clip=False)
    assert D.shape == (1, 8, 8) and not D.clip
    assert isinstance(model_from("ddgm-digits"), DDGM)


def test_what_is_missing_or_too_much_is_named(tmp_path):
    torch.save(to_openai(unet()), tmp_path / "ema.pt")
    wrong = {
        "schedule, T, time_scale, heads: the file": lambda: model_from(
            tmp_path / "ema.pt", dict(side=8)
        ),
        "shape: a DDGM has no use": lambda: denoiser("ddgm-digits", shape=(1, 8, 8)),
        "weights: ddgm-digits": lambda: model_from("ddgm-digits", weights="raw"),
        "model: a .safetensors": lambda: model_from(tmp_path / "nothing"),
    }
    for message, call in wrong.items():
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("name", ["ddgm-digits", "daed-digits", "blind-digits"])
def test_the_folder_of_a_training_is_its_checkpoint(name, tmp_path):
    kind = name.partition("-")[0]
    save_checkpoint(tmp_path / f"{kind}.safetensors", model := load_pretrained(name))
    (tmp_path / "state.safetensors").touch()
    found = model_from(tmp_path)
    assert type(found) is type(model)
    for a, b in zip(found.parameters(), model.parameters()):
        assert torch.equal(a, b)
