"""The data room: every way in, every way it goes wrong, and the order of the batches."""
import gzip, json, sys
from types import SimpleNamespace

import numpy as np, pytest, torch
from PIL import Image

import denoise_study.core.data as D
from denoise_study.core import ArraySource, check_images, data_root, DataInfo, FileSource
from denoise_study.core import from_uint8, image_dls, ImageLoader, load_arrays, show_images
from denoise_study.core import to_uint8

RNG = np.random.default_rng(0)


def pics(n=40, h=8, w=8, c=None): return RNG.integers(0, 256, (n,h,w) if c is None else (n,h,w,c), dtype=np.uint8)
def loaders(*args, **kw): return image_dls(*args, device='cpu', **kw)
def all_bytes(sets): return sorted(o.numpy().tobytes() for u,_ in sets.values() for o in u)


def save_all(folder, images, ext='png', start=0):
    folder.mkdir(parents=True, exist_ok=True)
    for i,o in enumerate(images, start): Image.fromarray(o).save(folder/f'{i:03}.{ext}')
    return folder


# Ranges ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('r', [(-1,1), (0,1), (-.5,.5), (0,255), (-3,7), (1e-3,2e-3)])
def test_every_level_comes_back(r):
    u = torch.arange(256, dtype=torch.uint8)
    x = from_uint8(u, r)
    assert x.dtype == torch.float32 and torch.equal(to_uint8(x, r), u)
    assert x[0].item() == pytest.approx(r[0]) and x[-1].item() == pytest.approx(r[1])

def test_the_two_ranges_of_the_library_are_exact():
    u = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(from_uint8(u, (-1,1)), u.float()/127.5 - 1) and torch.equal(from_uint8(u, (0,1)), u.float()/255)
    assert from_uint8(u, (-1,1)).abs().max() == 1

def test_to_uint8_clamps_and_rounds():
    assert to_uint8(torch.tensor([-9., .4999/255, .5001/255, 9.]), (0,1)).tolist() == [0,0,1,255]

@pytest.mark.parametrize('call, error, words', [
    (lambda: from_uint8(torch.zeros(3)), TypeError, ['u:','float32','uint8']),
    (lambda: from_uint8(torch.zeros(3).byte(), (1,0)), ValueError, ['range:','(1, 0)']),
    (lambda: from_uint8(torch.zeros(3).byte(), 1.), ValueError, ['range:']),
    (lambda: from_uint8(torch.zeros(3).byte(), (0,float('inf'))), ValueError, ['range:']),
    (lambda: to_uint8(torch.zeros(3).byte(), (0,1)), TypeError, ['x:','uint8']),
    (lambda: to_uint8(torch.tensor([float('nan')]), (0,1)), ValueError, ['x:','NaN']),
    (lambda: check_images(np.zeros((1,1,8,8)), 'real'), TypeError, ['real:','ndarray']),
    (lambda: check_images(torch.zeros(8,8), 'real'), ValueError, ['real:','(8, 8)','(N,C,H,W)']),
    (lambda: check_images(torch.zeros(0,1,8,8), 'real'), ValueError, ['real:','(0, 1, 8, 8)']),
    (lambda: check_images(torch.zeros(1,1,8,8).byte(), 'real'), TypeError, ['real:','uint8','from_uint8']),
    (lambda: check_images(torch.zeros(1,1,8,8), 'real', channels=3), ValueError, ['real:','1 channels','3']),
    (lambda: check_images(torch.zeros(1,1,8,8), 'real', size=(8,9)), ValueError, ['real:','8x8','8x9']),
    (lambda: check_images(torch.full((1,1,8,8), float('inf')), 'real'), ValueError, ['real:','infinity']),
    (lambda: check_images(torch.full((1,1,8,8), float('nan')), 'real', range=(0,1)), ValueError, ['real:','NaN']),
    (lambda: check_images(torch.full((1,1,8,8), -.1), 'real', range=(0,1)), ValueError, ['real:','-0.1','[0, 1]']),
    (lambda: show_images(torch.zeros(1,2,8,8), (0,1)), ValueError, ['x:','2 channels']),
    (lambda: show_images(torch.zeros(2,1,8,8), (0,1), titles=['a']), ValueError, ['titles:','1','2']),
])
def test_errors_name_the_argument(call, error, words):
    with pytest.raises(error) as e: call()
    assert all(w in str(e.value) for w in words), str(e.value)

def test_check_images_gives_its_argument_back():
    x = torch.rand(2,3,8,8)
    assert check_images(x, channels=3, size=8, range=(0,1)) is x
    check_images(x*(1 + 1e-6), range=(0,1)) # float32 noise at an end is no error


