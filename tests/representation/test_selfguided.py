"Matching, guided samplers and distances against closed forms. T7..T31: traps that cost a reproduction its result"
import math
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from denoise_study.denoiser import ascend, BlindUNet, denoiser, Denoiser, GaussianDenoiser
from denoise_study.denoiser import noise_levels, sample
from denoise_study.representation import centroid, conditional_distance, Guide, masked, match, mix
from denoise_study.representation import noise_level_check, plot_noise_level, plot_ratio
from denoise_study.representation import ratio_test, samples_around, score_distance, self_guided
from denoise_study.representation import show_around, Target


def gen(seed=0): return torch.Generator().manual_seed(seed)
def rand(*shape, seed=0): return torch.rand(shape, generator=gen(seed))
def randn(*shape, seed=0): return torch.randn(shape, generator=gen(seed))


def small(seed=0, shape=(1, 16, 16)):
    torch.manual_seed(seed)
    return denoiser(BlindUNet(channels=1, widths=(6, 10, 14, 22), depths=(2, 3, 2)), shape)


class Linear(GaussianDenoiser):
    "Exact denoiser of Gaussian data whose phi is A times the image: a world in which guidance is known"
    def __init__(self, cov, A, mean=.5):
        cov = torch.as_tensor(cov)
        super().__init__(torch.full((len(cov), 1, 1), mean), cov)
        self.taps, self.A = ("mid",), torch.as_tensor(A)
    def averages(self, x, sigma=None, taps=("mid",)): return {"mid": x.flatten(1)@self.A.T.to(x)}


class Smooth(Denoiser):
    "phi in double precision, for finite differences"
    def __init__(self):
        super().__init__(nn.Conv2d(1, 5, 3, padding=1), (1, 8, 8), taps=("mid",))
        self.double()
    def averages(self, x, sigma=None, taps=("mid",)): return {"mid": torch.tanh(self.net(x)).square().mean((2, 3))}


class Foreign(nn.Module):
    "A bias-free residual CNN"
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head, self.body = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False)
        self.act, self.tail = nn.ReLU(), nn.ConvTranspose2d(12, 1, 2, 2, bias=False)
    def forward(self, x): return self.tail(self.act(self.body(self.head(x).relu())))*.1 + .5*x


# --- the matching step

@pytest.mark.parametrize("scale", [1., 1e-4])
def test_t7_rms_move_of_an_adam_step_is_lr_whatever_the_gradient(scale):
    "Plain Adam moves .0042 where gradients are 1e-8 and .0001 at 1e-10; here weights of channels shrink them by 1e-8"
    D, x = small(), rand(4, 1, 16, 16)
    with torch.no_grad(): goal = D.phi(rand(4, 1, 16, 16, seed=1))
    move = match(D, x, goal, steps=1, mask=torch.full((22,), scale**2))[1].move
    assert torch.allclose(move, torch.full((4,), .01), rtol=1e-3)
    assert torch.allclose(match(D, x, goal, .03, steps=1)[1].move, torch.full((4,), .001), rtol=1e-3)       # lr*min(1, sigma/.3)
    assert torch.allclose(match(D, x, goal, .03, steps=1, lr_by_sigma=False)[1].move, torch.full((4,), .01), rtol=1e-3)


@pytest.mark.parametrize("method", ["adam", "gd"])
def test_t8_matching_goes_down_and_arrives(method):
    D, x = small(), .5 + .5*randn(6, 1, 16, 16)
    with torch.no_grad(): goal = D.phi(.5 + .5*randn(6, 1, 16, 16, seed=1))
    one = match(D, x, goal, .5, method=method, steps=1)[1]
    assert (one["last"] < one["first"]).all()
    out, info = match(D, x, goal, .5, method=method, steps=300)
    assert info.converged.all() and (info["last"] <= .01*info["first"]).all() and (info.steps < 300).all()
    with torch.no_grad(): again = (D.phi(out) - goal).square().sum(1)
    assert torch.allclose(again, info["last"], rtol=1e-2)                       # the report is about the images that are returned


