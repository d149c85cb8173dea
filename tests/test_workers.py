"""Workers with real processes: order, sameness, and what happens when one of them dies."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from grouping.errors import StudyError
from harness import workers
from harness.workers import Workers

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only"),
]

ROOT = Path(__file__).parents[1]
PARENT = os.getpid()


@pytest.fixture(autouse=True)
def _nobody_is_left():
    yield
    assert multiprocessing.active_children() == []


def square_late(number: int) -> int:
    time.sleep(random.Random(number).uniform(0, 0.05))
    return number**2


def die(how: int = signal.SIGKILL) -> None:
    assert os.getpid() != PARENT
    os.kill(os.getpid(), how)


def first_time(path: Path) -> bool:
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("count", [1, 2, 3])
def test_outcomes_come_in_the_order_of_the_tasks(count):
    with Workers(square_late, count) as pool:
        assert list(pool.map(range(12))) == [n**2 for n in range(12)]
        assert list(pool.map([5, 3])) == [25, 9]
        assert list(pool.map([])) == []


def test_each_outcome_comes_as_soon_as_those_before_it(tmp_path):
    def wait_for_reader(number: int) -> int:
        while number == 2 and not (tmp_path / "read").exists():
            time.sleep(0.01)
        return number

    with Workers(wait_for_reader, 2) as pool:
        outcomes = pool.map(range(4))
        assert [next(outcomes), next(outcomes)] == [0, 1]
        (tmp_path / "read").touch()
        assert list(outcomes) == [2, 3]


def test_memory_is_shared_and_what_a_child_changes_is_its_own():
    weights = torch.arange(6, dtype=torch.float32)

    def prune(place: int) -> tuple[torch.Tensor, int]:
        pruned = weights.numpy()
        pruned[:] = np.arange(6)
        pruned[place] = 0
        return weights.clone(), torch.get_num_threads()

    with Workers(prune, 2) as pool:
        outcomes = list(pool.map([1, 4, 5]))
    assert [tensor.tolist() for tensor, _ in outcomes] == [
        [0, 0, 2, 3, 4, 5],
        [0, 1, 2, 3, 0, 5],
        [0, 1, 2, 3, 4, 0],
    ]
    assert {threads for _, threads in outcomes} == {1}
    assert weights.tolist() == [0, 1, 2, 3, 4, 5]


def test_large_tasks_and_outcomes_fit_through_the_pipe():
    tasks = [np.full(300_000, float(n)) for n in range(4)]
    with Workers(lambda array: array + 1, 2) as pool:
        for n, outcome in enumerate(pool.map(tasks)):
            assert np.array_equal(outcome, tasks[n] + 1)


def test_processes_start_when_there_is_more_than_one_task_and_stay():
    def pid(_: int) -> int:
        time.sleep(0.02)
        return os.getpid()

    with Workers(pid, 2) as pool:
        assert list(pool.map([0])) == [PARENT]
        assert multiprocessing.active_children() == []
        first, second = (set(pool.map(range(6))) for _ in range(2))
        assert first == second
        assert len(first) == 2
        assert PARENT not in first
    assert all(gone(child) for child in first)


def test_one_worker_is_this_process():
    with Workers(lambda _: os.getpid(), 1) as pool:
        assert set(pool.map(range(3))) == {PARENT}


def test_no_fork_where_it_is_not_safe(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with Workers(lambda _: os.getpid(), 2) as pool:
        assert set(pool.map(range(3))) == {PARENT}
    monkeypatch.undo()
    monkeypatch.setattr(workers.sys, "platform", "darwin")
    with Workers(lambda _: os.getpid(), 2) as pool:
        assert set(pool.map(range(3))) == {PARENT}


@pytest.mark.parametrize("count", [2, 3])
def test_a_killed_worker_is_replaced_and_its_task_done_again(tmp_path, count):
    def dies_at_first(number: int) -> int:
        if number in (1, 4, 7) and first_time(tmp_path / str(number)):
            die()
        return square_late(number)

    with Workers(dies_at_first, count) as pool:
        assert list(pool.map(range(9))) == [n**2 for n in range(9)]
    assert len(list(tmp_path.iterdir())) == 3


def test_workers_killed_between_two_maps_count_against_no_task():
    with Workers(lambda _: os.getpid(), 3) as pool:
        for _ in range(4):
            for pid in set(pool.map(range(9))):
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        assert len(list(pool.map(range(9)))) == 9


@pytest.mark.parametrize(("how", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, -15), (None, 3)])
def test_a_task_that_always_kills_is_given_up_in_its_place(tmp_path, how, code):
    def deadly(number: int) -> int:
        if number == 2:
            (tmp_path / str(os.getpid())).touch()
            die(how) if how is not None else os._exit(3)
        return number

    seen = []
    with Workers(deadly, 2) as pool:
        expected = rf"a task ended 3 worker processes, the last with exit code {code} .* try fewer workers"
        with pytest.raises(StudyError, match=expected):
            seen.extend(pool.map(range(6)))
        assert seen == [0, 1]
        assert len(list(tmp_path.iterdir())) == 3
        assert list(pool.map([0, 1, 3])) == [0, 1, 3]


class Picky(Exception):
    """Cannot be read again: pickle calls it with one argument."""

    def __init__(self, one: int, other: int):
        super().__init__(f"{one} and {other}")


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (StudyError("choose another"), StudyError, "choose another"),
        (KeyError("key"), KeyError, "'key'"),
        (MemoryError(), MemoryError, ""),
        (SystemExit(2), SystemExit, "2"),
        (Picky(1, 2), RuntimeError, "Picky: 1 and 2"),
        (ValueError(lambda: None), RuntimeError, "ValueError: <function"),
    ],
)
def test_an_exception_comes_out_in_its_place_with_the_traceback_of_the_worker(error, kind, message):
    def fail_at_three(number: int) -> int:
        if number == 3:
            raise error
        return square_late(number)

    seen = []
    with Workers(fail_at_three, 2) as pool:
        with pytest.raises(kind) as caught:
            seen.extend(pool.map(range(6)))
        assert type(caught.value) is kind
        assert str(caught.value).startswith(message)
        assert "in fail_at_three" in caught.value.__notes__[-1]
        assert seen == [0, 1, 4]
        assert list(pool.map([1, 2])) == [1, 4]


def test_an_outcome_that_cannot_be_pickled_is_an_error():
    with Workers(lambda number: lambda: number, 2) as pool, pytest.raises(Exception, match="pickle"):
        list(pool.map([1, 2]))


def test_a_task_that_cannot_be_pickled_is_an_error():
    with Workers(lambda task: 1, 2) as pool, pytest.raises(Exception, match="pickle"):
        list(pool.map([lambda: 1, lambda: 2]))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_reader_may_stop_early_and_map_again(count):
    with Workers(square_late, count) as pool:
        for outcome in pool.map(range(20)):
            if outcome == 9:
                break
        assert list(pool.map(range(5))) == [0, 1, 4, 9, 16]


def test_a_map_left_half_read_does_not_disturb_the_next():
    with Workers(square_late, 2) as pool:
        old = pool.map(range(20))
        assert next(old) == 0
        new = pool.map(range(10, 16))
        assert next(new) == 100
        with pytest.raises(RuntimeError, match="later map"):
            list(old)
        assert list(new) == [n**2 for n in range(11, 16)]


def test_what_still_runs_when_the_block_is_left_is_killed(tmp_path):
    def hang(number: int) -> int:
        (tmp_path / str(os.getpid())).touch()
        time.sleep(60 * number)
        return number

    def fail(outcome: int) -> None:
        raise ZeroDivisionError

    started = time.monotonic()
    with pytest.raises(ZeroDivisionError), Workers(hang, 2) as pool:
        list(map(fail, pool.map([0, 1, 2])))
    assert time.monotonic() - started < 30
    assert all(gone(int(path.name)) for path in tmp_path.iterdir())


def test_no_workers_are_refused():
    with pytest.raises(StudyError, match="0 workers are not possible"):
        Workers(square_late, 0)


SCRIPT = """
import os, sys, time
from harness.workers import Workers

