"A reading that fails, is killed or finished goes on from its file"

import multiprocessing
import signal

import pytest
import torch

from helpers import blind_denoiser, pictures
from helpers_probes import loader, read, Reader, spread
from denoise_study.representation import Averages, RowFile

torch.set_num_threads(1)
D = blind_denoiser()
X = pictures()


@pytest.mark.parametrize("torn", [0, 7])
def test_resume_after_a_failure(tmp_path, torn):
    "No row that was there is computed again; the file is the same to the byte, torn or not"
    x, args = pictures(40), dict(bs=20, draws=4, data="pictures")
    whole = Reader(spread)
    read(whole, x, path=tmp_path / "whole.safetensors", **args)
    broken = Reader(spread, fail_at=6)
    broken.load_state_dict(whole.state_dict())
    with pytest.raises(KeyboardInterrupt):
        read(broken, x, path=tmp_path / "b.safetensors", **args)
    assert not (tmp_path / "b.safetensors").exists()
    if torn:
        with open(tmp_path / "b.safetensors.part", "ab") as f:
            f.write(b"x" * torn)
    before, broken.fail_at = broken.calls, None
    res = read(broken, x, path=tmp_path / "b.safetensors", **args)
    assert (
        broken.calls - before == 4 < whole.calls == 8
    )  # the second chunk of 20 images, 5 images at a time
    a, b = (Averages.load(tmp_path / f"{o}.safetensors") for o in ("whole", "b"))
    assert (
        a.run == b.run == res.run
        and torch.equal(a.phi.x, b.phi.x)
        and not list(tmp_path.glob("*.part"))
    )


def test_resume_after_a_kill(tmp_path):
    "SIGKILL in another process, and a loader whose batches are not those of the first run"
    x, path = pictures(40), tmp_path / "phi.safetensors"
    whole, killed = Reader(spread), Reader(spread, fail_at=6, kill=True)
    killed.load_state_dict(whole.state_dict())
    child = multiprocessing.get_context("fork").Process(
        target=read, args=(killed, x), kwargs=dict(path=path, bs=20)
    )
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL and not path.exists()
    bytes_kept = (tmp_path / "phi.safetensors.part").stat().st_size
    assert bytes_kept > 20 * 3 * 4
    killed.fail_at = None
    torch.testing.assert_close(read(killed, x, path=path, bs=12).phi.x, read(whole, x).phi.x)
    assert killed.calls == 7  # 20 images left, in chunks of 12 and 8, 3 images at a time


@pytest.mark.parametrize("images", [loader(X), [X[:5], X[5:11], X[11:]]], ids=["loader", "list"])
def test_resume_in_the_middle_of_a_batch(tmp_path, images):
    args = dict(
        taps=("mid",), path=tmp_path / "a", range=(0.0, 1.0) if isinstance(images, list) else None
    )
    whole = read(D, images, **args)
    (tmp_path / "a").unlink()
    run = dict(whole.run, n=None) if isinstance(images, list) else whole.run
    rows = RowFile(tmp_path / "a", run)
    rows.append(
        {"mid": 0 * whole.phi.x[:7]}, whole.labels[:7]
    )  # seven rows that can be told from new ones
    rows.file.close()
    again = read(D, images, **args).phi.x
    assert (again[:7] == 0).all() and len(again) == 12
    torch.testing.assert_close(again[7:], whole.phi.x[7:], rtol=1e-4, atol=1e-9)


def test_a_finished_file_is_read(tmp_path):
    d = Reader(spread)
    a = read(d, X, path=tmp_path / "a")
    calls = d.calls
    assert torch.equal(read(d, X, path=tmp_path / "a").phi.x, a.phi.x) and d.calls == calls


@pytest.mark.parametrize(
    "change, word",
    [
        (dict(seed=1), "seed"),
        (dict(draws=5), "draws"),
        (dict(sigma=0.3), "sigma"),
        (dict(data="other"), "data"),
        (dict(images=X[:5]), "n:"),
        (dict(images=X.flip(0)), "first"),
        (dict(D=blind_denoiser(1)), "denoiser"),
        (dict(taps=("enc1",)), "taps"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_another_run_is_refused(tmp_path, change, word, finished):
    path, args = (
        tmp_path / "a.safetensors",
        dict(D=D, images=X, taps=("mid",), path=tmp_path / "a.safetensors"),
    )
    a = read(**args)
    if not finished:
        path.unlink()
        rows = RowFile(path, {k: v for k, v in a.run.items()})
        rows.append({"mid": a.phi.x[:3]}, a.labels[:3])
        rows.file.close()
    with pytest.raises(ValueError, match=f"^{word}.*delete"):
        read(**{**args, **change})


def test_rows_of_another_number_of_processes_are_refused(tmp_path):
    path = tmp_path / "phi.safetensors"
    (tmp_path / "phi.safetensors.0-24.part").touch()
    with pytest.raises(
        ValueError, match=r"lie phi.safetensors.0-24.part, rows of a run in another"
    ):
        RowFile(path, {})
    (tmp_path / "phi.safetensors.0-24.part").unlink()
    (tmp_path / "phi.safetensors.later.part").touch()  # of something else
    assert RowFile(path, {}).done == 0