def test_t9_gradient_against_finite_differences():
    D, x, goal = Smooth(), rand(3, 1, 8, 8).double(), .2*rand(3, 5, seed=1).double()
    delta = match(D, x, goal, method="gd", lr=1e9, steps=1)[0] - x              # -2 L grad/|grad|^2: L falls by 2 L along it
    loss = lambda h: (D.averages(x + h*delta)["mid"] - goal).square().sum(1)
    with torch.no_grad(): slope = (loss(1e-5) - loss(-1e-5))/2e-5
    assert torch.allclose(slope, -2*loss(0), rtol=1e-3)


def test_t31_an_image_alone_and_in_a_batch():
    "Companions with losses a million times larger, and one that has already arrived"
    D, x = small(), .5 + .5*randn(4, 1, 16, 16)
    with torch.no_grad(): goal = D.phi(.5 + .5*randn(4, 1, 16, 16, seed=1))
    goal[0] *= 1000
    with torch.no_grad(): goal[1] = D.phi(x[1:2])[0]
    sigma = torch.tensor([1., .5, .3, .1])
    for method, steps in (("adam", 30), ("gd", 5)):     # gd's steps have no memory: at kinks of ReLUs rounding grows tenfold every few steps
        both, info = match(D, x, goal, sigma, method=method, steps=steps)
        for i in range(4):
            alone, one = match(D, x[i:i+1], goal[i:i+1], sigma[i:i+1], method=method, steps=steps)
            assert (alone[0] - both[i]).abs().max() < 1e-4 and one.steps[0] == info.steps[i]
    assert info.steps[1] == 0 and info.converged[1]             # at its target: it must not chase rounding errors


def test_linear_phi_is_reset_in_one_step():
    D, x = Linear(np.eye(3)*.01, [[1., 0, 0]]), rand(5, 3, 1, 1)
    out, info = match(D, x, torch.tensor([.7]), method="gd", lr=math.inf)
    assert torch.allclose(out[:, 0], torch.full((5, 1, 1), .7)) and torch.equal(out[:, 1:], x[:, 1:]) and (info.steps <= 1).all()


def test_weights_and_modes_are_left_alone():
    D, x = small(), rand(2, 1, 16, 16)
    D.train()
    first = next(D.parameters()).requires_grad_(False)
    flags, before = [p.requires_grad for p in D.parameters()], [p.clone() for p in D.parameters()]
    with torch.inference_mode(): match(D, x, torch.ones(22), .5, steps=2)       # whatever the caller turned off
    with torch.no_grad(): match(D, x, torch.ones(22), .5, steps=2)
    with pytest.raises(ValueError): match(D, x, torch.ones(23), .5)
    assert D.training and not first.requires_grad and flags == [p.requires_grad for p in D.parameters()]
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, D.parameters()))
    assert not x.requires_grad


def test_masks_say_the_same_in_three_ways():
    D, x, goal = small(), rand(2, 1, 16, 16), torch.full((22,), .01)
    bools = torch.zeros(22, dtype=torch.bool)
    bools[[3, 5]] = True
    outs = [match(D, x, goal, .5, mask=m, steps=5)[0] for m in (bools, bools.float(), [3, 5])]
    assert torch.equal(outs[0], outs[1]) and torch.equal(outs[0], outs[2])
    assert not torch.equal(outs[0], match(D, x, goal, .5, steps=5)[0])


# --- targets and guide

