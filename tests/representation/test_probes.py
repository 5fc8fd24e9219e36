"Oracles and faults for denoise_study.probes, .channels and .geometry: traps T1.. are those of the reproduction notes of Kadkhodaie et al. 2025"
import json, math, multiprocessing, os, signal, warnings

import numpy as np, pandas as pd, pytest, torch
from scipy import stats
from torch import nn

from denoise_study.representation import probes as P
from denoise_study.representation.channels import *
from denoise_study.core import ArraySource, ImageLoader, untrained
from denoise_study.diffusion import DDGM
from denoise_study.denoiser import denoiser, Denoiser, sigma_at
from denoise_study.representation.geometry import *
from denoise_study.core import Features, frechet, mean_and_factor
from denoise_study.representation.probes import *
from denoise_study.diffusion import ScaleNorm, Schedule, UNet
from denoise_study.core import save_checkpoint, step_generator
from denoise_study.denoiser import BlindUNet

torch.set_num_threads(1)
WIDTHS = 6, 10, 14, 22 # all different, so that an index off by one has the wrong length


def gen(seed=0): return torch.Generator().manual_seed(seed)
def normal(*shape, seed=0): return torch.randn(*shape, generator=gen(seed))

def pictures(n=12, side=16, seed=0):
    "Smooth pictures in [0,1], each with a pattern of its own"
    x = nn.functional.interpolate(torch.rand(n, 1, 4, 4, generator=gen(seed)), size=side, mode='bicubic')
    return x.clamp(0, 1)

def make(seed=0, widths=WIDTHS):
    "A denoiser with large random gains and some bias: phi depends on image, noise and noise level"
    torch.manual_seed(seed)
    net = BlindUNet(1, widths, (2, 2, 2))
    for m in net.modules():
        if isinstance(m, ScaleNorm): nn.init.normal_(m.gain, std=.5)
        elif getattr(m, 'bias', None) is not None: nn.init.normal_(m.bias, std=.05)
    return denoiser(net, (1, 16, 16))

class Reader(Denoiser):
    "A denoiser whose single tap is a function of the noisy image, counting its calls"
    def __init__(self, maps, fail_at=None, kill=False):
        super().__init__(nn.Conv2d(1, 1, 1), taps=('mid',))
        self.fn, self.calls, self.fail_at, self.kill = maps, 0, fail_at, kill
    def _denoise(self, x, sigma): return x
    def _places(self, x, sigma, taps, reduce):
        self.calls += 1
        if self.calls == self.fail_at:
            if self.kill: os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt
        return {'mid': reduce(self.fn(x))}

D, X = make(), pictures()
read = lambda *args, **kw: channel_averages(*args, **{'draws': 4, 'progress': False, **kw})
A = read(D, X)


# reading
def test_averages_by_hand():
    "Every image alone, every draw alone, with the documented noise"
    for i in 0, 7, 11:
        z = torch.empty(4, 1, 16, 16).normal_(generator=step_generator(0, i, 'cpu', 'probes'))
        for tap in 'enc1', 'mid', 'dec2.in':
            with torch.no_grad(): own = torch.stack([D.maps(X[i:i+1] + .5*o, .5, (tap,))[tap].mean((2, 3))[0] for o in z])
            torch.testing.assert_close(A.taps[tap][i], own.mean(0), rtol=1e-4, atol=1e-9)

def test_draws_do_not_mix_images_T12():
    "Two very different images give together what each gives alone"
    pair = torch.stack([torch.zeros(1, 16, 16), (torch.arange(16)%4 < 2).float().expand(1, 16, 16)])
    both = read(D, pair).phi.x
    assert (both[0] - both[1]).norm() > .1*both[0].norm()
    torch.testing.assert_close(both[:1], read(D, pair[:1]).phi.x, rtol=1e-4, atol=1e-9)

@pytest.mark.parametrize('bs', [1, 3, 7, 1000])
def test_batch_size_makes_no_difference(bs):
    other = read(D, X, bs=bs) # 1 and 3 are fewer than the draws of one image
    for tap in D.taps: torch.testing.assert_close(other.taps[tap], A.taps[tap], rtol=1e-4, atol=1e-9)

def test_seeds():
    assert torch.equal(read(D, X).phi.x, A.phi.x)
    assert not torch.equal(read(D, X, seed=1).phi.x, A.phi.x)

def test_tap_lengths_T11():
    sizes = {k: v.shape for k, v in A.taps.items()}
    assert tuple(sizes) == D.taps and all(n == 12 and A.taps[k].dtype == torch.float32 for k, (n, _) in sizes.items())
    assert [sizes[k][1] for k in ('enc1', 'enc2', 'enc3', 'mid', 'dec3', 'dec2', 'dec1')] == [6, 10, 14, 22, 14, 10, 6]
    assert [sizes[k][1] for k in ('enc2.in', 'mid.in', 'dec3.in')] == [6, 14, 28]
    assert A.phi.dim == 22 and tuple(read(D, X, taps=('enc2',)).taps) == ('enc2',)

def test_outputs_are_rectified_and_pooling_keeps_means_T10():
    for k in 'enc1', 'enc2', 'enc3', 'mid', 'dec3', 'dec2': assert A.taps[k].min() >= 0
    assert A.taps['dec3.in'].min() < 0 # the upward convolution has no ReLU
    for out, into in ('enc1', 'enc2.in'), ('enc2', 'enc3.in'), ('enc3', 'mid.in'):
        assert (A.taps[out] - A.taps[into]).abs().max() < 1e-7*A.taps[out].abs().max()*10

