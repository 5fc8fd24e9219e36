"Asked to stop: nothing is lost. Two trainings in one folder: the second is refused"

import os
import signal

import pytest
import torch
from fastai.callback.core import Callback
from helpers import digits, FORK
from helpers_training import Linear

from denoise_study.core import denoise_learner, FolderInUse, hold_folder, leave_folder
from denoise_study.core import read_tensors, stop_asked
from denoise_study.core import stoppable, Stopped, take_folder, unpack


class Signal(Callback):
    "Send this process a signal in the middle of a step, or in the validation"

    def __init__(self, number, step, in_training=True):
        self.number, self.step, self.in_training = number, step, in_training

    def after_pred(self):
        right = self.learn.train_iter == self.step and self.training == self.in_training
        if right and not stop_asked():
            os.kill(os.getpid(), self.number)


def trained(folder, *cbs):
    torch.manual_seed(0)
    learn = denoise_learner(digits(256), Linear(), folder=folder, cbs=list(cbs))
    with learn.no_bar(), learn.no_logging(), stoppable():
        learn.fit_one_cycle(2, 1e-2)
    return learn


def steps_in(folder):
    tensors, desc = read_tensors(folder / "state.safetensors")
    return unpack(desc["state"], tensors)["where"]["train_iter"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step,in_training,at", [(2, True, 3), (5, False, 5), (9, True, 10)])
def test_a_training_that_is_asked_to_stop_loses_nothing(tmp_path, number, step, in_training, at):
    whole = trained(tmp_path / "whole")
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match=f"^stopped at step {at}; the same command continues$"):
        trained(tmp_path / "cut", Signal(number, step, in_training))
    assert steps_in(tmp_path / "cut") == at and not stop_asked()
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    assert torch.equal(trained(tmp_path / "cut").model.w, whole.model.w)
    assert not list(tmp_path.glob("cut/.*"))


def test_the_second_time_is_at_once():
    with pytest.raises(KeyboardInterrupt) as caught, stoppable():
        os.kill(os.getpid(), signal.SIGINT)
        assert stop_asked()
        os.kill(os.getpid(), signal.SIGINT)
        while True:
            pass
    assert not isinstance(caught.value, Stopped) and not stop_asked()


def test_a_request_after_the_last_step_is_not_forgotten():
    with pytest.raises(Stopped, match="the same command continues"), stoppable():
        os.kill(os.getpid(), signal.SIGTERM)


def hold(folder, connection):
    "In another process: take the folder, say so, and wait"
    take_folder(folder)
    connection.send("mine")
    signal.pause()


def test_the_second_training_in_a_folder_is_refused(tmp_path):
    here, there = FORK.Pipe()
    other = FORK.Process(target=hold, args=(tmp_path / "run", there))
    other.start()
    assert here.recv() == "mine"
    with pytest.raises(FolderInUse, match=f"process {other.pid} is training into this folder"):
        trained(tmp_path / "run")
    assert [p.name for p in (tmp_path / "run").iterdir()] == [".lock"]
    leftover = tmp_path / f"run/.state.safetensors.{other.pid}-01234567.tmp"
    leftover.touch()
    other.kill()
    other.join()
    assert (tmp_path / "run/.lock").exists()  # stale: its process is gone
    trained(tmp_path / "run")
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"log.jsonl", "state.safetensors"}


def test_a_lock_file_of_another_boot_is_nobodys(tmp_path):
    (tmp_path / ".lock").write_text(str(os.getppid()))  # that number lives, and is another's
    with hold_folder(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())
        assert not take_folder(tmp_path)  # this process has it
        with hold_folder(tmp_path):
            pass
        assert (tmp_path / ".lock").exists()
    assert list(tmp_path.iterdir()) == []
    leave_folder(tmp_path)  # once is enough


def test_a_folder_that_can_not_be_written_is_refused_before_the_first_step(tmp_path):
    (tmp_path / "file").touch()

    class Never(Callback):
        def before_batch(self):
            raise AssertionError("a step was made")

    with pytest.raises(OSError, match="file/run: this folder can't be written"):
        trained(tmp_path / "file/run", Never())


def test_a_training_that_fails_gives_its_folder_back(tmp_path):
    class Fails(Callback):
        def after_epoch(self):
            raise ZeroDivisionError("of a kind")

    with pytest.raises(ZeroDivisionError):
        trained(tmp_path, Fails())
    assert not list(tmp_path.glob(".*"))
    trained(tmp_path)
    with pytest.raises(ValueError, match="seed"):
        denoise_learner(digits(256), Linear(), folder=tmp_path, seed=1).fit_one_cycle(2, 1e-2)
    assert not list(tmp_path.glob(".*"))
