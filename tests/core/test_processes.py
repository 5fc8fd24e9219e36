"Several processes: what each has to do, and that two make what one makes"

import subprocess

import numpy as np
import pytest
import torch
from helpers import ACCELERATE, ENV, run_script, script, TORCHRUN

from denoise_study.core import by_first, of_all, rank_and_size, read_json, read_tensors, share
from denoise_study.core import together, whole


def run(folder, **launch):
    "What the script made, what it told in a file and what it printed"
    if launch:
        command = script("run_sharing", folder, **launch)
        done = subprocess.run(command, env=ENV, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        printed = done.stdout
    else:  # alone, and here
        printed = run_script("run_sharing", folder)
    tensors, _ = read_tensors(folder / "all.safetensors")
    return tensors, read_json(folder / "told.json"), printed


@pytest.mark.parametrize("launcher", [TORCHRUN, pytest.param(ACCELERATE, marks=pytest.mark.slow)])
def test_two_processes_make_what_one_makes(launcher, tmp_path):
    one, told, _ = run(tmp_path / "one")
    two, told2, printed = run(tmp_path / "two", processes=2, launcher=launcher)
    assert (told["worked"], told2["worked"]) == (["0 of 1"], ["0 of 2", "1 of 2"])
    assert told2["same"] and told2["first"] == "0"
    assert set(one) == set(two) and len(one["samples"]) == 70 and told["rows"] == 50
    for k in one:
        if k in ("mean", "cov"):  # sums in another order
            torch.testing.assert_close(one[k], two[k], rtol=1e-12, atol=1e-12)
        else:
            assert torch.equal(one[k], two[k]), k
    assert told["knn"] == told2["knn"] and 0 < told["knn"]["precision"]["value"] < 1

    # 50 images are 7 batches; the reading broke off at the third and did that one again
    assert (told["calls"], told2["calls"]) == ([8], [4, 5])
    assert told["parts"] == [["phi.safetensors.part"]]
    assert told2["parts"][0] == ["phi.safetensors.0-24.part", "phi.safetensors.24-50.part"]
    phi = [(tmp_path / f / "phi.safetensors") for f in ("one", "two")]
    assert read_tensors(phi[0])[0]["mid"].equal(read_tensors(phi[1])[0]["mid"])
    assert not list(tmp_path.glob("*/*.part"))

    assert printed.count("5 images") == 1  # the first process speaks for both
    pictures = [np.load(tmp_path / f / "five.npz")["images"] for f in ("one", "two")]
    assert (pictures[0] == pictures[1]).all() and len(pictures[0]) == 5


@pytest.mark.parametrize("n, size, world", [(0, 4, 3), (1, 4, 3), (50, 8, 2), (1000, 7, 64)])
def test_shares_are_whole_batches_and_nothing_is_left_out(n, size, world):
    shares = [share(n, size, (rank, world)) for rank in range(world)]
    assert [i for o in shares for i in o] == list(range(n))
    assert all(o.start % size == 0 for o in shares if o)
    batches = [-(-len(o) // size) for o in shares]
    assert max(batches) - min(batches) <= 1


def test_alone_nothing_is_shared():
    with together(), together():
        assert rank_and_size() == (0, 1)
        assert of_all("x") == ["x"] and by_first(lambda: 3) == 3
    x = torch.arange(6.0).view(3, 2)
    assert whole([x]) is x and whole([x, x]).equal(torch.cat([x, x]))
    with pytest.raises(ValueError, match="batches: at least one"):
        whole([])
