"The Inception networks against torch-fidelity, and files that are refused"

import io

import numpy as np
import pytest
import torch
from torch import nn

from denoise_study.core import Inception2048, Inception768


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=6, c=1, side=32, seed=0):
    return torch.rand(n, c, side, side, generator=gen(seed))


@pytest.fixture(scope="module")
def fidelity():
    "torch-fidelity's Inception, random weights; batch norm only shifts and folds into biases"
    mod = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")

    class Bare(mod.FeatureExtractorInceptionV3):
        def load_state_dict(self, sd):
            return super().load_state_dict(sd) if sd else None

    path = io.BytesIO()
    torch.save({}, path)
    path.seek(0)
    torch.manual_seed(0)
    net = Bare("test", ["768", "2048"], feature_extractor_weights_path=path)
    for o in net.modules():
        if isinstance(o, nn.Conv2d):
            nn.init.kaiming_normal_(o.weight)
        if isinstance(o, nn.BatchNorm2d):
            o.running_var.fill_(1 - o.eps)
            nn.init.normal_(o.bias, 0, 0.1)
    return net.eval()


def folded(net):
    "The convolutions of torch-fidelity's network under the names of the 768-channel file"
    name = {
        f"Mixed_{b}": f"mixed_{i}" if i else "mixed"
        for i, b in enumerate("5b 5c 5d 6a 6b 6c 6d 6e".split())
    }
    stem = dict(
        Conv2d_1a_3x3="conv",
        Conv2d_2a_3x3="conv_1",
        Conv2d_2b_3x3="conv_2",
        Conv2d_3b_1x1="conv_3",
        Conv2d_4a_3x3="conv_4",
    )
    branch = dict(
        branch1x1="conv",
        branch3x3="conv",
        branch_pool="tower_2_conv",
        branch5x5_1="tower_conv",
        branch5x5_2="tower_conv_1",
    )
    branch |= {f"branch7x7_{i + 1}": "tower_conv" + (f"_{i}" if i else "") for i in range(3)}
    branch |= {f"branch3x3dbl_{i + 1}": "tower_1_conv" + (f"_{i}" if i else "") for i in range(3)}
    branch |= {f"branch7x7dbl_{i + 1}": "tower_1_conv" + (f"_{i}" if i else "") for i in range(5)}
    res = {}
    for key, o in net.named_modules():
        block, *rest = key.split(".")
        if not hasattr(o, "bn") or not (block in stem or block in name):
            continue
        b = branch[rest[0]] if rest else ""
        if block == "Mixed_6a":
            b = b.replace("tower_1", "tower")  # the reduction's only tower is its first
        k = stem[block] if not rest else f"{name[block]}_{b}"
        res |= {f"{k}.w": o.conv.weight.detach().numpy(), f"{k}.b": o.bn.bias.detach().numpy()}
    return res


def test_inception768_equals_torch_fidelity(fidelity, tmp_path):
    np.savez(tmp_path / "w.npz", **folded(fidelity))
    space = Inception768(tmp_path / "w.npz")
    u = torch.randint(0, 256, (2, 3, 299, 299), generator=gen(), dtype=torch.uint8)
    ref = fidelity(u)[0]
    # u/256 in (0, 1) makes both networks see (u - 128)/128
    torch.testing.assert_close(space(u / 256.0), ref, rtol=1e-4, atol=1e-4 * ref.abs().max().item())
    grey = images(2, 1, 28)
    torch.testing.assert_close(space(grey), space(grey.repeat(1, 3, 1, 1)))
    assert space.name.startswith("FID-768") and space(grey).shape == (2, 768)
    with pytest.raises(ValueError, match="channels"):
        space(images(2, 2))


def test_inception768_faults(fidelity, tmp_path):
    w = folded(fidelity)

    def refuse(match, **kw):
        np.savez(tmp_path / "bad.npz", **kw)
        with pytest.raises(ValueError, match=match):
            Inception768(tmp_path / "bad.npz")

    refuse("lacks the array 'conv.b'", **{k: v for k, v in w.items() if k != "conv.b"})
    refuse("'conv.w' has shape", **(w | {"conv.w": w["conv.w"][:, :1]}))
    refuse("allow_pickle", **(w | {"conv.w": np.array([{}], dtype=object)}))
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 not an archive")
    with pytest.raises(ValueError, match="not an .npz"):
        Inception768(tmp_path / "bad.npz")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Inception768(tmp_path / "nowhere.npz")


def test_inception2048_equals_torch_fidelity(fidelity, tmp_path):
    torch.save(fidelity.state_dict(), tmp_path / "w.pth")
    space = Inception2048(tmp_path / "w.pth")
    u = torch.randint(0, 256, (2, 3, 32, 32), generator=gen(), dtype=torch.uint8)
    torch.testing.assert_close(space(u / 255.0), fidelity(u)[1])
    assert space.name.startswith("FID-2048") and space(images(2)).shape == (2, 2048)
    with pytest.raises(FileNotFoundError, match="weights-inception"):
        Inception2048(tmp_path / "nowhere.pth")


class Payload:
    def __reduce__(self):
        return exec, ("raise SystemExit('ran')",)


def test_inception2048_unpickles_nothing(tmp_path):
    pytest.importorskip("torch_fidelity")
    torch.save(dict(x=Payload()), tmp_path / "evil.pth")
    with pytest.raises(Exception, match="(?i)weights.only"):
        Inception2048(tmp_path / "evil.pth")
