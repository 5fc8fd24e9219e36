"What `import denoise_study` does by itself"

import json
import os
import subprocess
import sys

import pytest

NAMES = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
CODE = """
import json, os, sys
import denoise_study
print(json.dumps([{k: os.environ.get(k) for k in %r}, "torch" in sys.modules]))
""" % (NAMES,)


@pytest.mark.parametrize("own", [{}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}])
def test_threads_wait_a_little_before_torch_is_loaded_unless_the_user_says_otherwise(own):
    env = {k: v for k, v in os.environ.items() if k not in NAMES} | own
    out = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, check=True)
    found, torch_is_there = json.loads(out.stdout)
    wanted = own or {"GOMP_SPINCOUNT": "15000"}
    assert found == dict.fromkeys(NAMES) | wanted
    assert not torch_is_there
