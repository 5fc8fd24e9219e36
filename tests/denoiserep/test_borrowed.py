"Networks of transformers: names, checkpoints, a set detector in torchvision's language"

import pytest
import torch
from torch import nn
from torchvision.ops import box_convert
from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

from denoise_study.denoiserep import BorrowedDetector, box_dls, denoise_rep, detection_task
from denoise_study.denoiserep import detector, load_network, pixel_loss, score_detection
from denoise_study.denoiserep import score_segmentation, segmenter, set_target, shape_masks, shapes
from denoise_study.denoiserep import train_denoisers, what_was_learned, Budget
from helpers import gen, hide_library


def small_detr(n_classes=2):
    "A detector of 300,000 weights"
    torch.manual_seed(0)
    body = ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage4"],
    )
    heads = dict(encoder_attention_heads=4, decoder_attention_heads=4)
    feedforward = dict(encoder_ffn_dim=64, decoder_ffn_dim=64)
    backbone = dict(use_timm_backbone=False, backbone=None, use_pretrained_backbone=False)
    config = DetrConfig(
        **heads,
        **feedforward,
        **backbone,
        backbone_config=body,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        num_queries=6,
        num_labels=n_classes,
    )
    return BorrowedDetector(DetrForObjectDetection(config))


def test_a_segformer_is_judged_trained_and_loaded_like_any_segmenter(tmp_path):
    torch.manual_seed(0)
    dls = shape_masks((8, 8, 8), bs=4)
    net = segmenter("transformers/segformer", 3)
    x, y = dls.train.one_batch()
    out = net.train()(x)
    assert out["out"].shape == (4, 3, *x.shape[-2:])
    pixel_loss(out, y).backward()
    assert all(0 <= v <= 1 for v in score_segmentation(net.eval(), dls.test).metrics.values())
    torch.save(net.state_dict(), tmp_path / "net.pt")
    again = segmenter("transformers/segformer", 3)
    load_network(again, tmp_path / "net.pt")
    with torch.no_grad():
        assert torch.equal(again.eval()(x)["out"], net(x)["out"])


def test_denoisers_of_a_set_detector_learn_and_are_fused():
    dls = box_dls("shapes", shapes(24), shapes(8, seed=1), shapes(8, seed=2), 8)
    task = detection_task(dls=dls, build=small_detr)
    dr = task.equipped(small_detr().eval())
    train_denoisers(task, dr, "label_free", 0, Budget(steps=60, n_solve=24))
    assert what_was_learned(task, dr, 0, Budget(n_solve=24))["share"] > 0.5
    pictures, _, _ = dls.test.one_batch()
    with torch.no_grad():
        before = dr.model(pictures)
        after = dr.fuse().eval()(pictures)
    for a, b in zip(before, after):
        assert torch.allclose(a["boxes"], b["boxes"], atol=1e-3)
    assert 0 <= score_detection(dr.model, dls.test).metrics["AP"] <= 1


def test_boxes_go_to_the_network_and_come_back():
    boxes = torch.tensor([[3.0, 4.0, 30.0, 20.0], [0.0, 0.0, 64.0, 48.0]])
    scale = torch.tensor([64.0, 48.0, 64.0, 48.0])
    told = set_target(dict(boxes=boxes, labels=torch.tensor([1, 2])), scale)
    assert told["class_labels"].tolist() == [0, 1]
    assert torch.allclose(box_convert(told["boxes"], "cxcywh", "xyxy") * scale, boxes)


def test_a_mask_keeps_the_padding_away():
    "A small picture beside a large one: nearer to itself alone than without the mask"
    net = small_detr().eval()
    small, large = torch.rand(3, 48, 48, generator=gen()), torch.rand(3, 160, 160, generator=gen())
    alone, seen, _ = net.padded([small])
    both, mask, _ = net.padded([small, large])
    assert mask[0].sum() == 48 * 48 and mask[1].all() and not both[0, :, 48:].any()
    with torch.no_grad():
        own = net.net(pixel_values=alone, pixel_mask=seen).logits[0]
        masked = net.net(pixel_values=both, pixel_mask=mask).logits[0]
        bare = net.net(pixel_values=both, pixel_mask=torch.ones_like(mask)).logits[0]
        boxes = net([small, large])[0]["boxes"]
    assert (masked - own).abs().max() < 0.7 * (bare - own).abs().max()
    assert boxes.max() <= 48


def test_names_are_refused_in_words(monkeypatch):
    for build, name in ((segmenter, "transformers/detr"), (detector, "transformers/segformer")):
        with pytest.raises(ValueError, match=f"backbone: {name} is none for this task"):
            build(name, 2)
    hide_library(monkeypatch, "transformers")
    with pytest.raises(ValueError, match="needs transformers"):
        segmenter("transformers/segformer", 2)


@pytest.mark.slow
def test_the_default_detr_is_built_without_downloads():
    net = detector("transformers/detr", 2)
    assert isinstance(net, BorrowedDetector) and sum(p.numel() for p in net.parameters()) > 4e7
    x = [torch.rand(3, 64, 64)]
    assert len(denoise_rep(net.eval(), example=x).slots) > 50
    assert isinstance(net.net, nn.Module)