# Looking --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('c', [1,3])
def test_show_images_is_one_picture_with_every_image_in_place(c):
    x = torch.rand(5,c,8,8)
    ax = show_images(x, (0,1), titles=range(5), ncols=3)
    grid, = ax.images
    a = torch.tensor(np.asarray(grid.get_array())).view(*grid.get_array().shape[:2], c).permute(2,0,1)
    th,tw = (a.shape[1] + 1)//2,(a.shape[2] + 1)//3 # the gap of one pixel is cut off at the end
    for i in range(5):
        r,k = divmod(i, 3)
        assert any(torch.equal(a[:,r*th+o:r*th+o+8,k*tw:k*tw+8], to_uint8(x[i], (0,1))) for o in range(th-8))
    assert [t.get_text() for t in ax.texts] == list('01234')


# Geometry -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('hw, k, pad', [((28,28),8,(2,2,2,2)), ((28,28),32,(2,2,2,2)), ((8,8),8,(0,0,0,0)), ((5,6),4,(1,1,1,2)), ((5,6),None,(0,0,0,0))])
def test_padding_is_even_and_black(hw, k, pad):
    a = np.full((20,*hw), 200, dtype=np.uint8)
    a[:,0,0] = np.arange(20)
    dls = loaders(a, pad_to=k, range=(0,1), bs=4)
    l,r,t,b = pad
    assert dls.info.pad == pad and dls.info.size == (hw[0]+t+b, hw[1]+l+r)
    x = dls.test.one_batch()[0]
    assert x.shape[2:] == dls.info.size
    inner = x[:,:,t:t+hw[0],l:l+hw[1]]
    assert x.sum() == pytest.approx(inner.sum().item()) and inner[:,:,1:].min() > .7

def test_center_crop_takes_the_middle_and_squash_all_of_it():
    a = np.zeros((20,12,4), dtype=np.uint8)
    a[:,4:8] = 255
    a[:,0,0] = np.arange(20) # no two alike
    assert (load_arrays(a, size=4)['train'][0] == 255).all()
    squashed = load_arrays(a, size=4, crop='squash')['train'][0].float()
    assert squashed[:,:,0,1:].mean() < 60 and 50 < squashed.mean() < 130

def test_arrays_and_files_are_resized_alike(tmp_path):
    a = pics(20, 20, 15, 3)
    save_all(tmp_path/'f', a)
    kw = dict(size=(10,8), pad_to=4)
    assert all_bytes(load_arrays(a, **kw)) == all_bytes(load_arrays(tmp_path/'f', **kw))

def test_center_crop_of_a_face_sized_picture_keeps_the_aspect_ratio():
    ramp = np.broadcast_to(np.linspace(0, 255, 218).astype(np.uint8)[:,None], (218,178))
    a = np.stack([ramp, 255 - ramp])
    u = load_arrays(a, size=64, valid=0, test=0)['train'][0][0,0].float()
    step = (u[-1] - u[0]).mean()/63
    assert step.item() == pytest.approx(255/218*178/64, rel=.02)


# Splits ---------------------------------------------------------------------------------------------------------------

def test_digits_need_nothing_and_split_three_ways():
    dls = loaders()
    i = dls.info
    assert (i.name, i.channels, i.size, i.range, i.classes) == ('digits', 1, (8,8), (-1.,1.), tuple('0123456789'))
    assert (i.n_train, i.n_valid, i.n_test) == (1437,180,180)
    x,y = dls.one_batch()
    assert x.shape == (128,1,8,8) and x.dtype == torch.float32 and y.dtype == torch.int64 and y.min() >= 0
    check_images(x, range=(-1,1))
    assert (x.min(), x.max()) == (-1,1)
    assert DataInfo(**json.loads(json.dumps(i.to_dict()))) == i and hash(i)

def test_the_split_depends_on_the_seed_only():
    a,b,c = (load_arrays('digits', **kw) for kw in (dict(), dict(size=16, pad_to=32), dict(seed=1)))
    assert all(torch.equal(a[k][1], b[k][1]) for k in a) and not torch.equal(a['valid'][1], c['valid'][1])
    assert all_bytes(a) == all_bytes(c)

