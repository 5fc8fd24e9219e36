"""Bytes and floats, checks that name the argument, one picture for a batch, crop and padding."""

import numpy as np
import pytest
import torch
from PIL import Image

from denoise_study.core import check_images, fit_picture, from_uint8, height_width, load_arrays
from denoise_study.core import open_picture, pad_widths, picture_to_tensor, show_images, to_uint8
from denoise_study.core import whole_number
from helpers_coredata import all_bytes, cpu_dls, random_images, save_all


# Ranges -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("r", [(-1, 1), (0, 1), (-0.5, 0.5), (0, 255), (-3, 7), (1e-3, 2e-3)])
def test_every_level_comes_back(r):
    u = torch.arange(256, dtype=torch.uint8)
    x = from_uint8(u, r)
    assert x.dtype == torch.float32 and torch.equal(to_uint8(x, r), u)
    assert x[0].item() == pytest.approx(r[0]) and x[-1].item() == pytest.approx(r[1])


def test_the_two_ranges_of_the_library_are_exact():
    u = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(from_uint8(u, (-1, 1)), u.float() / 127.5 - 1)
    assert torch.equal(from_uint8(u, (0, 1)), u.float() / 255)
    assert from_uint8(u, (-1, 1)).abs().max() == 1


def test_to_uint8_clamps_and_rounds():
    assert to_uint8(torch.tensor([-9.0, 0.4999 / 255, 0.5001 / 255, 9.0]), (0, 1)).tolist() == [
        0,
        0,
        1,
        255,
    ]


zeros = torch.zeros(1, 1, 8, 8)
zero_bytes = torch.zeros(3).byte()


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: from_uint8(torch.zeros(3)), TypeError, ["u:", "float32", "uint8"]),
        (lambda: from_uint8(zero_bytes, (1, 0)), ValueError, ["range:", "(1, 0)"]),
        (lambda: from_uint8(zero_bytes, 1.0), ValueError, ["range:"]),
        (lambda: from_uint8(zero_bytes, (0, float("inf"))), ValueError, ["range:"]),
        (lambda: to_uint8(zero_bytes, (0, 1)), TypeError, ["x:", "uint8"]),
        (lambda: to_uint8(torch.tensor([float("nan")]), (0, 1)), ValueError, ["x:", "NaN"]),
        (lambda: check_images(np.zeros((1, 1, 8, 8)), "real"), TypeError, ["real:", "ndarray"]),
        (lambda: check_images(zeros[0, 0], "real"), ValueError, ["real:", "(8, 8)", "(N,C,H,W)"]),
        (
            lambda: check_images(torch.zeros(0, 1, 8, 8), "real"),
            ValueError,
            ["real:", "(0, 1, 8, 8)"],
        ),
        (lambda: check_images(zeros.byte(), "real"), TypeError, ["real:", "uint8", "from_uint8"]),
        (lambda: check_images(zeros, "real", channels=3), ValueError, ["real:", "1 channels", "3"]),
        (lambda: check_images(zeros, "real", size=(8, 9)), ValueError, ["real:", "8x8", "8x9"]),
        (lambda: check_images(zeros + float("inf"), "real"), ValueError, ["real:", "infinity"]),
        (
            lambda: check_images(zeros + float("nan"), "real", range=(0, 1)),
            ValueError,
            ["real:", "NaN"],
        ),
        (
            lambda: check_images(zeros - 0.1, "real", range=(0, 1)),
            ValueError,
            ["real:", "-0.1", "[0, 1]"],
        ),
        (lambda: show_images(torch.zeros(1, 2, 8, 8), (0, 1)), ValueError, ["x:", "2 channels"]),
        (
            lambda: show_images(torch.zeros(2, 1, 8, 8), (0, 1), ["a"]),
            ValueError,
            ["titles:", "1", "2"],
        ),
        (lambda: whole_number("seed", True), ValueError, ["seed:", "True"]),
        (lambda: height_width((8,), "size"), ValueError, ["size:", "(8,)"]),
        (lambda: pad_widths((8, 8), (4, 8)), ValueError, ["pad_to:", "(4, 8)"]),
    ],
)
def test_errors_name_the_argument(call, error, words):
    with pytest.raises(error) as e:
        call()
    assert all(w in str(e.value) for w in words), str(e.value)


