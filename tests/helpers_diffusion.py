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
