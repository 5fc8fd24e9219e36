"What tests of diffusion models share: OpenAI's layout and forward pass, written a second time"

import math

import torch
import torch.nn.functional as F


def scramble(net, seed=0):
    "Random weights everywhere: a fresh network is too zero to tell"
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=torch.float64) * 0.05)
    return net


IMPROVED = dict(width=32, mult=(1, 2), n_blocks=2, attn=(2,))


def openai_state(
    width,
    mult,
    n_blocks,
    attn,
    channels=3,
    out=3,
    n_classes=None,
    updown=False,
    conv=True,
    scale_shift=True,
    seed=0,
):
    "A state dict of the published layout: name -> random tensor of its shape"
    g, sd, e = torch.Generator().manual_seed(seed), {}, 4 * width
    ws = [int(width * m) for m in mult]

    def put(name, *shape, bias=True, gain=1.0):
        fan = math.prod(shape[1:]) or 1
        noise = torch.randn(shape, generator=g)
        sd[name + ".weight"] = noise * gain / math.sqrt(fan) if len(shape) > 1 else 1 + 0.2 * noise
        if bias:
            sd[name + ".bias"] = 0.2 * torch.randn(shape[0], generator=g)

    def res(p, i, o):
        put(p + ".in_layers.0", i)
        put(p + ".in_layers.2", o, i, 3, 3)
        put(p + ".emb_layers.1", (1 + scale_shift) * o, e)
        put(p + ".out_layers.0", o)
        put(p + ".out_layers.3", o, o, 3, 3)
        if i != o:
            put(p + ".skip_connection", o, i, 1, 1)

    def att(p, c):
        put(p + ".norm", c)
        put(p + ".qkv", 3 * c, c, 1, gain=2.0)
        put(p + ".proj_out", c, c, 1)

    put("time_embed.0", e, width)
    put("time_embed.2", e, e)
    if n_classes:
        put("label_emb", n_classes, e, bias=False)
    put("input_blocks.0.0", ws[0], channels, 3, 3)
    c, kept, n = ws[0], [ws[0]], 1
    for l, w in enumerate(ws):
        for _ in range(n_blocks):
            res(f"input_blocks.{n}.0", c, w)
            if 2**l in attn:
                att(f"input_blocks.{n}.1", w)
            c, n = w, n + 1
            kept.append(c)
        if l < len(ws) - 1:
            if updown:
                res(f"input_blocks.{n}.0", c, c)
            elif conv:
                put(f"input_blocks.{n}.0.op", c, c, 3, 3)
            kept.append(c)
            n += 1
    res("middle_block.0", c, c)
    att("middle_block.1", c)
    res("middle_block.2", c, c)
    n = 0
    for l in reversed(range(len(ws))):
        for j in range(n_blocks + 1):
            res(f"output_blocks.{n}.0", c + kept.pop(), ws[l])
            c, k = ws[l], 1
            if 2**l in attn:
                att(f"output_blocks.{n}.1", c)
                k = 2
            if l and j == n_blocks:
                if updown:
                    res(f"output_blocks.{n}.{k}", c, c)
                elif conv:
                    put(f"output_blocks.{n}.{k}.conv", c, c, 3, 3)
            n += 1
    put("out.0", c)
    put("out.2", out, c, 3, 3)
    return sd


def openai_forward(
    sd,
    x,
    t,
    y=None,
    n_blocks=1,
    levels=2,
    heads=4,
    head_channels=None,
    new_order=False,
    updown=False,
    scale_shift=True,
):
    "The published forward pass, on such a state dict"
    lin = lambda p, h: F.linear(h, sd[p + ".weight"], sd[p + ".bias"])
    norm = lambda p, h: F.group_norm(h, 32, sd[p + ".weight"], sd[p + ".bias"])
    double = lambda h: h.repeat_interleave(2, 2).repeat_interleave(2, 3)
    halve = lambda h: F.avg_pool2d(h, 2)

    def conv(p, h, **k):
        weight = sd[p + ".weight"]
        return F.conv2d(h, weight, sd[p + ".bias"], padding=weight.shape[-1] // 2, **k)

    width = sd["time_embed.0.weight"].shape[1]
    i = torch.arange(width // 2, dtype=torch.float32)
    angle = t.float()[:, None] * torch.exp(-math.log(10000) * i / (width // 2))
    emb = torch.cat([angle.cos(), angle.sin()], 1).to(x.dtype)
    emb = lin("time_embed.2", F.silu(lin("time_embed.0", emb)))
    if y is not None:
        emb = emb + sd["label_emb.weight"][y]

    def res(p, x, change=None):
        h = F.silu(norm(p + ".in_layers.0", x))
        if change:
            h, x = change(h), change(x)
        h = conv(p + ".in_layers.2", h)
        e = lin(p + ".emb_layers.1", F.silu(emb))[..., None, None]
        if scale_shift:
            s, b = e.chunk(2, 1)
            h = norm(p + ".out_layers.0", h) * (1 + s) + b
        else:
            h = norm(p + ".out_layers.0", h + e)
        skip = conv(p + ".skip_connection", x) if p + ".skip_connection.weight" in sd else x
        return skip + conv(p + ".out_layers.3", F.silu(h))

    def att(p, x):
        n, c, hh, ww = x.shape
        nh = c // head_channels if head_channels else heads
        flat = norm(p + ".norm", x.reshape(n, c, -1))
        qkv = F.conv1d(flat, sd[p + ".qkv.weight"], sd[p + ".qkv.bias"])
        if new_order:
            q, k, v = (u.reshape(n * nh, c // nh, -1) for u in qkv.chunk(3, 1))
        else:
            q, k, v = qkv.reshape(n * nh, 3 * c // nh, -1).chunk(3, 1)
        a = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(c // nh), -1)
        h = (v @ a.transpose(1, 2)).reshape(n, c, -1)
        return x + F.conv1d(h, sd[p + ".proj_out.weight"], sd[p + ".proj_out.bias"]).reshape(
            x.shape
        )

    weighted = any(".op." in k for k in sd)

    def stage(p, h, change=None):
        for j in range(3):
            q = f"{p}.{j}"
            inside = change if updown and (j or p.startswith("input")) else None
            if q + ".in_layers.0.weight" in sd:
                h = res(q, h, inside)
            elif q + ".qkv.weight" in sd:
                h = att(q, h)
            elif q + ".op.weight" in sd:
                h = conv(q + ".op", h, stride=2)
            elif q + ".conv.weight" in sd:
                h = conv(q + ".conv", double(h))
            elif q + ".weight" in sd:
                h = conv(q, h)
            elif change and not updown and not weighted:
                return change(h)
        return h

    h, kept = x, []
    for i in range(levels * (n_blocks + 1)):
        h = stage(f"input_blocks.{i}", h, halve if i and i % (n_blocks + 1) == 0 else None)
        kept.append(h)
    h = stage("middle_block", h)
    for i in range(levels * (n_blocks + 1)):
        last = i % (n_blocks + 1) == n_blocks and i < levels * (n_blocks + 1) - 1
        h = stage(f"output_blocks.{i}", torch.cat([h, kept.pop()], 1), double if last else None)
    return conv("out.2", F.silu(norm("out.0", h)))
