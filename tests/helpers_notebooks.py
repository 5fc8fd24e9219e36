"Run one notebook as `nbdev-test` does: what the processes of tests/test_notebooks.py import"

import os
import sys

from nbdev.test import test_nb


def run_notebook(path, root, skipped_flags, forced_flags, output):
    "Run it in this process and exit, with 0 if every cell passed; what it prints goes to a file"
    with open(output, "w") as f:
        os.dup2(f.fileno(), 1)
        os.dup2(f.fileno(), 2)
    passed, _ = test_nb(
        path.absolute(),
        skip_flags=skipped_flags,
        force_flags=forced_flags,
        basepath=root,
    )
    sys.exit(not passed)