def test_averages_over_noise_and_images():
    D, images = small(), rand(3, 1, 16, 16)
    t = Target(images[:, None])
    assert torch.allclose(t.phi(D, .5, 3)[:1], t[[0]].phi(D, .5, 3), atol=1e-7)  # T12: images are not mixed up
    c, g = centroid(images), [gen(5)]
    z = torch.randn(1, 3, 2, 1, 16, 16, generator=gen(5))[0]
    with torch.no_grad(): by_hand = D.phi((images[:, None] + .5*z).flatten(0, 1)).mean(0)
    assert torch.allclose(c.phi(D, .5, 6, g)[0], by_hand, atol=1e-7)
    m = mix(images[:1].expand(3, -1, -1, -1), images[1:2].expand(3, -1, -1, -1), torch.tensor([0., .5, 1.]))
    p = m.phi(D, .5, 4, gen(0).manual_seed(1))
    assert m.weights.tolist() == [[1, 0], [.5, .5], [0, 1]] and p.shape == (3, 22)
    z = torch.randn(1, 2, 3, 1, 16, 16, generator=gen(6))[0] # T12: three draws of each of two images, of which one counts
    with torch.no_grad(): own = D.phi(images[1] + .5*z[1]).mean(0)
    assert torch.allclose(mix(images[:1], images[1:2], 1.).phi(D, .5, 6, [gen(6)])[0], own, atol=1e-8, rtol=1e-4)
    assert len(c) == 1 and len(m) == 3 and masked(m, [1]).mask == [1] and masked(m, [1])[[0, 2]].mask == [1]


def test_t21_conditioner_noise_is_independent_new_and_follows_sigma():
    seen = []
    class Spy(Linear):
        def averages(self, x, sigma=None, taps=("mid",)):
            seen.append((x.detach().clone(), torch.as_tensor(sigma).clone()))
            return super().averages(x, sigma, taps)
    D = Spy(np.eye(400)*.01, np.eye(400)[:1])
    image, sigma = torch.full((1, 400, 1, 1), .5), torch.tensor([.2, .4])
    guide, x = Guide(D, image, n_noise=1, seed=0, method="gd", steps=1), .5 + .3*randn(2, 400, 1, 1)
    guide(x, sigma)
    z, s = (seen[0][0] - .5)[:, :, 0, 0], seen[0][1]
    assert torch.allclose(s, sigma) and torch.allclose(z.std(1), sigma, rtol=.1)
    first = z/sigma[:, None]
    for other in ((x - .5)[:, :, 0, 0], first.flip(0)):                         # neither the sample's noise nor its neighbour's
        assert abs(np.corrcoef(first.flatten(), other.flatten())[0, 1]) < .12
    seen.clear()
    guide(x, sigma)
    assert abs(np.corrcoef(first.flatten(), (seen[0][0] - .5).flatten())[0, 1]) < .12


def test_guide_is_off_where_it_should_be():
    D, x = small(), rand(4, 1, 16, 16)
    guide = Guide(D, rand(1, 1, 16, 16, seed=1), between=(.1, .5), steps=2)
    out = guide(x, torch.tensor([0., .05, .3, .9]))                             # finished, too low, on, too high
    assert torch.equal(out[[0, 1, 3]], x[[0, 1, 3]]) and not torch.equal(out[2], x[2])
    report = guide.report()
    assert len(report) == 1 and report.image[0] == 2 and Guide(D, x[:1]).report().empty


@pytest.mark.parametrize("sampler", ["ascend", "ancestral", "renoise"])
def test_t15_t31_self_guided_sample_alone_and_in_a_batch(sampler):
    D, images = small(), rand(3, 1, 16, 16)
    kw = dict(sampler=sampler, seed=4, n_noise=2, matching=dict(steps=3), progress=False, clip=False)
    kw |= dict(max_steps=4) if sampler == "ascend" else dict(sigmas=[1., .5, .2])
    with pytest.warns(UserWarning) if sampler == "ascend" else torch.no_grad():
        both, report = self_guided(D, images, 2, **kw)
        alone, _ = self_guided(D, images[:1], 1, **kw)
        again, _ = self_guided(D, images, 2, **kw)
    assert both.shape == (6, 1, 16, 16) and torch.equal(both, again)
    assert (alone[0] - both[0]).abs().max() < 1e-3 and (both[0] - both[1]).abs().max() > 2e-3
    assert len(report) == 6*report.step.nunique() and {"sigma", "loss_ratio", "converged", "move_over_sigma"} <= set(report)


# --- algorithm 1 in a world where the answer is known

C = np.array([[1, 0, .6], [0, .5, -.3], [.6, -.3, 1]])


