"""Tasks side by side on the cores of one machine: one process each, sharing what was in memory before."""

import contextlib
import ctypes
import os
import pickle
import signal
import sys
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from grouping.errors import StudyError

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")

#: of Linux's prctl: the signal that a process gets when its parent dies
PR_SET_PDEATHSIG = 1
#: the environment variable that says which GPUs a process may use
GPUS = "CUDA_VISIBLE_DEVICES"
#: children that one task may take with it before it is given up
ATTEMPTS = 3


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def die_with_parent(parent: int | None = None) -> None:
    """Have this process killed when its parent dies, where the system can do that (Linux).

    With the number of the ``parent``, exits at once if that is dead already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        sys.exit(1)


def check_workers(count: int) -> None:
    """Raise StudyError for a number of workers below 1."""
    if count < 1:
        raise StudyError(f"{count} workers are not possible: give 1 or more")


@dataclass
class _Job:
    """A task, pickled, how many children died of it, and what came of it: (outcome, error or None)."""

    message: bytes
    deaths: int = 0
    answer: tuple[Any, BaseException | None] | None = None


@dataclass(eq=False)
class _Child:
    """A worker process, our end of its pipe, and the job it is at."""

    process: BaseProcess
    connection: Connection
    job: _Job | None = None


class Workers(Generic[Task, Outcome]):
    """A function over many tasks, ``count`` at a time; leaving the ``with`` block ends all processes.

    The children are forks: what the function refers to (models, sorted weights, sentences) is shared
    copy-on-write and never pickled; tasks and outcomes travel pickled. A child knows the memory of the moment
    when it was forked: the first map with more than one task, or later if it replaces another. So an outcome
    must follow from its task alone, not from earlier tasks nor from a random state that the task does not
    set; then ``count`` decides the time only. Children run one thread each; for the same floats in this
    process, set ``torch.set_num_threads(1)`` here, too.

    All tasks run in this process, one after the other, if ``count`` is 1, if there is only one, on other
    systems than Linux (Windows has no fork, and the system libraries of macOS may crash in one), and once
    torch has initialised CUDA, which no fork can use. Raises StudyError for a count below 1.
    """

    def __init__(self, function: Callable[[Task], Outcome], count: int):
        check_workers(count)
        self.function, self.count = function, count
        self._children: list[_Child] = []
        self._maps = 0

    def __enter__(self) -> "Workers[Task, Outcome]":
        return self

    def __exit__(self, *exception: object) -> None:
        self._end(list(self._children))

    def map(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Yield the outcomes in the order of the tasks, each as soon as those before it are there, too.

        An exception of the function is raised in the place of the outcome, with the child's traceback in a
        note. A child that dies is replaced and its task done again; the third time, StudyError is raised in
        the place of the outcome. If the caller stops reading, what still runs is given up. Raises
        RuntimeError if it is read on after a later map has begun.
        """
        self._maps = number = self._maps + 1
        self._end(self._busy())  # of an earlier map that nobody reads any more
        if self.count == 1 or len(tasks) < 2 or not _can_fork():
            for task in tasks:
                yield self.function(task)
            return
        jobs = [_Job(pickle.dumps(task)) for task in tasks]
        waiting = deque(jobs)
        try:
            for job in jobs:
                while job.answer is None:
                    if number != self._maps:
                        raise RuntimeError("a later map of these workers has begun: this one cannot go on")
                    self._hand_out(waiting)
                    self._collect(waiting)
                outcome, error = job.answer
                if error is not None:
                    raise error
                yield outcome
        finally:
            if number == self._maps:
                self._end(self._busy())

    def _busy(self) -> list[_Child]:
        return [child for child in self._children if child.job is not None]

    def _hand_out(self, waiting: deque[_Job]) -> None:
        """Give each idle child a job, after forking what is missing of them."""
        self._end([c for c in self._children if c.job is None and not c.process.is_alive()])
        idle = [c for c in self._children if c.job is None]
        while waiting and (idle or len(self._children) < self.count):
            child = idle.pop() if idle else self._fork()
            # Busy before it knows: if Ctrl-C comes in between, nobody takes its answer for another job's.
            child.job = waiting.popleft()
            with contextlib.suppress(OSError):  # one that has just died is found by waiting for its answer
                child.connection.send_bytes(child.job.message)

    def _collect(self, waiting: deque[_Job]) -> None:
        """Wait for children that answer or die; the jobs of the dead wait again, or are given up."""
        watched: dict[Any, _Child] = {}
        for child in self._busy():
            watched |= {child.connection: child, child.process.sentinel: child}
        for child in {watched[end] for end in wait(list(watched))}:
            job, message = child.job, None
            assert job is not None
            with contextlib.suppress(EOFError, OSError):
                if child.connection.poll():
                    message = child.connection.recv_bytes()
            if message is not None:
                child.job, job.answer = None, pickle.loads(message)
                continue
            self._end([child])
            job.deaths += 1
            if job.deaths < ATTEMPTS:
                waiting.appendleft(job)
                continue
            code = f"{child.process.exitcode} (-9: killed, mostly for want of memory)"
            problem = f"a task ended {ATTEMPTS} worker processes, the last with exit code {code}"
            job.answer = None, StudyError(f"{problem}: try fewer workers or smaller batches")

    def _fork(self) -> _Child:
        context = get_context("fork")
        ours, theirs = context.Pipe()
        # A child that kept the parent's end of any pipe would hide the parent's death from its siblings.
        inherited = [ours, *(child.connection for child in self._children)]
        process = context.Process(target=_serve, args=(self.function, theirs, inherited), daemon=True)
        with theirs, warnings.catch_warnings():
            # A lock that another thread holds now stays locked in the child. But the child needs none: it
            # computes with one thread, shows no progress and runs no search.
            warnings.filterwarnings("ignore", ".* is multi-threaded, use of fork", DeprecationWarning)
            try:
                process.start()
            except OSError as error:
                raise StudyError(f"no worker can be started ({error}): try fewer workers") from error
        self._children.append(child := _Child(process, ours))
        return child

    def _end(self, children: Sequence[_Child]) -> None:
        """Kill children, whatever they are at: they hold nothing that is worth saving."""
        for child in children:
            child.process.kill()
        for child in children:
            child.process.join()
            child.connection.close()
            self._children.remove(child)


def _can_fork() -> bool:
    import torch  # here and before the fork, so that no child has to load it

    return sys.platform == "linux" and not torch.cuda.is_initialized()


def _serve(function: Callable[[Any], Any], connection: Connection, inherited: Sequence[Connection]) -> None:
    """A child's life: answer tasks until the parent closes its end of the pipe or is gone."""
    import torch

    # a child at work would keep the lock of the cell's folder if the parent were killed
    die_with_parent()
    # Ctrl-C reaches every process of a terminal, but the parent ends the others; at SIGTERM a child just goes
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for end in inherited:
        end.close()
    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, OSError):
        while True:
            connection.send_bytes(_answer(function, connection.recv_bytes()))


def _answer(function: Callable[[Any], Any], message: bytes) -> bytes:
    """The pair of outcome and error, pickled."""
    try:
        return pickle.dumps((function(pickle.loads(message)), None))
    except BaseException as error:
        note = f"In a worker process:\n{traceback.format_exc()}"
        try:
            pickle.loads(pickle.dumps(error))  # some cannot be pickled, others not be read again
        except Exception:
            error = RuntimeError(f"{type(error).__name__}: {error}")
        error.add_note(note)
        return pickle.dumps((None, error))
