"""Pictures in folders: which files, in which order, and every way it goes wrong."""
import time

import numpy as np
import pytest
import torch
from PIL import Image

from denoise_study.core import FileSource, load_arrays, map_in_order, picture_files
from helpers_coredata import RNG, all_bytes, cpu_dls, random_images, save_all


def test_map_in_order_keeps_the_order_stops_early_and_passes_errors_on():
    def slow(i):
        time.sleep(.002*(i % 3))
        return i
    assert list(map_in_order(slow, range(20), 4)) == list(range(20))
    it = map_in_order(slow, range(10**9), 3)
    assert next(it) == 0
    it.close()
    with pytest.raises(ZeroDivisionError): list(map_in_order(lambda i: 1/i, [1,0], 2))


def test_picture_files_are_sorted_and_hidden_ones_do_not_count(tmp_path):
    save_all(tmp_path/'b', random_images(2))
    save_all(tmp_path/'a'/'deep', random_images(1), ext='jpg')
    (tmp_path/'.cache').mkdir()
    (tmp_path/'.cache'/'x.png').write_bytes(b'')
    (tmp_path/'notes.txt').write_text('no picture')
    found = [str(f.relative_to(tmp_path)) for f in picture_files(tmp_path)]
    assert found == ['a/deep/000.jpg', 'b/000.png', 'b/001.png']


def test_files_of_equal_length_and_equal_tails_are_still_told_apart(tmp_path):
    files = [tmp_path/f'{i}.png' for i in range(4)]
    for f, head in zip(files, b'aabc'): f.write_bytes(bytes([head])*10 + bytes(9000))
    (tmp_path/'4.png').write_bytes(b'other length')
    source = FileSource.__new__(FileSource)
    source.items, source.threads = [*files, tmp_path/'4.png'], 2
    a, b, c, d, e = source.digests()
    assert a == b and len({a,c,d,e}) == 4


def test_flat_and_class_folders(tmp_path):
    a = random_images(20)
    flat = cpu_dls(save_all(tmp_path/'flat', a))
    assert flat.info.classes == () and flat.info.channels == 1
    assert flat.one_batch()[1].unique().tolist() == [-1]
    save_all(tmp_path/'c'/'b', a[:12])
    save_all(tmp_path/'c'/'a'/'deeper', a[12:], start=12)
    (tmp_path/'c'/'.hidden').mkdir()
    (tmp_path/'c'/'.hidden'/'x.png').write_bytes(b'no picture')
    by_class = load_arrays(tmp_path/'c')
    assert cpu_dls(tmp_path/'c').info.classes == ('a','b')
    got = {o.numpy().tobytes(): y.item() for u,ys in by_class.values() for o,y in zip(u, ys)}
    assert got == {o.tobytes(): int(i < 12) for i,o in enumerate(a)}
    assert all_bytes(by_class) == all_bytes(load_arrays(tmp_path/'flat'))


@pytest.mark.parametrize('held, counts', [
    (('val',), (27,3,10)), (('test',), (27,3,10)), (('valid','test'), (30,5,10))])
def test_a_folder_with_its_own_splits(tmp_path, held, counts):
    a = random_images(45, 6, 6, 3)
    save_all(tmp_path/'train'/'x', a[:15])
    save_all(tmp_path/'train'/'y', a[15:30], start=15)
    for name in held: save_all(tmp_path/name/'y', a[30:35] if name == 'valid' else a[35:])
    info = cpu_dls(str(tmp_path)).info
    assert (info.n_train, info.n_valid, info.n_test) == counts and info.classes == ('x','y')
    test, labels = load_arrays(tmp_path)['test']
    channels_last = test.permute(0,2,3,1).contiguous()
    assert {o.numpy().tobytes() for o in channels_last} == {o.tobytes() for o in a[35:]}
    assert labels.unique().tolist() == [1]
    with pytest.raises(ValueError, match='^test: .* official'): cpu_dls(tmp_path, test=.1)


def test_val_and_valid_beside_test_are_refused(tmp_path):
    for name in ('train', 'val', 'valid', 'test'): save_all(tmp_path/name, random_images(3))
    with pytest.raises(ValueError, match='`val` or `valid` beside'): load_arrays(tmp_path)


def test_a_class_may_be_called_train(tmp_path):
    for name in 'car','train': save_all(tmp_path/name, random_images(10))
    assert cpu_dls(tmp_path).info.classes == ('car','train')