def linear_gaussian(h, beta, n):
    "Mean and variance of the two free numbers, by the real sampler; the data is scaled by .1 and shifted by .5 into [0,1]"
    D, target = Linear(torch.tensor(.01*C).float(), [[1., 0, 0]]), torch.tensor([.62, .5, .5]).view(1, 3, 1, 1)
    guide = Guide(D, target, n_noise=1, seed=gen(1), method="gd", lr=math.inf, steps=1)
    for step in ascend(D, .5 + .1*randn(n, 3, 1, 1), gen(2), h, beta, sigma_end=.001, growing=False, sigma=.1, guide=guide): pass
    free = (step.x[:, 1:, 0, 0] - .5)*10
    return [*free.mean(0).tolist(), *free.var(0).tolist()]


CASES = [(.05, .5, 16_000, (.086, .343, .41, .546)), (.05, .1, 4000, (.038, .629, .489, .643)),
         pytest.param(.02, .02, 8000, (.008, .701, .495, .637), marks=pytest.mark.slow)]


@pytest.mark.parametrize("h,beta,n,want", CASES)
def test_linear_gaussian_means_and_variances(h, beta, n, want):
    "The exact answer is (0, .72), (.5, .64): large beta leaves the free part under-conditioned, and by how much is known"
    got = linear_gaussian(h, beta, n)
    error = 4*np.sqrt([want[2]/n, want[3]/n, 2*want[2]**2/n, 2*want[3]**2/n])
    assert (abs(np.subtract(got, want)) < error).all(), got


# --- distances

def gaussian(mean, var, n=20_000, seed=0):
    mean, var = (torch.as_tensor(v, dtype=torch.float32).view(-1, 1, 1) for v in (mean, var))
    return GaussianDenoiser(mean, var), mean + var.sqrt()*randn(n, *mean.shape, seed=seed)


def distance(a, b, sigmas, **kw): return score_distance(a[0], b[0], a[1], b[1], sigmas, **kw).mean().item()


WHOLE = np.geomspace(1e-3, 1e3, 120)


def test_t22_symmetric_kl_of_gaussians():
    "1, not pi/2 (sigma left out) and not 2 (d sigma^2); and 9/8 where only the variances differ"
    assert distance(gaussian([0.], [1.]), gaussian([1.], [1.]), WHOLE) == pytest.approx(1, rel=2e-3)
    assert distance(gaussian([0.], [1.]), gaussian([0.], [4.], seed=1), WHOLE) == pytest.approx(9/8, rel=.03)


def test_t23_sum_over_pixels_and_both_directions():
    for n in (1, 4, 16):
        assert distance(gaussian(np.zeros(n), np.ones(n), 10), gaussian(np.full(n, .5), np.ones(n), 10), WHOLE) == pytest.approx(n/4, rel=2e-3)
    a, b = gaussian([0.], [1.]), gaussian([0.], [4.], seed=1)
    one = score_distance(a[0], b[0], a[1], a[1], WHOLE).mean().item()/2         # KL(p|q) alone: (1/4 - 1 + log 4)/2
    assert one == pytest.approx((1/4 - 1 + math.log(4))/2, rel=.03) and one != pytest.approx(9/16, rel=.2)


@pytest.mark.parametrize("lo,hi,want", [(.1, 1, 2.53555), (.05, 3, 3.30906), (1e-3, 1e3, 3.5)])
def test_t24_truncated_closed_form(lo, hi, want):
    a, b = gaussian([0., 0], [1, .1], 10), gaussian([1, .5], [1, .1], 10)
    points = 40 if hi/lo < 1000 else 120
    assert distance(a, b, np.geomspace(lo, hi, points)) == pytest.approx(want, rel=.01)
    assert distance(a, b, np.geomspace(.1, 1, 10)) == pytest.approx(2.53555, rel=.02)      # the default grid
    assert abs(distance(a, b, np.linspace(1e-3, 1e3, points))/3.5 - 1) > .5               # a linear grid with few points