@pytest.mark.parametrize('as_files', [False,True])
@pytest.mark.parametrize('seed', range(5))
def test_copies_stay_on_one_side(tmp_path, as_files, seed):
    a = pics(30, 4, 4)
    a = np.concatenate([a, a[:20], a[:5]])
    data = save_all(tmp_path/'f', a) if as_files else a
    sets = load_arrays(data, valid=.2, test=.2, seed=seed)
    keys = [{o.numpy().tobytes() for o in u} for u,_ in sets.values()]
    assert sum(len(u) for u,_ in sets.values()) == 55 and len(set.union(*keys)) == 30 == sum(map(len, keys))

def test_files_of_equal_length_and_equal_tails_are_still_told_apart(tmp_path):
    files = [tmp_path/f'{i}.png' for i in range(4)]
    for f,head in zip(files, b'aabc'): f.write_bytes(bytes([head])*10 + bytes(9000))
    (tmp_path/'4.png').write_bytes(b'other length')
    src = FileSource.__new__(FileSource)
    src.items,src.threads = [*files, tmp_path/'4.png'],2
    a,b,c,d,e = src.digests()
    assert a == b and len({a,c,d,e}) == 4

def test_counts_and_shares():
    info = loaders(pics(), valid=7, test=.25).info
    assert (info.n_train, info.n_valid, info.n_test) == (23,7,10)
    dls = loaders(pics(), valid=0, test=0)
    assert dls.info.n_train == 40 and len(dls.valid) == len(dls.test) == 0 and [*dls.valid] == []

@pytest.mark.parametrize('kw, word', [(dict(valid=1.), 'valid'), (dict(valid=-1), 'valid'), (dict(valid=40), 'valid'), (dict(valid=True), 'valid'),
    (dict(test='a'), 'test'), (dict(valid=.5, test=.5), 'valid, test'), (dict(seed=-1), 'seed'), (dict(seed=.5), 'seed'), (dict(bs=0), 'bs'),
    (dict(bs=2.), 'bs'), (dict(size=0), 'size'), (dict(size=(8,)), 'size'), (dict(size=8.), 'size'), (dict(pad_to=0), 'pad_to'),
    (dict(crop='random'), 'crop'), (dict(cache='no'), 'cache'), (dict(range=(1,1)), 'range')])
def test_bad_arguments_are_named(kw, word):
    with pytest.raises(ValueError, match=f'^{word}: '): loaders(pics(), **kw)


# Order, resuming, shards ----------------------------------------------------------------------------------------------

def source(n=40): return ArraySource(torch.arange(n, dtype=torch.uint8).view(n,1,1,1).expand(n,1,2,2).contiguous(), np.arange(n))
def ids(dl): return [y.tolist() for _,y in dl]

def test_epochs_are_stateless_and_resumable_at_any_batch():
    dl = ImageLoader(source(), bs=8, shuffle=True, seed=3, device='cpu')
    epochs = [ids(dl) for _ in range(3)]
    assert dl.epoch == 3 and all(sorted(sum(e, [])) == list(range(40)) for e in epochs) and epochs[0] != epochs[1] != epochs[2]
    for e in range(3):
        for start in range(6): # 5: a pass that ended with its last batch
            again = ImageLoader(source(), bs=8, shuffle=True, seed=3, epoch=e, start=start, device='cpu')
            assert len(again) == 5 and ids(again) == epochs[e][start:] and (again.epoch, again.start) == (e+1, 0)
    assert ids(ImageLoader(source(), bs=8, shuffle=True, seed=4, device='cpu')) != epochs[0]
    with pytest.raises(ValueError, match='^start: got 6'): ids(ImageLoader(source(), bs=8, start=6, device='cpu'))

def test_looking_and_giving_up_change_nothing():
    dl = ImageLoader(source(), bs=8, shuffle=True, start=2, device='cpu')
    first = dl.one_batch()[1].tolist()
    for _ in dl: break
    assert (dl.epoch, dl.start) == (0,2) and ids(dl)[0] == first

def test_images_and_labels_belong_together():
    for x,y in ImageLoader(source(), bs=8, shuffle=True, range=(0,255), device='cpu'): assert torch.equal(x[:,0,0,0].long(), y)

@pytest.mark.parametrize('n, drop, sizes', [(40,True,[16,16]), (40,False,[16,16,8]), (10,True,[10]), (32,True,[16,16]), (0,False,[])])
def test_the_last_batch(n, drop, sizes):
    dl = ImageLoader(source(n), bs=16, drop_last=drop, device='cpu')
    assert [len(o) for o in ids(dl)] == sizes and len(dl) == len(sizes)
    if not n:
        with pytest.raises(ValueError, match='no batches'): dl.one_batch()

