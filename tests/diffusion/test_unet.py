"""The U-Net against a second, plain implementation that runs directly on OpenAI's state-dict layout, and its faults"""
import json, math, pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from denoise_study.diffusion import norms
from denoise_study.diffusion import attn_factors, from_openai, norm_groups, NormAct, to_openai
from denoise_study.diffusion import UNet, upsample_conv

SMALL = dict(channels=1, width=32, mult=(1, 2), n_blocks=1, attn=(2,))


def scramble(net, seed=0):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters(): p.copy_(torch.randn(p.shape, generator=g, dtype=torch.float64)*.05)
    return net


# --- the published layout, written down independently: name -> shape

def openai_state(width, mult, n_blocks, attn, channels=3, out=3, n_classes=None, updown=False, conv=True,
                 scale_shift=True, seed=0):
    g, sd, e = torch.Generator().manual_seed(seed), {}, 4*width
    ws = [int(width*m) for m in mult]
    def put(name, *shape, bias=True, gain=1.):
        fan = math.prod(shape[1:]) or 1
        noise = torch.randn(shape, generator=g)
        sd[name+'.weight'] = noise*gain/math.sqrt(fan) if len(shape) > 1 else 1 + .2*noise
        if bias: sd[name+'.bias'] = .2*torch.randn(shape[0], generator=g)
    def res(p, i, o):
        put(p+'.in_layers.0', i); put(p+'.in_layers.2', o, i, 3, 3)
        put(p+'.emb_layers.1', (1 + scale_shift)*o, e)
        put(p+'.out_layers.0', o); put(p+'.out_layers.3', o, o, 3, 3)
        if i != o: put(p+'.skip_connection', o, i, 1, 1)
    def att(p, c): put(p+'.norm', c); put(p+'.qkv', 3*c, c, 1, gain=2.); put(p+'.proj_out', c, c, 1)
    put('time_embed.0', e, width); put('time_embed.2', e, e)
    if n_classes: put('label_emb', n_classes, e, bias=False)
    put('input_blocks.0.0', ws[0], channels, 3, 3)
    c, kept, n = ws[0], [ws[0]], 1
    for l, w in enumerate(ws):
        for _ in range(n_blocks):
            res(f'input_blocks.{n}.0', c, w)
            if 2**l in attn: att(f'input_blocks.{n}.1', w)
            c, n = w, n+1
            kept.append(c)
        if l < len(ws)-1:
            if updown: res(f'input_blocks.{n}.0', c, c)
            elif conv: put(f'input_blocks.{n}.0.op', c, c, 3, 3)
            kept.append(c); n += 1
    res('middle_block.0', c, c); att('middle_block.1', c); res('middle_block.2', c, c)
    n = 0
    for l in reversed(range(len(ws))):
        for j in range(n_blocks+1):
            res(f'output_blocks.{n}.0', c+kept.pop(), ws[l])
            c, k = ws[l], 1
            if 2**l in attn: att(f'output_blocks.{n}.1', c); k = 2
            if l and j == n_blocks:
                if updown: res(f'output_blocks.{n}.{k}', c, c)
                elif conv: put(f'output_blocks.{n}.{k}.conv', c, c, 3, 3)
            n += 1
    put('out.0', c); put('out.2', out, c, 3, 3)
    return sd


# --- the published forward pass, on such a state dict