def test_conditional_distance_and_its_floor_in_closed_form():
    "Reset of one coordinate: D1 - D2 = W[:,0] (delta + noise of two targets), W = C (C + s^2)^-1"
    cov, n_noise, P, draws = torch.tensor(.01*C).float(), 5, 200, 4
    D, sigmas = Linear(cov, [[1., 0, 0]]), np.geomspace(.05, 1, 8)
    a, b = torch.full((P, 3, 1, 1), .4), torch.full((P, 3, 1, 1), .6)
    d = conditional_distance(D, a, b, sigmas, draws, n_noise=n_noise, progress=False, method="gd", lr=math.inf, steps=1)
    W0 = np.array([((.01*C)@np.linalg.inv(.01*C + s**2*np.eye(3)))[:, 0] @ ((.01*C)@np.linalg.inv(.01*C + s**2*np.eye(3)))[:, 0] for s in sigmas])
    integral = lambda square: np.trapezoid(2*W0*square/sigmas**2, np.log(sigmas))
    assert d.d2.mean() == pytest.approx(integral(.04 + 2*sigmas**2/n_noise), rel=.05)
    assert d.floor.mean() == pytest.approx(integral(2*sigmas**2/n_noise), rel=.05)
    assert d.dphi2.mean() == pytest.approx(.04 + 2*.25/20, rel=.3) and d.dphi2_floor.mean() == pytest.approx(2*.25/20, rel=.25)
    assert (d.sigma_min == .05).all() and (d.sigma_max == 1).all() and (d.draws == draws).all()


def test_t25_order_of_pairs_does_not_hang_on_the_smallest_sigma():
    cov = torch.tensor(.01*C).float()
    D = Linear(cov, [[1., 0, 0]])
    a, b = torch.full((24, 3, 1, 1), .5), .5 + .4*(rand(24, 1, 1, 1) - .5).expand(24, 3, 1, 1)
    ranks = [conditional_distance(D, a, b, np.geomspace(lo, 1, 6), 2, progress=False, method="gd", lr=math.inf, steps=1) for lo in (.05, .1)]
    assert spearmanr(ranks[0].d2, ranks[1].d2)[0] > .8
    assert all(spearmanr(r.d2, (b - a)[:, 0, 0, 0]**2)[0] > .8 for r in ranks)


def test_linear_gaussian_family_has_known_a_and_b():
    "Means B phi, one covariance C: d2 = dphi' B'C^-1B dphi, so A and B are the extreme eigenvalues"
    B = np.array([[1, .5], [0, 1], [.3, -1]])
    M = B.T@np.linalg.inv(C)@B
    values, vectors = np.linalg.eigh(M)
    angles = np.linspace(0, np.pi, 24, endpoint=False)
    dphi = np.concatenate([vectors.T, np.stack([np.cos(angles), np.sin(angles)], 1)])*np.linspace(.5, 2, 26)[:, None]
    cov, d2 = torch.tensor(C).float(), []
    for v in dphi:
        means = [torch.zeros(3, 1, 1), torch.tensor(B@v).float().view(3, 1, 1)]
        D1, D2 = (GaussianDenoiser(m, cov) for m in means)
        d2.append(score_distance(D1, D2, means[0].expand(2, -1, -1, -1), means[1].expand(2, -1, -1, -1), WHOLE).mean().item())
    q = (dphi**2).sum(1)
    t = ratio_test(d2, q)
    assert t.A == pytest.approx(values[0], rel=.01) and t.B == pytest.approx(values[1], rel=.01)
    assert t.ratio == pytest.approx(values[1]/values[0], rel=.01) and t.ratio_90 <= t.ratio


# --- the ratio test

def test_ratio_test_against_scipy_and_its_null():
    rng = np.random.default_rng(0)
    q = np.exp(rng.normal(size=40))
    d2 = q*np.exp(.3*rng.normal(size=40))
    t = ratio_test(d2, q)
    assert t.rank == pytest.approx(spearmanr(d2, q)[0]) and t.p == .001 and t.low < t.rank < t.high
    assert t.ratio == pytest.approx((d2/q).max()/(d2/q).min()) and t.ratio < t.shuffled[0] < t.shuffled[1] < t.shuffled[2]
    assert t.spread == pytest.approx(q.max()/q.min()) and ratio_test(d2, q) == t
    null = [ratio_test(rng.permutation(d2), q, n_perm=49, seed=i).p for i in range(40)]
    assert .3 < np.mean(null) < .7 and np.mean(np.less(null, .1)) < .25          # uniform under the null


