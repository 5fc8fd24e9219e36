"""The order of the batches, and what fastai makes of the loaders."""

import json
import pickle
from fractions import Fraction
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from denoise_study.core import ArraySource, check_images, DataInfo, FASHION_CLASSES, first_images
from denoise_study.core import image_dls, ImageLoader, load_arrays, to_uint8
from helpers_coredata import cpu_dls, random_images, save_all


def test_digits_need_nothing_and_split_three_ways():
    dls = cpu_dls()
    i = dls.info
    assert (i.name, i.channels, i.size, i.range) == ("digits", 1, (8, 8), (-1.0, 1.0))
    assert i.classes == tuple("0123456789")
    assert (i.n_train, i.n_valid, i.n_test) == (1437, 180, 180)
    x, y = dls.one_batch()
    assert x.shape == (128, 1, 8, 8) and x.dtype == torch.float32
    assert y.dtype == torch.int64 and y.min() >= 0
    check_images(x, range=(-1, 1))
    assert (x.min(), x.max()) == (-1, 1)
    assert DataInfo(**json.loads(json.dumps(i.to_dict()))) == i and hash(i)


# Order, resuming, shards --------------------------------------------------------------------------


def source(n=40):
    "Images of one grey level each, which is also their label"
    levels = torch.arange(n, dtype=torch.uint8)
    return ArraySource(levels.view(n, 1, 1, 1).expand(n, 1, 2, 2).contiguous(), np.arange(n))


def loader(n=40, **kwargs):
    return ImageLoader(source(n), device="cpu", **kwargs)


def ids(dl):
    return [y.tolist() for _, y in dl]


