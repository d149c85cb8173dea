"""Folders of cells as tables: a row per cell, per evaluation, and per translation of the test set.

The columns are the fields of the records, described in the schema that is written beside the tables
(``experiments/schema.py``). A field of a field is ``outer.inner``; what has no fixed names (groups, files,
packages) stays one column of JSON.
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
from experiments.schema import EVALUATIONS, NESTED, RUNS, SENTENCES, SETS, schemas
from experiments.translations import sentence_statistics
from grouping import StudyError
from harness import records
from harness.files import write_atomically, write_json
from harness.record import read, read_evaluations
from harness.records import CellConfig, Evaluation, Failure, Result, SetResult


class Collected(NamedTuple):
    """``runs`` has a row per cell, failed ones too; ``unreadable`` are folders left out, and why.

    ``planned`` says whether the plan, as it was run last, still has the cell. ``sentences`` has a row per
    translation, ``missing`` says why some cells' are not in it.
    """

    runs: pd.DataFrame
    evaluations: pd.DataFrame
    sentences: pd.DataFrame
    unreadable: dict[str, str]
    missing: list[str]


def collect(grid: Grid) -> Collected:
    """Read all cells of a grid that are done or failed, in the order of their names.

    What is damaged, half-written or no cell is left out and said. Raises StudyError if there is no
    cell that could be read.
    """
    folders = cell_folders(grid.cells_folder)
    if not folders:
        raise StudyError(f"there are no cells in {grid.cells_folder}: run `olmp grid` first")
    try:
        cells = grid.planned()
    except StudyError:
        cells = []  # folders of cells alone, without a plan
    planned = {cell.name for cell in cells}
    runs: list[dict[str, Any]] = []
    evaluations, unreadable = _Evaluations(), {}
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
                evaluations.add(name, found)
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
    table = _with_integers(pd.DataFrame(runs))
    corpora = {cell.config.corpus_sha256: cell.corpus for cell in cells}
    sentences, missing = sentence_statistics(grid, table, corpora)
    return Collected(table, evaluations.table(), sentences, unreadable, missing)


def write(grid: Grid, collected: Collected) -> None:
    """Write the tables, and the schema of what is in them, into the grid's folder.

    Without statistics of any sentence there is no table of them.
    """
    tables = {RUNS: collected.runs, EVALUATIONS: collected.evaluations, SENTENCES: collected.sentences}
    if collected.sentences.empty:
        (grid.folder / SENTENCES).unlink(missing_ok=True)
        del tables[SENTENCES]
    for name, table in tables.items():
        # statistics are all different, so a dictionary of them is a waste
        options = {"index": False, "compression": "zstd", "use_dictionary": name != SENTENCES}
        write_atomically(grid.folder / name, partial(table.to_parquet, **options))
    write_json(grid.folder / records.SCHEMA, schemas())


def _config(folder: Path) -> dict[str, Any]:
    return read(folder / records.CONFIG, CellConfig).model_dump(mode="json")


def _flat(record: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    return dict(_columns(record, prefix))


def _columns(record: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        name = prefix + key
        if key == "sets" or key in NESTED or (prefix.startswith("sets.") and isinstance(value, dict)):
            yield from _columns(value, f"{name}.")
        elif isinstance(value, list | dict):
            yield name, json.dumps(value)
        else:
            yield name, value


class _Evaluations:
    """Grows by columns, not by rows: a grid may have millions."""

    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = {name: [] for name in ("cell", *Evaluation.model_fields)}

    def add(self, cell: str, found: list[Evaluation]) -> None:
        self._columns["cell"] += [cell] * len(found)
        for name in Evaluation.model_fields:
            self._columns[name] += [getattr(evaluation, name) for evaluation in found]

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(self._columns)


def _with_integers(runs: pd.DataFrame) -> pd.DataFrame:
    """Whole numbers stay whole where some cells have none."""
    whole = {f"config.{name}" for name in _whole(CellConfig)} | set(_whole(Result))
    whole |= {f"sets.{split}.{name}" for split in SETS for name in _whole(SetResult)}
    return runs.astype({column: "Int64" for column in runs.columns if column in whole})


def _whole(record: type[BaseModel]) -> list[str]:
    return [name for name, field in record.model_fields.items() if field.annotation in (int, int | None)]
