"Base networks: published checkpoints of many forms, steps and seeds"

from dataclasses import replace

import pytest
import torch

from denoise_study.core import image_dls
from denoise_study.denoiserep import baseline, CIFARResNet, classification_task, denoise_rep
from denoise_study.denoiserep import fused_steps, save_fused, step_loaders
from helpers_tasks import perceptron


@pytest.fixture(scope="module")
def dls():
    return image_dls("digits", bs=128, test=0.3, range=(0.0, 1.0), device="cpu")


def test_old_checkpoints_load(dls, tmp_path):
    "module. prefixes, 'state_dict' inside, no counts of batches; a wrapper; nothing is unpickled"
    net = CIFARResNet(10, 8)
    state = {}
    for k, v in net.state_dict().items():
        if not k.endswith("num_batches_tracked"):
            state[f"module.{k}"] = v
    torch.save(dict(state_dict=state), tmp_path / "old.th")
    t = classification_task(backbone_name="resnet8", checkpoint=tmp_path / "old.th", dls=dls)
    assert torch.equal(baseline(t, 0).net.conv1.weight, net.conv1.weight)

    class Evil:
        def __reduce__(self):
            return (print, ("unpickled",))

    torch.save(Evil(), tmp_path / "evil.th")
    for name, what in (("evil.th", "can not be read"), ("none.th", "does not exist")):
        with pytest.raises((ValueError, OSError), match=what):
            baseline(replace(t, checkpoint=tmp_path / name), 0)
    with pytest.raises(ValueError, match="does not fit the model"):
        baseline(replace(t, build=perceptron), 0)


@pytest.mark.parametrize("steps, phases", [(1, 1), (6, 2), (20, 1), (60, 2)])
def test_a_budget_is_a_number_of_steps(dls, steps, phases):
    some, epochs = step_loaders(dls, 0, steps, phases)
    assert 0 <= steps - phases * epochs * len(some.train) < phases * epochs


def test_a_fused_checkpoint_is_not_fused_once_more(dls, tmp_path):
    "The mark is in the file, and a base network that is read from it has it"
    net = CIFARResNet(10, 8).eval()
    x = torch.rand(2, 3, 8, 8)
    save_fused(denoise_rep(net, example=x).fuse(), tmp_path / "fused.safetensors")
    t = classification_task(
        backbone_name="resnet8", checkpoint=tmp_path / "fused.safetensors", dls=dls
    )
    base = baseline(t, 0)
    assert list(fused_steps(base)) == [f"net.{name}" for name in fused_steps(net)]
    with pytest.raises(ValueError, match="already fused into it"):
        t.equipped(base)
