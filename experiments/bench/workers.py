"""Processes that load a program once and then do what they are told, side by side, with their times."""

import logging
import multiprocessing
import os
import pkgutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NamedTuple

from grouping.errors import StudyError

#: what steers the threads of OpenMP, its makers' libraries and CTranslate2; none of it is inherited
THREADING = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "DNNL_", "ONEDNN_", "CT2_")
#: seconds that a process may take to end by itself, so that it can let go of what it holds
PATIENCE = 20
KILLED = "a process of the benchmark was killed (out of memory?): run it again"


@dataclass(frozen=True)
class Layout:
    """How a program is spread over the cores.

    ``processes`` of the operating system, each with ``inner`` translators of ``threads`` threads.
    """

    processes: int
    threads: int
    inner: int = 1


class Timed(NamedTuple):
    """What all processes answered to one call, and how long the call took them together, in seconds."""

    answers: list[Any]
    seconds: float


class Workers:
    """One object in each of several processes; ``call`` calls a method in all at once.

    ``engine`` is ``module:class``, imported in the processes only, whose threads are set by then. Raises
    StudyError if loading fails for a reason the user can change, or a process is killed.
    """

    def __init__(self, engine: str, settings: dict[str, Any], layout: Layout) -> None:
        context = multiprocessing.get_context("spawn")
        self._processes: list[Any] = []
        self._pipes: list[Connection] = []
        try:
            with _environment(layout.threads):
                for _ in range(layout.processes):
                    pipe, theirs = context.Pipe()
                    process = context.Process(
                        target=_serve, args=(theirs, engine, settings, layout), daemon=True
                    )
                    process.start()
                    theirs.close()
                    self._processes.append(process)
                    self._pipes.append(pipe)
            for pipe in self._pipes:
                _answer(pipe)
        except BaseException:
            self.close()
            raise

    def call(self, method: str, *arguments: Sequence[Any]) -> Timed:
        """Call ``method``; each of ``arguments`` holds one value for each process.

        The time runs from the first process that begins to the last that ends, on their common
        clock; handing over arguments and answers is not in it.
        """
        for i, pipe in enumerate(self._pipes):
            try:
                pipe.send((method, [values[i] for values in arguments]))
            except OSError:
                raise StudyError(KILLED) from None
        answers, starts, ends = zip(*[_answer(pipe) for pipe in self._pipes], strict=True)
        return Timed(list(answers), max(ends) - min(starts))

    def close(self) -> None:
        """End the processes, also in the middle of a call."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """The threads of processes started meanwhile; libraries read this when they are loaded."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(THREADING):
            del os.environ[name]
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _answer(pipe: Connection) -> Any:
    try:
        kind, answer = pipe.recv()
    except (EOFError, ConnectionResetError):
        raise StudyError(KILLED) from None
    if kind == "user":
        raise StudyError(answer)
    if kind == "bug":
        raise RuntimeError(f"in a process of the benchmark:\n{answer}")
    return answer


def _serve(pipe: Connection, engine: str, settings: dict[str, Any], layout: Layout) -> None:
    """What a process does: load, then answer until the other end of the pipe is closed."""
    # Ctrl-C reaches all processes of a terminal; the one that waits for the others ends them
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit())
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    try:
        served = pkgutil.resolve_name(engine)(layout=layout, **settings)
        pipe.send(("done", None))
        while True:
            method, arguments = pipe.recv()
            start = time.monotonic()
            answer = getattr(served, method)(*arguments)
            end = time.monotonic()
            pipe.send(("done", (answer, start, end)))
    except (EOFError, BrokenPipeError):
        # the one that asked is gone; what it sends now would only interrupt the ending
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except StudyError as error:
        pipe.send(("user", str(error)))
    except Exception:
        pipe.send(("bug", traceback.format_exc()))