@pytest.mark.parametrize('world', [2,4])
@pytest.mark.parametrize('kw', [dict(shuffle=True, drop_last=True), dict()])
def test_the_shards_of_a_batch_are_the_batch(monkeypatch, world, kw):
    whole = ids(ImageLoader(source(43), bs=8, seed=5, device='cpu', **kw))
    monkeypatch.setenv('WORLD_SIZE', str(world))
    parts = []
    for r in range(world):
        monkeypatch.setenv('RANK', str(r))
        dl = ImageLoader(source(43), bs=8, seed=5, device='cpu', **kw)
        parts.append(ids(dl))
        assert len(dl) == len(parts[-1])
    joined,dl.epoch = [sum(o, []) for o in zip(*parts)],0
    cut = [o[:len(o)//world*world] for o in whole]
    assert joined == [o for o in cut if o] and dl.get_idxs().tolist() == sum(joined, [])
    one = ImageLoader(source(43), bs=8, seed=5, device='cpu', shard=(0,1), **kw)
    assert ids(one) == whole # an explicit shard overrules the launcher

def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match='^bs: got 8 for 3 processes'): len(ImageLoader(source(), bs=8, shard=(0,3), device='cpu'))

def test_in_order_keeps_the_order_stops_early_and_passes_errors_on():
    import time
    slow = lambda i: (time.sleep(.002*(i % 3)), i)[1]
    assert list(D._in_order(slow, range(20), 4)) == list(range(20))
    it = D._in_order(slow, range(10**9), 3)
    assert next(it) == 0
    it.close()
    with pytest.raises(ZeroDivisionError): list(D._in_order(lambda i: 1/i, [1,0], 2))


# In fastai ------------------------------------------------------------------------------------------------------------

@pytest.fixture
def learn():
    from fastai.learner import Learner
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    return Learner(loaders(bs=64, valid=.2), net, torch.nn.CrossEntropyLoss())

def test_learner_fits_validates_predicts_and_finds_a_rate(learn, tmp_path):
    from fastai.callback.schedule import fit_one_cycle # adds lr_find
    learn.path = tmp_path
    with learn.no_bar(), learn.no_logging():
        learn.lr_find(num_it=25, show_plot=False)
        before = learn.validate()[0]
        learn.dls.train.epoch = 0
        learn.fit(2, lr=.02)
        assert learn.validate()[0] < before and learn.dls.train.epoch == 2
        p,y = learn.get_preds()
        assert torch.equal(y, learn.dls.valid.dataset.labels) and len(p) == learn.dls.info.n_valid
        p,y,l = learn.get_preds(ds_idx=2, with_loss=True)
        assert torch.equal(y, learn.dls.test.dataset.labels)
        p,y = learn.get_preds(ds_idx=0)
        assert torch.equal(y, learn.dls.train.dataset.labels)
        p,y = learn.get_preds(dl=learn.dls.train.new(drop_last=False)) # shuffled, and put back in order
        assert torch.equal(y, learn.dls.train.dataset.labels)
    ax = learn.dls.show_batch(max_n=4)
    assert len(ax.texts) == 4

def test_loaders_are_fastais(learn):
    from fastai.distributed import DistributedDL, DistributedTrainer
    dl = learn.dls.train
    assert isinstance(dl, DistributedDL) and DistributedTrainer._wrap_dl(SimpleNamespace(learn=learn), dl) is dl
    assert learn.dls.n_inp == 1 and learn.dls.test is learn.dls[2] and learn.dls.to('cpu').train.device == torch.device('cpu')
    learn.dls.to('meta')
    assert all(o.device == torch.device('meta') for o in learn.dls.loaders) and learn.dls.one_batch()[0].device.type == 'meta'

def test_a_fit_is_repeatable_and_resumes_in_mid_epoch():
    from fastai.callback.core import Callback
    from fastai.learner import Learner
    class Seen(Callback):
        def before_batch(self):
            if self.training: self.learn.seen.append(self.y.tolist())
    def seen(epoch=0, start=0, n=2):
        dls = loaders(bs=256, seed=9)
        dls.train.epoch,dls.train.start = epoch,start
        learn = Learner(dls, torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64,10)), torch.nn.CrossEntropyLoss(), cbs=Seen)
        learn.seen = []
        with learn.no_bar(), learn.no_logging(): learn.fit(n, 1e-3)
        return learn.seen
    whole = seen()
    assert whole == seen() and whole[7:] == seen(1, 2, 1) and len(whole) == 10


# Folders --------------------------------------------------------------------------------------------------------------

