"""Every notebook is a test: it runs from top to bottom, as `nbdev-test` runs it, in a process of
its own. A reader's kernel knows nothing of other notebooks: neither of what they registered, nor of
what fastai put on its classes when they imported it"""

import multiprocessing
from pathlib import Path

import pytest
from helpers_notebooks import run_notebook
from nbdev.config import get_config
from nbdev.doclinks import nbglob

cfg = get_config(Path(__file__).parent)
notebooks = sorted(nbglob(cfg.nbs_path, as_path=True))

# what takes seconds to import and changes nothing of ours is imported once and shared by a fork
processes = multiprocessing.get_context("forkserver")
SHARED = "torchvision pandas sklearn.linear_model matplotlib.pyplot accelerate plum fastprogress"
processes.set_forkserver_preload(["helpers_notebooks", *SHARED.split()])


def name(path):
    return path.relative_to(cfg.nbs_path).with_suffix("").as_posix()


@pytest.mark.parametrize("path", notebooks, ids=name)
def test_notebook(path, forced_flags, tmp_path):
    output = tmp_path / "output.txt"
    given = path, cfg.config_path, cfg.tst_flags.split(), forced_flags, output
    process = processes.Process(target=run_notebook, args=given)
    process.start()
    process.join()
    assert process.exitcode == 0, output.read_text()
