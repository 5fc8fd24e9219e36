"One door for all files: replaced in one step, asked for before the work, cleared after a kill"

import os
import subprocess

import pytest
import torch

from denoise_study.core import check_writable, clean_leftovers, process_lives, replacing
from denoise_study.core import write_tensors, write_text


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "new/a.txt"
    write_text(path, "old")
    with pytest.raises(OSError, match="a.txt could not be written .no space.*untouched"):
        with replacing(path) as tmp:
            tmp.write_text("half")
            raise OSError("no space")
    assert path.read_text() == "old" and [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_the_mode_of_a_file_is_that_of_others(tmp_path):
    write_text(tmp_path / "a.txt", "x")
    write_tensors(tmp_path / "b.safetensors", dict(w=torch.ones(1)), {})
    (tmp_path / "c.txt").write_text("x")
    assert len({p.stat().st_mode for p in tmp_path.iterdir()}) == 1


def test_an_interrupt_leaves_no_half_file(tmp_path):
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a.txt") as tmp:
        tmp.write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    with replacing(tmp_path / "a.txt") as one, replacing(tmp_path / "a.txt") as two:
        assert one != two
        one.write_text("one")
        two.write_text("two")
    assert (tmp_path / "a.txt").read_text() == "one"  # the last to end
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_leftovers_are_removed_when_their_writer_is_gone(tmp_path):
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    names = [f".a.npz.{pid}-01234567.tmp" for pid in (gone.pid, os.getppid())]
    for name in [*names, ".other.tmp", "a.npz"]:
        (tmp_path / name).touch()
    assert clean_leftovers(tmp_path) == [names[0]] and not process_lives(gone.pid)
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {names[1], ".other.tmp", "a.npz"} and clean_leftovers(tmp_path / "none") == []


def test_a_file_of_our_own_number_that_we_do_not_write_is_a_leftover(tmp_path):
    "In a container every start has the same number"
    name = f".b.txt.{os.getpid()}-01234567.tmp"
    (tmp_path / name).touch()
    with replacing(tmp_path / "a.txt") as tmp:
        tmp.write_text("now")
        assert clean_leftovers(tmp_path) == [name] and tmp.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_file_that_can_not_be_written_is_refused_before_the_work(tmp_path):
    check_writable(tmp_path / "new/folder/a.txt")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a.txt").write_text("kept")
    check_writable(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "kept" and len(list(tmp_path.iterdir())) == 1
    for path in (tmp_path, tmp_path / "a.txt/b.txt", tmp_path / ("n" * 300)):
        with pytest.raises(OSError, match="can't be written .*; give another file"):
            check_writable(path)


def test_what_was_left_of_a_file_goes_when_it_is_written_again(tmp_path):
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    for name in ("a[1].txt", "b.txt"):
        (tmp_path / f".{name}.{gone.pid}-01234567.tmp").touch()
    write_text(tmp_path / "a[1].txt", "x")
    left = [f".b.txt.{gone.pid}-01234567.tmp", "a[1].txt"]
    assert sorted(p.name for p in tmp_path.iterdir()) == left