def test_flat_and_class_folders(tmp_path):
    a = pics(20)
    flat = loaders(save_all(tmp_path/'flat', a))
    assert flat.info.classes == () and flat.one_batch()[1].unique().tolist() == [-1] and flat.info.channels == 1
    save_all(tmp_path/'c'/'b', a[:12]); save_all(tmp_path/'c'/'a'/'deeper', a[12:], start=12)
    (tmp_path/'c'/'.hidden').mkdir()
    (tmp_path/'c'/'.hidden'/'x.png').write_bytes(b'no picture')
    by_class = load_arrays(tmp_path/'c')
    assert loaders(tmp_path/'c').info.classes == ('a','b')
    got = {o.numpy().tobytes(): y.item() for u,ys in by_class.values() for o,y in zip(u, ys)}
    assert got == {o.tobytes(): int(i < 12) for i,o in enumerate(a)}
    assert all_bytes(by_class) == all_bytes(load_arrays(tmp_path/'flat'))

@pytest.mark.parametrize('held, counts', [(('val',),(27,3,10)), (('test',),(27,3,10)), (('valid','test'),(30,5,10))])
def test_a_folder_with_its_own_splits(tmp_path, held, counts):
    a = pics(45, 6, 6, 3)
    save_all(tmp_path/'train'/'x', a[:15]); save_all(tmp_path/'train'/'y', a[15:30], start=15)
    for o in held: save_all(tmp_path/o/'y', a[30:35] if o == 'valid' else a[35:])
    i = loaders(str(tmp_path)).info
    assert (i.n_train, i.n_valid, i.n_test) == counts and i.classes == ('x','y')
    test,labels = load_arrays(tmp_path)['test']
    assert {o.numpy().tobytes() for o in test.permute(0,2,3,1).contiguous()} == {o.tobytes() for o in a[35:]} and labels.unique().tolist() == [1]
    with pytest.raises(ValueError, match='^test: .* official'): loaders(tmp_path, test=.1)

def test_a_class_may_be_called_train(tmp_path):
    for o in 'car','train': save_all(tmp_path/o, pics(10))
    assert loaders(tmp_path).info.classes == ('car','train')

def test_grey_in_a_coloured_folder_becomes_coloured(tmp_path):
    save_all(tmp_path, pics(10, 6, 6, 3)); save_all(tmp_path, pics(10, 6, 6), start=10)
    dls = loaders(tmp_path)
    assert dls.info.channels == 3
    grey = sum((u[:,0] == u[:,1]).flatten(1).all(1).sum() for u,_ in load_arrays(tmp_path).values())
    assert grey == 10

@pytest.mark.parametrize('cache', [True,False,'auto'])
def test_cache_changes_nothing_but_the_work(tmp_path, monkeypatch, cache):
    save_all(tmp_path/'f', pics(20))
    reads = []
    decode = FileSource._decode
    monkeypatch.setattr(FileSource, '_decode', lambda self, i: (reads.append(i), decode(self, i))[1])
    dl = loaders(tmp_path/'f', cache=cache, bs=4, valid=0, test=0).train
    first = [x for x,_ in dl]
    dl.epoch = 0
    assert all(torch.equal(a, b) for a,(b,_) in zip(first, dl))
    assert len(reads) == (20 if cache else 40)

def test_folder_errors_name_the_file(tmp_path):
    def error(kind, *words, path, **kw):
        with pytest.raises(kind) as e: load_arrays(path, **kw)
        assert all(str(w) in str(e.value) for w in words), str(e.value)
    empty = tmp_path/'empty'
    empty.mkdir()
    error(FileNotFoundError, empty, '.png', path=empty)
    (empty/'notes.txt').write_text('no picture')
    error(FileNotFoundError, empty, path=empty)

    mixed = save_all(tmp_path/'mixed', pics(3)); save_all(mixed/'a', pics(3))
    error(ValueError, mixed, '000.png', 'subfolders', path=mixed)
    hollow = tmp_path/'hollow'
    save_all(hollow/'a', pics(3)); (hollow/'b').mkdir()
    error(FileNotFoundError, hollow/'b', path=hollow)
    strange = tmp_path/'strange'
    save_all(strange/'train'/'a', pics(9)); save_all(strange/'val'/'b', pics(3))
    error(ValueError, strange/'val'/'b', path=strange)

    sizes = save_all(tmp_path/'sizes', pics(10)); save_all(sizes, pics(1, 9, 8), start=10)
    error(ValueError, 'size:', 'differ', path=sizes)
    assert loaders(sizes, size=8).info.size == (8,8)
    deep = save_all(tmp_path/'deep', pics(5))
    Image.fromarray(RNG.integers(0, 60000, (8,8)).astype(np.uint16)).save(deep/'zz.png')
    error(ValueError, deep/'zz.png', 'more than 8 bits', path=deep)
    error(FileNotFoundError, 'nowhere', 'digits', '.npz', path='nowhere')
    (tmp_path/'notes.txt').write_text('x')
    error(FileNotFoundError, 'notes.txt', path=tmp_path/'notes.txt')
    with pytest.raises(TypeError, match='^data: got int'): load_arrays(3)

