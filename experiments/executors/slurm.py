"""Cells in jobs of a SLURM cluster, through submitit.

Jobs are submitted in arrays and nothing waits for them: a cell's folder says what became of it, and what
is still in the queue is asked from the cluster. A job that runs out of time or is preempted is queued
again and goes on where its cells were. Each array has a folder below ``slurm``, named as the cluster names
its jobs, where ``cells.json`` lists the cells of each job.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from submitit import AutoExecutor
from submitit.helpers import Checkpointable
from tqdm import tqdm

from experiments.executors import Options, forget_failures, left, run_local
from experiments.grid import Grid
from experiments.plan import PlannedCell
from grouping import StudyError
from harness.files import write_json

CELLS = "cells.json"
#: seconds between two looks at the queue
LOOK = 2.0
#: tasks of an array where the cluster does not say how many it takes; SLURM's own default
ARRAY = 1001


class Site(BaseModel):
    """What jobs ask of a cluster; the file given with ``--site`` holds the fields that differ."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    minutes: int = Field(240, ge=1, description="time limit of a job; one that needs more is queued again")
    memory_gb: float = Field(4.0, gt=0, description="of a job")
    cpus: int = Field(1, ge=1, description="cells of a job that run side by side")
    gpus: int = Field(0, ge=0, description="of a job; with any, as many cells run side by side")
    cells_per_job: int = Field(1, ge=1, description="cells that one job runs, one after the other")
    jobs_at_once: int | None = Field(None, ge=1, description="of one array; null = what the cluster allows")
    warning_seconds: int = Field(90, ge=1, description="before its time limit a job is told to stop")
    requeues: int = Field(100, ge=0, description="how often a job may run out of time")
    setup: list[str] = Field([], description="shell lines before Python starts, such as module load …")
    environment: dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")], str] = {}
    options: dict[str, str | int | bool] = Field({}, description="further options of sbatch, by long name")


@dataclass
class Batch(Checkpointable):
    """The cells of one job. SLURM may run it again at any time: what is done is not done again."""

    grid: Grid
    cells: Sequence[PlannedCell]
    options: Options

    def __call__(self) -> None:
        """Run the cells; raises StudyError if one has failed."""
        run_local(self.grid, self.cells, self.options)


class Submitted(NamedTuple):
    """A job: its number (``12_3`` in an array), what it is called, and its cells."""

    job: str
    name: str
    cells: list[str]