def test_check_images_gives_its_argument_back():
    x = torch.rand(2, 3, 8, 8)
    assert check_images(x, channels=3, size=8, range=(0, 1)) is x
    check_images(x * (1 + 1e-6), range=(0, 1))  # float32 noise at an end is no error


# Looking ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("c", [1, 3])
def test_show_images_is_one_picture_with_every_image_in_place(c):
    x = torch.rand(5, c, 8, 8)
    ax = show_images(x, (0, 1), titles=range(5), ncols=3)
    (grid,) = ax.images
    pixels = torch.tensor(np.asarray(grid.get_array()))
    pixels = pixels.view(*pixels.shape[:2], c).permute(2, 0, 1)
    tall = (pixels.shape[1] + 1) // 2  # the last gap of one pixel is cut off
    wide = (pixels.shape[2] + 1) // 3
    for i in range(5):
        row, column = divmod(i, 3)
        tile = pixels[:, row * tall : (row + 1) * tall, column * wide : column * wide + 8]
        image = to_uint8(x[i], (0, 1))
        assert any(torch.equal(tile[:, top : top + 8], image) for top in range(tall - 8))
    assert [t.get_text() for t in ax.texts] == list("01234")


# Pictures and geometry ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode, channels", [("L", 1), ("RGB", 3)])
def test_a_picture_becomes_channels_first(tmp_path, mode, channels):
    a = random_images(1, 6, 7, None if channels == 1 else 3)[0]
    Image.fromarray(a).save(tmp_path / "a.png")
    u = open_picture(tmp_path / "a.png", str, picture_to_tensor)
    assert u.shape == (channels, 6, 7)
    assert torch.equal(u.permute(1, 2, 0).squeeze(-1), torch.tensor(a))


def test_a_picture_of_the_right_size_is_left_alone():
    im = Image.fromarray(random_images(1, 6, 7)[0])
    assert fit_picture(im, (6, 7)) is im and fit_picture(im, (3, 5)).size == (5, 3)


@pytest.mark.parametrize(
    "hw, k, pad",
    [
        ((28, 28), 8, (2, 2, 2, 2)),
        ((28, 28), 32, (2, 2, 2, 2)),
        ((8, 8), 8, (0, 0, 0, 0)),
        ((5, 6), 4, (1, 1, 1, 2)),
        ((5, 6), None, (0, 0, 0, 0)),
    ],
)
def test_padding_is_even_and_black(hw, k, pad):
    a = np.full((20, *hw), 200, dtype=np.uint8)
    a[:, 0, 0] = np.arange(20)
    dls = cpu_dls(a, pad_to=k, range=(0, 1), bs=4)
    l, r, t, b = pad
    assert pad_widths(hw, k) == dls.info.pad == pad and dls.info.size == (
        hw[0] + t + b,
        hw[1] + l + r,
    )
    x = dls.test.one_batch()[0]
    assert x.shape[2:] == dls.info.size
    inner = x[:, :, t : t + hw[0], l : l + hw[1]]
    assert x.sum() == pytest.approx(inner.sum().item()) and inner[:, :, 1:].min() > 0.7


def test_center_crop_takes_the_middle_and_squash_all_of_it():
    a = np.zeros((20, 12, 4), dtype=np.uint8)
    a[:, 4:8] = 255
    a[:, 0, 0] = np.arange(20)  # no two alike
    assert (load_arrays(a, size=4)["train"][0] == 255).all()
    squashed = load_arrays(a, size=4, crop="squash")["train"][0].float()
    assert squashed[:, :, 0, 1:].mean() < 60 and 50 < squashed.mean() < 130


def test_arrays_and_files_are_resized_alike(tmp_path):
    a = random_images(20, 20, 15, 3)
    save_all(tmp_path / "f", a)
    kwargs = dict(size=(10, 8), pad_to=4)
    assert all_bytes(load_arrays(a, **kwargs)) == all_bytes(load_arrays(tmp_path / "f", **kwargs))


def test_center_crop_of_a_face_sized_picture_keeps_the_aspect_ratio():
    ramp = np.broadcast_to(np.linspace(0, 255, 218).astype(np.uint8)[:, None], (218, 178))
    a = np.stack([ramp, 255 - ramp])
    u = load_arrays(a, size=64, valid=0, test=0)["train"][0][0, 0].float()
    step = (u[-1] - u[0]).mean() / 63
    assert step.item() == pytest.approx(255 / 218 * 178 / 64, rel=0.02)
