"""Folders of cells as two tables: a row per cell, and a row per evaluation.

The columns are the fields of the records, whose schema is written beside the tables. A field of a field
is ``outer.inner``; what has no fixed names (groups, knobs, files, packages) stays one column of JSON.
"""

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from pydantic import BaseModel
from tqdm import tqdm

from experiments.grid import Grid, cell_folders, state_of
from grouping import StudyError
from harness import records
from harness.files import write_atomically, write_json
from harness.record import read
from harness.records import CellConfig, Evaluation, Failure, Result, SetResult

RUNS, EVALUATIONS = "runs.parquet", "evaluations.parquet"
#: fields of a result that the configuration has, too, as budgets
SPENT = ("evaluations", "tokens")


class Collected(NamedTuple):
    """``runs`` has a row per cell, failed ones too; ``unreadable`` are folders left out, and why.

    ``planned`` says whether the plan, as it was run last, still has the cell.
    """

    runs: pd.DataFrame
    evaluations: pd.DataFrame
    unreadable: dict[str, str]


def collect(grid: Grid) -> Collected:
    """Read all cells of a grid that are done or failed, in the order of their names.

    What is damaged, half-written or no cell is left out and said. Raises StudyError if there is no
    cell that could be read.
    """
    folders = cell_folders(grid.cells_folder)
    if not folders:
        raise StudyError(f"there are no cells in {grid.cells_folder}: run `olmp grid` first")
    try:
        planned = {cell.name for cell in grid.planned()}
    except StudyError:
        planned = set()  # folders of cells alone, without a plan
    runs, evaluations, unreadable = [], [], {}
    for folder in tqdm(folders, unit="cell", disable=not sys.stderr.isatty(), dynamic_ncols=True):
        name = folder.relative_to(grid.cells_folder).as_posix()
        state = state_of(folder)
        if state not in ("done", "failed"):
            continue
        try:
            row = {"cell": name, "model": name.partition("/")[0], "status": state, "planned": name in planned}
            row |= _flat(_config(folder), prefix="config.")
            if state == "done":
                found = read_evaluations(folder)
                row |= _flat(read(folder / records.RESULT, Result).model_dump(mode="json"))
                evaluations += [_evaluation(name, e) for e in found]
            else:
                failure = read(folder / records.FAILURE, Failure).model_dump(mode="json")
                row |= _flat(failure, prefix="failure.")
        except StudyError as error:
            unreadable[name] = str(error)
            continue
        runs.append(row)
    if not runs:
        reasons = "; ".join(unreadable.values()) or "none is done or has failed"
        raise StudyError(f"there is nothing to collect in {grid.cells_folder}: {reasons}")
    return Collected(_with_integers(pd.DataFrame(runs)), pd.DataFrame(evaluations), unreadable)


def write(grid: Grid, collected: Collected) -> None:
    """Write both tables, and the schema of what is in them, into the grid's folder."""
    for name, table in ((RUNS, collected.runs), (EVALUATIONS, collected.evaluations)):
        write_atomically(grid.folder / name, partial(table.to_parquet, index=False))
    write_json(grid.folder / records.SCHEMA, records.schemas())


def read_evaluations(folder: Path) -> list[Evaluation]:
    """All evaluations of a finished cell. Raises StudyError if one cannot be read."""
    path = folder / records.EVALUATIONS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [Evaluation.model_validate_json(line) for line in lines]
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise StudyError(f"{path} cannot be read ({reason})") from None


def _config(folder: Path) -> dict[str, Any]:
    return read(folder / records.CONFIG, CellConfig).model_dump(mode="json")


def _flat(record: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    return dict(_columns(record, prefix))


def _columns(record: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        name = prefix + key
        if key in ("sets", "held", "environment") or (prefix.startswith("sets.") and isinstance(value, dict)):
            yield from _columns(value, f"{name}.")
        elif isinstance(value, list | dict):
            yield name, json.dumps(value)
        else:
            yield name, value


def _evaluation(cell: str, evaluation: Evaluation) -> dict[str, Any]:
    fields = evaluation.model_dump(mode="json")
    return {"cell": cell} | fields | {"knobs": json.dumps(evaluation.knobs)}


def _with_integers(runs: pd.DataFrame) -> pd.DataFrame:
    """Whole numbers stay whole where some cells have none."""
    whole = {f"config.{name}" for name in _whole(CellConfig)} | set(_whole(Result))
    whole |= {f"sets.{split}.{name}" for split in ("search", "confirm", "test") for name in _whole(SetResult)}
    return runs.astype({column: "Int64" for column in runs.columns if column in whole})


def _whole(record: type[BaseModel]) -> list[str]:
    return [name for name, field in record.model_fields.items() if field.annotation in (int, int | None)]