def loader(x, y=None, **kw):
    return ImageLoader(ArraySource((x*255).round().byte(), y), bs=5, device=torch.device('cpu'), **kw)

def test_loaders_ranges_and_labels():
    y = torch.arange(12)
    bytes_ = (X*255).round()/255
    ref = read(D, bytes_)
    for o in loader(X, y, range=(-1., 1.)), loader(X, y, range=(0., 1.)), loader(X, y, range=(-1., 1.), shuffle=True, drop_last=True):
        a = read(D, o) # in the order of the data set, all of it
        assert torch.equal(a.labels, y)
        torch.testing.assert_close(a.phi.x, ref.phi.x, rtol=1e-3, atol=1e-9)
    assert torch.equal(read(D, (X, y)).labels, y) and (A.labels == -1).all()
    torch.testing.assert_close(read(D, X*2 - 1, range=(-1., 1.)).phi.x, A.phi.x, rtol=1e-3, atol=1e-9)
    torch.testing.assert_close(read(D, [X[:5], X[5:]], range=(0., 1.)).phi.x, A.phi.x, rtol=1e-4, atol=1e-9)

def test_mode_and_gradients_are_left_alone():
    D.train()
    assert not read(D, X[:2]).phi.x.requires_grad and D.training
    D.eval()


# files
def test_save_load_select(tmp_path):
    A.save(tmp_path/'a.safetensors')
    b = Averages.load(tmp_path/'a.safetensors')
    assert b.run == A.run and all(torch.equal(b.taps[k], A.taps[k]) for k in A.taps) and torch.equal(b.labels, A.labels)
    part = b.select(A.labels < 0).select([3, 1])
    assert len(part) == 2 and torch.equal(part.phi.x, A.phi.x[[3, 1]]) and part.phi.space == A.phi.space
    with pytest.raises(ValueError, match='tap'): A['bottleneck']
    save_checkpoint(tmp_path/'c.safetensors', BlindUNet(1, WIDTHS, (2, 2, 2)))
    with pytest.raises(ValueError, match='holds a checkpoint'): Averages.load(tmp_path/'c.safetensors')

def spread(x): return torch.cat([x, 1 - x, x.square()], 1)

@pytest.mark.parametrize('torn', [0, 7])
def test_resume_after_a_failure(tmp_path, torn):
    "The rows that were there are not computed again, and the file is the same to the byte, a torn row included"
    x, args = pictures(40), dict(bs=20, draws=4, data='pictures')
    whole = Reader(spread)
    read(whole, x, path=tmp_path/'whole.safetensors', **args)
    broken = Reader(spread, fail_at=6)
    broken.load_state_dict(whole.state_dict())
    with pytest.raises(KeyboardInterrupt): read(broken, x, path=tmp_path/'b.safetensors', **args)
    assert not (tmp_path/'b.safetensors').exists()
    if torn:
        with open(tmp_path/'b.safetensors.part', 'ab') as f: f.write(b'x'*torn)
    before, broken.fail_at = broken.calls, None
    res = read(broken, x, path=tmp_path/'b.safetensors', **args)
    assert broken.calls - before == 4 < whole.calls == 8 # the second chunk of 20 images, 5 images at a time
    a, b = (Averages.load(tmp_path/f'{o}.safetensors') for o in ('whole', 'b'))
    assert a.run == b.run == res.run and torch.equal(a.phi.x, b.phi.x) and not list(tmp_path.glob('*.part'))

def test_resume_after_a_kill(tmp_path):
    "SIGKILL in another process, and a loader whose batches are not those of the first run"
    x, path = pictures(40), tmp_path/'phi.safetensors'
    whole, killed = Reader(spread), Reader(spread, fail_at=6, kill=True)
    killed.load_state_dict(whole.state_dict())
    child = multiprocessing.get_context('fork').Process(target=read, args=(killed, x), kwargs=dict(path=path, bs=20))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL and not path.exists()
    bytes_kept = (tmp_path/'phi.safetensors.part').stat().st_size
    assert bytes_kept > 20*3*4
    killed.fail_at = None
    torch.testing.assert_close(read(killed, x, path=path, bs=12).phi.x, read(whole, x).phi.x)
    assert killed.calls == 7 # 20 images left, in chunks of 12 and 8, 3 images at a time

@pytest.mark.parametrize('images', [loader(X), [X[:5], X[5:11], X[11:]]], ids=['loader', 'list'])
def test_resume_in_the_middle_of_a_batch(tmp_path, images):
    args = dict(taps=('mid',), path=tmp_path/'a', range=(0., 1.) if isinstance(images, list) else None)
    whole = read(D, images, **args)
    (tmp_path/'a').unlink()
    run = dict(whole.run, n=None) if isinstance(images, list) else whole.run
    rows = P._Rows(tmp_path/'a', run)
    rows.append({'mid': 0*whole.phi.x[:7]}, whole.labels[:7]) # seven rows that can be told from new ones
    rows.file.close()
    again = read(D, images, **args).phi.x
    assert (again[:7] == 0).all() and len(again) == 12
    torch.testing.assert_close(again[7:], whole.phi.x[7:], rtol=1e-4, atol=1e-9)

def test_a_finished_file_is_read(tmp_path):
    d = Reader(spread)
    a = read(d, X, path=tmp_path/'a')
    calls = d.calls
    assert torch.equal(read(d, X, path=tmp_path/'a').phi.x, a.phi.x) and d.calls == calls

