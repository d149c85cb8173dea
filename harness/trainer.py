"""Processes that train, forked from one that has imported fairseq: that takes seconds.

The one they are forked from, ``python -m harness.trainer``, begins with the first training of a process and
ends with the process. It has computed nothing and uses no device, whatever the process has done before.
"""

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from harness.workers import die_with_parent

#: bytes of a request, at most
REQUEST = 1 << 16


class Training:
    """A process that trains. ``code`` is None while it does, then its exit code; negative: a signal."""

    def __init__(self, answers: Connection):
        self.code: int | None = None
        self._answers = answers

    def ended(self, seconds: float | None) -> bool:
        """Whether it has ended, after at most some seconds (None: however long it takes)."""
        if self.code is None and self._answers.poll(seconds):
            try:
                self.code = int(self._answers.recv())
            except EOFError:
                # it and what it is forked from hold the other end: both are dead
                self.code = -signal.SIGKILL
        return self.code is not None


@contextmanager
def training(job: Path, log: Path, environment: Mapping[str, str]) -> Iterator[Training]:
    """The training that a job describes (``harness.training.run``), begun; it has ended afterwards.

    What it says goes to the end of the log. ``environment`` is added to that of this process, of the moment
    when it began its first training. Raises OSError for a log that cannot be written.
    """
    request = {"job": str(job), "folder": os.getcwd(), "environment": dict(environment)}
    with _trainer(os.getpid()).begun(json.dumps(request).encode(), log) as begun:
        yield begun


@lru_cache(maxsize=1)
def _trainer(process: int) -> "Trainer":
    """That of this process, by its number: a fork of it has its own."""
    return Trainer(process)


class Trainer:
    """What trainings are forked from, one at a time: a process group, which any exception ends."""

    def __init__(self, process: int) -> None:
        self._of = process
        self._one_at_a_time = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None
        atexit.register(self.kill)

    @contextmanager
    def begun(self, request: bytes, log: Path) -> Iterator[Training]:
        """A training; killed where the block is left before its end."""
        with self._one_at_a_time:
            ours, theirs = Pipe(duplex=False)
            begun = Training(ours)
            try:
                with theirs, log.open("ab") as said:
                    self._send(request, [said.fileno(), theirs.fileno()])
                yield begun
            finally:
                if not begun.ended(0):
                    self.kill()
                    begun.ended(None)
                ours.close()

    def _send(self, request: bytes, files: list[int]) -> None:
        """Whoever cannot take it has died meanwhile, and is replaced."""
        for _ in range(2):
            if self._process is None or self._process.poll() is not None:
                self._start(files[0])
            assert self._requests is not None
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                socket.send_fds(self._requests, [request], files)
                return
            self.kill()

    def _start(self, log: int) -> None:
        # the modules of this process, and none of a folder that it happens to be in
        path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
        own = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        command = [sys.executable, "-P", "-m", "harness.trainer", str(os.getpid())]
        self._requests, theirs = socket.socketpair()
        with theirs:
            # Ctrl-C in a terminal reaches this process alone, which ends the group
            self._process = subprocess.Popen(
                command, stdin=theirs.fileno(), stdout=log, stderr=log, env=os.environ | own, process_group=0
            )

    def kill(self) -> None:
        """End it, and a training that it is at; a fork of the process that it is of leaves it alone."""
        if os.getpid() != self._of:
            return
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
        if self._requests is not None:
            self._requests.close()


def _serve(parent: int) -> None:
    """A trainer's life: a process for each request, and its exit code in return."""
    die_with_parent(parent)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with socket.socket(fileno=os.dup(sys.stdin.fileno())) as requests:
        while True:
            request, files, _, _ = socket.recv_fds(requests, REQUEST, 2)
            if not request:
                return
            log, answers = files
            _say_to(log)
            os.close(log)
            _import()
            with Connection(answers, readable=False) as caller:
                process = get_context("fork").Process(target=_train, args=(os.getpid(), json.loads(request)))
                process.start()
                # a log that is held open could not be removed from every file system
                _say_to(nowhere)
                process.join()
                caller.send(process.exitcode)


def _say_to(file: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(file, stream.fileno())


def _import() -> None:
    """What a training imports, but ``harness.training``: that reads the environment and changes fairseq."""
    from harness.model import import_fairseq

    import_fairseq()
    import fairseq_cli.train  # noqa: F401
    import torch._dynamo  # noqa: F401 (by the first optimizer)

    import harness.gradual
    import harness.retraining  # noqa: F401


def _train(parent: int, request: Mapping[str, Any]) -> None:
    """A training's life."""
    die_with_parent(parent)
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    from harness.training.run import main

    main(Path(request["job"]))


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