def test_grey_in_a_coloured_folder_becomes_coloured(tmp_path):
    save_all(tmp_path, random_images(10, 6, 6, 3))
    save_all(tmp_path, random_images(10, 6, 6), start=10)
    dls = cpu_dls(tmp_path)
    assert dls.info.channels == 3
    grey = sum((u[:,0] == u[:,1]).flatten(1).all(1).sum() for u,_ in load_arrays(tmp_path).values())
    assert grey == 10


@pytest.mark.parametrize('cache', [True,False,'auto'])
def test_cache_changes_nothing_but_the_work(tmp_path, monkeypatch, cache):
    save_all(tmp_path/'f', random_images(20))
    reads = []
    decode = FileSource._decode
    def counted(self, i):
        reads.append(i)
        return decode(self, i)
    monkeypatch.setattr(FileSource, '_decode', counted)
    dl = cpu_dls(tmp_path/'f', cache=cache, bs=4, valid=0, test=0).train
    first = [x for x,_ in dl]
    dl.epoch = 0
    assert all(torch.equal(a, b) for a,(b,_) in zip(first, dl))
    assert len(reads) == (20 if cache else 40)


# What goes wrong ----------------------------------------------------------------------------------

def error(kind, *words, path, **kwargs):
    with pytest.raises(kind) as e: load_arrays(path, **kwargs)
    assert all(str(w) in str(e.value) for w in words), str(e.value)


def test_an_empty_folder_is_named(tmp_path):
    error(FileNotFoundError, tmp_path, '.png', path=tmp_path)
    (tmp_path/'notes.txt').write_text('no picture')
    error(FileNotFoundError, tmp_path, path=tmp_path)


def test_pictures_beside_classes_and_empty_classes_are_named(tmp_path):
    mixed = save_all(tmp_path/'mixed', random_images(3))
    save_all(mixed/'a', random_images(3))
    error(ValueError, mixed, '000.png', 'subfolders', path=mixed)
    hollow = tmp_path/'hollow'
    save_all(hollow/'a', random_images(3))
    (hollow/'b').mkdir()
    error(FileNotFoundError, hollow/'b', path=hollow)
    strange = tmp_path/'strange'
    save_all(strange/'train'/'a', random_images(9))
    save_all(strange/'val'/'b', random_images(3))
    error(ValueError, strange/'val'/'b', path=strange)


def test_sizes_that_differ_and_deep_pictures_are_named(tmp_path):
    sizes = save_all(tmp_path/'sizes', random_images(10))
    save_all(sizes, random_images(1, 9, 8), start=10)
    error(ValueError, 'size:', 'differ', path=sizes)
    assert cpu_dls(sizes, size=8).info.size == (8,8)
    deep = save_all(tmp_path/'deep', random_images(5))
    Image.fromarray(RNG.integers(0, 60000, (8,8)).astype(np.uint16)).save(deep/'zz.png')
    error(ValueError, deep/'zz.png', 'more than 8 bits', path=deep)


@pytest.mark.parametrize('ext', ['png','jpg','webp'])
def test_a_truncated_picture_is_named_when_its_turn_comes(tmp_path, ext):
    save_all(tmp_path, random_images(20, 64, 64, 3), ext=ext)
    bad = tmp_path/f'007.{ext}'
    bad.write_bytes(bad.read_bytes()[:400])
    with pytest.raises(ValueError, match=f'007.{ext}: this picture does not decode') as e:
        load_arrays(tmp_path)
    assert '8-bit' in str(e.value)


def test_odd_pictures_that_only_the_decoder_meets(tmp_path, monkeypatch):
    "The constructor looks at a thousand headers; what it did not see must be caught later"
    monkeypatch.setattr(np, 'linspace', lambda a, b, n: np.array([0]))
    whole = dict(valid=0, test=0)
    save_all(tmp_path/'c', random_images(3))
    save_all(tmp_path/'c', random_images(1, 8, 8, 3), start=3)
    with pytest.raises(ValueError, match='003.png: coloured'): load_arrays(tmp_path/'c', **whole)
    save_all(tmp_path/'s', random_images(3))
    save_all(tmp_path/'s', random_images(1, 9, 8), start=3)
    with pytest.raises(ValueError, match='003.png: 9x8 pixels, others 8x8; give `size`'):
        load_arrays(tmp_path/'s', **whole)
    assert len(load_arrays(tmp_path/'s', size=8, **whole)['train'][0]) == 4