def test_pairs_below_the_floor_are_left_out():
    rng = np.random.default_rng(1)
    q = np.concatenate([rng.uniform(1, 2, 30), [1e-6, 2e-6]])
    t = ratio_test(np.where(q > 1e-3, q, 1.), q, floor=1e-5)
    assert t.n == 30 and t.excluded == 2 and t.ratio == pytest.approx(1)
    assert ratio_test(np.where(q > 1e-3, q, 1.), q).ratio > 1e5                  # B/A explodes without


def test_pairs_that_share_images_permute_images():
    "28 pairs of 8 images: distances from an outlier are all large, which a permutation of pairs takes for evidence"
    pairs, ps = list(combinations(range(8), 2)), []
    for i in range(40):
        rng = np.random.default_rng(i)
        x, y = np.abs(rng.normal(size=(2, 8)))**3 + .1                           # two unrelated properties
        d2, q = ([(v[i] - v[j])**2 + 1e-3 for i, j in pairs] for v in (x, y))
        ps.append([ratio_test(d2, q, n_perm=49, seed=i).p, ratio_test(d2, q, pairs=pairs, n_perm=49, seed=i).p])
    wrong, right = np.mean(np.less(ps, .1), axis=0)
    assert right < wrong and right < .25


# --- evaluation, figure 20, figures

def test_colour_from_end_to_end():
    "Networks return channels-last images, which cannot be viewed as rows"
    torch.manual_seed(0)
    D, images = denoiser(BlindUNet(channels=3, widths=(4, 6, 8, 10), depths=(1, 1, 2)), (3, 16, 16)), rand(2, 3, 16, 16)
    made, _ = self_guided(D, images, 2, sigmas=[1., .3], n_noise=2, matching=dict(steps=2), progress=False)
    plain = sample(D, 5, "descend", sigmas=[1., .3], progress=False)
    t = samples_around(D, images, made, plain, lambda x: x.mean((1, 2, 3)) > .5).set_index(["measure", "arm"])
    assert t.value.notna().all() and len(show_around(images, made, plain)) == 3
    assert len(noise_level_check(D, images, sigmas=(.5,), steps=2)) == 1
    assert len(conditional_distance(D, images, images.flip(0), [.3, 1.], 2, progress=False, steps=2)) == 2


def test_around_knows_copies_noise_and_classes():
    D = small()
    image = torch.stack([torch.zeros(1, 16, 16), torch.ones(1, 16, 16)])*.8 + .1*rand(2, 1, 16, 16)
    classify = lambda x: (x.mean((1, 2, 3)) > .5).long()
    copies, control = image.repeat_interleave(3, 0), rand(12, 1, 16, 16, seed=3)
    t = samples_around(D, image, copies, control, classify).set_index(["measure", "arm"])
    assert t.value["pixel correlation", "guided"] == pytest.approx(1, abs=1e-4) and t.value["pixel std", "guided"] < 1e-6
    assert t.value["class hit", "guided"] == 1 and t.value["class hit", "unconditional"] == pytest.approx(.5)
    assert t.value["phi distance", "guided"] < 2*t.value["phi distance", "same image, new noise"]
    assert abs(t.value["pixel correlation", "unconditional"]) < .2 and (t.n == 2).sum() >= 6
    scores = samples_around(D, image, copies, control, lambda x: torch.stack([1 - x.mean((1, 2, 3)), x.mean((1, 2, 3))], 1)).set_index(["measure", "arm"])
    assert scores.value["class hit", "guided"] == 1
    one = samples_around(D, centroid(image), copies, control, classify, torch.tensor([1]))
    assert "pixel correlation" not in set(one.measure) and one[one.arm == "guided"].low.isna().all()  # one target: no interval