@pytest.mark.parametrize('change, word', [
    (dict(seed=1), 'seed'), (dict(draws=5), 'draws'), (dict(sigma=.3), 'sigma'), (dict(data='other'), 'data'),
    (dict(images=X[:5]), 'n:'), (dict(images=X.flip(0)), 'first'), (dict(D=make(1)), 'denoiser'), (dict(taps=('enc1',)), 'taps')])
@pytest.mark.parametrize('finished', [True, False])
def test_another_run_is_refused(tmp_path, change, word, finished):
    path, args = tmp_path/'a.safetensors', dict(D=D, images=X, taps=('mid',), path=tmp_path/'a.safetensors')
    a = read(**args)
    if not finished:
        path.unlink()
        rows = P._Rows(path, {k: v for k, v in a.run.items()})
        rows.append({'mid': a.phi.x[:3]}, a.labels[:3])
        rows.file.close()
    with pytest.raises(ValueError, match=f'^{word}.*delete'): read(**{**args, **change})

def test_spaces_do_not_mix():
    other = read(make(1), X)
    for a, b in (A.phi, other.phi), (A['mid.in'], A['enc3']), (A.phi, read(D, X, sigma=.2).phi):
        with pytest.raises(ValueError, match='numbers of different spaces'): neighbours(a, b)
    with pytest.raises(ValueError, match='from'): frechet(A.phi, other.phi)
    y = torch.arange(12)%2
    with pytest.raises(ValueError, match='different spaces'): linear_probe(A.phi, y, other.phi, y)
    with pytest.raises(ValueError, match='columns'): neighbours(A.phi.x, A['enc1'].x)
    with pytest.raises(TypeError, match='pick a tap'): neighbours(A)


# what is refused
nan = X.clone().index_fill_(0, torch.tensor([1]), math.nan)
CALLS = {
    'sigma in 0..255': (lambda: read(D, X, sigma=127.5), 'divided by 255'),
    'negative sigma': (lambda: read(D, X, sigma=-.1), '^sigma'),
    'sigma in words': (lambda: read(D, X, sigma='half'), '^sigma'),
    'sigma nan': (lambda: read(D, X, sigma=math.nan), '^sigma'),
    'images in [-1,1]': (lambda: read(D, X*2 - 1), r'^images.*\[0, 1\]'),
    'images in 0..255': (lambda: read(D, X*255), '^images'),
    'nan': (lambda: read(D, nan), '^images'),
    'list without a range': (lambda: read(D, [X]), 'range'),
    'no images': (lambda: read(D, X[:0]), '^images'),
    'no batches': (lambda: read(D, [], range=(0., 1.)), '^images'),
    'generator': (lambda: read(D, iter([X]), range=(0., 1.)), '^images: a generator'),
    'odd size': (lambda: read(D, pictures(2, 12)), '8'),
    'colour': (lambda: read(D, X.expand(-1, 3, -1, -1)), r'N,1,H,W'),
    'unknown tap': (lambda: read(D, X, taps=('middle',)), '^taps.*mid'),
    'no tap': (lambda: read(D, X, taps=()), '^taps'),
    'no draws': (lambda: read(D, X, draws=0), '^draws'),
    'empty phi': (lambda: selectivity(torch.zeros(0, 4)), '^`phi`'),
    'phi with nan': (lambda: clusters(torch.full((9, 2), math.nan), 2), '^`phi`'),
    'collapsed phi': (lambda: neighbours(A.phi.x*(torch.arange(12) > 1)[:, None]), '^query: 2 of 12 rows are zero'),
    'constant images': (lambda: neighbours(torch.full((4, 1, 8, 8), .5), centre=True), '4 of 4 rows are constant'),
    'more neighbours than images': (lambda: neighbours(A.phi, k=12), '^k: got 12; there are 11'),
    'more clusters than images': (lambda: clusters(A.phi, 13), '^k: got 13 clusters for 12 images'),
    'one cluster': (lambda: clusters(A.phi, 1), '^k'),
    'top of more than there are': (lambda: selectivity(A.phi, k=13), '^k'),
    'labels missing': (lambda: label_agreement(A.phi, A.labels), 'labels: 12 of 12 are missing'),
    'labels too few': (lambda: label_agreement(A.phi, torch.zeros(5)), r'^labels.*\(5,\).*12 images'),
    'factor too short': (lambda: selectivity(A.phi, factor=torch.zeros(5)), '^factor'),
    'one class': (lambda: linear_probe(A.phi, torch.zeros(12), A.phi, torch.zeros(12)), '^train_labels'),
    'groups of one image': (lambda: separation(A.phi, dict(own=torch.arange(12))), '^groups'),
    'other n in the control': (lambda: plot_participation(A, A.select([0, 1])), '^control'),
    'PR along time': (lambda: plot_participation(A, along='time'), '^along'),
    'huge maps': (lambda: map_statistics(Reader(lambda x: x.expand(-1, 64, 64, 64)), torch.zeros(1, 1, 64, 64), progress=False), '^tap'),
    'perplexity': (lambda: plot_clusters(separation(A.phi, dict(c=torch.arange(12)%2)), A.phi), '^perplexity'),
    'no such channel': (lambda: _ablate([22]), '^channels'),
}

def _ablate(channels):
    with ablated(D.net.mid, channels): return D(X)

