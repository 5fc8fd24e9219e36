"""Trainings, probes, the protocol, a study and the writing of files are killed at random moments:
nothing is lost, nothing is unreadable, and whoever is started again arrives where it would have"""

import json
import subprocess
import sys

import pytest
from helpers import ENV, ROOT, SCRIPTS


def kill(tmp_path, *args):
    out = tmp_path / "kills.json"
    command = [sys.executable, str(SCRIPTS / "kills.py"), "--out", str(out), *args]
    env = dict(ENV, PYTHONPATH=str(ROOT))
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    return json.loads(out.read_text())


def nothing_lost(record):
    total, two = record["total"], record["two_in_a_folder"]
    bad = "unreadable", "lost", "different", "leftovers", "failed"
    assert not any(total[k] for k in bad)
    assert two["trials"] == two["one_refused"] == two["result_of_one_run"] > 0
    return total["kills"]


def test_a_few_kills_lose_nothing(tmp_path):
    assert nothing_lost(kill(tmp_path, "--share", ".1", "--only", "blind", "writing")) >= 4


@pytest.mark.slow
def test_a_hundred_kills_lose_nothing(tmp_path):
    assert nothing_lost(kill(tmp_path)) >= 100


def test_the_recorded_kills_lost_nothing():
    "A hundred and more of them, over everything that writes"
    record = json.loads((ROOT / "docs/results/kills.json").read_text())
    kinds = {"ddgm", "daed", "blind", "probes", "protocol", "study", "writing"}
    assert record["run"]["commit"] and {row["what"] for row in record["kinds"]} == kinds
    assert nothing_lost(record) == sum(row["kills"] for row in record["kinds"]) >= 100
    for row in record["kinds"]:
        assert row["kills"] > 0 and row["files"] > 0, row