def openai_forward(sd, x, t, y=None, n_blocks=1, levels=2, heads=4, head_channels=None, new_order=False,
                   updown=False, scale_shift=True):
    lin = lambda p, h: F.linear(h, sd[p+'.weight'], sd[p+'.bias'])
    conv = lambda p, h, **k: F.conv2d(h, sd[p+'.weight'], sd[p+'.bias'], padding=sd[p+'.weight'].shape[-1]//2, **k)
    norm = lambda p, h: F.group_norm(h, 32, sd[p+'.weight'], sd[p+'.bias'])
    double = lambda h: h.repeat_interleave(2, 2).repeat_interleave(2, 3)
    width = sd['time_embed.0.weight'].shape[1]
    angle = t.float()[:, None]*torch.exp(-math.log(10000)*torch.arange(width//2, dtype=torch.float32)/(width//2))
    emb = torch.cat([angle.cos(), angle.sin()], 1).to(x.dtype)
    emb = lin('time_embed.2', F.silu(lin('time_embed.0', emb)))
    if y is not None: emb = emb + sd['label_emb.weight'][y]

    def res(p, x, change=None):
        h = F.silu(norm(p+'.in_layers.0', x))
        if change: h, x = change(h), change(x)
        h = conv(p+'.in_layers.2', h)
        e = lin(p+'.emb_layers.1', F.silu(emb))[..., None, None]
        if scale_shift:
            s, b = e.chunk(2, 1)
            h = norm(p+'.out_layers.0', h)*(1 + s) + b
        else: h = norm(p+'.out_layers.0', h + e)
        skip = conv(p+'.skip_connection', x) if p+'.skip_connection.weight' in sd else x
        return skip + conv(p+'.out_layers.3', F.silu(h))

    def att(p, x):
        n, c, hh, ww = x.shape
        nh = c//head_channels if head_channels else heads
        flat = norm(p+'.norm', x.reshape(n, c, -1))
        qkv = F.conv1d(flat, sd[p+'.qkv.weight'], sd[p+'.qkv.bias'])
        if new_order: q, k, v = (u.reshape(n*nh, c//nh, -1) for u in qkv.chunk(3, 1))
        else: q, k, v = qkv.reshape(n*nh, 3*c//nh, -1).chunk(3, 1)
        a = torch.softmax(q.transpose(1, 2) @ k/math.sqrt(c//nh), -1)
        h = (v @ a.transpose(1, 2)).reshape(n, c, -1)
        return x + F.conv1d(h, sd[p+'.proj_out.weight'], sd[p+'.proj_out.bias']).reshape(x.shape)

    weighted = any('.op.' in k for k in sd)

    def stage(p, h, change=None):
        for j in range(3):
            q = f'{p}.{j}'
            if q+'.in_layers.0.weight' in sd: h = res(q, h, change if updown and (j or p.startswith('input')) else None)
            elif q+'.qkv.weight' in sd: h = att(q, h)
            elif q+'.op.weight' in sd: h = conv(q+'.op', h, stride=2)
            elif q+'.conv.weight' in sd: h = conv(q+'.conv', double(h))
            elif q+'.weight' in sd: h = conv(q, h)
            elif change and not updown and not weighted: return change(h)
        return h

    h, kept = x, []
    for i in range(levels*(n_blocks+1)):
        h = stage(f'input_blocks.{i}', h, (lambda z: F.avg_pool2d(z, 2)) if i and i%(n_blocks+1) == 0 else None)
        kept.append(h)
    h = stage('middle_block', h)
    for i in range(levels*(n_blocks+1)):
        last = i%(n_blocks+1) == n_blocks and i < levels*(n_blocks+1)-1
        h = stage(f'output_blocks.{i}', torch.cat([h, kept.pop()], 1), double if last else None)
    return conv('out.2', F.silu(norm('out.0', h)))


IMPROVED = dict(width=32, mult=(1, 2), n_blocks=2, attn=(2,))
CASES = {
    'improved': (IMPROVED, {}, {}),
    'learned sigma, one channel': (IMPROVED | dict(channels=1, out=2), {}, {}),
    'time added': (IMPROVED | dict(scale_shift=False), {}, dict(scale_shift=False)),
    'attention at full resolution': (dict(width=32, mult=(1, 1, 2), n_blocks=1, attn=(1, 4)), dict(heads=2), {}),
    'guided': (dict(width=32, mult=(1, 2, 3), n_blocks=1, attn=(2, 4), out=6, n_classes=5, updown=True),
               dict(head_channels=16, new_order=True), dict(updown=True)),
    'guided, half width first': (dict(width=64, mult=(.5, 1), n_blocks=2, attn=(2,), updown=True),
                                 dict(head_channels=32), dict(updown=True)),
    'no weights in resampling': (IMPROVED | dict(conv=False, attn=(1,)), {}, {}),
}


@pytest.mark.parametrize('case', CASES)
def test_openai_checkpoints(case):
    "Outputs and gradients of a loaded checkpoint are those of the published forward pass; the export is exact"
    layout, load, ref = CASES[case]
    sd = openai_state(**layout)
    net = from_openai(sd, **load)
    assert net.config['mult'] == list(layout['mult']) and net.config['n_blocks'] == layout['n_blocks']
    assert net.config['attn'] == list(layout['attn'])
    back = to_openai(net)
    assert back.keys() == sd.keys() and all(torch.equal(back[k], v) for k, v in sd.items())

    g = torch.Generator().manual_seed(1)
    x = torch.randn(3, net.channels, 16, 8, generator=g)
    t = torch.tensor([0., 250.25, 999.])
    y = torch.tensor([0, 4, 2]) if net.n_classes else None
    kw = {k: v for k, v in load.items()} | ref | dict(n_blocks=layout['n_blocks'], levels=len(layout['mult']))
    theirs, mine = openai_forward(sd, x, t, y, **kw), net(x, t, y)
    assert mine.dtype == torch.float32 and (mine-theirs).norm() < 1e-5*theirs.norm()

    # gradients in float64, so that nothing hides behind rounding; those of the weights are exported like weights
    x, net, sd = x.double().requires_grad_(), net.double(), {k: v.double().requires_grad_() for k, v in sd.items()}
    w = torch.randn(mine.shape, generator=g, dtype=torch.float64)
    want = torch.autograd.grad((openai_forward(sd, x, t, y, **kw)*w).sum(), [x, *sd.values()])
    (net(x, t, y)*w).sum().backward()
    torch.testing.assert_close(x.grad, want[0])
    with torch.no_grad():
        for p in net.parameters(): p.copy_(p.grad)
    got = to_openai(net)
    for k, grad in zip(sd, want[1:]):
        torch.testing.assert_close(got[k], grad, rtol=1e-6, atol=1e-7*max(1., grad.abs().max().item()))


def test_order_and_heads_matter():
    "The arguments that cannot be inferred do change the output: a wrong one is not harmless"
    sd, x, t = openai_state(**IMPROVED), torch.randn(1, 3, 8, 8), torch.tensor([5.])
    with torch.no_grad(): a, b, c = (from_openai(sd, **k)(x, t) for k in ({}, dict(new_order=True), dict(heads=2)))
    assert (a-b).abs().max() > 1e-3 and (a-c).abs().max() > 1e-3


@pytest.mark.parametrize('name,eps,sigma', [
    ('fashion_mnist', 8_799_105, 8_799_682), ('cifar10', 52_542_979, 52_546_438), ('celeba', 121_060_483, 121_063_942)])
def test_paper_counts(name, eps, sigma):
    with torch.device('meta'):
        for n, kw in ((eps, {}), (sigma, dict(learn_sigma=True))):
            net = UNet.paper(name, **kw)
            assert sum(p.numel() for p in net.parameters()) == n
            assert UNet(**json.loads(json.dumps(net.config))).config == net.config
    side = dict(fashion_mnist=28, cifar10=32, celeba=64)[name]
    assert set(net.config['attn']) == set(attn_factors(side)) & {1, 2, 4, 8} and net.config['dropout'] == .3


@pytest.mark.parametrize('kw', [{}, dict(updown=True), dict(scale_shift=False, n_classes=3),
                                dict(conv_resample=False, learn_sigma=True)])
@pytest.mark.parametrize('size', [(8, 8), (2, 6)])
def test_fresh_output_is_zero(kw, size):
    net = UNet(**SMALL | kw)
    y = torch.tensor([0, 1]) if net.n_classes else None
    for training in (True, False):
        out = net.train(training)(torch.randn(2, 1, *size), torch.tensor([0, 9]), y)
        assert out.shape == (2, 1 + bool(kw.get('learn_sigma')), *size) and out.dtype == torch.float32
        assert torch.equal(out, torch.zeros_like(out))


# --- the routes of the normalisation

def plain(norm, xs, film):
    s, b = film.chunk(2, 1)
    return norms._norm_plain((norm.weight*(1+s))[:, None], (norm.bias*(1+s) + b)[:, None], norm.groups, norm.act, *xs)


@pytest.mark.parametrize('act', [True, False])
@pytest.mark.parametrize('block', [1, 2**19])
def test_norm_gradients(act, block, monkeypatch):
    "The blockwise route in float64 against finite differences, second derivatives included; one and many blocks"
    monkeypatch.setattr(norms, '_BLOCK', block)
    g = torch.Generator().manual_seed(0)
    norm = NormAct(12, act).double()
    xs = [torch.randn(3, c, 2, 3, generator=g, dtype=torch.float64, requires_grad=True) for c in (8, 4)]
    film = torch.randn(3, 24, generator=g, dtype=torch.float64, requires_grad=True)
    last = lambda x: x.contiguous(memory_format=torch.channels_last)
    f = lambda a, b, film: norm(last(a), last(b), film=film)
    torch.testing.assert_close(f(*xs, film), plain(norm, xs, film))
    assert torch.autograd.gradcheck(f, (*xs, film)) and torch.autograd.gradgradcheck(f, (*xs, film))


def test_norm_far_from_zero():
    "The variance is taken around the mean: an offset of 1000 costs no more than the input's own rounding"
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 64, 8, 8, generator=g).contiguous(memory_format=torch.channels_last)
    norm = NormAct(64, act=False)
    assert (norm(x + 1000) - norm(x)).abs().max() < 1e-2
    bf = norm(x.bfloat16())
    assert bf.dtype == torch.bfloat16 and torch.allclose(bf.float(), norm(x.bfloat16().float()), atol=.02)


@pytest.mark.parametrize('n', [1, 7, 32, 33, 40, 48, 64, 192])
def test_groups(n): assert n%norm_groups(n) == 0 and norm_groups(n) <= 32 and (n%32 or norm_groups(n) == 32)


def test_upsample_gradients():
    g = torch.Generator().manual_seed(0)
    shapes = (2, 3, 4, 5), (6, 3, 3, 3), (6,)
    x, w, b = (torch.randn(*s, generator=g, dtype=torch.float64, requires_grad=True) for s in shapes)
    mine, literal = upsample_conv(x, w, b), F.conv2d(F.interpolate(x, scale_factor=2), w, b, padding=1)
    torch.testing.assert_close(mine, literal)
    grads = (torch.autograd.grad(y.square().sum(), (x, w, b)) for y in (mine, literal))
    for a, c in zip(*grads): torch.testing.assert_close(a, c)


# --- precision, layout, compilation

def batch(net, n=3, size=8):
    g = torch.Generator().manual_seed(2)
    return torch.randn(n, net.channels, size, size, generator=g), torch.tensor([0, 3, 77][:n])


def test_layout_and_batch_do_not_matter():
    net = scramble(UNet(**SMALL)).eval()
    x, t = batch(net)
    with torch.no_grad():
        out = net(x, t)
        torch.testing.assert_close(net(x.contiguous(memory_format=torch.channels_last), t.float()), out)
        torch.testing.assert_close(torch.cat([net(x[i:i+1], t[i:i+1]) for i in range(3)]), out, rtol=1e-4, atol=1e-5)


def test_autocast_and_half():
    "bfloat16 stays near float32, comes back as float32, and its gradients reach every parameter"
    net = scramble(UNet(**SMALL | dict(width=64)))
    x, t = batch(net)
    want = net(x, t)
    with torch.autocast('cpu', torch.bfloat16): out = net(x, t)
    assert out.dtype == torch.float32 and (out-want).norm() < .03*want.norm()
    out.square().mean().backward()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in net.parameters())
    assert net.bfloat16()(x, t).dtype == torch.float32 and net.double()(x.double(), t).dtype == torch.float64


def test_compiles_in_one_piece():
    net = scramble(UNet(**SMALL)).train()
    x, t = batch(net)
    assert torch._dynamo.explain(net)(x, t).graph_break_count == 0
    compiled = torch.compile(net, backend='aot_eager', fullgraph=True)
    (a := compiled(x, t)).square().sum().backward()
    grads = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    (b := net(x, t)).square().sum().backward()
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    for p, q in zip(grads, net.parameters()):
        torch.testing.assert_close(p, q.grad, rtol=1e-3, atol=1e-3*q.grad.abs().max().item() + 1e-5)


def test_dropout_only_in_training():
    net = scramble(UNet(**SMALL | dict(dropout=.5)))
    x, t = batch(net)
    assert not torch.equal(net(x, t), net(x, t))
    net.eval()
    assert torch.equal(net(x, t), net(x, t))


# --- faults

@pytest.mark.parametrize('kw,text', [
    (dict(attn=(16, 8)), 'factors, not resolutions'), (dict(heads=5), 'heads=5: must divide the 64'),
    (dict(head_channels=24), 'head_channels=24'), (dict(width=0), 'width=0'), (dict(dropout=1.), r'dropout=1.0'),
    (dict(mult=()), r'mult=\[\]'), (dict(n_classes=0), 'n_classes=0'), (dict(n_blocks=1.5), 'n_blocks=1.5')])
def test_bad_arguments(kw, text):
    with pytest.raises(ValueError, match=text): UNet(**SMALL | kw)


def test_bad_name():
    with pytest.raises(ValueError, match="name='cifar'.*cifar10"): UNet.paper('cifar')


@pytest.mark.parametrize('x,t,y,error,text', [
    (torch.zeros(2, 3, 8, 8), torch.zeros(2), None, ValueError, r'x: shape \(2, 3, 8, 8\).*\(N,1,H,W\)'),
    (torch.zeros(2, 1, 7, 8), torch.zeros(2), None, ValueError, 'multiples of 2.*pad_to'),
    (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(2), None, TypeError, 'x: torch.uint8'),
    (torch.zeros(2, 1, 8, 8), torch.zeros(3), None, ValueError, r't: shape \(3,\).*\(2,\)'),
    (torch.zeros(2, 1, 8, 8), torch.zeros(()), None, ValueError, r't: shape \(\)'),
    (torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.bool), None, TypeError, 't: torch.bool'),
    (torch.zeros(2, 1, 8, 8), torch.zeros(2, device='meta'), None, ValueError, 't: on meta, but x is on cpu'),
    (torch.zeros(2, 1, 8, 8), torch.zeros(2), torch.zeros(2).long(), ValueError, 'y: this network has no classes')])
def test_bad_inputs(x, t, y, error, text):
    with pytest.raises(error, match=text): UNet(**SMALL)(x, t, y)


def test_bad_classes():
    net, x, t = UNet(**SMALL, n_classes=3), torch.zeros(2, 1, 8, 8), torch.zeros(2)
    with pytest.raises(ValueError, match='y: this network is class-conditional'): net(x, t)
    with pytest.raises(TypeError, match='y: torch.float32.*below 3'): net(x, t, t)
    with pytest.raises(ValueError, match='y: shape'): net(x, t, torch.zeros(1, dtype=torch.int64))


class Evil:
    def __reduce__(self): return (print, ('executed',))


def test_checkpoint_files(tmp_path, capfd):
    sd = openai_state(**IMPROVED)
    torch.save(sd, f := tmp_path/'good.pt')
    assert all(torch.equal(v, sd[k]) for k, v in to_openai(from_openai(f)).items())
    from safetensors.torch import save_file
    save_file(sd, f := tmp_path/'good.safetensors')
    assert from_openai(str(f)).config == from_openai(sd).config

    good = (tmp_path/'good.pt').read_bytes()
    for name, data in dict(empty=b'', text=b'hello', short=good[:len(good)//2], evil=pickle.dumps(Evil())).items():
        (f := tmp_path/f'{name}.pt').write_bytes(data)
        with pytest.raises(ValueError, match=f'{name}.pt: not a readable checkpoint'): from_openai(f)
    torch.save(dict(model=sd, evil=Evil()), f := tmp_path/'object.pt')
    with pytest.raises(ValueError, match='object.pt: not a readable'): from_openai(f)
    assert 'executed' not in capfd.readouterr().out
    (f := tmp_path/'short.safetensors').write_bytes((tmp_path/'good.safetensors').read_bytes()[:-100])
    with pytest.raises(ValueError, match='short.safetensors'): from_openai(f)
    with pytest.raises(FileNotFoundError, match='none.pt'): from_openai(tmp_path/'none.pt')


def test_foreign_state_dicts():
    sd = openai_state(**IMPROVED)
    with pytest.raises(ValueError, match='of more than tensors'): from_openai(dict(state_dict=sd))
    with pytest.raises(ValueError, match='not the layout'): from_openai(nn.Linear(2, 2).state_dict())
    with pytest.raises(ValueError, match='not the layout'): from_openai({})
    less, more, other = sd.copy(), sd | dict(extra=torch.zeros(1)), sd | {'out.0.bias': torch.zeros(3)}
    del less['out.0.bias']
    with pytest.raises(ValueError, match='1 tensors missing, e.g. out.0.bias'): from_openai(less)
    with pytest.raises(ValueError, match='not of this network, e.g. extra'): from_openai(more)
    with pytest.raises(ValueError, match='another shape, e.g. out.0.bias'): from_openai(other)
    with pytest.raises(ValueError, match='heads=5'): from_openai(sd, heads=5)
