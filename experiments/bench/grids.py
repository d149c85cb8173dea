"""Figures: what planning a large grid takes, and what a runner adds to each of its cells."""

import contextlib
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from experiments.bench.context import Context, figures
from experiments.bench.rows import Row
from experiments.executors import Options, run_local
from experiments.executors.local import Limits, LocalRun
from experiments.grid import Grid
from experiments.inputs import Inputs
from experiments.plan import Plan, PlannedCell, cells_of
from experiments.progress import Progress
from experiments.work import Work
from harness import records
from harness.record import Record, read
from harness.records import Evaluation, Result

CELLS = 200
PLANNED = 10_000


@dataclass(frozen=True)
class Copied(Work):
    """In place of a cell's work: the claim, the records and the result of a finished one, no search."""

    result: Path = Path()

    def run(self, cell: PlannedCell, notify: Callable[[Evaluation], None]) -> None:
        result = read(self.result, Result)
        with Record(self.grid.cell_folder(cell), cell.config) as record:
            record.finish(result)


def _cells(context: Context, scratch: Path, count: int) -> list[PlannedCell]:
    table = {"model": "rnnsearch", "seed": list(range(count)), "evaluations": 1, "final_beam": 1}
    plan = Plan(title="", corpus=context.corpus_folder, models=context.models, cells=[table])
    return cells_of(plan, Inputs(scratch / "checkpoints.json")).cells


@figures.register("cell_overhead")
def cell_overhead(context: Context) -> list[Row]:
    """Milliseconds per cell that a runner with one worker takes beside the search, its start apart."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        first, *cells = _cells(context, folder, CELLS + 1)
        real = Grid(folder / "real")
        run_local(real, [first], Options(jobs=1))
        grid = Grid(folder / "copied")
        work = Copied(grid, result=real.cell_folder(first) / records.RESULT)
        found = []
        for part in (cells[: CELLS // 2], cells[CELLS // 2 :]):
            with Progress(grid, len(part), 0, 1) as progress, contextlib.redirect_stdout(io.StringIO()):
                run = LocalRun(work, 1, Limits(), progress)
                run(part[:1])  # starts the process from which workers are forked
                started = time.perf_counter()
                run(part[1:])
                found.append(1000 * (time.perf_counter() - started) / (len(part) - 1))
    row: Row = {"id": "cell_overhead", "model": "rnnsearch", "rival": "nothing", "unit": "ms per cell"}
    row |= {"value": sum(found) / len(found), "low": min(found), "high": max(found)}
    return [row | context.provenance()]


@figures.register("plan_10000")
def plan_10000(context: Context) -> list[Row]:
    """Seconds that ``olmp plan`` takes for 10,000 cells, Python's start included."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "large.toml"
        path.write_text(
            f'title = "large"\ncorpus = "{context.corpus_folder.resolve()}"\n'
            f'models = "{context.models.resolve()}"\n[[cells]]\nmodel = "rnnsearch"\n'
            'grouping = ["single", "layer", "gate", "matrix", "stage"]\nsearch = ["NCS", "CMA"]\n'
            f"seed = {list(range(PLANNED // 10))}\n"
        )
        program = "from harness.cli import main; raise SystemExit(main())"
        command = [sys.executable, "-c", program, "plan", str(path), "--out", f"{scratch}/grid"]
        found = []
        for _ in range(3):
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            found.append(time.perf_counter() - started)
    row: Row = {"id": "plan_10000", "model": "rnnsearch", "rival": "nothing", "unit": "s"}
    row |= {"value": sorted(found)[1], "low": min(found), "high": max(found)}
    return [row | context.provenance()]