@pytest.mark.parametrize('ext', ['png','jpg','webp'])
def test_a_truncated_picture_is_named_when_its_turn_comes(tmp_path, ext):
    save_all(tmp_path, pics(20, 64, 64, 3), ext=ext)
    bad = tmp_path/f'007.{ext}'
    bad.write_bytes(bad.read_bytes()[:400])
    with pytest.raises(ValueError, match=f'007.{ext}: this picture does not decode') as e: load_arrays(tmp_path)
    assert '8-bit' in str(e.value)

def test_odd_pictures_that_only_the_decoder_meets(tmp_path, monkeypatch):
    "The constructor looks at a thousand headers; what it did not see must be caught later"
    monkeypatch.setattr(D.np, 'linspace', lambda a, b, n: np.array([0]))
    save_all(tmp_path/'c', pics(3)); save_all(tmp_path/'c', pics(1, 8, 8, 3), start=3)
    with pytest.raises(ValueError, match='003.png: coloured'): load_arrays(tmp_path/'c', valid=0, test=0)
    save_all(tmp_path/'s', pics(3)); save_all(tmp_path/'s', pics(1, 9, 8), start=3)
    with pytest.raises(ValueError, match='003.png: 9x8 pixels, others 8x8; give `size`'): load_arrays(tmp_path/'s', valid=0, test=0)
    assert len(load_arrays(tmp_path/'s', valid=0, test=0, size=8)['train'][0]) == 4


# Arrays and .npz ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('shape, key', [((20,8,8),'images'), ((20,8,8,1),'arr_0'), ((20,8,6,3),'pictures')])
def test_npz(tmp_path, shape, key):
    a = RNG.integers(0, 256, shape, dtype=np.uint8)
    y = np.arange(20) % 4
    np.savez_compressed(tmp_path/'a.npz', **{key: a}, labels=y)
    info = loaders(tmp_path/'a.npz').info
    assert (info.name, info.channels, info.size, info.classes) == ('a', 3 if len(shape) == 4 and shape[3] == 3 else 1, shape[1:3], tuple('0123'))
    from_file,in_memory = load_arrays(str(tmp_path/'a.npz')),load_arrays((torch.tensor(a), y))
    assert all(torch.equal(p, q) for k in from_file for p,q in zip(from_file[k], in_memory[k]))

@pytest.mark.parametrize('arrays, words', [
    (dict(images=np.zeros((4,8,8))), ['`images`','float64','uint8']),
    (dict(images=np.zeros((4,8), np.uint8)), ['(4, 8)','(N,H,W)']),
    (dict(images=np.zeros((4,3,8,8), np.uint8)), ['(4, 3, 8, 8)','channels last']),
    (dict(images=np.zeros((0,8,8), np.uint8)), ['(0, 8, 8)']),
    (dict(a=np.zeros((4,8,8), np.uint8), b=np.zeros(3)), ["'a', 'b'",'`images`']),
    (dict(labels=np.zeros(4, int)), ['no images']),
    (dict(images=np.zeros((4,8,8), np.uint8), labels=np.zeros(3, int)), ['`labels`','(3,)','4 images']),
    (dict(images=np.zeros((4,8,8), np.uint8), labels=np.zeros(4)), ['`labels`','float64']),
    (dict(images=np.zeros((4,8,8), np.uint8), labels=np.full(4, -2)), ['`labels`']),
    (dict(images=np.array([object()])), ['can not be read']),
])
def test_npz_errors_name_file_and_key(tmp_path, arrays, words):
    f = tmp_path/'a.npz'
    np.savez(f, **arrays)
    with pytest.raises(ValueError) as e: load_arrays(f)
    assert all(w in str(e.value) for w in [str(f), *words]), str(e.value)

@pytest.mark.parametrize('cut', [0, 50, -100])
def test_a_cut_off_npz_is_named(tmp_path, cut):
    f = tmp_path/'a.npz'
    np.savez(f, images=pics())
    f.write_bytes(f.read_bytes()[:cut])
    with pytest.raises(ValueError, match='a.npz: can not be read, cut off'): load_arrays(f)

