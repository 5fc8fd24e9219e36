"""What a name, a file or an array stands for, without a network."""

import gzip
import hashlib
import pickle
import sys
import warnings
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from denoise_study.core import data_root, FASHION_CLASSES, load_arrays, open_dataset, short_digest
from helpers_coredata import cpu_dls, no_network, random_images, RNG, save_all


def test_data_root(monkeypatch, tmp_path):
    monkeypatch.delenv("DENOISE_STUDY_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data_root() == tmp_path / "denoise_study"
    monkeypatch.setenv("DENOISE_STUDY_DATA", str(tmp_path / "env"))
    assert data_root() == tmp_path / "env" and data_root(tmp_path / "arg") == tmp_path / "arg"
    assert "~" not in str(data_root("~/x"))


def test_what_is_nothing_is_told_what_would_be_something(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    cases = {"nowhere": ["nowhere", "digits", ".npz"], tmp_path / "notes.txt": ["notes.txt"]}
    for data, words in cases.items():
        with pytest.raises(FileNotFoundError) as e:
            load_arrays(data)
        assert all(w in str(e.value) for w in words), str(e.value)
    with pytest.raises(TypeError, match="^data: .*got int"):
        load_arrays(3)


# fashion_mini -------------------------------------------------------------------------------------

FASHION_DIGESTS = dict(
    train=("bffe9bce", "8b8587ea"), valid=("47693a4d", "348b4083"), test=("23627a22", "dfa5d2fa")
)


@pytest.fixture(scope="module")
def fashion_file():
    with np.load(files("denoise_study") / "data/fashion_mini.npz", allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("split, n", [("train", 4000), ("valid", 500), ("test", 1000)])
def test_fashion_mini_is_what_it_was_and_balanced(fashion_file, split, n):
    images, labels = fashion_file[split], fashion_file[f"{split}_labels"]
    assert images.shape == (n, 28, 28) and images.dtype == np.uint8
    digests = (short_digest(images.tobytes()), short_digest(labels.tobytes()))
    assert digests == FASHION_DIGESTS[split]
    assert np.bincount(labels).tolist() == [n // 10] * 10


def test_fashion_mini_never_tests_on_what_it_trains_on(fashion_file):
    keys = {split: {image.tobytes() for image in fashion_file[split]} for split in FASHION_DIGESTS}
    assert [len(k) for k in keys.values()] == [4000, 500, 1000]  # no image twice
    assert len(set.union(*keys.values())) == 5500
    index = {split: set(fashion_file[f"{split}_index"].tolist()) for split in FASHION_DIGESTS}
    assert not index["train"] & index["valid"]  # both from the 60,000 of the original training set
    assert max(index["train"] | index["valid"]) < 60_000
    assert max(index["test"]) < 10_000  # of the original test set


def test_fashion_mini_comes_with_three_official_splits(fashion_file, monkeypatch):
    monkeypatch.setenv("DENOISE_STUDY_DATA", "/nowhere")
    info = cpu_dls("fashion_mini").info
    assert (info.n_train, info.n_valid, info.n_test) == (4000, 500, 1000)
    assert (info.channels, info.size, info.classes) == (1, (28, 28), FASHION_CLASSES)
    images, labels = load_arrays("fashion_mini")["test"]
    assert torch.equal(images[:, 0], torch.tensor(fashion_file["test"]))
    assert labels.tolist() == fashion_file["test_labels"].tolist()
    with pytest.raises(ValueError, match="^test: .*official"):
        cpu_dls("fashion_mini", test=100)


# Arrays and .npz ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape, key", [((20, 8, 8), "images"), ((20, 8, 8, 1), "arr_0"), ((20, 8, 6, 3), "pictures")]
)
def test_npz(tmp_path, shape, key):
    a = RNG.integers(0, 256, shape, dtype=np.uint8)
    y = np.arange(20) % 4
    np.savez_compressed(tmp_path / "a.npz", **{key: a}, labels=y)
    info = cpu_dls(tmp_path / "a.npz").info
    channels = 3 if len(shape) == 4 and shape[3] == 3 else 1
    assert (info.name, info.channels, info.size) == ("a", channels, shape[1:3])
    assert info.classes == tuple("0123")
    from_file, in_memory = load_arrays(str(tmp_path / "a.npz")), load_arrays((torch.tensor(a), y))
    assert all(torch.equal(p, q) for k in from_file for p, q in zip(from_file[k], in_memory[k]))


def byte_zeros(*shape):
    return np.zeros(shape, np.uint8)


@pytest.mark.parametrize(
    "images, labels",
    [
        ("arr_0", "arr_1"),
        ("x", "y"),
        ("X", "Y"),
        ("data", "targets"),
        ("images", "label"),
        ("image", "target"),
        ("garments", "labels"),
        ("arr_0", None),
    ],
)
def test_npz_keys_of_other_people(tmp_path, images, labels):
    a, y = random_images(20), np.arange(20) % 2
    np.savez(tmp_path / "a.npz", **{images: a} | ({labels: y} if labels else {}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cpu_dls(tmp_path / "a.npz").info.classes == (("0", "1") if labels else ())
    u, found = load_arrays(tmp_path / "a.npz", valid=0, test=0)["train"]
    assert (u[:, 0].numpy() == a).all()
    assert found.tolist() == (y.tolist() if labels else [-1] * 20)


def test_npz_keys_that_are_not_read_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", images=random_images(), index=np.arange(40), note="x")
    with pytest.warns(UserWarning, match="a.npz: not read: index, note; accepted"):
        load_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize("keys", ["images x", "images label labels", "arr_0 images", "X x"])
def test_npz_keys_that_mean_the_same_are_refused(tmp_path, keys):
    np.savez(tmp_path / "a.npz", **{key: random_images(4) for key in keys.split()})
    with pytest.raises(ValueError) as e:
        load_arrays(tmp_path / "a.npz")
    assert all(repr(key) in str(e.value) for key in keys.split())


@pytest.mark.parametrize(
    "labels, words",
    [
        ([0, 1, -1, -1], "data, labels: 2 of 4 images have the label -1"),
        ([0, 1, 2, 10**9], "data, labels: numbers of classes are below 1,048,576, got 1000000000"),
    ],
)
def test_labels_that_are_none_or_no_classes_are_refused(labels, words):
    with pytest.raises(ValueError, match=words):
        load_arrays((random_images(4), labels))


def test_an_image_labelled_minus_one_is_unlabelled_if_all_are():
    assert cpu_dls((random_images(10), np.full(10, -1))).info.classes == ()


@pytest.mark.parametrize("shape", [(16, 16, 3), (16, 24, 1), (3, 3, 3)])
def test_one_picture_is_not_a_set_of_grey_ones(tmp_path, shape):
    a = byte_zeros(*shape)
    np.savez(tmp_path / "a.npz", images=a)
    for data in a, torch.tensor(a), tmp_path / "a.npz":
        with pytest.raises(ValueError, match=r"one picture \(H,W,C\): give it as `images\[None\]`"):
            load_arrays(data)
    assert len(load_arrays(a[None], valid=0, test=0)["train"][0]) == 1


@pytest.mark.parametrize(
    "arrays, words",
    [
        (dict(images=np.zeros((4, 8, 8))), ["`images`", "float64", "uint8"]),
        (dict(images=byte_zeros(4, 8)), ["(4, 8)", "(N,H,W)"]),
        (dict(images=byte_zeros(4, 3, 8, 8)), ["(4, 3, 8, 8)", "channels last"]),
        (dict(images=byte_zeros(0, 8, 8)), ["(0, 8, 8)"]),
        (dict(a=byte_zeros(4, 8, 8), b=np.zeros(3)), ["'a', 'b'", "`images`"]),
        (dict(labels=np.zeros(4, int)), ["no images"]),
        (
            dict(images=byte_zeros(4, 8, 8), labels=np.zeros(3, int)),
            ["`labels`", "(3,)", "4 images"],
        ),
        (dict(images=byte_zeros(4, 8, 8), labels=np.zeros(4)), ["`labels`", "float64"]),
        (dict(images=byte_zeros(4, 8, 8), labels=np.full(4, -2)), ["`labels`"]),
        (dict(images=np.array([object()])), ["can not be read"]),
    ],
)
def test_npz_errors_name_file_and_key(tmp_path, arrays, words):
    f = tmp_path / "a.npz"
    np.savez(f, **arrays)
    with pytest.raises(ValueError) as e:
        load_arrays(f)
    assert all(w in str(e.value) for w in [str(f), *words]), str(e.value)


@pytest.mark.parametrize("cut", [0, 50, -100])
def test_a_cut_off_npz_is_named(tmp_path, cut):
    f = tmp_path / "a.npz"
    np.savez(f, images=random_images())
    f.write_bytes(f.read_bytes()[:cut])
    with pytest.raises(ValueError, match="a.npz: can not be read, cut off"):
        load_arrays(f)


def test_an_array_that_is_no_npz(tmp_path):
    with open(tmp_path / "a.npz", "wb") as f:
        np.save(f, random_images())
    with pytest.raises(ValueError, match="a.npz: can not be read"):
        load_arrays(tmp_path / "a.npz")


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    monkeypatch.setattr(pickle, "load", no_network)
    f = tmp_path / "a.npz"
    f.write_bytes(pickle.dumps(dict(images=1)))
    with pytest.raises(ValueError, match="a.npz: can not be read"):
        load_arrays(f)


# Through torchvision ------------------------------------------------------------------------------


def idx_bytes(a):
    "An array as an idx file"
    head = bytes([0, 0, 8, a.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in a.shape)
    return head + a.astype(np.uint8).tobytes()


@pytest.fixture
def fashion(tmp_path, monkeypatch):
    "A root with a small FashionMNIST, and a torchvision that believes in it and has no network"
    from torchvision.datasets import FashionMNIST, utils

    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    images = dict(train=random_images(50, 28, 28), t10k=random_images(10, 28, 28))
    resources = []
    for name, _ in FashionMNIST.resources:
        a = images[name.split("-")[0]]
        blob = gzip.compress(idx_bytes(a if "images" in name else np.arange(len(a)) % 10))
        (raw / name).write_bytes(blob)
        resources.append((name, hashlib.md5(blob).hexdigest()))
    monkeypatch.setattr(FashionMNIST, "resources", resources)
    monkeypatch.setattr(utils, "_urlretrieve", no_network)
    monkeypatch.setattr(utils, "_get_redirect_url", no_network)
    return tmp_path, raw, images


def test_fashion_mnist_keeps_its_test_set(fashion, monkeypatch):
    root, _, images = fashion
    monkeypatch.setenv("DENOISE_STUDY_DATA", str(root))
    info = cpu_dls("fashion_mnist", pad_to=8, range=(0, 1)).info
    assert (info.n_train, info.n_valid, info.n_test) == (45, 5, 10)
    assert (info.size, info.pad, info.classes[0]) == ((32, 32), (2, 2, 2, 2), "T-shirt/top")
    test, labels = load_arrays("fashion_mnist")["test"]
    assert torch.equal(test[:, 0], torch.tensor(images["t10k"]))
    assert labels.tolist() == list(range(10))


def test_damaged_fashion_mnist_is_named(fashion):
    root, raw, _ = fashion
    gz = raw / "train-images-idx3-ubyte.gz"
    whole = gz.read_bytes()
    gz.write_bytes(whole[:1000])
    with pytest.raises(FileNotFoundError) as e:
        cpu_dls("fashion_mnist", root=root)
    assert all(w in str(e.value) for w in (f"{gz} is damaged", "no network", "root"))
    gz.unlink()
    with pytest.raises(FileNotFoundError) as e:
        cpu_dls("fashion_mnist", root=root)
    assert f"{gz} is missing" in str(e.value)
    gz.write_bytes(whole)
    cpu_dls("fashion_mnist", root=root)
    unpacked = gz.with_suffix("")
    for n in 1000, 10, 2, 0:
        unpacked.write_bytes(unpacked.read_bytes()[:n])
        with pytest.raises(ValueError, match="idx3-ubyte: not as long as its header says"):
            cpu_dls("fashion_mnist", root=root)


@pytest.mark.parametrize(
    "name, words",
    [
        ("cifar10", ["CIFAR10", "data_batch_1 is missing", "root"]),
        ("cifar100", ["CIFAR100", "meta is missing"]),
        ("celeba", ["celeba", "img_align_celeba.zip is missing", "folder of the pictures"]),
        ("imagenet", ["imagenet", "train is missing", "root"]),
    ],
)
def test_a_data_set_that_can_not_be_had(tmp_path, monkeypatch, name, words):
    from torchvision.datasets import celeba, utils

    monkeypatch.setattr(utils, "_urlretrieve", no_network)
    monkeypatch.setattr(utils, "_get_redirect_url", no_network)
    monkeypatch.setattr(celeba, "download_file_from_google_drive", no_network)
    with pytest.raises(FileNotFoundError) as e:
        cpu_dls(name, root=tmp_path)
    assert all(w in str(e.value) for w in [str(tmp_path), *words]), str(e.value)


def test_celeba_keeps_its_three_parts(tmp_path, monkeypatch):
    from torchvision.datasets import CelebA

    base = tmp_path / "celeba"
    save_all(base / "img_align_celeba", random_images(12, 22, 18, 3), ext="jpg")

    def write(name, row, head=""):
        lines = [f"{i:03}.jpg {row(i)}\n" for i in range(12)]
        (base / name).write_text(head + "".join(lines))

    write("list_eval_partition.txt", lambda i: i // 4)
    write("identity_CelebA.txt", lambda i: 1)
    for name in "list_bbox_celeba.txt", "list_landmarks_align_celeba.txt", "list_attr_celeba.txt":
        write(name, lambda i: "1 -1", "12\na b\n")
    monkeypatch.setattr(CelebA, "_check_integrity", lambda self: True)
    dls = cpu_dls("celeba", root=tmp_path, size=16, bs=4)
    assert (dls.info.n_train, dls.info.n_valid, dls.info.n_test, dls.info.channels) == (4, 4, 4, 3)
    x, y = dls.one_batch()
    assert x.shape == (4, 3, 16, 16) and y.tolist() == [-1] * 4
    with pytest.raises(ValueError, match="official test set"):
        cpu_dls("celeba", root=tmp_path, size=16, test=0.1)


# Data bases and folders ---------------------------------------------------------------------------


class FakeEnv:
    "As much of lmdb as the reader uses"

    def __init__(self, folder):
        files = sorted(Path(folder).iterdir())
        self.data = {f"{i}".encode(): f.read_bytes() for i, f in enumerate(files)}

    def begin(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *args):
        pass

    def cursor(self):
        return self

    def iternext(self, values=True):
        return iter(self.data)

    def get(self, key):
        return self.data[key]


def test_lsun(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(ImportError, match="pip install lmdb"):
        cpu_dls("lsun_bedroom", root=tmp_path)
    monkeypatch.setitem(sys.modules, "lmdb", SimpleNamespace(open=lambda f, **kw: FakeEnv(f)))
    with pytest.raises(FileNotFoundError, match="bedroom_train_lmdb is missing"):
        cpu_dls("lsun_bedroom", root=tmp_path)
    for part, n in dict(train=20, val=5).items():
        save_all(
            tmp_path / "lsun" / f"bedroom_{part}_lmdb", random_images(n, 12, 16, 3), ext="webp"
        )
    info = cpu_dls("lsun_bedroom", root=tmp_path, size=8).info
    assert (info.n_train, info.n_valid, info.n_test, info.size, info.channels) == (
        18,
        2,
        5,
        (8, 8),
        3,
    )


def test_imagenet(tmp_path):
    for part, n in dict(train=10, val=3).items():
        for name in "n01", "n02":
            save_all(tmp_path / "imagenet" / part / name, random_images(n, 12, 16, 3), ext="jpg")
    name, sources, classes = open_dataset("imagenet", tmp_path)
    assert name == "imagenet" and classes == ["n01", "n02"] and len(sources["test"]) == 6
    info = cpu_dls("imagenet", root=tmp_path, size=8).info
    assert (info.name, info.n_train, info.n_valid, info.n_test) == ("imagenet", 18, 2, 6)
    assert info.classes == ("n01", "n02")
