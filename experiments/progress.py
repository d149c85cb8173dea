"""What a running grid shows: a bar for the grid, one for each running cell, a line for each that ended."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING

from tqdm import tqdm

from experiments.grid import Grid
from experiments.plan import PlannedCell
from harness import records
from harness.record import read
from harness.records import Evaluation, Result

if TYPE_CHECKING:
    from experiments.work import Outcome


class Progress:
    """Bars on standard error if that is a terminal; lines on standard output."""

    def __init__(self, grid: Grid, total: int, done: int, jobs: int):
        """``done`` of ``total`` cells were finished before."""
        self._grid, self._total, self._done = grid, total, done
        self._quiet = not sys.stderr.isatty()
        self._waiting: set[str] = set()
        self._bar = self._new(0, total=total, initial=done, unit="cell", desc="grid")
        self._cells = {slot: self._new(slot + 1, unit="eval") for slot in range(jobs)}
        self._best = dict.fromkeys(self._cells, 1.0)

    def _new(self, position: int, **options: object) -> tqdm:
        return tqdm(position=position, disable=self._quiet, dynamic_ncols=True, leave=False, **options)

    def started(self, slot: int, cell: PlannedCell) -> None:
        bar = self._cells[slot]
        bar.reset(total=cell.config.evaluations)
        bar.set_description_str(f"{cell.model} {cell.config.grouping} {cell.config.search}")
        self._best[slot] = 1.0

    def evaluated(self, slot: int, evaluation: Evaluation) -> None:
        bar = self._cells[slot]
        if evaluation.stage in ("exact", "confirm"):
            bar.set_postfix_str(f"confirming {evaluation.size:.1%} remaining")
            return
        if evaluation.feasible:
            self._best[slot] = min(self._best[slot], evaluation.size)
        bar.set_postfix_str(f"smallest feasible {self._best[slot]:.1%}")
        bar.update()

    def waiting(self, cell: PlannedCell) -> None:
        """Another runner holds the cell."""
        if cell.name not in self._waiting:
            self._waiting.add(cell.name)
            tqdm.write(f"waiting for {cell.name}: another process runs it", file=sys.stderr)

    def ended(self, cell: PlannedCell, outcome: "Outcome") -> None:
        self._done += 1
        self._bar.update()
        where = f"[{self._done}/{self._total}] {cell.name}: "
        if outcome.kind == "failed":
            tqdm.write(f"{where}FAILED: {' '.join(outcome.message.split())}", file=sys.stdout)
            return
        result = read(self._grid.cell_folder(cell) / records.RESULT, Result)
        test = result.sets["test"]
        said = f"{result.remaining:.1%} remaining, test {test.dense_bleu:.2f} → {test.bleu:.2f}"
        tqdm.write(where + said, file=sys.stdout)
        sys.stdout.flush()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for bar in (*self._cells.values(), self._bar):
            bar.close()
