"Every use of a weight is seen, attention included, and seeing changes nothing"

import pytest
import torch
from torch import nn

from helpers_denoiserep import check_exact, net, randn, X
from denoise_study.denoiserep import denoise_rep


class Attention(nn.Module):
    "torch's attention in its forms: self and cross, with weights asked for"

    def __init__(self, batch_first):
        super().__init__()
        self.self_attn, self.cross = (
            nn.MultiheadAttention(8, 2, batch_first=batch_first) for _ in range(2)
        )
        nn.init.normal_(self.self_attn.in_proj_bias), nn.init.normal_(self.cross.in_proj_bias)

    def forward(self, x, memory):
        x = x + self.self_attn(x, x, x, need_weights=False)[0]
        return self.cross(x, memory, memory)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_attention(batch_first, bias):
    torch.manual_seed(0)
    m, x = Attention(batch_first).double(), (randn(3, 5, 8), randn(3, 5, 8, seed=1))
    dr = check_exact(m, x, 1e-12, bias=bias)
    assert dr.report().set_index("layer").calls.to_dict() == {
        "self_attn": 1,
        "self_attn.out_proj": 1,
        "cross": 2,
        "cross.out_proj": 1,
    }


def test_a_layer_used_twice_is_one_layer():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.b(self.a(self.a(x)))

    dr = check_exact(Twice().double(), randn(3, 4), 1e-12)
    assert dr.report().calls.tolist() == [2, 1] and dr.report().t.tolist() == [2, 1]


class Idle(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.never, self.other = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.used(x) @ self.other.weight.T


@pytest.mark.parametrize("name", ["never", "other"])
def test_a_layer_that_is_never_used_is_an_error(name):
    m = Idle()
    before = list(m.state_dict())
    with pytest.raises(ValueError, match=f"'{name}'.*no linear operation"):
        denoise_rep(m, ["used", name], example=torch.randn(2, 4))
    assert list(m.state_dict()) == before and all(
        p.requires_grad for p in m.parameters()
    )  # left as it was found
    dr = denoise_rep(m, ["used", name], t=3)  # without an example it is found out at the loss
    with dr.recording():
        m(torch.randn(2, 4))
    with pytest.raises(ValueError, match=f"'{name}'"):
        dr.loss()


def test_looking_keeps_every_module_in_its_mode():
    m = net().train()
    m.norm.eval()
    stats = m.norm.running_mean.clone()
    dr = denoise_rep(m, example=X)
    dr.solve(X)
    assert m.training and not m.norm.training and torch.equal(stats, m.norm.running_mean)
