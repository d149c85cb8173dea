"""Trainings that are forked from a process with fairseq in memory: what it holds, and whom it outlives."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MODELS, ROOT, is_alive, wait_until

from grouping.errors import StudyError
from harness import trainer
from harness.cell import Study
from harness.retraining import LOG, Schedule, retrain

ONCE = Schedule(epochs=2, learning_rate=1e-3)


@pytest.fixture
def train(small, monkeypatch, tmp_path):
    """Train the dense model in a folder beside others, named as a user of a terminal would name it."""
    monkeypatch.chdir(tmp_path)

    def train(name: str, **settings) -> None:
        study = Study.open(MODELS / "rnnsearch.pt", small)
        retrain(study.model, {}, study.corpus, Path(name), ONCE, **settings)

    return train


def process() -> subprocess.Popen:
    """What the trainings of this process are forked from."""
    found = trainer._trainer(os.getpid())._process
    assert found is not None
    return found


def children(number: int) -> list[int]:
    return list(map(int, Path(f"/proc/{number}/task/{number}/children").read_text().split()))


@pytest.mark.parametrize("module", ["harness.trainer", "experiments.preload"])
def test_what_processes_are_forked_from_asks_for_no_gpu(module):
    """fairseq counts the GPUs when it is imported, and a fork of who asked CUDA cannot use it."""
    code = f"""
import os, importlib, torch
seen = []
torch.cuda.device_count = lambda: seen.append(os.environ["CUDA_VISIBLE_DEVICES"]) or 0
found = importlib.import_module({module!r})
getattr(found, "_import", lambda: None)()
print(set(seen), os.environ["CUDA_VISIBLE_DEVICES"])
"""
    own = os.environ | {"CUDA_VISIBLE_DEVICES": "MIG-7"}
    said = subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, text=True, cwd=ROOT)
    assert said.stdout.splitlines()[-1] == "{''} MIG-7", said.stderr


def test_one_process_for_all_trainings_that_keeps_nothing_open(train, tmp_path, monkeypatch):
    train("first")
    running = process()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    train("second")
    assert process() is running
    assert running.poll() is None
    assert (tmp_path / "elsewhere" / "second" / LOG).stat().st_size > 0
    opened = [os.readlink(path) for path in Path(f"/proc/{running.pid}/fd").iterdir()]
    assert not [path for path in opened if path.startswith(str(tmp_path))]
    assert children(running.pid) == []


def test_a_fork_that_ends_leaves_it_alone(train):
    train("first")
    parents = trainer._trainer(os.getpid())
    if not (child := os.fork()):
        parents.kill()  # as it is called at exit
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    running = process()
    train("second")
    assert process() is running


def test_one_that_was_killed_is_replaced(train):
    train("first")
    killed = process()
    killed.send_signal(signal.SIGKILL)
    wait_until(lambda: not is_alive(killed.pid))  # and nobody has asked
    train("second")
    assert process() is not killed


def test_nothing_trains_on_when_a_training_is_left(train):
    """Whatever leaves it: it has ended then, and the next one is not told how."""
    seen = []

    def stop(epoch: int, valid_loss: float) -> None:
        seen.extend([process().pid, *children(process().pid)])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("broken", notify=stop)
    assert len(seen) == 2
    size = Path("broken", LOG).stat().st_size
    # it may still be leaving, but has nothing open any more
    wait_until(lambda: not any(map(is_alive, seen)), 5)
    assert Path("broken", LOG).stat().st_size == size
    train("whole")
    train("broken")


@pytest.mark.parametrize("victim", ["training", "what it is forked from"])
def test_one_that_was_killed_is_said_to_be(train, victim):
    seen = []

    def kill(epoch: int, valid_loss: float) -> None:
        seen.extend([process().pid, *children(process().pid)])
        os.kill(seen[1] if victim == "training" else seen[0], signal.SIGKILL)

    with pytest.raises(StudyError, match=r"^fairseq-train was killed, see killed/train\.log: "):
        train("killed", notify=kill)
    wait_until(lambda: not is_alive(seen[1]), 5)
    train("killed")


def test_it_runs_the_code_of_this_process_wherever_that_is(train, tmp_path):
    """A folder named as ours is, and one named as a module of Python's, where the process happens to be."""
    for name in ("harness", "select"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('another')")
    trainer._trainer(os.getpid()).kill()
    train("first")
    assert Path("first", LOG).stat().st_size > 0


def test_a_log_that_cannot_be_written_begins_nothing(tmp_path):
    with (
        pytest.raises(FileNotFoundError),
        trainer.training(tmp_path / "job.json", tmp_path / "none" / LOG, {}),
    ):
        pytest.fail("it has begun")


def test_what_keeps_it_from_starting_is_in_the_log(tmp_path, monkeypatch):
    (tmp_path / "fairseq_cli").mkdir()
    (tmp_path / "fairseq_cli" / "__init__.py").write_text("raise ImportError('it is broken')")
    monkeypatch.syspath_prepend(tmp_path)
    trainer._trainer(os.getpid()).kill()
    with trainer.training(tmp_path / "job.json", tmp_path / LOG, {}) as running:
        running.ended(None)
    assert running.code
    assert "ImportError: it is broken" in (tmp_path / LOG).read_text().splitlines()[-1]
