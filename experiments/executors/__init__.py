"""Where the cells of a grid run: in this process, on the cores of this machine, or on a SLURM cluster."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.grid import Grid
from experiments.plan import PlannedCell
from experiments.work import Work
from grouping import Registry, StudyError
from harness import records
from harness.workers import cores

if TYPE_CHECKING:
    from experiments.executors.slurm import Site


@dataclass(frozen=True)
class Options:
    """What the user may say about running a grid; none of it changes a result.

    ``jobs`` cells run side by side (None = one per core or GPU); ``seconds`` and ``memory_gb`` limit each.
    """

    jobs: int | None = None
    seconds: float | None = None
    memory_gb: float | None = None
    retry_failed: bool = False
    trust: bool = False
    trackers: tuple[str, ...] = ()
    keep_checkpoints: bool = False
    site: "Site | None" = None
    wait: bool = False

    def work(self, grid: Grid) -> Work:
        """What runs one cell, wherever that is."""
        return Work(grid, self.trust, self.trackers, self.keep_checkpoints)


Executor = Callable[[Grid, Sequence[PlannedCell], Options], None]
executors: Registry[Executor] = Registry("executor", "olmp.executors")


def left(grid: Grid, cells: Sequence[PlannedCell], options: Options) -> list[PlannedCell]:
    """The cells that are to be run; failed ones only if they are to be tried again."""
    done = {"done"} if options.retry_failed else {"done", "failed"}
    return [cell for cell in cells if grid.state(cell) not in done]


def forget_failures(grid: Grid, cells: Sequence[PlannedCell]) -> None:
    """Let cells that are tried again count as not run yet."""
    for cell in cells:
        (grid.cell_folder(cell) / records.FAILURE).unlink(missing_ok=True)


@executors.register("local")
def run_local(grid: Grid, cells: Sequence[PlannedCell], options: Options) -> None:
    """On this machine, side by side. Raises StudyError at the end if cells have failed."""
    from experiments.executors.local import Limits, LocalRun, visible_gpus
    from experiments.progress import Progress

    waiting = left(grid, cells, options)
    forget_failures(grid, waiting)
    there = [cell.config.uses_gpu for cell in waiting]
    gpus = visible_gpus() if any(there) else []
    jobs = options.jobs or (len(gpus) if waiting and all(there) else cores())
    work = options.work(grid)
    with Progress(grid, len(cells), len(cells) - len(waiting), jobs) as progress:
        LocalRun(work, jobs, Limits(options.seconds, options.memory_gb), progress, gpus)(waiting)
    # those that had failed before count, too: a rerun that leaves them alone is no success
    refuse_failed(grid, cells)


def refuse_failed(grid: Grid, cells: Sequence[PlannedCell]) -> None:
    """Raise StudyError if cells have failed."""
    if failed := sum(grid.state(cell) == "failed" for cell in cells):
        raise StudyError(
            f"{failed} of {len(cells)} cells failed: `olmp status {grid.folder}` says why, "
            "--retry-failed tries them again"
        )


@executors.register("debug")
def run_debug(grid: Grid, cells: Sequence[PlannedCell], options: Options) -> None:
    """In this process, one after the other; the first error comes through with its traceback."""
    import torch

    from experiments.progress import Progress
    from experiments.work import Outcome

    torch.set_num_threads(1)
    waiting = left(grid, cells, options)
    work = options.work(grid)
    with Progress(grid, len(cells), len(cells) - len(waiting), 1) as progress:
        for cell in waiting:
            progress.started(0, cell)
            work.run(cell, lambda evaluation: progress.evaluated(0, evaluation))
            progress.ended(cell, Outcome("done"))


@executors.register("slurm")
def run_slurm(grid: Grid, cells: Sequence[PlannedCell], options: Options) -> None:
    """On a SLURM cluster, through submitit; returns when the jobs are submitted."""
    from experiments.executors.slurm import submit

    submit(grid, cells, options)
