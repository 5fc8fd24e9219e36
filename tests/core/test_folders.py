"""Which files of a folder are read, and what its subfolders mean: classes, or splits."""

import os
import socket
import warnings

import pytest
from PIL import Image

from denoise_study.core import load_arrays, picture_files, picture_suffixes, split_folders
from helpers_coredata import all_bytes, cpu_dls, random_images, save_all


def names(folder):
    return [str(f.relative_to(folder)) for f in picture_files(folder)]


def error(kind, *words, path, **kwargs):
    with pytest.raises(kind) as e:
        load_arrays(path, **kwargs)
    assert all(str(w) in str(e.value) for w in words), str(e.value)


# Which files --------------------------------------------------------------------------------------


def test_picture_files_are_sorted_and_hidden_ones_do_not_count(tmp_path):
    save_all(tmp_path / "b", random_images(2))
    save_all(tmp_path / "a" / "deep", random_images(1), ext="jpg")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.png").write_bytes(b"")
    assert names(tmp_path) == ["a/deep/000.jpg", "b/000.png", "b/001.png"]


@pytest.mark.parametrize("ext", ["gif", "avif", "jfif", "webp", "PNG", "tif"])
def test_every_format_that_pillow_opens_is_read(tmp_path, ext):
    if f".{ext.lower()}" not in picture_suffixes():
        pytest.skip(f"this Pillow has no {ext}")
    save_all(tmp_path, random_images(4, 8, 8, 3))
    Image.fromarray(random_images(1, 8, 8, 3)[0]).save(tmp_path / f"x.{ext}")
    u, _ = load_arrays(tmp_path, valid=0, test=0)["train"]
    assert len(u) == 5 and names(tmp_path)[-1] == f"x.{ext}"


def test_what_is_not_read_is_counted_in_one_warning(tmp_path):
    save_all(tmp_path, random_images(3))
    for name in ("a.txt", "b.txt", "c.nef", "README", ".hidden"):
        (tmp_path / name).write_text("x")
    with pytest.warns(UserWarning, match="not read: 1 .nef, 2 .txt, 1 without suffix; ") as caught:
        assert len(picture_files(tmp_path)) == 3
    assert len(caught) == 1


def test_an_empty_folder_is_named_with_what_it_holds(tmp_path):
    error(FileNotFoundError, tmp_path, ".png", "nothing", path=tmp_path)
    (tmp_path / "notes.txt").write_text("no picture")
    error(FileNotFoundError, tmp_path, "1 .txt", path=tmp_path)


# Links and what is no file ------------------------------------------------------------------------


def link(place, target):
    os.symlink(target, place)


def three_up(a):
    for i in range(3):
        link(a / f"up{i}", "..")


def linked_pipe(a):
    os.mkfifo(a.parent / ".pipe")
    link(a / "pipe.png", "../.pipe")


@pytest.mark.parametrize(
    "add",
    [
        lambda a: link(a / "up", ".."),
        lambda a: link(a / "here", "."),
        lambda a: link(a / "far", a.parent.parent),
        lambda a: link(a.parent / "b", ".."),
        lambda a: link(a / "b", "../a"),
        lambda a: link(a / "loop", "loop"),
        three_up,
        linked_pipe,
        lambda a: os.mkfifo(a / "pipe.png"),
        lambda a: socket.socket(socket.AF_UNIX).bind(str(a / "s.png")),
    ],
)
def test_links_upwards_pipes_and_sockets_neither_multiply_pictures_nor_hang(
    tmp_path, monkeypatch, add
):
    monkeypatch.chdir(tmp_path)
    save_all(tmp_path / "other", random_images(5))
    images = random_images(6)
    folder = tmp_path / "f"
    save_all(folder / "a", images)
    add(folder / "a")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        u, y = load_arrays(folder, valid=0, test=0)["train"]
    assert sorted(o.numpy().tobytes() for o in u) == sorted(o.tobytes() for o in images)
    assert y.tolist() == [0] * 6


def test_linked_folders_and_files_are_read_once(tmp_path):
    store = save_all(tmp_path / "store" / "cats", random_images(3))
    save_all(tmp_path / "store" / "dogs", random_images(2))
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("cats", "dogs"):
        link(folder / name, f"../store/{name}")
    link(store / "again", ".")
    assert names(folder) == [f"cats/00{i}.png" for i in range(3)] + ["dogs/000.png", "dogs/001.png"]
    assert cpu_dls(folder).info.classes == ("cats", "dogs")
    link(folder / "zebras", "../store/dogs")
    error(FileNotFoundError, "zebras", "link to those of another", path=folder)


def test_a_link_to_nowhere_is_named(tmp_path):
    save_all(tmp_path, random_images(3))
    link(tmp_path / "lost.png", "nowhere.png")
    error(ValueError, "lost.png", path=tmp_path)


# Classes and splits -------------------------------------------------------------------------------


