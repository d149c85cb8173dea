"""Cells side by side on one machine: a process per core, one thread each, or by default one per GPU."""

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from experiments.plan import PlannedCell
from experiments.progress import Progress
from experiments.work import Outcome, Work
from grouping import StudyError
from harness.claim import Watch
from harness.workers import GPUS, die_with_parent

#: processes that one cell may take with it before it is given up; attempts to start one
ATTEMPTS = 3
#: seconds between two looks at limits, and at cells that another runner holds
LOOK, LOOK_AT_HELD = 0.5, 5.0


@dataclass(frozen=True)
class Limits:
    """What one cell may use: seconds of wall clock, and GB of memory (resident); None = no limit."""

    seconds: float | None = None
    memory_gb: float | None = None


@dataclass(eq=False)
class _Worker:
    """A process, our end of its pipe, its place on the screen, and the cell it is at."""

    process: BaseProcess
    connection: Connection
    slot: int
    cell: PlannedCell | None = None
    since: float = 0.0


@dataclass
class LocalRun:
    """Runs cells in worker processes; the outcome of a cell never depends on how many there are.

    ``gpus`` names the devices of which each worker gets one, in turn where there are more workers; empty for
    none.
    """

    work: Work
    jobs: int
    limits: Limits
    progress: Progress
    gpus: Sequence[str] = ()
    _workers: list[_Worker] = field(default_factory=list)
    _deaths: Counter[str] = field(default_factory=Counter)
    _watch: Watch = field(default_factory=Watch)
    _stop: str | None = None

    def __call__(self, cells: Iterable[PlannedCell]) -> None:
        """Run all cells that are neither done nor failed; wait for those that another runner holds.

        Raises StudyError when nothing can be written any more.
        """
        self._queue, self._held = deque(cells), list[PlannedCell]()
        looked = 0.0
        try:
            while self._queue or self._held or self._busy():
                self._hand_out()
                self._collect()
                self._enforce()
                if self._stop is not None:
                    raise StudyError(f"{self._stop} (the grid is stopped: run the same command, it resumes)")
                if self._held and time.monotonic() - looked > LOOK_AT_HELD:
                    looked = time.monotonic()
                    self._queue.extend(self._held)
                    self._held.clear()
        finally:
            self._end(list(self._workers))

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.cell is not None]

    def _hand_out(self) -> None:
        """Give each idle worker a cell that is still to be run."""
        self._end([w for w in self._workers if w.cell is None and not w.process.is_alive()])
        while self._queue and len(self._busy()) < self.jobs:
            cell = self._queue.popleft()
            folder = self.work.grid.cell_folder(cell)
            state = self.work.grid.state(cell)
            if state in ("done", "failed"):  # by another runner, meanwhile
                self.progress.ended(cell, Outcome(state, "while another process ran it"))
                continue
            if folder.exists() and self._watch.held(folder):
                self.progress.waiting(cell)
                self._held.append(cell)
                continue
            worker = next((w for w in self._workers if w.cell is None), None) or self._start()
            worker.cell, worker.since = cell, time.monotonic()
            self.progress.started(worker.slot, cell)
            with contextlib.suppress(OSError):  # one that has just died is found by waiting for its answer
                worker.connection.send(cell)

    def _collect(self) -> None:
        """Wait a moment for what workers have to tell; the cells of dead ones are run again."""
        ends: dict[Any, _Worker] = {}
        for worker in self._busy():
            ends |= {worker.connection: worker, worker.process.sentinel: worker}
        if not ends:
            time.sleep(LOOK if self._held and not self._queue else 0)
            return
        for worker in {id(ends[end]): ends[end] for end in wait(list(ends), LOOK)}.values():
            cell = worker.cell
            assert cell is not None
            try:
                while worker.connection.poll():
                    said = worker.connection.recv()
                    if not isinstance(said, Outcome):
                        self.progress.evaluated(worker.slot, said)
                        continue
                    worker.cell = None
                    self._ended(cell, said)
                    break  # what comes of the process from here on is no matter of this cell
            except (EOFError, OSError):
                self._died(worker, cell)

    def _ended(self, cell: PlannedCell, outcome: Outcome) -> None:
        if outcome.kind == "busy":
            self._held.append(cell)
        elif outcome.kind == "stop":
            self._stop = outcome.message
        else:
            self.progress.ended(cell, outcome)

    def _died(self, worker: _Worker, cell: PlannedCell) -> None:
        self._end([worker])
        self._deaths[cell.name] += 1
        if self._deaths[cell.name] < ATTEMPTS:
            self._queue.appendleft(cell)
            return
        code = worker.process.exitcode
        message = (
            f"its process died {ATTEMPTS} times, at last with exit code {code} "
            "(-9: killed, mostly for want of memory)"
        )
        self._ended(cell, self.work.failed(cell, "killed", message, time.monotonic() - worker.since))

    def _enforce(self) -> None:
        """End workers whose cell is beyond a limit."""
        for worker in self._busy():
            cell, seconds = worker.cell, time.monotonic() - worker.since
            assert cell is not None
            if self.limits.seconds is not None and seconds > self.limits.seconds:
                self._end([worker])
                message = f"took longer than the limit of {self.limits.seconds:g} s"
                self._ended(cell, self.work.failed(cell, "time", message, seconds))
            elif self.limits.memory_gb is not None and (used := _resident_gb(worker.process.pid)) > (
                self.limits.memory_gb
            ):
                self._end([worker])
                message = f"used {used:.2f} GB of memory, beyond the limit of {self.limits.memory_gb:g} GB"
                self._ended(cell, self.work.failed(cell, "memory", message, seconds))

    def _start(self) -> _Worker:
        # forked from one process that has imported everything and holds no threads: a worker starts at once
        context = get_context("forkserver")
        context.set_forkserver_preload(["experiments.preload"])
        ours, theirs = context.Pipe()
        slot = min(set(range(self.jobs)) - {worker.slot for worker in self._workers})
        gpu = self.gpus[slot % len(self.gpus)] if self.gpus else None
        process = context.Process(target=_serve, args=(self.work, theirs, gpu), daemon=True)
        with theirs:
            # Ctrl-C reaches all processes of a terminal, and the one they are forked from while it imports
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                _begin(process)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._workers.append(worker := _Worker(process, ours, slot))
        return worker

    def _end(self, workers: Sequence[_Worker]) -> None:
        """Kill workers: what they have evaluated is on the disk, and a claim of the dead does not hold."""
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()
            worker.connection.close()
            worker.cell = None
            self._workers.remove(worker)


