"""Oracles and faults for denoise_study.metrics: second implementations, closed forms, inputs that must be refused."""
import io, json, math

import numpy as np, pytest, torch
from torch import nn

from denoise_study.core import metrics as M
from denoise_study.core.metrics import *


def gen(seed=0): return torch.Generator().manual_seed(seed)
def images(n=6, c=1, side=32, seed=0): return torch.rand(n, c, side, side, generator=gen(seed))
def normal(n, dim, seed=0, **kw): return torch.randn(n, dim, generator=gen(seed), **kw)

def smooth(n=6, c=3, side=256, seed=0):
    "Pictures with structure, and their noisy copies"
    x = nn.functional.interpolate(images(n, c, max(side//16, 4), seed), size=(side, side), mode='bicubic').clamp(0, 1)
    return x, (x + .05*torch.randn(x.shape, generator=gen(seed + 1))).clamp(0, 1)


# one image beside another
def test_mae_scale():
    x, y = images(), images(seed=1)
    ref = (x - y).abs().mean((1, 2, 3))
    torch.testing.assert_close(mae(x, y), 2*ref)
    torch.testing.assert_close(mae(x*2 - 1, y*2 - 1, range=(-1, 1)), 2*ref)
    torch.testing.assert_close(mae(x, y, scale=(0, 1)), ref)

def test_mae_of_noise_is_its_mean_magnitude():
    x = torch.full((4, 3, 64, 64), .5)
    noise = .05*torch.randn(x.shape, generator=gen())
    assert mae(x + noise, x).mean().item() == pytest.approx(2*.05*math.sqrt(2/math.pi), rel=.02)

def test_mean_interval_known_answer():
    v = normal(400, 1)[:, 0]
    b, n = mean_record(v), mean_record(v, 'normal')
    assert n.high - n.low == pytest.approx(2*1.959964*v.double().std().item()/20, rel=1e-6)
    assert (b.low, b.high) == pytest.approx((n.low, n.high), abs=.02)
    assert mean_record(v, seed=3) == mean_record(v, seed=3) != mean_record(v, seed=4)

def test_mean_interval_covers():
    trials = [mean_record(normal(60, 1, s)[:, 0], n_boot=200, seed=s) for s in range(200)]
    assert .89 <= np.mean([o.low <= 0 <= o.high for o in trials]) <= .99

@pytest.mark.parametrize('side', [176, 256])
def test_ms_ssim_equals_pytorch_msssim_at_its_own_setting(side):
    from pytorch_msssim import ms_ssim as ref
    x, y = smooth(3, side=side)
    torch.testing.assert_close(ms_ssim(x, y), ref(x, y, data_range=1., size_average=False), rtol=0, atol=1e-6)

@pytest.mark.parametrize('side,win', [(28, 7), (32, 7), (32, 11), (64, 7), (29, 7)])
def test_ms_ssim_equals_its_definition(side, win):
    "Wang et al. written out: a 2-d Gaussian over every window, no convolution"
    x, y = smooth(4, 1, side + side%2)
    a, b = x[..., :side, :side].double(), y[..., :side, :side].double()
    g = torch.exp(-(torch.arange(win).double() - win//2)**2/(2*1.5**2))
    g = torch.outer(g, g).reshape(1, -1, 1)/g.sum()**2
    mine, setting, res = ms_ssim(a, b, win=win), M._ms_ssim_setting((side, side), win), 1.
    for j, weight in enumerate(setting.weights):
        p, q = (nn.functional.unfold(o, win) for o in (a, b))
        mean = lambda o: (g*o).sum(1)
        mp, mq = mean(p), mean(q)
        cs = (2*(mean(p*q) - mp*mq) + .03**2)/(mean(p*p) - mp**2 + mean(q*q) - mq**2 + .03**2)
        last = j == setting.scales - 1
        res = res*(cs*(2*mp*mq + .01**2)/(mp**2 + mq**2 + .01**2) if last else cs).mean(1).clamp(min=0)**weight
        a, b = (nn.functional.avg_pool2d(o, 2) for o in (a, b))
    torch.testing.assert_close(mine, res, rtol=0, atol=3e-5)  # pytorch-msssim builds its window in float32

def test_ms_ssim_equals_torchmetrics():
    tm = pytest.importorskip('torchmetrics.functional.image')
    x, y = smooth(3, 1, 192)
    ref = [tm.multiscale_structural_similarity_index_measure(a[None], b[None], data_range=1.) for a, b in zip(x, y)]
    torch.testing.assert_close(ms_ssim(x, y), torch.stack(ref), rtol=0, atol=2e-5)

def test_ms_ssim_properties():
    x, y = smooth(4, 1, 28)
    torch.testing.assert_close(ms_ssim(x, x), torch.ones(4))
    inverse = ms_ssim(x, 1 - x)
    assert not inverse.isnan().any() and inverse.max() < .1
    checker = (torch.arange(32)[:, None] + torch.arange(32)).remainder(2).float()[None, None]
    assert ms_ssim(checker, 1 - checker).item() == 0
    torch.testing.assert_close(ms_ssim(x*255, y*255, range=(0, 255)), ms_ssim(x, y), rtol=0, atol=1e-5)
    torch.testing.assert_close(ms_ssim(x*2 - 1, y*2 - 1, range=(-1, 1)), ms_ssim(x, y), rtol=0, atol=1e-5)
    torch.testing.assert_close(ms_ssim(x, y)[2:3], ms_ssim(x[2:3], y[2:3]))  # images don't influence each other

def test_compare_images_record():
    x, y = smooth(5, 3, 32)
    r = compare_images(x, y, n_boot=50)
    assert json.loads(json.dumps(r)) == r
    assert (r.n, r.size, r.ms_ssim.win, r.ms_ssim.scales, r.mae.scale) == (5, [32, 32], 7, 3, [-1., 1.])
    assert r.mae.value == pytest.approx(mae(x, y).double().mean().item())

@pytest.mark.parametrize('f', [mae, ms_ssim])
@pytest.mark.parametrize('change,error,match', [
    (lambda x: x*2 - 1, ValueError, 'y'), (lambda x: x[:, 0], ValueError, 'y'),
    (lambda x: (x*255).byte(), TypeError, 'y'),
    (lambda x: x.where(x > .5, torch.nan), ValueError, 'y'), (lambda x: x[..., 1:], ValueError, 'same shape'),
    (lambda x: x[:0], ValueError, 'y'), (lambda x: x.double(), TypeError, 'float64')])
def test_image_faults(f, change, error, match):
    with pytest.raises(error, match=match): f(images(), change(images(seed=1)))

def test_setting_faults():
    x = images(2, 1, 6)
    with pytest.raises(ValueError, match='`win`'): ms_ssim(x, x)
    assert ms_ssim(x, x, win=5).tolist() == pytest.approx([1, 1])
    with pytest.raises(ValueError, match='`win`'): ms_ssim(images(), images(), win=8)
    with pytest.raises(ValueError, match='`scales`'): ms_ssim(images(), images(), scales=4)
    with pytest.raises(ValueError, match='`scale`'): mae(images(), images(), scale=(1, 0))
    with pytest.raises(ValueError, match='`values`'): mean_record(torch.zeros(3, 2))
    with pytest.raises(ValueError, match='NaN'): mean_record(torch.tensor([1., torch.nan]))
    with pytest.raises(ValueError, match='`method`'): mean_record(torch.rand(9), 'jackknife')
    with pytest.raises(ValueError, match='`n_boot`'): mean_record(torch.rand(9), n_boot=1)


# the Fréchet distance
def by_scipy(a, b):
    from scipy.linalg import sqrtm
    (m1, c1), (m2, c2) = [(o.double().mean(0), o.double().T.cov()) for o in (a, b)]
    return (((m1 - m2)**2).sum() + (c1 + c2).trace()).item() - 2*np.trace(sqrtm((c1@c2).numpy())).real

@pytest.mark.parametrize('dim,n', [(2, 50), (16, 200), (64, 500), (200, 1000)])
def test_frechet_equals_scipy(dim, n):
    scale = torch.logspace(0, -2, dim)
    a, b = normal(n, dim)*scale + .3, normal(n + 7, dim, 1)*scale.flip(0)
    assert frechet(a, b) == pytest.approx(by_scipy(a, b), rel=1e-9)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-10)

def test_frechet_equals_torchmetrics():
    fid = pytest.importorskip('torchmetrics.image.fid')
    a, b = normal(300, 32).double(), 1.5*normal(300, 32, 1).double() + .2
    ref = fid._compute_fid(a.mean(0), a.T.cov(), b.mean(0), b.T.cov()).item()
    assert frechet(a, b) == pytest.approx(ref, rel=1e-6)

def test_frechet_closed_forms():
    z = normal(1000, 2).double()
    z = (z - z.mean(0))@torch.linalg.inv(torch.linalg.cholesky(z.T.cov())).T  # sample mean 0 and covariance I, exactly
    assert frechet(z, 2*z + torch.tensor([3., 4.])) == pytest.approx(27, rel=1e-12)
    assert frechet(z, z) == pytest.approx(0, abs=1e-12)
    d1, d2 = torch.tensor([1., 3.]).double(), torch.tensor([2., 5.]).double()
    assert frechet(z*d1, z*d2) == pytest.approx(((d1 - d2)**2).sum().item(), rel=1e-12)

@pytest.mark.parametrize('n,m,dim', [(20, 30, 64), (20, 200, 64), (64, 64, 64), (65, 64, 64)])
def test_frechet_with_few_images(n, m, dim):
    "The thin factors against the definition, with the square root of S1^1/2 S2 S1^1/2 from eigenvectors"
    a, b = normal(n, dim).double(), normal(m, dim, 1).double() + .1
    def root(c):
        w, v = torch.linalg.eigh(c)
        return (v*w.clamp(min=0).sqrt())@v.T
    c1, c2 = a.T.cov(), b.T.cov()
    ref = ((a.mean(0) - b.mean(0))**2).sum() + (c1 + c2).trace() - 2*root(root(c1)@c2@root(c1)).trace()
    with pytest.warns(UserWarning, match='singular'):
        assert frechet(a, b) == pytest.approx(ref.item(), rel=1e-6)
        assert frechet(Moments().update(a), Moments().update(b)) == pytest.approx(frechet(a, b), rel=1e-9)
        assert frechet(a, a) == pytest.approx(0, abs=1e-10)

def test_frechet_with_dead_features():
    a, b = normal(300, 20), normal(300, 20, 1)
    a[:, 3], b[:, 3], b[:, 7] = 0, 0, b[:, 6]
    assert frechet(a, b) == pytest.approx(by_scipy(a, b), rel=1e-5)
    assert frechet(a, a) == pytest.approx(0, abs=1e-10)

def test_moments_stream():
    x = normal(1000, 12).double() + 1e4  # a mean that sums of squares would not survive
    m = Moments()
    for b in x.split([1, 400, 3, 596]): m.update(b)
    torch.testing.assert_close(m.mean, x.mean(0), rtol=1e-14, atol=0)
    torch.testing.assert_close(m.cov, x.T.cov(), rtol=0, atol=1e-12)
    assert len(m) == 1000

def test_interval_agrees_with_the_delta_method():
    "Standard error from the influence function (x-m1)'(I-T)(x-m1) + 2(m1-m2)'(x-m1), T the optimal map"
    a, b = normal(400, 6).double()*torch.linspace(.5, 2, 6), normal(300, 6, 1).double() + .7
    def influence(x, y):
        c1, c2, d = x.T.cov(), y.T.cov(), x - x.mean(0)
        L = torch.linalg.cholesky(c1)
        w, v = torch.linalg.eigh(L.T@c2@L)
        inv = torch.linalg.inv(L)
        T = inv.T@(v*w.sqrt())@v.T@inv
        torch.testing.assert_close(T@c1@T, c2)
        return (d@(torch.eye(6) - T)*d).sum(1) + 2*d@(x.mean(0) - y.mean(0))
    se = (influence(a, b).var()/400 + influence(b, a).var()/300).sqrt().item()
    r = frechet_interval(a, b, n_boot=400, progress=False)
    assert (r.high - r.low)/(2*1.96) == pytest.approx(se, rel=.15)
    assert r.low < r.value < r.high and r.bias > 0
    assert r == frechet_interval(a, b, n_boot=400, progress=False)

def test_resampling_by_weights_is_resampling():
    x, w = normal(50, 4).double(), torch.randint(0, 4, (50,), generator=gen())
    mean, L = M.mean_and_factor(x, w)
    rows = x.repeat_interleave(w, 0)
    torch.testing.assert_close(mean, rows.mean(0))
    torch.testing.assert_close(L@L.T, rows.T.cov())

def test_set_faults():
    a = normal(30, 4)
    for f in (frechet, frechet_interval, knn_precision_recall, prd):
        with pytest.raises(ValueError, match='`fake` has dim 3'): f(a, a[:, :3])
        with pytest.raises(ValueError, match="`fake` is from 'B'.*'A'"): f(Features(a, 'A'), Features(a, 'B'))
        with pytest.raises(ValueError, match='`fake` has 1 images'): f(a, a[:1])
        with pytest.raises(ValueError, match='`real` holds NaN'): f(a.where(a > 0, torch.nan), a)
        with pytest.raises(TypeError, match='`real` is torch.int64'): f(a.long(), a)
        with pytest.raises(TypeError, match='`real` is a ndarray'): f(a.numpy(), a)
        with pytest.raises(ValueError, match='`real` has shape'): f(a[0], a)
    with pytest.raises(TypeError, match='`fake` is a Moments'): frechet_interval(a, Moments().update(a))
    with pytest.raises(ValueError, match='`features`'): Moments().update(a).update(a[:, :2])
    with pytest.raises(ValueError, match="'B'.*'A'"): Moments('A').update(Features(a, 'B'))
    with pytest.raises(ValueError, match='`k`'): knn_precision_recall(a, a, k=0)
    with pytest.raises(ValueError, match='`clusters`'): prd(a, a, clusters=61)
    with pytest.warns(UserWarning, match='`fake`: n=4 <= dim=4'): frechet(a, a[:4])


# precision and recall
def knn_by_loops(real, fake, k):
    "Kynkäänniemi et al. 2019 in plain loops over numpy norms"
    norm = lambda a, b: np.linalg.norm(a - b)
    radii = lambda s: [sorted(norm(s[i], s[j]) for j in range(len(s)) if j != i)[k - 1] for i in range(len(s))]
    inside = lambda pts, s, r: np.mean([any(norm(p, c) <= rad for c, rad in zip(s, r)) for p in pts])
    return inside(fake, real, radii(real)), inside(real, fake, radii(fake))

@pytest.mark.parametrize('k,bs', [(1, 7), (3, 16), (5, 1000)])
def test_knn_equals_loops(k, bs):
    a, b = normal(40, 3), normal(50, 3, 1)*1.3 + .4
    r = knn_precision_recall(a, b, k=k, bs=bs)
    assert (r.precision.value, r.recall.value) == pytest.approx(knn_by_loops(a.double().numpy(), b.double().numpy(), k))

def test_knn_far_from_the_origin_and_with_copies():
    a, b = normal(60, 5), normal(60, 5, 1)
    near, far = knn_precision_recall(a, b), knn_precision_recall(a.double() + 1e6, b.double() + 1e6)
    assert (near.precision.value, near.recall.value) == (far.precision.value, far.recall.value)
    copies = normal(5, 300).repeat(5, 1)  # radius 0: only the copies themselves are inside
    same = knn_precision_recall(copies, copies)
    assert (same.precision.value, same.recall.value) == (1, 1)
    assert knn_precision_recall(copies, copies + .01).precision.value == 0

def test_roles():
    "Dropping modes costs recall; the swap swaps the two"
    centres = torch.eye(4)*10
    pick = lambda k, seed: centres[torch.randint(k, (200,), generator=gen(seed))] + .2*normal(200, 4, seed + 9)
    real, fake = pick(4, 0), pick(2, 1)
    r, s = knn_precision_recall(real, fake), knn_precision_recall(fake, real)
    assert r.precision.value > .85 and r.recall.value < .6
    assert (r.precision.value, r.recall.value) == (s.recall.value, s.precision.value)
    p = prd(real, fake, clusters=4, runs=2, n_boot=5)
    q = prd(fake, real, clusters=4, runs=2, n_boot=5)
    assert p.f1_8.value > .9 and p.f8.value < .6
    assert (p.f8.value, p.f1_8.value) == pytest.approx((q.f1_8.value, q.f8.value), abs=1e-6)

def test_prd_curve_equals_the_definition():
    p, q = np.random.default_rng(0).dirichlet(np.ones(7), 2)
    precision, recall = (o.numpy() for o in M._prd_curve(torch.tensor(p), torch.tensor(q)))
    for i, lam in enumerate(np.tan(np.linspace(1e-10, np.pi/2 - 1e-10, 1001))):
        assert precision[i] == pytest.approx(np.minimum(lam*p, q).sum(), abs=1e-9)
        assert recall[i] == pytest.approx(np.minimum(p, q/lam).sum(), abs=1e-9)
    assert recall[0] == pytest.approx(1) and precision[-1] == pytest.approx(1)
    same = M._prd_curve(torch.tensor(p), torch.tensor(p))
    assert M._f_max(*same, 8).item() == pytest.approx(1) and M._f_max(*same, 1/8).item() == pytest.approx(1)
    disjoint = M._prd_curve(torch.tensor([1., 0.]).double(), torch.tensor([0., 1.]).double())
    assert M._f_max(*disjoint, 8).item() == 0

def test_prd_intervals_and_seeds():
    a, b = normal(200, 3), normal(300, 3, 1) + .5
    r = prd(a, b, runs=2, n_boot=30)
    assert r.n == 200 and r.f8.low <= r.f8.value <= r.f8.high <= 1
    again = prd(a, b, runs=2, n_boot=30)
    assert r.f8 == again.f8 and r.f1_8 == again.f1_8


# feature spaces
class Named(nn.Linear):
    name = 'linear (seed 0)'
    def forward(self, x): return super().forward(x.flatten(1))

def test_compute_features():
    torch.manual_seed(0)
    space, x = Named(64, 5), images(10, 1, 8)
    f = compute_features(space, x, bs=3, progress=False)
    torch.testing.assert_close(f.x, space(x).detach())
    assert (f.space, f.dim, len(f), len(f[2:5]), space.training) == ('linear (seed 0)', 5, 10, 3, True)
    loader = [(x[:4]*2 - 1, None), (x[4:]*2 - 1, None)]
    torch.testing.assert_close(compute_features(space, loader, range=(-1, 1), progress=False).x, f.x)
    with pytest.raises(ValueError, match='`range`'): compute_features(space, loader)
    with pytest.raises(ValueError, match='images'): compute_features(space, x*2 - 1, progress=False)
    with pytest.raises(ValueError, match='`space`'): compute_features(nn.Identity(), x, progress=False)
    with pytest.raises(TypeError, match='`space`'): compute_features(torch.flatten, x)
    with pytest.raises(ValueError, match='without a `name`'): compute_features(nn.Linear(2, 2), x)
    with pytest.raises(ValueError, match='no batch'): compute_features(space, [], range=(0, 1))

def test_small_cnn():
    from denoise_study.core import image_dls
    dls = image_dls('digits', bs=64)
    epoch, state = dls.train.epoch, torch.get_rng_state()
    a, b = (SmallCNN.fit(dls, epochs=4, progress=False) for _ in range(2))
    assert a.name == b.name and 'digits, seed 0, test accuracy' in a.name
    assert a.name != SmallCNN.fit(dls, epochs=1, progress=False).name
    assert float(a.name.split('accuracy ')[1][:5]) > .9
    assert dls.train.epoch == epoch and torch.equal(torch.get_rng_state(), state)
    c = SmallCNN(**json.loads(json.dumps(a.config)))
    c.load_state_dict(a.state_dict())
    x = images(5, 1, 8)
    torch.testing.assert_close(c.eval()(x), a(x))
    assert c.name == a.name and a(x).shape == (5, 64) and not a.training
    unlabelled = image_dls(np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8))
    with pytest.raises(ValueError, match='`dls`'): SmallCNN.fit(unlabelled)

@pytest.fixture(scope='module')
def fidelity():
    "torch-fidelity's Inception with random weights: batch norm shifts only, so that it folds into biases"
    mod = pytest.importorskip('torch_fidelity.feature_extractor_inceptionv3')
    class Bare(mod.FeatureExtractorInceptionV3):
        def load_state_dict(self, sd): return super().load_state_dict(sd) if sd else None
    path = io.BytesIO()
    torch.save({}, path)
    path.seek(0)
    torch.manual_seed(0)
    net = Bare('test', ['768', '2048'], feature_extractor_weights_path=path)
    for o in net.modules():
        if isinstance(o, nn.Conv2d): nn.init.kaiming_normal_(o.weight)
        if isinstance(o, nn.BatchNorm2d): o.running_var.fill_(1 - o.eps); nn.init.normal_(o.bias, 0, .1)
    return net.eval()

def folded(net):
    "The convolutions of torch-fidelity's network under the names of the 768-channel file"
    name = {f'Mixed_{b}': f'mixed_{i}' if i else 'mixed' for i, b in enumerate('5b 5c 5d 6a 6b 6c 6d 6e'.split())}
    stem = dict(Conv2d_1a_3x3='conv', Conv2d_2a_3x3='conv_1', Conv2d_2b_3x3='conv_2',
                Conv2d_3b_1x1='conv_3', Conv2d_4a_3x3='conv_4')
    branch = dict(branch1x1='conv', branch3x3='conv', branch_pool='tower_2_conv',
                  branch5x5_1='tower_conv', branch5x5_2='tower_conv_1')
    branch |= {f'branch7x7_{i + 1}': 'tower_conv' + (f'_{i}' if i else '') for i in range(3)}
    branch |= {f'branch3x3dbl_{i + 1}': 'tower_1_conv' + (f'_{i}' if i else '') for i in range(3)}
    branch |= {f'branch7x7dbl_{i + 1}': 'tower_1_conv' + (f'_{i}' if i else '') for i in range(5)}
    res = {}
    for key, o in net.named_modules():
        block, *rest = key.split('.')
        if not hasattr(o, 'bn') or not (block in stem or block in name): continue
        b = branch[rest[0]] if rest else ''
        if block == 'Mixed_6a': b = b.replace('tower_1', 'tower')  # the reduction's only tower is its first
        k = stem[block] if not rest else f'{name[block]}_{b}'
        res |= {f'{k}.w': o.conv.weight.detach().numpy(), f'{k}.b': o.bn.bias.detach().numpy()}
    return res

def test_inception768_equals_torch_fidelity(fidelity, tmp_path):
    np.savez(tmp_path/'w.npz', **folded(fidelity))
    space = Inception768(tmp_path/'w.npz')
    u = torch.randint(0, 256, (2, 3, 299, 299), generator=gen(), dtype=torch.uint8)
    ref = fidelity(u)[0]
    # u/256 in (0, 1) makes both networks see (u - 128)/128
    torch.testing.assert_close(space(u/256.), ref, rtol=1e-4, atol=1e-4*ref.abs().max().item())
    grey = images(2, 1, 28)
    torch.testing.assert_close(space(grey), space(grey.repeat(1, 3, 1, 1)))
    assert space.name.startswith('FID-768') and space(grey).shape == (2, 768)
    with pytest.raises(ValueError, match='channels'): space(images(2, 2))

def test_inception768_faults(fidelity, tmp_path):
    w = folded(fidelity)
    def refuse(match, **kw):
        np.savez(tmp_path/'bad.npz', **kw)
        with pytest.raises(ValueError, match=match): Inception768(tmp_path/'bad.npz')
    refuse("lacks the array 'conv.b'", **{k: v for k, v in w.items() if k != 'conv.b'})
    refuse("'conv.w' has shape", **(w | {'conv.w': w['conv.w'][:, :1]}))
    refuse('allow_pickle', **(w | {'conv.w': np.array([{}], dtype=object)}))
    (tmp_path/'bad.npz').write_bytes(b'PK\x03\x04 not an archive')
    with pytest.raises(ValueError, match='not an .npz'): Inception768(tmp_path/'bad.npz')
    with pytest.raises(FileNotFoundError, match='nowhere'): Inception768(tmp_path/'nowhere.npz')

def test_inception2048_equals_torch_fidelity(fidelity, tmp_path):
    torch.save(fidelity.state_dict(), tmp_path/'w.pth')
    space = Inception2048(tmp_path/'w.pth')
    u = torch.randint(0, 256, (2, 3, 32, 32), generator=gen(), dtype=torch.uint8)
    torch.testing.assert_close(space(u/255.), fidelity(u)[1])
    assert space.name.startswith('FID-2048') and space(images(2)).shape == (2, 2048)
    with pytest.raises(FileNotFoundError, match='weights-inception'): Inception2048(tmp_path/'nowhere.pth')

class Payload:
    def __reduce__(self): return exec, ("raise SystemExit('ran')",)

def test_inception2048_unpickles_nothing(tmp_path):
    pytest.importorskip('torch_fidelity')
    torch.save(dict(x=Payload()), tmp_path/'evil.pth')
    with pytest.raises(Exception, match='(?i)weights.only'): Inception2048(tmp_path/'evil.pth')


# one record
def test_compare_sets():
    x = images(60, 1, 4)
    r = compare_sets(x[:30], x[30:], nn.Flatten(), n_boot=5, progress=False)
    assert json.loads(json.dumps(r)) == r
    assert (r.n_real, r.n_fake, r.dim, r.singular) == (30, 30, 16, False) and 'Flatten' in r.feature_space
    f = compute_features(nn.Flatten(), x, progress=False)
    again = compare_sets(f[:30], f[30:], n_boot=5, progress=False)
    assert {k: v for k, v in r.items() if k != 'seconds'} == {k: v for k, v in again.items() if k != 'seconds'}
    assert r.frechet.value == frechet(f[:30], f[30:])
    with pytest.raises(ValueError, match='`space`'): compare_sets(x, x)
    with pytest.warns(UserWarning, match='singular'):
        assert compare_sets(f[:30], f[30:40], n_boot=5, progress=False).singular
