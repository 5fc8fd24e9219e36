"""Pictures in files: as a person sees them, in a known order, and every way it goes wrong."""

import time

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from denoise_study.core import as_seen, FileSource, load_arrays, map_in_order, open_picture
from denoise_study.core import picture_head, picture_to_tensor
from helpers_coredata import cpu_dls, random_images, RNG, save_all


def test_map_in_order_keeps_the_order_stops_early_and_passes_errors_on():
    def slow(i):
        time.sleep(0.002 * (i % 3))
        return i

    assert list(map_in_order(slow, range(20), 4)) == list(range(20))
    it = map_in_order(slow, range(10**9), 3)
    assert next(it) == 0
    it.close()
    with pytest.raises(ZeroDivisionError):
        list(map_in_order(lambda i: 1 / i, [1, 0], 2))


def test_files_of_equal_length_and_equal_tails_are_still_told_apart(tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(4)]
    for f, head in zip(files, b"aabc"):
        f.write_bytes(bytes([head]) * 10 + bytes(9000))
    (tmp_path / "4.png").write_bytes(b"other length")
    source = FileSource.__new__(FileSource)
    source.items, source.threads = [*files, tmp_path / "4.png"], 2
    a, b, c, d, e = source.digests()
    assert a == b and len({a, c, d, e}) == 4


# As a person sees it ------------------------------------------------------------------------------


def exif(number):
    data = Image.Exif()
    data[0x0112] = number
    return data