def test_an_array_that_is_no_npz(tmp_path):
    with open(tmp_path/'a.npz', 'wb') as h: np.save(h, pics())
    with pytest.raises(ValueError, match='a.npz: can not be read'): load_arrays(tmp_path/'a.npz')

@pytest.mark.parametrize('data, error', [(pics().astype(np.float32), ValueError), (pics()[0], ValueError), ((pics(), [1,2]), ValueError), ((3,4), TypeError)])
def test_bad_arrays_in_memory(data, error):
    with pytest.raises(error, match='^data'): load_arrays(data)


# Named data sets, without a network -----------------------------------------------------------------------------------

def idx_bytes(a):
    return bytes([0,0,8,a.ndim]) + b''.join(int(n).to_bytes(4, 'big') for n in a.shape) + a.astype(np.uint8).tobytes()

@pytest.fixture
def fashion(tmp_path, monkeypatch):
    "A root with a small FashionMNIST, and a torchvision that believes in it and has no network"
    import hashlib
    from torchvision.datasets import FashionMNIST, utils
    raw = tmp_path/'FashionMNIST'/'raw'
    raw.mkdir(parents=True)
    images = dict(train=pics(50, 28, 28), t10k=pics(10, 28, 28))
    resources = []
    for f,_ in FashionMNIST.resources:
        a = images[f.split('-')[0]]
        blob = gzip.compress(idx_bytes(a if 'images' in f else np.arange(len(a)) % 10))
        (raw/f).write_bytes(blob)
        resources.append((f, hashlib.md5(blob).hexdigest()))
    monkeypatch.setattr(FashionMNIST, 'resources', resources)
    monkeypatch.setattr(utils, '_urlretrieve', no_network)
    monkeypatch.setattr(utils, '_get_redirect_url', no_network)
    return tmp_path,raw,images

def no_network(*args, **kw): raise OSError('no network')

def test_fashion_mnist_keeps_its_test_set(fashion, monkeypatch):
    root,_,images = fashion
    monkeypatch.setenv('DENOISE_STUDY_DATA', str(root))
    info = loaders('fashion_mnist', pad_to=8, range=(0,1)).info
    assert (info.n_train, info.n_valid, info.n_test, info.size, info.pad) == (45,5,10,(32,32),(2,2,2,2)) and info.classes[0] == 'T-shirt/top'
    test,labels = load_arrays('fashion_mnist')['test']
    assert torch.equal(test[:,0], torch.tensor(images['t10k'])) and labels.tolist() == list(range(10))

def test_damaged_fashion_mnist_is_named(fashion):
    root,raw,_ = fashion
    gz = raw/'train-images-idx3-ubyte.gz'
    whole = gz.read_bytes()
    gz.write_bytes(whole[:1000])
    with pytest.raises(FileNotFoundError) as e: loaders('fashion_mnist', root=root)
    assert f'{gz} is damaged' in str(e.value) and 'no network' in str(e.value) and 'root' in str(e.value)
    gz.unlink()
    with pytest.raises(FileNotFoundError) as e: loaders('fashion_mnist', root=root)
    assert f'{gz} is missing' in str(e.value)
    gz.write_bytes(whole)
    loaders('fashion_mnist', root=root)
    unpacked = gz.with_suffix('')
    for n in 1000,10,2,0:
        unpacked.write_bytes(unpacked.read_bytes()[:n])
        with pytest.raises(ValueError, match='train-images-idx3-ubyte: not as long as its header says'): loaders('fashion_mnist', root=root)

@pytest.mark.parametrize('name, words', [('cifar10', ['CIFAR10','data_batch_1 is missing','root']), ('cifar100', ['CIFAR100','meta is missing']),
    ('celeba', ['celeba','img_align_celeba.zip is missing','folder of the pictures']), ('imagenet', ['imagenet','train is missing','root'])])
def test_a_data_set_that_can_not_be_had(tmp_path, monkeypatch, name, words):
    from torchvision.datasets import celeba, utils
    for o in '_urlretrieve','_get_redirect_url': monkeypatch.setattr(utils, o, no_network)
    monkeypatch.setattr(celeba, 'download_file_from_google_drive', no_network)
    with pytest.raises(FileNotFoundError) as e: loaders(name, root=tmp_path)
    assert all(w in str(e.value) for w in [str(tmp_path), *words]), str(e.value)

