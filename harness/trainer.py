"""Processes that train, forked from one that has imported fairseq: that takes seconds.

The one they are forked from, ``python -m harness.trainer``, begins with the first training of a process and
ends with the process. It has computed nothing and uses no device, whatever the process has done before.
"""

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import IO, Any

from harness.workers import die_with_parent


@dataclass
class Training:
    """A process that trains. ``code`` is None while it does, then its exit code."""

    number: int
    code: int | None
    _trainer: subprocess.Popen[bytes]

    def ended(self, seconds: float) -> bool:
        """Whether it has ended, after at most some seconds."""
        assert self._trainer.stdout is not None
        if self.code is None and select.select([self._trainer.stdout], [], [], seconds)[0]:
            self._take_code()
        return self.code is not None

    def kill(self) -> None:
        """End it if it has not, whatever it is at."""
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.number, signal.SIGKILL)
            self._take_code()

    def _take_code(self) -> None:
        code = _answer(self._trainer)
        # nobody answers where all have been killed
        self.code = -signal.SIGKILL if code is None else code


def start(job: Path, log: Path, environment: Mapping[str, str]) -> Training:
    """Begin the training that a job describes (``harness.training.run``), as fairseq-train would.

    What it says goes to the end of the log. ``environment`` is added to that of this process, of the moment
    when it began its first training.
    """
    log.touch()
    trainer = _trainer(os.getpid())
    if trainer.poll() is not None:
        _trainer.cache_clear()
        trainer = _trainer(os.getpid())
    request = {"job": str(job), "log": str(log), "folder": os.getcwd(), "environment": dict(environment)}
    assert trainer.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has died, and does not answer
        trainer.stdin.write(json.dumps(request).encode() + b"\n")
    number = _answer(trainer)
    return Training(0, trainer.wait(), trainer) if number is None else Training(number, None, trainer)


@lru_cache(maxsize=1)
def _trainer(process: int) -> subprocess.Popen[bytes]:
    """What the trainings of this process are forked from, by its number: a fork of it starts another one."""
    command = [sys.executable, "-m", "harness.trainer", str(process)]
    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
    trainer = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | one_thread, **pipes)
    atexit.register(trainer.kill)
    return trainer


def _answer(trainer: subprocess.Popen[bytes]) -> int | None:
    """The next line that it writes; None if it is dead."""
    assert trainer.stdout is not None
    try:
        return int(line) if (line := trainer.stdout.readline()) else None
    except BaseException:
        trainer.kill()  # the next one would be given an answer that was not for it
        raise


def _serve(parent: int) -> None:
    """A trainer's life: a process for each line of standard input; its number and exit code in return."""
    die_with_parent(parent)
    # Ctrl-C reaches every process of a terminal, but the parent ends the others
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    # not to standard output, where whatever is imported may say something
    with open(os.dup(sys.stdout.fileno()), "w") as answers:
        for line in sys.stdin:
            request = json.loads(line)
            log = os.open(Path(request["folder"], request["log"]), os.O_WRONLY | os.O_APPEND)
            _say_to(log)
            os.close(log)
            _import()
            process = get_context("fork").Process(target=_train, args=(os.getpid(), request, answers))
            process.start()
            # a log that is held open could not be removed from every file system
            _say_to(nowhere)
            print(process.pid, file=answers, flush=True)
            process.join()
            print(process.exitcode, file=answers, flush=True)


def _say_to(file: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(file, stream.fileno())


def _import() -> None:
    """What a training imports, but ``harness.training``: that reads the environment and changes fairseq."""
    import fairseq_cli.train  # noqa: F401
    import torch._dynamo  # noqa: F401 (by the first optimizer)

    import harness.gradual
    import harness.retraining  # noqa: F401
    from harness.model import import_fairseq

    import_fairseq()


def _train(parent: int, request: Mapping[str, Any], answers: IO[str]) -> None:
    """A training's life."""
    die_with_parent(parent)
    answers.close()
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    from harness.training.run import main

    main(Path(request["job"]))


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