def test_epochs_are_stateless_and_resumable_at_any_batch():
    kwargs = dict(bs=8, shuffle=True, seed=3)
    dl = loader(**kwargs)
    epochs = [ids(dl) for _ in range(3)]
    assert dl.epoch == 3 and all(sorted(sum(e, [])) == list(range(40)) for e in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    for e in range(3):
        for start in range(6):  # 5: a pass that ended with its last batch
            again = loader(**kwargs, epoch=e, start=start)
            assert len(again) == 5 and ids(again) == epochs[e][start:]
            assert (again.epoch, again.start) == (e + 1, 0)
    assert ids(loader(bs=8, shuffle=True, seed=4)) != epochs[0]
    with pytest.raises(ValueError, match="^start: got 6"):
        ids(loader(bs=8, start=6))


def test_looking_and_giving_up_change_nothing():
    dl = loader(bs=8, shuffle=True, start=2)
    first = dl.one_batch()[1].tolist()
    for _ in dl:
        break
    assert (dl.epoch, dl.start) == (0, 2) and ids(dl)[0] == first


def test_images_and_labels_belong_together():
    for x, y in loader(bs=8, shuffle=True, range=(0, 255)):
        assert torch.equal(x[:, 0, 0, 0].long(), y)


@pytest.mark.parametrize(
    "n, drop, sizes",
    [
        (40, True, [16, 16]),
        (40, False, [16, 16, 8]),
        (10, True, [10]),
        (32, True, [16, 16]),
        (0, False, []),
    ],
)
def test_the_last_batch(n, drop, sizes):
    dl = loader(n, bs=16, drop_last=drop)
    assert [len(o) for o in ids(dl)] == sizes and len(dl) == len(sizes)
    if not n:
        with pytest.raises(ValueError, match="no batches"):
            dl.one_batch()


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("kwargs", [dict(shuffle=True, drop_last=True), dict()])
def test_the_shards_of_a_batch_are_the_batch(monkeypatch, world, kwargs):
    kwargs = dict(bs=8, seed=5, **kwargs)
    whole = ids(loader(43, **kwargs))
    monkeypatch.setenv("WORLD_SIZE", str(world))
    parts = []
    for rank in range(world):
        monkeypatch.setenv("RANK", str(rank))
        dl = loader(43, **kwargs)
        parts.append(ids(dl))
        assert len(dl) == len(parts[-1])
    joined, dl.epoch = [sum(o, []) for o in zip(*parts)], 0
    cut = [o[: len(o) // world * world] for o in whole]
    assert joined == [o for o in cut if o] and dl.get_idxs().tolist() == sum(joined, [])
    # an explicit shard overrules the launcher
    assert ids(loader(43, shard=(0, 1), **kwargs)) == whole


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="^bs: got 8 for 3 processes"):
        len(loader(bs=8, shard=(0, 3)))


def test_shorter_epochs():
    "`batches` cuts the same shuffled order, and the next epoch visits other images"
    train = image_dls("digits", bs=64, device="cpu").train
    short = train.new(batches=3)
    assert len(short) == 3 and len(list(short)) == 3 and short.new().batches == 3
    whole = train.plan()
    first = train.new(batches=3).plan()
    assert all(torch.equal(a, b) for a, b in zip(first, whole)) and len(first) == 3
    # the epoch of `short` is now the second
    assert set(torch.cat(short.plan()).tolist()) != set(torch.cat(first).tolist())
    assert len(train.new(batches=10**6)) == len(train)
    for bad in (0, 1.5, Fraction(1, 2), True):
        with pytest.raises((ValueError, TypeError), match="^batches: .*got"):
            train.new(batches=bad)


@pytest.mark.parametrize("steps, epochs", [(1, 1), (31, 3), (600, 28), (601, 28), (97, 97)])
def test_epochs_that_make_a_number_of_steps(steps, epochs):
    "Lengths differ by one at most; the steps are exactly those, from whatever epoch it begins"
    train = image_dls("digits", bs=64, device="cpu").train.new(batches=Fraction(steps, epochs))
    lengths = []
    for train.epoch in range(3, 3 + epochs):
        lengths.append(len(train))
        assert len(train.plan()) == len(train)
    assert sum(lengths) == steps == train.steps(epochs)
    assert max(lengths) - min(lengths) <= 1 and min(lengths) >= 1


# Without batches ----------------------------------------------------------------------------------


def test_loaders_and_arrays_give_the_same_images():
    dls = cpu_dls("digits", range=(0, 1))
    images, labels = load_arrays("digits")["test"]
    for n in None, 1, 128, 130:
        x, y = first_images(dls, "test", n)
        assert torch.equal(to_uint8(x, (0, 1)), images[:n]) and torch.equal(y, labels[:n])
    assert (dls.train.epoch, len(first_images(dls, "train")[0]), dls.train.epoch) == (0, 1437, 0)


def test_loaders_over_folders_go_to_other_processes(tmp_path):
    "Pickled and opened again they give the same batches; torch's own DataLoader takes the sources"
    dls = cpu_dls(save_all(tmp_path, random_images(30)), bs=8)
    again = pickle.loads(pickle.dumps(dls))
    assert again.info == dls.info
    for (x, y), (x2, y2) in zip(dls.train, again.train, strict=True):
        assert torch.equal(x, x2) and torch.equal(y, y2)

    sources = dls.test.dataset, image_dls("digits", device="cpu").test.dataset
    for source in sources:
        u, y = next(iter(torch.utils.data.DataLoader(source, batch_size=2)))
        assert torch.equal(u, source.batch([0, 1])) and torch.equal(y, source.labels[:2])
        assert torch.equal(source[-1][0], source.batch([len(source) - 1])[0])
        with pytest.raises(IndexError, match="i: one of"):
            source[len(source)]
    assert len(list(sources[1])) == 180


@pytest.mark.slow
def test_a_spawned_worker_reads_a_folder(tmp_path):
    source = cpu_dls(save_all(tmp_path, random_images(30)), bs=8).train.dataset
    spawn = dict(num_workers=2, multiprocessing_context="spawn")
    batches = list(torch.utils.data.DataLoader(source, batch_size=5, **spawn))
    assert torch.equal(torch.cat([u for u, _ in batches]), source.batch(range(len(source))))


def test_loaders_say_what_they_are():
    dls = image_dls("fashion_mini", device="cpu")
    assert (dls.vocab, dls.c) == (FASHION_CLASSES, 10)
    assert "fashion_mini" in repr(dls) and "4,000 images in batches of 128, shuffled" in repr(dls)
    bare = cpu_dls(random_images(20))
    assert (bare.vocab, bare.c) == ((), 0)
    empty = dls.new_empty()
    assert empty.info == dls.info and [len(loader) for loader in empty.loaders] == [0, 0, 0]


def test_results_are_shown_as_classes_or_numbers():
    dls = image_dls("fashion_mini", device="cpu")
    b = dls.test.one_batch()
    shown = [t.get_text() for t in dls.test.show_results(b, b[1], max_n=3).texts]
    assert shown == [FASHION_CLASSES[k] for k in b[1][:3]]
    two = b[0][:2], b[1][:2]
    shown = [t.get_text() for t in dls.test.show_results(two, torch.tensor([0.25, 3.0])).texts]
    assert shown == ["0.25", "3"]
    with pytest.raises(ValueError, match=r"out: one class or number .*got \(128, 10\).*decodes"):
        dls.test.show_results(b, torch.zeros(128, 10))
    plt.close("all")


def test_a_split_without_images_has_no_first_images():
    with pytest.raises(ValueError, match="^valid: the data set digits has no images"):
        first_images(cpu_dls("digits", valid=0), "valid")


# In fastai ----------------------------------------------------------------------------------------


@pytest.fixture
def learn():
    import fastai.callback.schedule  # noqa: F401  adds lr_find, whatever ran before
    from fastai.learner import Learner

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    return Learner(cpu_dls(bs=64, valid=0.2), net, torch.nn.CrossEntropyLoss())


def test_learner_fits_validates_predicts_and_finds_a_rate(learn, tmp_path):
    learn.path = tmp_path
    with learn.no_bar(), learn.no_logging():
        learn.lr_find(num_it=25, show_plot=False)
        before = learn.validate()[0]
        learn.dls.train.epoch = 0
        learn.fit(2, lr=0.02)
        assert learn.validate()[0] < before and learn.dls.train.epoch == 2
        p, y = learn.get_preds()
        assert torch.equal(y, learn.dls.valid.dataset.labels) and len(p) == learn.dls.info.n_valid
        p, y, l = learn.get_preds(ds_idx=2, with_loss=True)
        assert torch.equal(y, learn.dls.test.dataset.labels)
        p, y = learn.get_preds(ds_idx=0)
        assert torch.equal(y, learn.dls.train.dataset.labels)
        # shuffled, and put back in order
        p, y = learn.get_preds(dl=learn.dls.train.new(drop_last=False))
        assert torch.equal(y, learn.dls.train.dataset.labels)
    ax = learn.dls.show_batch(max_n=4)
    assert len(ax.texts) == 4


def test_loaders_are_fastais(learn):
    from fastai.distributed import DistributedDL, DistributedTrainer

    dl = learn.dls.train
    assert isinstance(dl, DistributedDL)
    assert DistributedTrainer._wrap_dl(SimpleNamespace(learn=learn), dl) is dl
    assert learn.dls.n_inp == 1 and learn.dls.test is learn.dls[2]
    assert learn.dls.to("cpu").train.device == torch.device("cpu")
    learn.dls.to("meta")
    assert all(o.device == torch.device("meta") for o in learn.dls.loaders)
    assert learn.dls.one_batch()[0].device.type == "meta"


def test_a_fit_is_repeatable_and_resumes_in_mid_epoch():
    from fastai.callback.core import Callback
    from fastai.learner import Learner

    class Seen(Callback):
        def before_batch(self):
            if self.training:
                self.learn.seen.append(self.y.tolist())

    def seen(epoch=0, start=0, n=2):
        dls = cpu_dls(bs=256, seed=9)
        dls.train.epoch, dls.train.start = epoch, start
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        learn = Learner(dls, net, torch.nn.CrossEntropyLoss(), cbs=Seen)
        learn.seen = []
        with learn.no_bar(), learn.no_logging():
            learn.fit(n, 1e-3)
        return learn.seen

    whole = seen()
    assert whole == seen() and whole[7:] == seen(1, 2, 1) and len(whole) == 10


# Few images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "n, shares, counts",
    [
        (1, {}, (1, 0, 0)),
        (2, {}, (2, 0, 0)),
        (5, {}, (5, 0, 0)),
        (6, {}, (4, 1, 1)),
        (2, dict(valid=1), (1, 1, 0)),
        (3, dict(valid=1, test=1), (1, 1, 1)),
        (20, dict(valid=0), (18, 0, 2)),
        (20, dict(test=0), (18, 2, 0)),
        (20, dict(valid=0.0, test=0.0), (20, 0, 0)),
        (20, dict(valid=2, test=1), (17, 2, 1)),
    ],
)
@pytest.mark.parametrize("files", [False, True])
def test_splits_of_few_images_work_also_empty_ones(tmp_path, n, shares, counts, files):
    a = random_images(n)
    data = save_all(tmp_path / "f", a) if files else a
    dls = cpu_dls(data, bs=4, **shares)
    assert (dls.info.n_train, dls.info.n_valid, dls.info.n_test) == counts
    for loader, split, count in zip(dls.loaders, ("train", "valid", "test"), counts):
        assert (
            len(list(loader))
            == len(loader)
            == (max(1, count // 4) if split == "train" else -(-count // 4))
        )
        if count:
            assert len(first_images(dls, split)[0]) == count
            continue
        with pytest.raises(ValueError, match=f"{split}: .* has no images"):
            first_images(dls, split)
        with pytest.raises(ValueError, match="no batches: 0 images"):
            loader.one_batch()
    kinds = load_arrays(data, **shares)
    assert [len(u) for u, _ in kinds.values()] == list(counts)


@pytest.mark.parametrize(
    "n, shares",
    [
        (1, dict(valid=1)),
        (2, dict(valid=2)),
        (2, dict(valid=1, test=1)),
        (3, dict(test=3)),
        (3, dict(valid=2, test=2)),
    ],
)
def test_splits_that_leave_none_to_train_on_are_refused_by_name(n, shares):
    with pytest.raises(ValueError, match="^(valid|test)"):
        cpu_dls(random_images(n), **shares)