def test_noise_level_is_judged_where_matching_converged():
    D = small()
    t = noise_level_check(D, rand(6, 1, 16, 16), sigmas=(.5, .2), steps=40, method="gd")
    assert t.sigma.tolist() == [.5, .2] and (t.n <= t.N).all() and (t.N == 6).all()
    none = noise_level_check(D, rand(6, 1, 16, 16), sigmas=(.5,), steps=1, lr=1e-6)
    assert none.n[0] == 0 and math.isnan(none.ratio[0]) and none.ratio_of_all[0] == pytest.approx(1, abs=1e-3)   # vacuous, and said so
    assert plot_noise_level(t, label="x").get_xscale() == "log"


def test_figures():
    x = rand(2, 1, 16, 16)
    assert len(show_around(x, rand(6, 1, 16, 16), rand(6, 1, 16, 16))) == 3
    assert len(show_around(centroid(rand(9, 1, 16, 16)), rand(6, 1, 16, 16))) == 2
    import pandas as pd
    table = pd.DataFrame(dict(dphi2=[1e-9, 1., 2, 3, 4, 5], d2=[1., 1, 2, 3, 4, 6], se=.1, floor=.1))
    ax = plot_ratio(table, ratio_test(table.d2, table.dphi2, 1e-6))
    assert ax.get_yscale() == "log" and "B/A 1.2" in ax.get_title()


# --- a stranger's denoiser

def test_a_foreign_residual_cnn_guides_itself():
    D = denoiser(Foreign(), (1, 16, 16), predicts="residual", multiple=2, taps=dict(mid="act"))
    images, levels = rand(2, 1, 16, 16), noise_levels(1., .1, 6)
    made, report = self_guided(D, images, 3, sigmas=levels, matching=dict(steps=20), progress=False)
    plain = sample(D, 6, "descend", sigmas=levels, progress=False)
    assert made.shape == plain.shape == (6, 1, 16, 16) and made.isfinite().all() and (report.loss_ratio < 1).mean() > .9
    t = samples_around(D, images, made, plain).set_index(["measure", "arm"]).value
    assert t["phi distance", "guided"] < t["phi distance", "unconditional"]


# --- bad input

D, x = small(), rand(2, 1, 16, 16)
goal = torch.full((22,), .01)
q = np.arange(1., 7)

