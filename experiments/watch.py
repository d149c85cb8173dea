"""A running grid at a glance: what is done, what is running, the best so far, and when it will end."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import attrgetter
from pathlib import Path
from statistics import median
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from experiments.cost import Memory, estimate
from experiments.grid import Grid, State, counted
from experiments.plan import PlannedCell
from grouping import StudyError
from harness import records
from harness.record import read
from harness.records import Failure, Result

#: cells that end a grid
ENDED: tuple[State, ...] = ("done", "failed")
#: columns that are there only where a cell of the grid sets them
OPTIONAL = ("sparsity", "schedule", "round_tolerance")
#: failures that are named; the others are counted
NAMED = 5


class Place(NamedTuple):
    """What the cells of a row have in common, as it is shown; the schedule one-shot is not said."""

    model: str
    search: str
    grouping: str
    tolerance: str
    sparsity: str
    schedule: str
    round_tolerance: str

    @classmethod
    def of(cls, cell: PlannedCell) -> "Place":
        config = cell.config
        sparsity = "" if config.sparsity is None else f"{config.sparsity:g}"
        schedule = "" if config.schedule == "one-shot" else config.schedule
        loose = "" if config.round_tolerance is None else f"{config.round_tolerance:g}"
        named = cell.model, config.search, config.grouping, f"{config.tolerance:g}"
        return cls(*named, sparsity, schedule, loose)


@dataclass
class Watch:
    """Looks at a grid's folder again and again; what does not change any more is read once."""

    grid: Grid
    _results: dict[str, Result | None] = field(default_factory=dict)
    _spent: Memory = field(default_factory=dict)
    _left: tuple[int, float] = (-1, 0.0)

    def look(self) -> "View":
        """How the grid is now. Raises StudyError where there is none."""
        cells = self.grid.planned()
        states = {cell.name: self.grid.state(cell) for cell in cells}
        for cell in cells:
            if states[cell.name] == "done" and cell.name not in self._results:
                self._results[cell.name] = self._read(cell)
        return View(self.grid, cells, states, self._results, self._hours(cells, states))

    def _read(self, cell: PlannedCell) -> Result | None:
        try:
            return read(self.grid.cell_folder(cell) / records.RESULT, Result)
        except StudyError:
            return None  # `olmp verify` says what is wrong with it

    def _hours(self, cells: list[PlannedCell], states: dict[str, State]) -> float:
        """Cell-hours that are left, as finished cells took; 0 where nothing is known."""
        done = list(states.values()).count("done")
        if done != self._left[0]:
            hours = 0.0
            with contextlib.suppress(StudyError):  # without the text there is no guess
                found = estimate(self.grid, cells, self._spent)
                hours = found.hours if found.measured else 0.0
            self._left = done, hours
        return self._left[1]


