"Batches in the order of the data, with noise that belongs to each image"

import math

import pytest
import torch

from helpers import blind_denoiser, pictures, rand
from helpers_probes import loader, read, spread
from denoise_study.representation import drawn_images, image_draws, ImageWalk, noisy_mean

torch.set_num_threads(1)
D = blind_denoiser()
X = pictures()
A = read(D, X)


def test_every_source_and_range_gives_the_same_averages():
    y = torch.arange(12)
    bytes_ = (X * 255).round() / 255
    ref = read(D, bytes_)
    for o in (
        loader(X, y, range=(-1.0, 1.0)),
        loader(X, y, range=(0.0, 1.0)),
        loader(X, y, range=(-1.0, 1.0), shuffle=True, drop_last=True),
    ):
        a = read(D, o)  # in the order of the data set, all of it
        assert torch.equal(a.labels, y)
        torch.testing.assert_close(a.phi.x, ref.phi.x, rtol=1e-3, atol=1e-9)
    assert torch.equal(read(D, (X, y)).labels, y) and (A.labels == -1).all()
    torch.testing.assert_close(
        read(D, X * 2 - 1, range=(-1.0, 1.0)).phi.x, A.phi.x, rtol=1e-3, atol=1e-9
    )
    torch.testing.assert_close(
        read(D, [X[:5], X[5:]], range=(0.0, 1.0)).phi.x, A.phi.x, rtol=1e-4, atol=1e-9
    )


def test_noise_depends_on_seed_and_index_alone():
    z = image_draws(X, draws=3)
    assert torch.equal(image_draws(X[4:6], first=4, draws=3), z[4:6])
    assert not torch.equal(image_draws(X, draws=3, seed=1), z)


@pytest.mark.parametrize("bs", [1, 2, 7, 256])
def test_noisy_mean_equals_the_loop_over_images(bs):
    def fn(x):
        return {"mid": spread(x)}

    z = image_draws(X, draws=3)
    alone = torch.stack([spread(x + 0.5 * noise).mean(0) for x, noise in zip(X, z)])
    torch.testing.assert_close(noisy_mean(fn, X, draws=3, bs=bs)["mid"], alone)


@pytest.mark.parametrize(
    "images", [X, loader(X), [X[:5], X[5:11], X[11:]]], ids=["tensor", "loader", "list"]
)
@pytest.mark.parametrize("skip", [0, 3, 5, 11, 12])
def test_a_walk_goes_on_behind_any_image(images, skip):
    walk = ImageWalk(images, (0.0, 1.0) if isinstance(images, list) else None, bs=5)
    batches = [x for x, _ in walk.after(skip)]
    assert sum(map(len, batches)) == 12 - skip and len(walk) == 3
    if batches:
        torch.testing.assert_close(torch.cat(batches), X[skip:], atol=0.003, rtol=0)


nan = X.clone().index_fill_(0, torch.tensor([1]), math.nan)
CALLS = {
    "sigma in 0..255": (lambda: read(D, X, sigma=127.5), "divided by 255"),
    "negative sigma": (lambda: read(D, X, sigma=-0.1), "^sigma"),
    "sigma in words": (lambda: read(D, X, sigma="half"), "^sigma"),
    "sigma nan": (lambda: read(D, X, sigma=math.nan), "^sigma"),
    "images in [-1,1]": (lambda: read(D, X * 2 - 1), r"^images.*\[0, 1\]"),
    "images in 0..255": (lambda: read(D, X * 255), "^images"),
    "nan": (lambda: read(D, nan), "^images"),
    "list without a range": (lambda: read(D, [X]), "range"),
    "no images": (lambda: read(D, X[:0]), "^images"),
    "no batches": (lambda: read(D, [], range=(0.0, 1.0)), "^images"),
    "generator": (lambda: read(D, iter([X]), range=(0.0, 1.0)), "^images: a generator"),
    "odd size": (lambda: read(D, pictures(2, 12)), "8"),
    "colour": (lambda: read(D, X.expand(-1, 3, -1, -1)), r"N,1,H,W"),
    "unknown tap": (lambda: read(D, X, taps=("middle",)), "^taps.*mid"),
    "no tap": (lambda: read(D, X, taps=()), "^taps"),
}


@pytest.mark.parametrize("call, words", CALLS.values(), ids=CALLS)
def test_bad_input_is_refused_with_a_reason(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_images_are_drawn_from_all_classes_of_a_sorted_folder():
    "The first images of a folder with a subfolder for each class are all of one kind"
    from types import SimpleNamespace

    y = torch.arange(200) // 20  # sorted by class
    dls = SimpleNamespace(test=loader(rand(200, 1, 8, 8), y, range=(0.0, 1.0)))
    x, labels = drawn_images(dls, "test", 60)
    assert x.shape == (60, 1, 8, 8) and len(labels.unique()) == 10
    again = drawn_images(dls, "test", 30)
    assert torch.equal(again[0], x[:30]) and torch.equal(again[1], labels[:30])
    assert not torch.equal(drawn_images(dls, "test", 30, seed=1)[1], labels[:30])
    every = drawn_images(dls, "test", 1000)[1]
    assert torch.equal(every.sort()[0], y)  # each once
