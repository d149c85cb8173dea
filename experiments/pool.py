"""Cells side by side on one machine: one process per core, one thread each."""

import functools
import logging
import multiprocessing
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from grouping.errors import StudyError
from harness.records import CellConfig, Result


@dataclass(frozen=True)
class Cell:
    """A cell to run: a name for the reader, where its inputs are, where its folder goes, its settings."""

    name: str
    checkpoint: Path
    corpus: Path
    out: Path
    settings: dict[str, Any] = field(hash=False)


class Done(NamedTuple):
    """A finished cell and its folder, which is named by what the cell is."""

    cell: Cell
    config: CellConfig
    folder: Path
    result: Result


def run_cells(cells: Sequence[Cell], jobs: int) -> Iterator[Done]:
    """Run cells and yield each as it is done; finished ones return at once.

    Cells of one model should stand together: a worker keeps the dense model it had last. The
    number of jobs decides the time only. A bar per cell is shown on a terminal. A cell that fails
    does not stop the others: StudyError names the failed ones at the end. Raises StudyError at
    once for less than one job and when a worker is killed.
    """
    if jobs < 1:
        raise StudyError(f"{jobs} jobs are not possible: give 1 or more")
    context = multiprocessing.get_context("spawn")
    shown = sys.stderr.isatty()
    slots = context.Queue()
    for position in range(jobs):
        slots.put(position)
    with ProcessPoolExecutor(
        jobs, context, initializer=_start_worker, initargs=(slots, context.RLock(), shown)
    ) as pool:
        running = {pool.submit(_run, cell): cell for cell in cells}
        failures = []
        try:
            for done in as_completed(running):
                try:
                    finished = done.result()
                except StudyError as error:
                    failures.append(f"{running[done].name}: {error}")
                    continue
                yield finished
        except BrokenProcessPool:
            raise StudyError("a worker was killed (out of memory?): run it again, it resumes") from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    if failures:
        raise StudyError(f"{len(failures)} of {len(cells)} cells failed: {'; '.join(failures)}")


_worker: dict[str, Any] = {}


def _start_worker(slots: Any, lock: Any, shown: bool) -> None:
    import torch

    # Ctrl-C reaches all processes of a terminal; the one that waits for the others ends them, in order
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    tqdm.set_lock(lock)
    _worker.update(position=slots.get(), shown=shown)


def _stop(number: int, frame: Any) -> None:
    """Give up the cell at hand; one that the pool has handed over already is not begun."""
    _worker["stopped"] = True
    sys.exit(number)


@functools.lru_cache(maxsize=1)
def _study(checkpoint: Path, corpus: Path) -> Any:
    from harness.cell import Study

    return Study.open(checkpoint, corpus)


def _run(cell: Cell) -> Done:
    from harness.cell import run_cell
    from harness.progress import SearchProgress
    from harness.record import cell_name

    if "stopped" in _worker:
        sys.exit()
    study = _study(cell.checkpoint, cell.corpus)
    config = study.config(**cell.settings)
    folder = cell.out / cell_name(config)
    with SearchProgress(config, not _worker["shown"], _worker["position"], cell.name) as progress:
        return Done(cell, config, folder, run_cell(study, config, folder, progress))


def shipped(name: str, models: Path) -> Path:
    """The shipped checkpoint of a baseline. Raises StudyError with the names there are."""
    path = models / f"{name}.pt"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in models.glob("*.pt"))) or "none"
        raise StudyError(
            f"no model {name!r} in {models}; known: {known}; train one with `make baselines`, "
            "then put it there with `make ship`"
        )
    return path