def _begin(process: BaseProcess) -> None:
    """Start a process. The one that it is forked from may have been killed, and is replaced then."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return process.start()
        except (EOFError, OSError) as error:
            if attempt == ATTEMPTS:
                raise StudyError(f"no worker can be started ({error}): try fewer jobs") from error
            time.sleep(LOOK)


def _serve(work: Work, connection: Connection, gpu: str | None) -> None:
    """A worker's life: run cells until the runner closes its end of the pipe or is gone."""
    if gpu is not None:
        os.environ[GPUS] = gpu  # torch has not asked for devices yet
    import torch

    die_with_parent()  # which is the process that we are forked from
    threading.Thread(target=_die_with_runner, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner ends the others
    logging.disable(logging.INFO)
    torch.set_num_threads(1)

    def tell(said: Any) -> None:
        try:
            connection.send(said)
        except OSError:  # the runner is gone, which is no failure of the cell
            sys.exit()

    with contextlib.suppress(EOFError, OSError):
        while True:
            tell(work(connection.recv(), tell))


def _die_with_runner() -> None:
    """Kill this process when the runner is gone, whatever the process is at.

    The one that it is forked from does not go with the runner: it lives as long as any of its own does.
    """
    if (runner := parent_process()) is not None:
        runner.join()
        os.kill(os.getpid(), signal.SIGKILL)


def _resident_gb(pid: int | None) -> float:
    """Resident memory of a process; 0 where it cannot be known."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e9


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, by what CUDA calls them. Raises StudyError if there is none."""
    from torch.cuda import device_count

    count, chosen = device_count(), os.environ.get(GPUS)
    found = [str(i) for i in range(count)] if chosen is None else chosen.split(",")[:count]
    if not found:
        raise StudyError(
            "the plan wants a GPU (device, training_device) and there is none here: run it where one is, "
            "or say cpu"
        )
    return found