@pytest.mark.parametrize("ext", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("number", range(1, 9))
def test_pictures_are_turned_as_their_exif_data_say(tmp_path, ext, number):
    file = tmp_path / f"a.{ext}"
    Image.fromarray(random_images(1, 16, 24, 3)[0]).save(file, exif=exif(number))
    with Image.open(file) as im:
        seen = picture_to_tensor(ImageOps.exif_transpose(im))
    assert torch.equal(open_picture(file, str, picture_to_tensor), seen)
    assert picture_head(file) == ("RGB", tuple(seen.shape[1:]))
    source = FileSource([file]).prepare()
    assert source.hw == tuple(seen.shape[1:]) and torch.equal(source.batch([0])[0], seen)
    assert source.hw == ((24, 16) if number > 4 else (16, 24))


@pytest.mark.parametrize(
    "data",
    [b"Exif\0\0nonsense", b"", exif(0), exif(9), exif(77)],
    ids=["nonsense", "nothing", "0", "9", "77"],
)
def test_an_entry_that_can_not_be_read_turns_nothing(tmp_path, data):
    file = tmp_path / "a.jpg"
    Image.fromarray(random_images(1, 16, 24, 3)[0]).save(file, exif=data)
    assert picture_head(file) == ("RGB", (16, 24))
    assert open_picture(file, str, picture_to_tensor).shape == (3, 16, 24)


def test_turning_twice_turns_once(tmp_path):
    Image.fromarray(random_images(1, 16, 24)[0]).save(tmp_path / "a.jpg", exif=exif(6))
    with Image.open(tmp_path / "a.jpg") as im:
        seen = as_seen(im)
    assert as_seen(seen) is seen and seen.size == (16, 24)


def transparent(mode):
    "A picture whose left half is transparent over noise, whose right half is 100; and its suffix"
    rgba = random_images(1, 8, 8, 4)[0]
    rgba[:, :4, 3] = 0
    rgba[:, 4:] = (100, 100, 100, 255)
    im = Image.fromarray(rgba)
    if mode in ("RGBA", "LA"):
        return im.convert(mode), "png"
    if mode == "PA":
        return im.convert("RGBA").convert("PA"), "png"
    key = np.full((8, 8, 3), 100, np.uint8)
    key[:, :4] = (7, 7, 7) if mode == "L" else (7, 200, 30)
    im = Image.fromarray(key)
    im = im.quantize(4) if mode == "P" else im.convert(mode)
    im.info["transparency"] = im.getpixel((0, 0))
    return im, "gif" if mode == "P" else "png"


@pytest.mark.parametrize("ground, level", [("white", 255), ("black", 0)])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGB", "L", "P"])
def test_what_is_transparent_shows_the_ground(mode, ground, level):
    im, _ = transparent(mode)
    u = picture_to_tensor(as_seen(im, ground))
    assert len(u) == (1 if mode in ("L", "LA") else 3)
    assert (u[:, :, :4] == level).all() and (u[:, :, 4:] == 100).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGB", "L", "P"])
def test_transparent_files_lie_on_white(tmp_path, mode):
    im, ext = transparent(mode)
    for i in range(4):
        im.save(tmp_path / f"{i}.{ext}", transparency=im.info.get("transparency"))
    u, _ = load_arrays(tmp_path, valid=0, test=0)["train"]
    assert (u[:, :, :, :4] == 255).all() and (u[:, :, :, 4:] == 100).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_half_transparent_is_half_white_and_opaque_is_left_alone(mode):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for alpha in 255, 128:
        im = Image.fromarray(levels).convert(mode)
        im.putalpha(alpha)
        expected = levels * (alpha / 255) + 255 * (1 - alpha / 255)
        assert np.abs(picture_to_tensor(as_seen(im))[0].numpy() - expected).max() < 1


def test_of_an_animation_the_first_frame_is_seen(tmp_path):
    frames = [Image.new("L", (8, 8), level) for level in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert open_picture(tmp_path / "a.gif", str, lambda im: im.convert("L").getextrema()) == (
        10,
        10,
    )


def test_grey_in_a_folder_of_colors_becomes_color(tmp_path):
    save_all(tmp_path, random_images(10, 6, 6, 3))
    save_all(tmp_path, random_images(10, 6, 6), start=10)
    dls = cpu_dls(tmp_path)
    assert dls.info.channels == 3
    grey = sum(
        (u[:, 0] == u[:, 1]).flatten(1).all(1).sum() for u, _ in load_arrays(tmp_path).values()
    )
    assert grey == 10


@pytest.mark.parametrize("cache", [True, False, "auto"])
def test_cache_changes_nothing_but_the_work(tmp_path, monkeypatch, cache):
    save_all(tmp_path / "f", random_images(20))
    reads = []
    decode = FileSource._decode

    def counted(self, i):
        reads.append(i)
        return decode(self, i)

    monkeypatch.setattr(FileSource, "_decode", counted)
    dl = cpu_dls(tmp_path / "f", cache=cache, bs=4, valid=0, test=0).train
    first = [x for x, _ in dl]
    dl.epoch = 0
    assert all(torch.equal(a, b) for a, (b, _) in zip(first, dl))
    assert len(reads) == (20 if cache else 40)


# What goes wrong ----------------------------------------------------------------------------------


def error(kind, *words, path, **kwargs):
    with pytest.raises(kind) as e:
        load_arrays(path, **kwargs)
    assert all(str(w) in str(e.value) for w in words), str(e.value)


def test_too_many_pixels_are_refused_by_the_head(tmp_path, monkeypatch):
    save_all(tmp_path, random_images(3, 40, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    error(ValueError, "000.png", "40x40 pixels", "1,000", path=tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert picture_head(tmp_path / "000.png") == ("L", (40, 40))


def test_sizes_that_differ_and_deep_pictures_are_named(tmp_path):
    sizes = save_all(tmp_path / "sizes", random_images(10))
    save_all(sizes, random_images(1, 9, 8), start=10)
    error(ValueError, "size:", "differ", path=sizes)
    assert cpu_dls(sizes, size=8).info.size == (8, 8)
    deep = save_all(tmp_path / "deep", random_images(5))
    Image.fromarray(RNG.integers(0, 60000, (8, 8)).astype(np.uint16)).save(deep / "zz.png")
    error(ValueError, deep / "zz.png", "more than 8 bits", path=deep)


@pytest.mark.parametrize("ext", ["png", "jpg", "webp"])
def test_a_truncated_picture_is_named_when_its_turn_comes(tmp_path, ext):
    save_all(tmp_path, random_images(20, 64, 64, 3), ext=ext)
    bad = tmp_path / f"007.{ext}"
    bad.write_bytes(bad.read_bytes()[:400])
    with pytest.raises(ValueError, match=f"007.{ext}: this picture does not decode") as e:
        load_arrays(tmp_path)
    assert "8-bit" in str(e.value)


def test_odd_pictures_that_only_the_decoder_meets(tmp_path, monkeypatch):
    "The constructor looks at a thousand headers; what it did not see must be caught later"
    monkeypatch.setattr(np, "linspace", lambda a, b, n: np.array([0]))
    whole = dict(valid=0, test=0)
    save_all(tmp_path / "c", random_images(3))
    save_all(tmp_path / "c", random_images(1, 8, 8, 3), start=3)
    with pytest.raises(ValueError, match="003.png: coloured"):
        load_arrays(tmp_path / "c", **whole)
    save_all(tmp_path / "s", random_images(3))
    save_all(tmp_path / "s", random_images(1, 9, 8), start=3)
    with pytest.raises(ValueError, match="003.png: 9x8 pixels, others 8x8; give `size`"):
        load_arrays(tmp_path / "s", **whole)
    assert len(load_arrays(tmp_path / "s", size=8, **whole)["train"][0]) == 4
