"The camera embedding: against a second implementation, in loaders, in the protocol"

import pytest
import torch
from helpers_tasks import market, QUICK

from denoise_study.core import ArraySource
from denoise_study.denoiserep import backbone, CameraLoader, camera_block, count_cameras, Embedder
from denoise_study.denoiserep import IdentityLoader, reid_dls, retrieval_task, run_protocol
from denoise_study.denoiserep import score_retrieval, tell_cameras


def told_by_hand(net, table, x, camera):
    "Logits of timm's and torchvision's transformers, with the vectors added where the paper does"
    added = 3 * table[camera][:, None]
    if hasattr(net, "patch_embed"):
        tokens = net.norm_pre(net._pos_embed(net.patch_embed(x))) + added
        for block in net.blocks:
            tokens = block(tokens)
        return net.forward_head(net.norm(tokens))
    patches = net._process_input(x)
    first = net.class_token.expand(len(x), -1, -1)
    tokens = torch.cat([first, patches], 1) + net.encoder.pos_embedding + added
    return net.heads(net.encoder.ln(net.encoder.layers(tokens))[:, 0])


@pytest.mark.parametrize("name", ["vit_small", "timm/vit_tiny_patch16_224"])
def test_the_vectors_are_added_to_all_tokens(name):
    torch.manual_seed(0)
    net = backbone(name, (16, 16), 5).eval()
    x, camera = torch.rand(3, 3, 16, 16), torch.tensor([1, 0, 1])
    table = torch.randn(2, net.net.embed_dim if "timm" in name else net.net.hidden_dim)
    with torch.no_grad():
        plain = net(x)
        true = told_by_hand(net.net, table, (x - net.mean) / net.std, camera)
        side = tell_cameras(net, 2)
        side.table.weight.copy_(table)
        side.camera = camera
        torch.testing.assert_close(net(x), true)
        assert not torch.allclose(net(x), plain)
        side.strength = 0.0
        assert torch.equal(net(x), plain)


def source(n=24, k=4):
    return ArraySource(torch.randint(0, 256, (n, 1, 4, 4), dtype=torch.uint8), torch.arange(n) % k)


@pytest.mark.parametrize("kind", [CameraLoader, IdentityLoader])
def test_cameras_go_with_their_pictures(kind):
    images = source()
    told = torch.arange(24)
    loader = kind(images, told=told, bs=8, shuffle=True, range=(0, 255), device="cpu")
    for one in (loader, loader.new(start=1), loader.new(seed=3)):
        assert one.n_inp == 2
        first = one.one_batch()
        for i, (x, camera, y) in enumerate(one):
            assert torch.equal(x.byte(), images.batch(camera))
            assert torch.equal(y, images.labels[camera])
            if i == 0:
                assert all(map(torch.equal, first, (x, camera, y)))
    plain = kind(images, bs=8, shuffle=True, device="cpu")
    assert plain.n_inp == 1 and len(plain.one_batch()) == 2


def test_a_told_transformer_goes_through_the_protocol(tmp_path):
    how = dict(size=16, bs=4, device="cpu", steps=4, margin=0.3, k=2)
    task = retrieval_task(market(tmp_path), "vit_small", cameras=3.0, **how)
    assert task.about["cameras"] == 3 and count_cameras(task.dls) == 2
    out = run_protocol(task, ("closed_form", "label_free"), 2, QUICK, progress=False)
    assert out.arms()["value"].notna().all()

    net = task.build().eval()
    before = score_retrieval(net, task.dls.test).metrics
    camera_block(net).table.weight.data.normal_(0, 100)
    x, camera, _ = task.dls.test.new().one_batch()
    with torch.no_grad():
        features = net.features(x, camera)
        assert not torch.allclose(features, net.features(x, 1 - camera))
    assert before.keys() == score_retrieval(net, task.dls.test).metrics.keys()


def test_what_can_not_be_told_is_refused(tmp_path):
    market(tmp_path, test=(1, 7))
    with pytest.raises(ValueError, match=r"cameras: \[7\] of the test"):
        reid_dls(tmp_path, 16, 4, "cpu", cameras=True)
    with pytest.raises(ValueError, match="cameras: the batches of digits, 5 of 10 classes do not"):
        retrieval_task(cameras=3.0, device="cpu")
    with pytest.raises(ValueError, match="cameras: a vision transformer .* Prepared"):
        tell_cameras(backbone("resnet8", 16, 4), 2)
    with pytest.raises(ValueError, match="camera: this network has no camera embedding"):
        Embedder(backbone("resnet8", 16, 4), 4)(torch.rand(2, 3, 16, 16), torch.tensor([0, 1]))
    net = backbone("vit_small", 16, 4)
    tell_cameras(net, 2)
    with pytest.raises(ValueError, match="camera: this network has to be told"):
        Embedder(net, 4)(torch.rand(2, 3, 16, 16))
