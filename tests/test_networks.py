"Networks of others. Small layers of each kind by default, all of them with --run-slow"

from copy import deepcopy

import pytest
import torch
from torch import nn

from helpers_denoiserep import check_exact, randn, rel, same_form, wild
from denoise_study.denoiserep import denoise_rep


def vit():
    import torchvision.models as tv

    m = tv.vit_b_16(weights=None, image_size=32)
    nn.init.normal_(m.heads.head.weight, std=0.02)  # torchvision starts it at zero
    return (
        m,
        torch.randn(1, 3, 32, 32),
        r"conv_proj|heads.head|encoder\.layers\.encoder_layer_(0|11)\.(self_attention.*|mlp\.0)",
        6,
    )


def swin():
    import torchvision.models as tv

    return (
        tv.swin_v2_t(weights=None),
        torch.randn(1, 3, 64, 64),
        r"features\.[01].*(\d|qkv|proj)",
        9,
    )


def resnet():
    import torchvision.models as tv

    return (
        tv.resnet50(weights=None),
        torch.randn(1, 3, 64, 64),
        r"conv1|layer[12].*|layer3\.0.*",
        29,
    )


def convnext():
    import torchvision.models as tv

    return tv.convnext_tiny(weights=None), torch.randn(1, 3, 64, 64), r"features\.[0123].*", 26


def fcn():
    from torchvision.models.segmentation import fcn_resnet50

    return (
        fcn_resnet50(weights=None, weights_backbone=None, aux_loss=True),
        torch.randn(1, 3, 32, 32),
        r"backbone\.(conv1|layer[12]).*|.*classifier\.4",
        26,
    )


def frcnn():
    from torchvision.models.detection import fasterrcnn_resnet50_fpn

    m = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, min_size=64, max_size=64, box_detections_per_img=10
    )
    return m, [torch.rand(3, 64, 64)], r"backbone\.fpn.*|rpn.*|roi_heads.*predictor.*", 12


@pytest.mark.parametrize("make", [vit, swin, resnet, convnext, fcn, frcnn])
def test_torchvision(make):
    torch.manual_seed(0)
    m, x, layers, n = make()
    x = [i.double() for i in x] if isinstance(x, list) else x.double()
    dr = check_exact(
        m.double(), x, 1e-10, far=1e-3, size=0.2, layers=layers, exclude=r".*cpb_mlp.*"
    )
    assert abs(len(dr.slots) - n) <= 12, len(dr.slots)
    assert sorted(s.denoiser.t for s in dr.slots.values()) == list(range(1, len(dr.slots) + 1))


@pytest.mark.slow
@pytest.mark.parametrize("make", [vit, swin, resnet, convnext, fcn, frcnn])
def test_torchvision_every_layer(make):
    "float32: layers to 1e-5, as `fuse` measures them, and a training step of the side loss"
    torch.manual_seed(0)
    m, x, *_ = make()
    plain = deepcopy(m).eval()
    dr = wild(
        denoise_rep(
            m.eval(),
            example=x,
            exclude=r".*cpb_mlp.*|.*fc6|encoder\.layers\.encoder_layer_([1-9]|10)\..*",
        ),
        0.1,
    )
    with dr.recording():
        m(x)
    dr.loss().backward()
    assert all(p.grad is not None for p in dr.parameters())
    dr.fuse()
    assert dr.report().fuse_error.max() < 1e-5
    same_form(m, plain)


def test_timm():
    "Fused qkv of a vision transformer, depthwise convolutions of a ConvNeXt: by module type"
    timm = pytest.importorskip("timm", reason="bench extra")
    for name, size in (("vit_tiny_patch16_224", dict(img_size=32)), ("convnext_atto", {})):
        torch.manual_seed(0)
        m = timm.create_model(name, num_classes=7, **size)
        dr = check_exact(m.double(), randn(1, 3, 32, 32), 1e-10, far=1e-3, size=0.2)
        assert any("qkv" in n for n in dr.slots) or any(
            s.module.groups > 1 for s in dr.slots.values() if isinstance(s.module, nn.Conv2d)
        )


def test_transformers():
    "A model that takes named arguments and returns an object"
    hf = pytest.importorskip("transformers", reason="bench extra")
    torch.manual_seed(0)
    conf = hf.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        num_labels=5,
    )
    m = hf.ViTForImageClassification(conf).double().eval()
    plain, x = deepcopy(m), dict(pixel_values=randn(2, 3, 32, 32))
    dr = wild(denoise_rep(m, example=x))
    with torch.no_grad():
        base = plain(**x).logits
        with dr.two_branch():
            two = m(**x).logits
        fused = dr.fuse()
        assert rel(fused(**x).logits, two) < 1e-12 < 0.01 < rel(base, two)
    same_form(fused, plain)


def test_swin_v2_position_mlp_and_changed_bias():
    "Its position MLP is linear by type; a third of its qkv bias is zeroed on the way, so refused"
    torch.manual_seed(0)
    m, x, *_ = swin()
    assert {"features.1.0.attn.cpb_mlp.0"} <= set(
        denoise_rep(deepcopy(m), r"features\.1\.0\..*", example=x).slots
    )
    assert not any(
        "cpb" in n
        for n in denoise_rep(
            deepcopy(m), r"features\.1\.0\..*", example=x, exclude=".*cpb_mlp.*"
        ).slots
    )
    with pytest.raises(ValueError, match="bias: that of features.1.0.attn.qkv is changed"):
        denoise_rep(m, ["features.1.0.attn.qkv"], example=x, bias=True)
    denoise_rep(m, ["features.1.0.attn.proj"], example=x, bias=True)