def test_celeba_keeps_its_three_parts(tmp_path, monkeypatch):
    from torchvision.datasets import CelebA
    base = tmp_path/'celeba'
    save_all(base/'img_align_celeba', pics(12, 22, 18, 3), ext='jpg')
    names = [f'{i:03}.jpg' for i in range(12)]
    table = lambda row, head='': head + ''.join(f'{f} {row(i)}\n' for i,f in enumerate(names))
    (base/'list_eval_partition.txt').write_text(table(lambda i: i//4))
    (base/'identity_CelebA.txt').write_text(table(lambda i: 1))
    for f in 'list_bbox_celeba.txt','list_landmarks_align_celeba.txt','list_attr_celeba.txt': (base/f).write_text(table(lambda i: '1 -1', '12\na b\n'))
    monkeypatch.setattr(CelebA, '_check_integrity', lambda self: True)
    dls = loaders('celeba', root=tmp_path, size=16, bs=4)
    assert (dls.info.n_train, dls.info.n_valid, dls.info.n_test, dls.info.channels) == (4,4,4,3)
    assert dls.one_batch()[0].shape == (4,3,16,16) and dls.one_batch()[1].tolist() == [-1]*4
    with pytest.raises(ValueError, match='official test set'): loaders('celeba', root=tmp_path, size=16, test=.1)

class FakeEnv:
    "As much of lmdb as the reader uses"
    def __init__(self, folder): self.data = {f'{i}'.encode(): f.read_bytes() for i,f in enumerate(sorted(__import__('pathlib').Path(folder).iterdir()))}
    def begin(self): return self
    def __enter__(self): return self
    def __exit__(self, *args): pass
    def cursor(self): return self
    def iternext(self, values=True): return iter(self.data)
    def get(self, k): return self.data[k]

def test_lsun(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'lmdb', None)
    with pytest.raises(ImportError, match='pip install lmdb'): loaders('lsun_bedroom', root=tmp_path)
    monkeypatch.setitem(sys.modules, 'lmdb', SimpleNamespace(open=lambda f, **kw: FakeEnv(f)))
    with pytest.raises(FileNotFoundError, match='bedroom_train_lmdb is missing'): loaders('lsun_bedroom', root=tmp_path)
    for part,n in dict(train=20, val=5).items(): save_all(tmp_path/'lsun'/f'bedroom_{part}_lmdb', pics(n, 12, 16, 3), ext='webp')
    info = loaders('lsun_bedroom', root=tmp_path, size=8).info
    assert (info.n_train, info.n_valid, info.n_test, info.size, info.channels) == (18,2,5,(8,8),3)

def test_imagenet(tmp_path):
    for part,n in dict(train=10, val=3).items():
        for c in 'n01','n02': save_all(tmp_path/'imagenet'/part/c, pics(n, 12, 16, 3), ext='jpg')
    info = loaders('imagenet', root=tmp_path, size=8).info
    assert (info.name, info.n_train, info.n_valid, info.n_test, info.classes) == ('imagenet',18,2,6,('n01','n02'))

def test_data_root(monkeypatch, tmp_path):
    monkeypatch.delenv('DENOISE_STUDY_DATA', raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert data_root() == tmp_path/'denoise_study'
    monkeypatch.setenv('DENOISE_STUDY_DATA', str(tmp_path/'env'))
    assert data_root() == tmp_path/'env' and data_root(tmp_path/'arg') == tmp_path/'arg' and '~' not in str(data_root('~/x'))

def test_nothing_is_unpickled(tmp_path, monkeypatch):
    import pickle
    monkeypatch.setattr(pickle, 'load', no_network)
    f = tmp_path/'a.npz'
    f.write_bytes(pickle.dumps(dict(images=1)))
    with pytest.raises(ValueError, match='a.npz: can not be read'): load_arrays(f)


def test_shorter_epochs():
    "`batches` cuts the same shuffled order, and the next epoch visits other images; bad values are refused"
    train = image_dls("digits", bs=64, device="cpu").train
    short = train.new(batches=3)
    assert len(short) == 3 and len(list(short)) == 3 and short.new().batches == 3
    whole = train.plan()
    first = train.new(batches=3).plan()
    assert all(torch.equal(a, b) for a, b in zip(first, whole)) and len(first) == 3
    assert set(torch.cat(short.plan()).tolist()) != set(torch.cat(first).tolist())       # its epoch is now the second
    assert len(train.new(batches=10**6)) == len(train)
    for bad in (0, 1.5, True):
        with pytest.raises(ValueError, match="batches: got"): train.new(batches=bad)