@dataclass(frozen=True)
class View:
    """A grid at one moment."""

    grid: Grid
    cells: list[PlannedCell]
    states: dict[str, State]
    results: dict[str, Result | None]
    hours: float

    @property
    def ended(self) -> bool:
        """Whether every cell is done or has failed."""
        return all(state in ENDED for state in self.states.values())

    def render(self, now: datetime) -> RenderableType:
        """All of it, for a terminal of any width."""
        return Group(*self._parts(now))

    def _parts(self, now: datetime) -> Iterator[RenderableType]:
        counts = counted(list(self.states.values()))
        said = ", ".join(f"{number} {state}" for state, number in counts.items())
        yield Text(f"{self.grid.title()}: {said} of {len(self.cells)} cells", style="bold")
        ended = sum(counts.get(state, 0) for state in ENDED)
        bar = Table.grid()
        bar.add_row(ProgressBar(total=max(len(self.cells), 1), completed=ended, width=60))
        yield bar
        yield Text(self._end(now, counts.get("running", 0)))
        yield from self._best()
        yield from self._running()
        yield from self._failures()

    def _end(self, now: datetime, running: int) -> str:
        if self.ended:
            return "all cells have ended"
        if not running:
            return "nothing is running: `olmp grid` goes on where it was"
        if not self.hours:
            return "when it will end is not known before a cell of each model is done"
        hours = self.hours / running
        end = now + timedelta(hours=hours)
        return f"about {hours:.1f} hours more with {running} side by side: {end:%a %d %b %H:%M}"

    def _best(self) -> Iterator[RenderableType]:
        """The best so far; what has neither a result nor a failure yet is only counted."""
        members: dict[Place, list[PlannedCell]] = defaultdict(list)
        for cell in self.cells:
            members[Place.of(cell)].append(cell)
        set_somewhere = [name for name in OPTIONAL if any(map(attrgetter(name), members))]
        fields = [name for name in Place._fields if name not in OPTIONAL or name in set_somewhere]
        table = Table(*fields, box=None, pad_edge=False)
        for name in ("done", "failed", "smallest", "median", "test drop"):
            table.add_column(name, justify="right")
        rows = [
            self._row(key.model, [getattr(key, name) for name in fields], found)
            for key, found in members.items()
        ]
        begun = sorted(row for row in rows if row is not None)
        for _, row in begun:
            table.add_row(*row)
        if begun:
            yield table
        if waiting := len(rows) - len(begun):
            yield Text(f"{waiting} more of {len(rows)} groupings and rules have no result yet")

    def _row(
        self, model: str, place: list[str], cells: list[PlannedCell]
    ) -> tuple[tuple[str, float], tuple[str, ...]] | None:
        """A row and what rows are sorted by, smallest first within a model; None before there is any news."""
        found = [result for cell in cells if (result := self.results.get(cell.name)) is not None]
        failed = sum(self.states[cell.name] == "failed" for cell in cells)
        counts = f"{len(found)}/{len(cells)}", str(failed or "")
        if not found:
            return ((model, 1.0), (*place, *counts, "", "", "")) if failed else None
        best = min(found, key=lambda result: result.remaining)
        middle = median(result.remaining for result in found)
        sizes = f"{best.remaining:.1%}", f"{middle:.1%}", f"{best.sets['test'].drop:.2f}"
        return (model, middle), (*place, *counts, *sizes)

    def _running(self) -> Iterator[RenderableType]:
        for cell in self.cells:
            if self.states[cell.name] == "running":
                path = self.grid.cell_folder(cell) / records.EVALUATIONS
                searched, judged = _lines(path)
                told = f"{searched} of {cell.config.evaluations} evaluations"
                if judged:
                    told += f", {judged} more to confirm what was found"
                yield Text(f"running: {cell.name}: {told}")

    def _failures(self) -> Iterator[RenderableType]:
        failed = [cell for cell in self.cells if self.states[cell.name] == "failed"]
        for cell in failed[:NAMED]:
            path = self.grid.cell_folder(cell) / records.FAILURE
            yield Text(f"failed: {cell.name}: {reason(path)}", style="red")
        if len(failed) > NAMED:
            yield Text(f"failed: {len(failed) - NAMED} more, `olmp status` names them", style="red")


def watch(grid: Grid, seconds: float) -> Iterator[View]:
    """A look every so many seconds, until all cells have ended."""
    watching = Watch(grid)
    while True:
        view = watching.look()
        yield view
        if view.ended:
            return
        time.sleep(seconds)


def reason(path: Path) -> str:
    """Why a cell has failed, in one line."""
    try:
        failure = read(path, Failure)
    except StudyError as error:
        return str(error)
    return f"{failure.reason}: {' '.join(failure.message.split())}"


def _lines(path: Path) -> tuple[int, int]:
    """Evaluations of a running cell: those that its budget counts, and those that judge what it found."""
    try:
        lines = path.read_bytes()
    except OSError:
        return 0, 0
    judged = lines.count(b'"stage":"exact"') + lines.count(b'"stage":"confirm"')
    return lines.count(b"\n") - judged, judged