@pytest.mark.parametrize('call, words', CALLS.values(), ids=CALLS)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words): call()

def test_no_noise_is_a_warning_and_one_draw():
    with pytest.warns(UserWarning, match='collapses'): a = read(D, X, sigma=0.)
    assert a.run['draws'] == 1
    with torch.no_grad(): torch.testing.assert_close(a.phi.x, D.phi(X), rtol=1e-4, atol=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        read(D, X, sigma=.01)


# sparsity
def test_participation_of_noise_T1():
    z = normal(400, 2000).double()
    for v, value in (z.relu(), 1/math.pi), (z.abs(), 2/math.pi), (stats.expon.rvs(size=(400, 2000), random_state=0), .5):
        assert participation(torch.as_tensor(v)).mean().item() == pytest.approx(value, abs=.002)

def test_participation_formula_and_bounds():
    v = normal(5, 7, 3)
    for dim in 0, 1, -1:
        own = np.abs(v.numpy().astype(float)).sum(dim)**2/(v.shape[dim]*(v.numpy().astype(float)**2).sum(dim))
        np.testing.assert_allclose(participation(v, dim), own, rtol=1e-12)
    assert participation(torch.eye(4)).tolist() == [.25]*4 and participation(-torch.ones(2, 9)).tolist() == [1., 1.]
    assert participation(1e-30*torch.tensor([1., 1., 0., 0.])).item() == pytest.approx(.5) # squares would vanish in float32
    half = participation(torch.tensor([[0., 0.], [1., 0.]]))
    assert half[0].isnan() and half[1] == .5

def test_dead_channels_are_counted_and_left_out_T32():
    x = torch.rand(50, 4, generator=gen())
    x[:, 2] = 0
    t = selectivity(x)
    assert t.attrs == dict(n=50, dead=1) and np.isnan(t.pr[2]) and t.top[2] is None
    assert t.pr.quantile(.1) == pytest.approx(np.quantile(t.pr[[0, 1, 3]], .1))
    p = selectivity(x, factor=torch.arange(50)%2)
    assert np.isnan(p.purity[2]) and np.isnan(p.p[2])

def test_smallest_participation_is_one_over_n_T26():
    for n in 10, 100:
        x = torch.zeros(n, 2)
        x[0, 0], x[:, 1] = 3., .2
        assert selectivity(x, k=1).pr.tolist() == pytest.approx([1/n, 1])


# stability
def test_high_cosines_are_no_stability_T2():
    "Untrained: near 1 across noise levels, and just as near between different images"
    d = untrained(make(widths=(8, 16, 32, 64)), 3)
    t = stability(d, pictures(16, 16, seed=2), sigmas=(.1, 1.), taps=('mid',), draws=6, progress=False)
    assert (t.same > .97).all() and (t.between > .97).all() and (t.ceiling > t.same).all()

def test_stability_of_known_representations():
    "A tap that hears only the image, one that hears only the noise level, with their closed forms"
    mean = lambda x: torch.cat([x, 1 - x], 1)
    t = stability(Reader(mean), pictures(10), sigmas=(.2, .5), draws=200, progress=False)
    assert (t.same > .999).all() and (t.instability < .05).all() and len(t) == 2 and t.n.tolist() == [10, 10]
    # spatial mean of a noisy blank: E (x - .5)^2 = sigma^2, beside a constant channel
    blank, power = torch.full((10, 1, 16, 16), .5), lambda x: torch.cat([(x - .5).square(), torch.ones_like(x)], 1)
    t = stability(Reader(power), blank, sigmas=(.2, 1.), draws=50, progress=False).set_index('sigma')
    for s in .2, 1.:
        u, v = np.array([.25, 1]), np.array([s*s, 1])
        assert t.same[s] == pytest.approx(u@v/np.linalg.norm(u)/np.linalg.norm(v), abs=.005)
        assert t.norm[s] == pytest.approx(np.linalg.norm(v)/np.linalg.norm(u), rel=.02)
    assert t.instability.min() > 50 # between images nothing differs but the draws

def test_between_images_is_the_mean_of_all_other_pairs():
    v = normal(9, 4)
    cos = nn.functional.cosine_similarity(v[:, None].double(), v[None].double(), dim=-1)
    np.testing.assert_allclose(P._others(v), (cos.sum(1) - 1)/8, rtol=1e-9)

def test_noise_levels_have_noise_of_their_own():
    "Shared noise would make a tap that hears only the noise look stable"
    blank, ups = torch.full((30, 1, 16, 16), .5), lambda x: torch.cat([(x - .5)[:, :, :1], (.5 - x)[:, :, :1]], 1)
    t = stability(Reader(ups), blank, sigmas=(.2, .5), draws=1, progress=False)
    assert (t.same.abs() < .5).all()

def test_collapsed_images_are_counted():
    t = stability(Reader(lambda x: x*0), pictures(4), sigmas=(.2,), draws=1, progress=False)
    assert t.dead.tolist() == [4] and len(t) == 1
    bright = lambda x: torch.cat([x, 1 - x], 1).abs()*(x.mean((1, 2, 3), keepdim=True) > .5)
    t = stability(Reader(bright), torch.cat([torch.zeros(4, 1, 16, 16), pictures(6)*.4 + .6]), sigmas=(.2,), draws=2, progress=False)
    assert t.dead.item() == 4 and t.n.item() == 6 and t.same.item() > .95 and t.instability_high.notna().all()

def test_ratio_interval_covers():
    value, low, high = P._boot(np.mean, normal(400, seed=5).numpy())
    assert low < value < high and high - low == pytest.approx(2*1.96/20, rel=.15)


# selectivity
def test_selectivity_equals_scipy():
    x = normal(80, 5).exp()
    t = selectivity(x, k=3)
    np.testing.assert_allclose(t['kurtosis'], stats.kurtosis(x.double().numpy()), rtol=1e-9)
    np.testing.assert_allclose(t['skew'], stats.skew(x.double().numpy()), rtol=1e-9)
    np.testing.assert_allclose(t.pr, x.double().sum(0)**2/(80*x.double().square().sum(0)), rtol=1e-9)
    assert [list(o) for o in t.top] == x.topk(3, dim=0).indices.T.tolist() and list(t.index) == list(range(5))

def test_purity_of_a_channel_that_knows_the_factor():
    y = torch.arange(200)%4
    x = torch.cat([(y == 2).float()[:, None] + .1*torch.rand(200, 1, generator=gen()), torch.rand(200, 60, generator=gen(1))], 1)
    t = selectivity(x, k=10, factor=y)
    assert t.purity[0] == 1 and t.p[0] == pytest.approx(1/1001)
    rest = t.iloc[1:]
    assert (rest.p < .05).mean() < .15 and abs(rest.purity.mean() - rest.chance.mean()) < .03 # chance finds chance

def test_union_of_subspaces():
    "Two sets of images, a common channel and one for each set, as in Fig. 5"
    a, b = torch.arange(20), torch.arange(20, 40)
    x = .01*torch.rand(60, 6, generator=gen())
    x[:, 0] += 1
    x[a, 3] += 1
    x[b, 5] += 1
    for own, other, c in (a, b, 3), (b, a, 5):
        t = top_channels(x, own, 1, against=other)
        assert t.index.tolist() == [c] and t.against.item() < .1*t['mean'].item()
    assert top_channels(x, 3, 2).index[0] == 3 and 0 not in top_channels(x, a, 6).index # the common channel is not special
    means = x[a, 0].mean(), x[b, 0].mean()
    assert means[0] == pytest.approx(means[1].item(), rel=.05)
    assert len(top_channels(torch.zeros(4, 3), 0)) == 0

def test_map_statistics_equal_the_definition():
    from sklearn.decomposition import PCA
    x = pictures(30)
    t = map_statistics(D, x, tap='enc2', draws=3, bs=7, progress=False)
    with torch.no_grad(): maps = P._noisy_mean(lambda o: D.maps(o, .5, ('enc2',)), x, 0, .5, 3, 0, 1000)['enc2'].double()
    for c in range(10):
        m = maps[:, c].flatten(1)
        if not m.any():
            assert np.isnan(t.pca_pr[c]) and np.isnan(t.spatial_pr[c])
            continue
        pca = PCA().fit(m.numpy())
        var = pca.explained_variance_
        assert t.pca_pr[c] == pytest.approx(var.sum()**2/(64*(var**2).sum()), rel=1e-4)
        assert t.pca_90[c] == 1 + np.searchsorted(np.cumsum(pca.explained_variance_ratio_), .9)
        own = m.abs().sum(1)**2/(64*m.square().sum(1))
        assert t.spatial_pr[c] == pytest.approx(own.nanmean().item(), rel=1e-4)
    np.testing.assert_allclose(t.pr, participation(maps.mean((2, 3)), 0), rtol=1e-4)

def test_spearman_with_interval_equals_scipy():
    a, b = normal(60), normal(60, seed=1) + normal(60)
    value, low, high = P._boot(lambda p, q: stats.spearmanr(p, q).statistic, a, b)
    assert value == stats.spearmanr(a, b).statistic and low < value < high
    frame = pd.DataFrame(dict(a=a, b=b))
    assert frame.corr('spearman').iloc[0, 1] == pytest.approx(value)

def test_shifts_change_phi_T28():
    "Zero padding breaks the invariance: small, and not nothing; equality is not to be expected"
    a, b = (read(D, o, sigma=.01, draws=1, taps=('mid',)).phi.x for o in (X, X.roll(8, -1)))
    change = ((a - b).norm(dim=1)/a.norm(dim=1)).mean()
    assert 1e-4 < change < .5


# neighbours
@pytest.mark.parametrize('bs', [3, 512])
def test_neighbours_equal_sklearn(bs):
    from sklearn.neighbors import NearestNeighbors
    x, q = normal(60, 8), normal(11, 8, seed=1)
    index, cos = neighbours(q, x, 5, bs=bs)
    dist, own = NearestNeighbors(n_neighbors=5, metric='cosine').fit(x.numpy()).kneighbors(q.numpy())
    np.testing.assert_array_equal(index, own)
    np.testing.assert_allclose(cos, 1 - dist, atol=1e-6)
    index, cos = neighbours(x, k=4, bs=bs)
    _, own = NearestNeighbors(n_neighbors=5, metric='cosine').fit(x.numpy()).kneighbors(x.numpy())
    np.testing.assert_array_equal(index, own[:, 1:])

def test_brightness_wins_raw_pixels_T27():
    "Two patterns, each on dark and on bright ground: raw, bright pictures look alike; centred, those of a pattern"
    t = torch.arange(16.)*2*math.pi/16
    patterns = torch.stack([t.sin().expand(16, 16), (2*t).sin().expand(16, 16)])
    x = torch.tensor([.2, .9, .2, .9])[:, None, None, None] + .1*patterns[[0, 0, 1, 1], None]
    assert neighbours(x, k=1)[0][[1, 3], 0].tolist() == [3, 1] and neighbours(x, k=1, centre=True)[0][:, 0].tolist() == [1, 0, 3, 2]
    index, cos = neighbours(pictures(9), k=8, centre=True)
    own = np.corrcoef(pictures(9).flatten(1).double().numpy())
    np.testing.assert_allclose(cos, np.take_along_axis(own, index.numpy(), 1), atol=1e-5)

def test_agreement_by_hand_and_its_chance():
    y = torch.arange(90)%3
    apart = torch.eye(3)[y] + .01*torch.rand(90, 3, generator=gen())
    assert label_agreement(apart, y, k=7).value == 1
    r = label_agreement(normal(400, 6), torch.randint(4, (400,), generator=gen()), k=5)
    assert r.chance == pytest.approx(.25, abs=.02) and abs(r.value - r.chance) < .04 and r.low < r.value < r.high
    x, y = normal(30, 4), torch.randint(2, (30,), generator=gen(2))
    own = np.mean([(y[j] == y[i]).item() for i in range(30) for j in neighbours(x, k=2)[0][i]])
    assert label_agreement(x, y, k=2).value == pytest.approx(own)
    assert label_agreement(x[:4], torch.tensor([0, 0, 0, 1]), k=1).chance == .5 # two of three others, and none

def test_linear_probe():
    y = torch.arange(300)%3
    x = torch.eye(3)[y]*1e-4 + 1e-5*normal(300, 3) # the size of phi in a fresh network
    x = torch.cat([x, torch.zeros(300, 2)], 1) # dead channels
    half = torch.arange(300) < 150
    probe = lambda labels: linear_probe(x[half], labels[half], x[~half], labels[~half])
    assert probe(y).value > .99
    shuffled = probe(y[torch.randperm(300, generator=gen())])
    assert abs(shuffled.value - 1/3) < .13 and abs(shuffled.chance - 1/3) < .05 and shuffled.n_train == 150 and shuffled.n == 150


# clusters
@pytest.mark.parametrize('n, d, k, low, high', [(40_000, 1, 2, 2.6, 2.7), (20_000, 2, 10, 2.7, 3.1), (5000, 20, 20, 3.2, 3.8), (5000, 100, 50, 3.8, 4.4)])
def test_kmeans_always_separates_T3(n, d, k, low, high):
    "One isotropic Gaussian, no clusters at all"
    x = normal(n, d)
    t = separation(x, dict(clusters=clusters(x, k, n_init=1).labels), pairs=None, gaussian=False)
    assert low < t.ratio.min() < high and len(t) == k*(k - 1)//2

def test_separation_by_hand():
    x, y = normal(50, 3)*torch.tensor([1., 2., 3.]), torch.arange(50)%3
    t = separation(x, dict(classes=y), gaussian=False).set_index(['p', 'q'])
    for p, q in (0, 1), (0, 2), (1, 2):
        a, b = x[y == p].double().numpy(), x[y == q].double().numpy()
        gap = a.mean(0) - b.mean(0)
        u = gap/np.linalg.norm(gap)
        S = math.sqrt(((a@u).var() + (b@u).var())/2)
        assert t.loc[(p, q)].tolist()[1:] == pytest.approx([np.linalg.norm(gap), S, np.linalg.norm(gap)/S])

def test_real_clusters_beat_the_gaussian_and_noise_does_not():
    y = torch.arange(600)%6
    blobs = 4*normal(6, 8, seed=9)[y] + .3*normal(600, 8)
    for x, real in (blobs, True), (normal(600, 8), False):
        found = clusters(x, 6)
        t = separation(x, dict(clusters=found.labels, classes=y)).groupby('groups').ratio.median()
        assert (t['clusters'] > 2*t['Gaussian']) == real and (t['clusters'] < 1.2*t['Gaussian']) == (not real)
        assert set(t.index) == {'clusters', 'classes', 'Gaussian'} and (t['classes'] > 2) == real
        if real: assert all(y[found.labels == c].unique().numel() == 1 for c in range(6))

def test_gaussian_control_has_the_moments():
    x = normal(4000, 3)@torch.tensor([[1., .5, 0.], [0., 1., .3], [0., 0., .2]]) + 5
    mean, root = mean_and_factor(x)
    torch.testing.assert_close(mean, x.double().mean(0))
    torch.testing.assert_close(root@root.T, x.double().T.cov())

def test_clusters_equal_sklearn_at_any_scale():
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score
    x = normal(300, 4) + 3*normal(5, 4, seed=3)[torch.arange(300)%5]
    a, own = clusters(x, 5), KMeans(5, n_init=10, random_state=42).fit(x.numpy())
    assert adjusted_rand_score(a.labels, own.labels_) == 1 and a.inertia == pytest.approx(own.inertia_, rel=1e-4)
    assert adjusted_rand_score(clusters(1e-9*x, 5).labels, a.labels) == 1
    assert adjusted_rand_score(clusters(x, 5, batch=100).labels, a.labels) > .9
    assert torch.equal(clusters(x, 5).labels, a.labels) and a.sizes.sum() == 300
    torch.testing.assert_close(a.centres, torch.stack([x[a.labels == c].mean(0) for c in range(5)]), rtol=1e-4, atol=1e-5)


# all of it
def test_compare():
    y = torch.arange(40)%2
    x = pictures(40)
    t = compare_representations(D, (x, y), draws=2, n_clusters=3, progress=False)
    assert list(t.columns) == [*((n, p) for n in ('trained', 'untrained', 'control') for p in ('value', 'low', 'high')), ('control', 'what')]
    for name in 'PR of mid.in', 'PR of mid', 'dead channels', 'relative instability', 'D/S of clusters (median)', 'linear probe', '5-NN label agreement':
        assert np.isfinite(t.loc[name, ('trained', 'value')]) and np.isfinite(t.loc[name, ('untrained', 'value')])
    a = read(D, x, draws=2)
    assert t.loc['PR of mid', ('trained', 'value')] == pytest.approx(participation(a.phi.x).mean().item(), rel=1e-5)
    assert t.loc['PR of mid', ('control', 'value')] == pytest.approx(1/math.pi)
    assert t.loc['linear probe', ('control', 'what')] == 'centred pixels'
    low, value, high = (t['trained'][o] for o in ('low', 'value', 'high'))
    assert ((low <= value) & (value <= high) | low.isna()).all()
    same = compare_representations(D, (x, y), D, draws=2, n_clusters=3, progress=False)
    pd.testing.assert_frame_equal(same['trained'], same['untrained'])
    again = compare_representations(D, (x, y), draws=2, n_clusters=3, progress=False)
    pd.testing.assert_frame_equal(again, t)

def test_compare_without_labels():
    t = compare_representations(D, pictures(30), draws=2, n_clusters=3, progress=False)
    assert 'PR of mid' in t.index and not [o for o in t.index if 'label' in o or 'probe' in o or 'classes' in o or 'purity' in o]

def test_a_diffusion_model_by_step():
    sched = Schedule.linear(1000)
    ddgm = DDGM(UNet(channels=1, width=32, mult=(1, 2), n_blocks=1, attn=()), sched, (1, 16, 16))
    for t in 1, 250, 1000:
        ab = sched.alpha_bar[t].item()
        assert sigma_at(ddgm, t) == pytest.approx(math.sqrt((1 - ab)/ab)/2, rel=1e-6) # pixels span 2 in the model, 1 here
    a = read(denoiser(ddgm), X[:3], sigma=sigma_at(ddgm, 250), taps=('mid',), draws=2)
    assert a.phi.x.shape == (3, 64) and a.run['sigma'] == sigma_at(ddgm, 250)
    with pytest.raises(ValueError, match='times run'): sigma_at(ddgm, 0)

def test_a_foreign_network_by_its_module_names():
    net = nn.Sequential(nn.Conv2d(1, 5, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(5, 1, 3, padding=1, bias=False))
    d = denoiser(net, (1, 16, 16), predicts='residual', taps=dict(mid='1'))
    a = read(d, X)
    with torch.no_grad(): own = net[:2](X[:1] + .5*torch.empty(4, 1, 16, 16).normal_(generator=step_generator(0, 0, 'cpu', 'probes')))
    torch.testing.assert_close(a.phi.x[0], own.mean((0, 2, 3)))
    assert compare_representations(d, X, draws=2, n_clusters=2, progress=False).loc['PR of mid', ('trained', 'value')] > 0


# turning channels off
def test_ablated():
    before = D(X)
    with ablated(D.net.mid, [1, 4]):
        assert not torch.equal(D(X), before)
        off = D.averages(X)['mid']
    assert (off[:, [1, 4]] == 0).all() and torch.equal(off[:, 0], D.averages(X)['mid'][:, 0])
    with ablated(D.net.mid, range(22), 1.): torch.testing.assert_close(D(X), before)
    with ablated(D.net.mid, 4, 2.): twice = D.averages(X)['mid'][:, 4]
    torch.testing.assert_close(twice, 2*D.averages(X)['mid'][:, 4])
    with pytest.raises(KeyError):
        with ablated(D.net.mid, [0]): raise KeyError
    assert torch.equal(D(X), before) and not D.net.mid._forward_hooks


# figures
def test_figures():
    axs = plot_participation(A, read(untrained(D, 1), X))
    assert [ax.get_title() for ax in axs] == ['enc1', 'enc2', 'enc3', 'mid', 'dec3', 'dec2', 'dec1']
    assert len(plot_participation(A, along='images', taps=('mid',))) == 1
    t = stability(D, X, sigmas=(.2, .5), taps=('enc1', 'mid'), draws=2, progress=False)
    axs = plot_stability(pd.concat([t, t.assign(network='other')]))
    assert len(axs) == 2 and {o.get_text() for o in axs[1].texts} == {'enc1', 'mid'}
    x, y = normal(60, 5), torch.arange(60)%12
    axs = plot_clusters(separation(x, dict(classes=y), pairs=7), x, y, perplexity=5)
    assert sum(len(o.get_offsets()) for o in axs[1].collections) == 50 # ten of the twelve classes
    again = plot_clusters(separation(x, dict(classes=y), pairs=7), x, y, perplexity=5)
    assert np.array_equal(axs[1].collections[0].get_offsets(), again[1].collections[0].get_offsets())
    ax = plot_rows(X, {'one': [0, 1, 2], 'two': torch.tensor([3, 4])})
    assert [o.get_text() for o in ax.texts] == ['one', 'two'] and ax.images[0].get_array().shape[1] > 3*16
    assert json.dumps(A.run)


# what selectivity predicts
class Tuned(Denoiser):
    "Channels of known tuning: one answers to a single grating in any phase, one to all of them, one to none"
    def __init__(self):
        super().__init__(nn.Conv2d(1, 1, 1), (1, 16, 16), taps=('mid',))
        wave = gratings((1, 16, 16), (2,), 8, 4)[0, 3]
        self.pair = (wave[:2] - .5)/(wave[:2] - .5).flatten(1).norm(dim=1)[:, None, None, None] # a quarter of a cycle apart
    def _denoise(self, x, sigma): return x
    def _places(self, x, sigma, taps, reduce):
        energy = torch.einsum('nchw,pchw->np', x - .5, self.pair).square().sum(1)
        return {'mid': reduce(torch.stack([energy, torch.ones_like(energy), 0*energy], 1)[:, :, None, None])}

def test_gratings_have_their_frequency_and_direction():
    x = gratings((3, 16, 16), (1, 3), 4, 2, contrast=.25)
    assert x.shape == (2, 4, 2, 3, 16, 16) and .249 < (x - .5).abs().amax() <= .25 and torch.equal(x[:, :, :, 0], x[:, :, :, 2])
    assert torch.allclose(x[1, 0, 0, 0, 0], x[1, 0, 0, 0, 9]) # direction 0 varies along a row only
    for f, (i, freq) in [(f, o) for f in (0, 2) for o in enumerate((1, 3))]:
        power = torch.fft.fft2(x[i, f, 0, 0] - .5).abs()
        at = power.argmax().item()
        assert (at//16, at%16)[f == 0] in (freq, 16 - freq) and power.flatten().topk(3).values[2] < 1e-3 # a pair of peaks, nothing else
    assert torch.allclose(x[:, :, 0] + x[:, :, 1], torch.ones(()), atol=1e-5) # half a cycle apart

def test_a_channel_with_a_known_tuning():
    d = Tuned()
    answers = grating_response(d, 1e-4, draws=1)
    assert answers.shape == (3, 8, 3)
    at = answers[..., 0].argmax().item()
    assert (at//8, at%8) == (1, 3)
    pr = participation(answers.flatten(0, 1), 0)
    assert pr[1] == pytest.approx(1) and pr[0] < .1 and pr[2].isnan()
    noisy = participation(grating_response(d, .5, draws=4).flatten(0, 1), 0)
    assert noisy[0] < .2 # noise lifts the floor, not the peak

class Levels(Denoiser):
    "One channel that stays, one that moves with the noise level, a dead one; selective by the brightness of the image"
    def __init__(self): super().__init__(nn.Conv2d(1, 1, 1), (1, 16, 16), taps=('mid',))
    def _denoise(self, x, sigma): return x
    def _places(self, x, sigma, taps, reduce):
        one = torch.ones_like(x)
        return {'mid': reduce(torch.cat([one, one*sigma.view(-1, 1, 1, 1), 0*one], 1))}

def test_drift_and_its_floor():
    t = channel_statistics(Levels(), X, .5, .1, progress=False)
    assert t.drift[0] == 0 and t.drift[1] == pytest.approx(.8) and np.isnan(t.drift[2]) and t.redraw[1] == 0
    t = channel_statistics(D, X, tap='enc2', draws=2, progress=False)
    own = [read(D, X, sigma=s, draws=2, seed=k, taps=('enc2',)).taps['enc2'].double() for s, k in ((.5, 1), (.1, 3), (.5, 2))]
    live = own[0].any(0)
    for name, other in ('drift', own[1]), ('redraw', own[2]):
        np.testing.assert_allclose(t[name][live.numpy()], ((own[0] - other).norm(dim=0)/own[0].norm(dim=0))[live], rtol=1e-6)
    assert {'pr', 'kurtosis', 'spatial_pr', 'pca_pr', 'tuning'} <= set(t.columns) and len(t) == 10
    assert len(plot_channels(t, t)) == 5

def test_what_selectivity_predicts_against_scipy():
    pr = torch.rand(40, generator=gen()).numpy()
    t = pd.DataFrame(dict(pr=pr, kurtosis=-pr, spatial_pr=pr + normal(40).numpy(), pca_pr=1., tuning=pr, drift=np.nan))
    t.loc[3, 'tuning'] = np.nan
    r = selectivity_predicts(t).set_index('property')
    assert r['rank']['kurtosis'] == -1 and r.n['tuning'] == 39 and r['rank']['tuning'] == 1 and list(r.claimed) == [-1, 1, 1, 1, -1]
    assert r['rank']['spatial_pr'] == stats.spearmanr(t.pr, t.spatial_pr).statistic and r.low['spatial_pr'] < r['rank']['spatial_pr'] < r.high['spatial_pr']
    assert np.isnan(r['rank']['pca_pr']) and np.isnan(r['rank']['drift']) and r.n['drift'] == 0 # nothing to rank

@pytest.mark.parametrize('call, words', [
    (lambda: gratings((1, 16, 16), (9,)), '^freqs: .* 8 cycles'), (lambda: gratings((1, 16, 16), ()), '^freqs'), (lambda: gratings((1, 16, 16), (0,)), '^freqs'),
    (lambda: gratings((1, 16, 16), contrast=.6), '^contrast'), (lambda: gratings((1, 16, 16), angles=0), '^angles, phases'),
    (lambda: grating_response(denoiser(D.net)), '^shape: .*give')])
def test_bad_gratings(call, words):
    with pytest.raises(ValueError, match=words): call()
