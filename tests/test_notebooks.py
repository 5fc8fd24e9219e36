"Every notebook is a test: it runs from top to bottom, as `nbdev-test` runs it"

from pathlib import Path

import pytest
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.test import test_nb as run_notebook

cfg = get_config(Path(__file__).parent)
notebooks = sorted(nbglob(cfg.nbs_path, as_path=True))


def name(path):
    return path.relative_to(cfg.nbs_path).with_suffix("").as_posix()


@pytest.mark.parametrize("path", notebooks, ids=name)
def test_notebook(path, forced_flags, capfd):
    passed, _ = run_notebook(
        path.absolute(),
        skip_flags=cfg.tst_flags.split(),
        force_flags=forced_flags,
        basepath=cfg.config_path,
    )
    assert passed, capfd.readouterr().err