def say(word):
    os.write(1, f"{word}\\n".encode())  # a line in one piece, which print does not promise

def work(number):
    say(os.getpid())
    time.sleep(0.1 if number < 4 else 1 if kind == "busy" else 0)
    return number

kind = sys.argv[1]
with Workers(work, 3) as pool:
    for outcome in pool.map(range(6)):
        if outcome == 3 and kind == "busy":
            say("now")
    say("now")
    time.sleep(60)
"""


def start(kind: str) -> tuple[subprocess.Popen, set[int]]:
    """A process with three busy or idle children, in a session of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, kind],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    pids = set()
    for line in process.stdout:
        if line == "now\n":
            break
        pids.add(int(line))
    assert len(pids) == 3
    return process, pids


@pytest.mark.parametrize("kind", ["busy", "idle"])
def test_workers_notice_that_the_parent_was_killed(kind):
    process, _ = start(kind)
    process.kill()
    # the children hold the other end of this pipe: it ends when the last of them does
    _, errors = process.communicate(timeout=30)
    assert errors == ""


@pytest.mark.parametrize("kind", ["busy", "idle"])
def test_ctrl_c_ends_all_and_only_the_parent_speaks(kind):
    process, pids = start(kind)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert errors.count("Traceback") == 1
    assert errors.endswith("KeyboardInterrupt\n")
    assert all(gone(pid) for pid in pids)
