"""Trainings that are forked from a process with fairseq in memory: what it holds, and whom it outlives."""

import os
import signal
from pathlib import Path

import pytest
from conftest import MODELS, wait_until

from harness import trainer
from harness.cell import Study
from harness.retraining import LOG, Schedule, retrain

ONCE = Schedule(epochs=1, learning_rate=1e-3)


@pytest.fixture
def train(small, monkeypatch, tmp_path):
    """Train the dense model in a folder beside others, named as a user of a terminal would name it."""
    monkeypatch.chdir(tmp_path)

    def train(name: str, **settings) -> None:
        study = Study.open(MODELS / "rnnsearch.pt", small)
        retrain(study.model, {}, study.corpus, Path(name), ONCE, **settings)

    return train


def test_one_process_for_all_trainings_that_keeps_nothing_open(train, tmp_path, monkeypatch):
    train("first")
    running = trainer._trainer(os.getpid())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    train("second")
    assert trainer._trainer(os.getpid()) is running
    assert running.poll() is None
    assert (tmp_path / "elsewhere" / "second" / LOG).stat().st_size > 0
    opened = [os.readlink(path) for path in Path(f"/proc/{running.pid}/fd").iterdir()]
    assert not [path for path in opened if path.startswith(str(tmp_path))]
    assert Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text() == ""


def test_one_that_was_killed_is_replaced(train):
    train("first")
    killed = trainer._trainer(os.getpid())
    killed.send_signal(signal.SIGKILL)
    wait_until(lambda: killed.poll() is not None)
    train("second")
    assert trainer._trainer(os.getpid()) is not killed


def test_what_breaks_off_takes_no_answer_of_the_next(train):
    def stop(epoch: int, valid_loss: float) -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train("broken", notify=stop)
    train("whole")
    train("broken")