def read_site(path: Path) -> Site:
    """The site file. Raises StudyError for one that is not sound."""
    try:
        return Site(**tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StudyError(f"site {path} cannot be read: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StudyError(
            f"site {path}: {where}: {first['msg']}; allowed are {', '.join(Site.model_fields)}"
        ) from None


def submit(grid: Grid, cells: Sequence[PlannedCell], options: Options) -> None:
    """Submit the cells that are to be run and not in the queue yet; wait for them with ``options.wait``.

    Raises StudyError where there is no SLURM, and when the cluster refuses.
    """
    site = options.site or Site.model_validate({})
    queued = {name for job in in_queue(grid) for name in job.cells}
    waiting = [cell for cell in left(grid, cells, options) if cell.name not in queued]
    needs_gpu = any(cell.config.uses_gpu for cell in waiting)
    if needs_gpu and not site.gpus:
        raise StudyError(
            "the plan wants a GPU (device, training_device): say in --site how many gpus a job gets"
        )
    forget_failures(grid, waiting)
    # a job that is queued again shall not try again what has failed meanwhile
    runs = replace(options, jobs=site.gpus or site.cpus, site=None, wait=False, retry_failed=False)
    size = site.cells_per_job
    batches = [Batch(grid, waiting[i : i + size], runs) for i in range(0, len(waiting), size)]
    largest = array_limit()
    for start in range(0, len(batches), largest):
        part = batches[start : start + largest]
        jobs = _submit_array(grid, part, site)
        print(f"{len(part)} jobs with {sum(len(b.cells) for b in part)} cells: {jobs[0]} … {jobs[-1]}")
    if not batches:
        print(f"nothing to submit: {len(queued)} cells are in the queue, the others are done or failed")
    if options.wait:
        wait(grid, cells)
    else:
        print(f"`olmp status {grid.folder}` says how it goes")


def _submit_array(grid: Grid, batches: Sequence[Batch], site: Site) -> list[str]:
    """Submit one array; returns the numbers of its jobs."""
    name = f"olmp-{uuid.uuid4().hex[:8]}"
    # a folder of its own: submitit names files by job number, which a cluster may count from 1 again
    folder = grid.slurm_folder / name
    folder.mkdir(parents=True)
    # before anything is in the queue: whoever is killed in between leaves no jobs that nobody knows
    write_json(folder / CELLS, [[cell.name for cell in batch.cells] for batch in batches])
    executor = AutoExecutor(folder=folder, cluster="slurm", slurm_max_num_timeout=site.requeues)
    exports = [f"export {key}={shlex.quote(value)}" for key, value in site.environment.items()]
    asked: dict[str, Any] = {
        "name": name,
        "timeout_min": site.minutes,
        "mem_gb": site.memory_gb,
        "cpus_per_task": max(site.cpus, site.gpus),
        "gpus_per_node": site.gpus or None,
        "slurm_partition": site.partition,
        "slurm_account": site.account,
        "slurm_qos": site.qos,
        "slurm_setup": [*site.setup, *exports],
        "slurm_array_parallelism": site.jobs_at_once or len(batches),
        "slurm_signal_delay_s": site.warning_seconds,
        "slurm_additional_parameters": {"requeue": True, **site.options},
    }
    executor.update_parameters(**{key: value for key, value in asked.items() if value is not None})
    try:
        # the batches themselves, not a function over them: submitit queues again what has a checkpoint method
        jobs = executor.submit_array(batches)
    except Exception as error:  # submitit has its own for what sbatch says
        raise StudyError(f"the cluster takes no jobs: {' '.join(str(error).split())}") from error
    return [job.job_id for job in jobs]


def in_queue(grid: Grid) -> list[Submitted]:
    """The jobs of a grid that wait or run, as the cluster says. Raises StudyError where there is no SLURM."""
    said = _ask("squeue", "-h", "-r", "-t", "all", "-o", "%i|%j|%T")
    over = re.compile("COMPLETED|CANCELLED|FAILED|TIMEOUT|DEADLINE|OUT_OF_MEMORY|BOOT_FAIL")
    found, cells = [], {path.parent.name: path for path in grid.slurm_folder.glob(f"*/{CELLS}")}
    for job, task, name, state in re.findall(r"^(\d+)_?(\d*)\|(olmp-\w+)\|(\w+)", said, re.M):
        if name in cells and not over.match(state):
            # an array of one job is none, so that it has no number in it
            names = json.loads(cells[name].read_text(encoding="utf-8"))[int(task or 0)]
            found.append(Submitted(f"{job}_{task}" if task else job, name, names))
    return found


def cancel(grid: Grid) -> int:
    """Take all jobs of a grid out of the queue. Returns how many there were."""
    jobs = in_queue(grid)
    if jobs:
        _ask("scancel", *(job.job for job in jobs))
    return len(jobs)


def wait(grid: Grid, cells: Sequence[PlannedCell]) -> None:
    """Until no job of the grid is left. Raises StudyError if cells have no result then."""
    with tqdm(total=len(cells), unit="cell", disable=not sys.stderr.isatty(), dynamic_ncols=True) as bar:
        while True:
            alive = in_queue(grid)  # before the states: what ends in between is seen the next time
            states = [grid.state(cell) for cell in cells]
            bar.update(sum(state in ("done", "failed") for state in states) - bar.n)
            if not alive:
                break
            time.sleep(LOOK)
    if missing := sum(state != "done" for state in states):
        raise StudyError(
            f"{missing} of {len(cells)} cells have no result: `olmp status {grid.folder}` says why, "
            f"{grid.slurm_folder} holds what the jobs printed; run the same command again, it resumes"
        )


def array_limit() -> int:
    """How many tasks the cluster takes in one array."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _ask("scontrol", "show", "config"), re.M)
    return max(1, int(found[1])) if found else ARRAY


def _ask(*command: str) -> str:
    if shutil.which(command[0]) is None:
        raise StudyError(f"there is no SLURM here ({command[0]} is not found): try --executor local")
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except subprocess.CalledProcessError as error:
        raise StudyError(f"{command[0]} failed: {' '.join(error.stderr.split())}") from None
