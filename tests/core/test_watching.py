"A log and pictures: no callback hears of an epoch that is not trained"

import io
import json
import re
from contextlib import suppress

import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.progress import CSVLogger
from fastai.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback
from helpers import digits
from helpers_training import Linear

from denoise_study.core import denoise_learner, in_time, ProgressRows, SampleGrid


class Stop(Callback):
    "Pull the plug after the second epoch"

    order = 99

    def after_epoch(self):
        if self.epoch == 1:
            raise KeyboardInterrupt


class Heard(Callback):
    "Which epochs began"

    order = 99

    def before_fit(self):
        self.epochs = []

    def before_epoch(self):
        self.epochs.append(self.epoch)


def trained(folder, *cbs, lr=0.02):
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    learn = denoise_learner(digits(256), Linear(), folder=folder, path=folder, cbs=list(cbs))
    with learn.no_bar(), suppress(KeyboardInterrupt):
        learn.fit(4, lr)
    return learn


# a rate at which the loss falls, and one at which it soon rises: trackers act on both
@pytest.mark.parametrize("lr", [0.02, 3.0])
@pytest.mark.parametrize(
    "callback", [SaveModelCallback, EarlyStoppingCallback, ReduceLROnPlateau, CSVLogger, Heard]
)
def test_callbacks_of_fastai_go_on_where_they_were(tmp_path, callback, lr):
    whole = trained(tmp_path / "whole", callback(), lr=lr)
    trained(tmp_path / "cut", callback(), Stop(), lr=lr)
    heard = Heard()
    resumed = trained(tmp_path / "cut", callback(), heard, lr=lr)
    assert resumed.recorder.values == whole.recorder.values
    assert resumed.recorder.lrs == whole.recorder.lrs
    assert torch.equal(resumed.model.w, whole.model.w)
    assert not {0, 1} & set(heard.epochs)
    finished = trained(tmp_path / "cut", callback(), lr=lr)  # nothing is left to do
    assert torch.equal(finished.model.w, whole.model.w)


def test_the_table_of_a_resumed_run_is_whole(tmp_path):
    def rows(folder):
        return [
            line.rpartition(",")[0] for line in (folder / "history.csv").read_text().splitlines()
        ]

    trained(tmp_path / "whole", CSVLogger())
    trained(tmp_path / "cut", CSVLogger(), Stop())
    trained(tmp_path / "cut", CSVLogger())
    assert len(rows(tmp_path / "cut")) == 5 and rows(tmp_path / "cut") == rows(tmp_path / "whole")


def test_pictures_of_finished_epochs_are_not_drawn_again(tmp_path):
    drawn = []

    def sample(model):
        drawn.append(model.w.detach().clone()[None])
        return drawn[-1]

    trained(tmp_path, SampleGrid(sample, tmp_path / "samples"), Stop())
    before = [p.read_bytes() for p in sorted((tmp_path / "samples").iterdir())]
    trained(tmp_path, SampleGrid(sample, tmp_path / "samples"))
    files = sorted((tmp_path / "samples").iterdir())
    assert [p.name for p in files] == [f"epoch-000{i}.png" for i in (1, 2, 3, 4)]
    assert [p.read_bytes() for p in files[:2]] == before and len(drawn) == 4
    trained(tmp_path, SampleGrid(sample, tmp_path / "samples"))
    assert len(drawn) == 4


def test_the_log_has_each_epoch_once(tmp_path):
    trained(tmp_path, Stop())
    trained(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in rows if "valid_loss" in r] == [0, 1, 2, 3]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(file, epochs, **how):
    "What is written of a training"
    learn = denoise_learner(digits(256), Linear(), cbs=[ProgressRows(file)], **how)
    learn.fit(epochs)
    return file.getvalue()


def test_a_row_for_each_tenth(capsys):
    "Whatever an epoch is: few steps, or all of them"
    for epochs in (1, 4, 20):
        rows = shown(io.StringIO(), epochs).splitlines()
        steps = [int(re.search(r"step ([\d,]+) of", row)[1].replace(",", "")) for row in rows]
        total = epochs * 5
        assert 3 <= len(rows) <= 10 and steps[-1] == total and len(set(steps)) == len(steps)
        assert all("loss " in row and " left" in row and "\r" not in row for row in rows)
    assert "on validation images" in rows[-1]
    assert capsys.readouterr().out == ""  # neither a table of epochs nor a bar


def test_one_line_on_a_terminal():
    text = shown(Terminal(), 4)
    assert text.count("\n") == 1 and text.endswith("\n") and text.count("\r") > 15


def test_rows_do_not_change_a_training(tmp_path):
    "Nor do they speak where nobody wants to hear of it"
    file = io.StringIO()
    seen, plain = (
        trained(tmp_path / name, *cbs) for name, cbs in dict(a=[ProgressRows(file)], b=[]).items()
    )
    assert torch.equal(seen.model.w, plain.model.w) and file.getvalue()
    learn = denoise_learner(digits(256), Linear(), cbs=[ProgressRows(quiet := io.StringIO())])
    with learn.no_logging():
        learn.fit(1)
    assert quiet.getvalue() == ""


def test_durations_for_people():
    assert [in_time(s) for s in (7.4, 119, 3599, 7200)] == ["7 s", "2 min", "60 min", "2.0 h"]
