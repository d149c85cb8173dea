"""The folder of a grid: the plan, a folder per cell, and what the cells share.

::

    plan.json             the cells that are planned, and those that are skipped, with the reason
    cells/<model>/<cell>  the folders of the cells
    dense/                translations of the dense models
    slurm/                jobs that were submitted, and what they printed
    .checkpoints.json     what is known of checkpoints that were read (``experiments/inputs.py``)
    runs.parquet, evaluations.parquet, sentences.parquet, schema.json   what ``olmp collect`` gathers
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from experiments.plan import Cells, PlannedCell
from grouping import StudyError
from harness import records
from harness.claim import claimed
from harness.configuration import CellConfig
from harness.files import write_text
from harness.records import SCHEMA_VERSION

PLAN = "plan.json"
MEMORY = ".checkpoints.json"
#: what to do about a plan that cannot be read
ANEW = "remove it, `olmp grid` with the same plan and --out writes it anew, and finished cells stay"
State = Literal["done", "failed", "running", "interrupted", "planned"]


class _Written(BaseModel):
    """A cell in plan.json."""

    model_config = ConfigDict(extra="forbid")

    name: str
    model: str
    checkpoint: Path
    corpus: Path
    config: CellConfig


@dataclass(frozen=True)
class Grid:
    """A grid on the disk; nothing is read before it is asked for.

    ``known`` are names of cells that count as done, wherever their folders are.
    """

    folder: Path
    known: frozenset[str] = frozenset()

    @property
    def cells_folder(self) -> Path:
        return self.folder / "cells"

    @property
    def dense_folder(self) -> Path:
        """Where the dense models' translations are shared."""
        return self.folder / "dense"

    @property
    def slurm_folder(self) -> Path:
        return self.folder / "slurm"

    @property
    def memory(self) -> Path:
        """Where it is remembered what checkpoints are."""
        return self.folder / MEMORY

    @property
    def begun(self) -> bool:
        """Whether the folder is a grid's: it has a plan, or cells."""
        if any(self.cells_folder.glob(f"*/*/{records.CONFIG}")):
            return True
        try:
            return isinstance(self._plan().get("cells"), list)
        except StudyError:
            return False

    def refuse_foreign(self) -> None:
        """Raise StudyError for a folder that holds something else, before anything is written into it."""
        if not self.folder.is_dir() or self.begun:
            return
        # what begins with a dot may be a plan that was cut off while it was written
        if found := sorted(p.name for p in self.folder.iterdir() if not p.name.startswith(".")):
            remedy = f"remove {PLAN}, or choose another --out" if found == [PLAN] else "choose another --out"
            raise StudyError(
                f"{self.folder} is no folder of a grid, and not empty (it has {found[0]}): {remedy}"
            )

    def cell_folder(self, cell: PlannedCell) -> Path:
        return self.cells_folder / cell.name

    def state(self, cell: PlannedCell) -> State:
        """What has become of a cell, as its folder says, unless it is known to be done."""
        return "done" if cell.name in self.known else state_of(self.cell_folder(cell))

    def write_plan(self, cells: Cells) -> None:
        """Write down what is planned, for all who look at the folder later or from elsewhere."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise  # the command line says which file is in the way
        except OSError as error:
            raise StudyError(f"could not make {self.folder}: {error}") from error
        written = [
            _Written(
                name=cell.name,
                model=cell.model,
                checkpoint=cell.checkpoint,
                corpus=cell.corpus,
                config=cell.config,
            ).model_dump(mode="json")
            for cell in cells.cells
        ]
        skipped: list[dict[str, Any]] = [
            {"settings": dict(skipped.settings), "reason": skipped.reason} for skipped in cells.skipped
        ]
        content = {
            "schema_version": SCHEMA_VERSION,
            "title": cells.title,
            "cells": written,
            "skipped": skipped,
        }
        write_text(self.folder / PLAN, json.dumps(content, default=str) + "\n")

    def finished_beside(self, cells: Sequence[PlannedCell]) -> int:
        """How many finished cells the folder has that are not among these."""
        folders = {self.cell_folder(cell) for cell in cells}
        results = self.cells_folder.glob(f"*/*/{records.RESULT}")
        return sum(path.parent not in folders for path in results)

    def title(self) -> str:
        return str(self._plan().get("title", ""))

    def planned(self) -> list[PlannedCell]:
        """The cells of the plan that was run here last. Raises StudyError where none was."""
        try:
            found = [_Written.model_validate(cell) for cell in self._plan()["cells"]]
        except (ValidationError, KeyError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise StudyError(
                f"{self.folder / PLAN} is damaged or of another version ({reason}): {ANEW}"
            ) from None
        return [PlannedCell(cell.model, cell.checkpoint, cell.corpus, cell.config) for cell in found]

    def _plan(self) -> dict[str, Any]:
        path = self.folder / PLAN
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            what = f"it has no {PLAN}" if self.folder.is_dir() else "there is no such folder"
            raise StudyError(
                f"{self.folder} is no folder of a grid ({what}): make one with `olmp grid`"
            ) from None
        except OSError as error:
            raise StudyError(f"{path} cannot be read: {error.strerror}") from None
        except ValueError:
            raise StudyError(f"{path} is damaged: {ANEW}") from None
        if not isinstance(found, dict):
            raise StudyError(f"{path} is damaged or no plan of a grid: {ANEW}")
        return found


def state_of(folder: Path) -> State:
    """What has become of a cell, as its folder says."""
    if (folder / records.RESULT).exists():
        return "done"
    if (folder / records.FAILURE).exists():
        return "failed"
    if not (folder / records.CONFIG).exists():
        return "planned"
    if claimed(folder):
        return "running"
    # otherwise there is nothing that it would go on from
    begun = (folder / records.EVALUATIONS).exists() or any(folder.glob(f"{records.RETRAINING}*"))
    return "interrupted" if begun else "planned"


def cell_folders(folder: Path) -> list[Path]:
    """All folders below that hold a cell, in the order of their paths."""
    return sorted(path.parent for path in folder.rglob(records.CONFIG))


def counted(states: Sequence[State]) -> dict[State, int]:
    """How many cells are in each state; states without cells are left out."""
    order: tuple[State, ...] = ("done", "failed", "running", "interrupted", "planned")
    return {state: states.count(state) for state in order if state in states}