def test_flat_and_class_folders(tmp_path):
    a = random_images(20)
    flat = cpu_dls(save_all(tmp_path / "flat", a))
    assert flat.info.classes == () and flat.info.channels == 1
    assert flat.one_batch()[1].unique().tolist() == [-1]
    save_all(tmp_path / "c" / "b", a[:12])
    save_all(tmp_path / "c" / "a" / "deeper", a[12:], start=12)
    (tmp_path / "c" / ".hidden").mkdir()
    (tmp_path / "c" / ".hidden" / "x.png").write_bytes(b"no picture")
    by_class = load_arrays(tmp_path / "c")
    assert cpu_dls(tmp_path / "c").info.classes == ("a", "b")
    got = {o.numpy().tobytes(): y.item() for u, ys in by_class.values() for o, y in zip(u, ys)}
    assert got == {o.tobytes(): int(i < 12) for i, o in enumerate(a)}
    assert all_bytes(by_class) == all_bytes(load_arrays(tmp_path / "flat"))


@pytest.mark.parametrize(
    "held, counts",
    [(("val",), (27, 3, 10)), (("test",), (27, 3, 10)), (("valid", "test"), (30, 5, 10))],
)
def test_a_folder_with_its_own_splits(tmp_path, held, counts):
    a = random_images(45, 6, 6, 3)
    save_all(tmp_path / "train" / "x", a[:15])
    save_all(tmp_path / "train" / "y", a[15:30], start=15)
    for name in held:
        save_all(tmp_path / name / "y", a[30:35] if name == "valid" else a[35:])
    info = cpu_dls(str(tmp_path)).info
    assert (info.n_train, info.n_valid, info.n_test) == counts and info.classes == ("x", "y")
    test, labels = load_arrays(tmp_path)["test"]
    channels_last = test.permute(0, 2, 3, 1).contiguous()
    assert {o.numpy().tobytes() for o in channels_last} == {o.tobytes() for o in a[35:]}
    assert labels.unique().tolist() == [1]
    with pytest.raises(ValueError, match="^test: .* official"):
        cpu_dls(tmp_path, test=0.1)


@pytest.mark.parametrize(
    "folders, splits",
    [
        ("train test", "train test"),
        ("Train TEST", "train test"),
        ("training testing", "train test"),
        ("train validation", "train valid"),
        ("train dev", "train valid"),
        ("TRAINING Dev Testing", "train valid test"),
        ("train", "train"),
        ("a b", ""),
        ("", ""),
    ],
)
@pytest.mark.parametrize("beside", [None, "README.md", ".DS_Store", "labels.csv"])
def test_splits_by_their_names_whatever_files_lie_beside_them(tmp_path, folders, splits, beside):
    for name in folders.split():
        for k in "cat", "dog":
            save_all(tmp_path / name / k, random_images(4))
    if beside:
        (tmp_path / beside).write_text("about")
    found = split_folders(tmp_path)
    assert found == dict(zip(splits.split(), folders.split() if splits else []))
    if found:
        info = cpu_dls(tmp_path, valid=0, **({} if len(found) > 1 else dict(test=0))).info
        assert info.classes == ("cat", "dog") and info.n_train == 8


@pytest.mark.parametrize(
    "folders",
    [
        "train training",
        "train val validation test",
        "train Train",
        "train test cat",
        "test",
        "test valid",
        "train/x cat dog",
        "dev",
    ],
)
def test_a_mixture_that_can_not_be_told_apart_is_refused_with_what_was_found(tmp_path, folders):
    for name in folders.split():
        save_all(tmp_path / name, random_images(3))
    error(
        ValueError,
        tmp_path,
        *(f"`{name.split('/')[0]}`" for name in folders.split()),
        "accepted are one subfolder per class",
        path=tmp_path,
    )


def test_two_links_to_one_split_are_refused(tmp_path):
    save_all(tmp_path / "train", random_images(3))
    link(tmp_path / "test", "train")
    error(ValueError, "`test`, `train`", path=tmp_path)


def test_pictures_beside_splits_are_refused(tmp_path):
    for name in "train", "test":
        save_all(tmp_path / name, random_images(3))
    save_all(tmp_path, random_images(1))
    error(ValueError, "000.png", "beside the splits", path=tmp_path)


def test_a_class_may_be_called_train(tmp_path):
    for name in "car", "train":
        save_all(tmp_path / name, random_images(10))
    with pytest.warns(UserWarning, match="`train` is taken for a class, like 1 other"):
        assert cpu_dls(tmp_path).info.classes == ("car", "train")


def test_pictures_beside_classes_and_empty_classes_are_named(tmp_path):
    mixed = save_all(tmp_path / "mixed", random_images(3))
    save_all(mixed / "a", random_images(3))
    error(ValueError, mixed, "000.png", "subfolders", path=mixed)
    hollow = tmp_path / "hollow"
    save_all(hollow / "a", random_images(3))
    (hollow / "b").mkdir()
    error(FileNotFoundError, hollow / "b", path=hollow)
    strange = tmp_path / "strange"
    save_all(strange / "train" / "a", random_images(9))
    save_all(strange / "val" / "b", random_images(3))
    error(ValueError, strange / "val" / "b", path=strange)