CALLS = {
    "phi of another network": (lambda: match(D, x, torch.ones(64), .5), "target: 64 channels.* has 22"),
    "phi of three for two": (lambda: match(D, x, torch.ones(3, 22), .5), r"target: shape \(3, 22\) for 2"),
    "collapsed phi": (lambda: match(D, x, 0*goal, .5), "target: .*collapsed"),
    "nan phi": (lambda: match(D, x, goal*math.nan, .5), "target: .*NaN"),
    "no noise": (lambda: match(D, x, goal, 0.), "sigma: 0.*collapses"),
    "sigma in grey levels": (lambda: match(D, x, goal, 25.), "(?i)sigma: .*255"),
    "three sigmas for two": (lambda: match(D, x, goal, torch.ones(3)), r"sigma: shape \(3,\)"),
    "unknown method": (lambda: match(D, x, goal, .5, method="sgd"), "method: one of"),
    "unknown tap": (lambda: match(D, x, goal, .5, tap="middle"), "taps: .*middle"),
    "no steps": (lambda: match(D, x, goal, .5, steps=0), "steps >= 1"),
    "negative lr": (lambda: match(D, x, goal, .5, lr=-1.), "lr > 0"),
    "mask of another length": (lambda: match(D, x, goal, .5, mask=torch.ones(5)), r"mask: shape \(5,\).*22"),
    "empty mask": (lambda: match(D, x, goal, .5, mask=torch.zeros(22, dtype=torch.bool)), "mask: no channel"),
    "channel 22": (lambda: match(D, x, goal, .5, mask=[22]), r"mask: channel numbers.*0\.\.21"),
    "nan image": (lambda: match(D, x*math.nan, goal, .5), "x: "),
    "bytes": (lambda: match(D, x.byte(), goal, .5), "x: "),
    "odd size": (lambda: match(D, rand(1, 1, 15, 15), goal, .5), "(?i)15|divi|multiple"),
    "target in [-1,1]": (lambda: Guide(D, 2*x - 1), r"images: values.*\[0, 1\]"),
    "target of another size": (lambda: Guide(D, rand(1, 1, 8, 8)), r"target: images of \(1, 8, 8\)"),
    "no target": (lambda: Guide(D, x[:0]), "target: .*at least one"),
    "an array": (lambda: self_guided(D, x.numpy()), "target: got ndarray"),
    "clean conditioner": (lambda: Guide(D, x, sigma_c=0.), "sigma: 0.*collapses"),
    "batch of another size": (lambda: Guide(D, x, 3)(rand(4, 1, 16, 16), torch.ones(4)), "x: 4 images.*need 6"),
    "empty set": (lambda: centroid(x[:0]), "images: got shape"),
    "unlike partners": (lambda: mix(x, x[:1]), "a, b: shapes"),
    "unknown sampler": (lambda: self_guided(D, x, sampler="ddim"), "sampler: one of"),
    "no samples": (lambda: self_guided(D, x, 0), "n: at least 1"),
    "no draws": (lambda: Target(x[:, None]).phi(D, .5, 0), "draws: at least 1"),
    "samples do not divide": (lambda: samples_around(D, x, rand(5, 1, 16, 16), x), "samples: 5 for 2"),
    "samples in [-1,1]": (lambda: samples_around(D, x, 2*x - 1, x), "samples: values"),
    "labels of others": (lambda: samples_around(D, x, x, x, lambda o: torch.zeros(len(o)), torch.zeros(3)), "labels: 3 for 2"),
    "falling sigmas": (lambda: score_distance(D, D, x, x, [1., .5]), "sigmas: .*rising"),
    "integral from 0": (lambda: score_distance(D, D, x, x, [0., .5]), "sigmas: .*above 0"),
    "other shapes": (lambda: score_distance(D, D, x, x[:1], [.1, 1.]), "x1, x2: shapes"),
    "partners missing": (lambda: conditional_distance(D, x, x[:1], progress=False), "a, b, draws: partners"),
    "centroids without samples": (lambda: conditional_distance(D, centroid(x), centroid(x), progress=False), "samples: a centroid"),
    "negative d2": (lambda: ratio_test(-q, q), "d2, dphi2"),
    "lengths differ": (lambda: ratio_test(q, q[:3]), "d2, dphi2: 6 and 3"),
    "all below the floor": (lambda: ratio_test(q, q, floor=10.), "dphi2: 0 of 6"),
    "some pairs only": (lambda: ratio_test(q, q, pairs=[(0, i) for i in range(1, 7)]), "pairs: "),
}


@pytest.mark.parametrize("case", CALLS)
def test_bad_input(case):
    call, message = CALLS[case]
    with pytest.raises((ValueError, TypeError), match=f"(?s){message}" if not message.startswith("(?i)") else f"(?si){message[4:]}"): call()


def test_a_denoiser_that_cuts_the_gradient_is_named():
    class Cut(Linear):
        def averages(self, *a, **kw): return {k: v.detach() for k, v in super().averages(*a, **kw).items()}
    with pytest.raises(ValueError, match="D: its averages have no gradient"): match(Cut(np.eye(2), [[1., 0]]), rand(1, 2, 1, 1), torch.ones(1))


def test_a_level_at_which_phi_has_collapsed_is_refused():
    class Faint(Linear):
        def averages(self, x, sigma=None, taps=("mid",)): return {"mid": x.flatten(1)*torch.as_tensor(sigma).view(-1, 1)**2}
    faint = Faint(np.eye(3)*.01, np.eye(3))
    Guide(faint, torch.full((1, 3, 1, 1), .5), sigma_c=.4)
    with pytest.raises(ValueError, match="sigma_c: .*collapsed"): Guide(faint, torch.full((1, 3, 1, 1), .5), sigma_c=.01)
