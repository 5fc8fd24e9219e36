"What is kept of an image, in memory and in files"

import pytest
import torch

from helpers import blind_denoiser, pictures, WIDTHS
from helpers_probes import read
from denoise_study.core import frechet, save_checkpoint, write_tensors
from denoise_study.denoiser import BlindUNet
from denoise_study.representation import as_rows, Averages, check_image_labels, label_agreement
from denoise_study.representation import linear_probe, neighbours

torch.set_num_threads(1)
D = blind_denoiser()
X = pictures()
A = read(D, X)


def test_saved_averages_are_read_back_and_selected(tmp_path):
    A.save(tmp_path / "a.safetensors")
    b = Averages.load(tmp_path / "a.safetensors")
    assert (
        b.run == A.run
        and all(torch.equal(b.taps[k], A.taps[k]) for k in A.taps)
        and torch.equal(b.labels, A.labels)
    )
    part = b.select(A.labels < 0).select([3, 1])
    assert (
        len(part) == 2
        and torch.equal(part.phi.x, A.phi.x[[3, 1]])
        and part.phi.space == A.phi.space
    )
    with pytest.raises(ValueError, match="tap"):
        A["bottleneck"]
    save_checkpoint(tmp_path / "c.safetensors", BlindUNet(1, WIDTHS, (2, 2, 2)))
    with pytest.raises(ValueError, match="holds .checkpoint., not .averages."):
        Averages.load(tmp_path / "c.safetensors")


def test_spaces_do_not_mix():
    other = read(blind_denoiser(1), X)
    for a, b in (A.phi, other.phi), (A["mid.in"], A["enc3"]), (A.phi, read(D, X, sigma=0.2).phi):
        with pytest.raises(ValueError, match="numbers of different spaces"):
            neighbours(a, b)
    with pytest.raises(ValueError, match="from"):
        frechet(A.phi, other.phi)
    y = torch.arange(12) % 2
    with pytest.raises(ValueError, match="different spaces"):
        linear_probe(A.phi, y, other.phi, y)
    with pytest.raises(ValueError, match="columns"):
        neighbours(A.phi.x, A["enc1"].x)
    with pytest.raises(TypeError, match="pick a tap"):
        neighbours(A)


def test_images_become_rows_of_pixels():
    rows = as_rows(X)
    assert torch.equal(rows.x, X.flatten(1)) and rows.space == "pixels"
    assert torch.equal(check_image_labels(range(3), 3), torch.arange(3))


CALLS = {
    "labels missing": (lambda: label_agreement(A.phi, A.labels), "labels: 12 of 12 are missing"),
    "labels too few": (
        lambda: label_agreement(A.phi, torch.zeros(5)),
        r"^labels.*\(5,\).*12 images",
    ),
}


@pytest.mark.parametrize("call, words", CALLS.values(), ids=CALLS)
def test_bad_input_is_refused_with_a_reason(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize(
    "run", [None, {}, dict(taps=["mid"]), dict(A.run, taps=["other"]), dict(A.run, taps=None)]
)
def test_a_description_that_fits_nothing_is_refused_in_words(tmp_path, run):
    write_tensors(tmp_path / "a.safetensors", dict(A.taps), dict(kind="averages", run=run))
    with pytest.raises(ValueError, match="no run in its description|holds no channel averages"):
        Averages.load(tmp_path / "a.safetensors")
