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

from experiments.grid import PLAN, Grid, cell_folders, state_of
from experiments.plan import PlannedCell
from experiments.schema import EVALUATIONS, NESTED, RUNS, SENTENCES, SETS, schemas
from experiments.translations import sentence_statistics
from grouping import StudyError
from harness import records
from harness.configuration import CellConfig
from harness.files import write_atomically, write_json, write_text
from harness.record import read, read_evaluations
from harness.records import Evaluation, Failure, Result, SetResult


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
    cells = _planned(grid)
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


def finished_in(folder: Path) -> frozenset[str]:
    """The names of the cells that collected results have finished. Raises StudyError where there are none."""
    runs = _earlier(folder, RUNS)
    return frozenset(runs.loc[runs["status"] == "done", "cell"])


class Joined(NamedTuple):
    """What was collected, of a grid and before; ``kept`` cells are not in the grid, and of those ``dropped``
    are no longer in its plan."""

    collected: Collected
    kept: int
    dropped: int


def joined(collected: Collected, folder: Path, grid: Grid) -> Joined:
    """What was collected of a grid, and what ``folder`` has besides.

    A cell that is in both is taken from the grid, unless it failed there alone. Raises StudyError where the
    results in ``folder`` cannot be read.
    """
    planned = {cell.name for cell in _planned(grid)}
    done = collected.runs.loc[collected.runs["status"] == "done", "cell"]
    runs = _earlier(folder, RUNS)
    runs = runs[~runs["cell"].isin(done)]
    runs = runs[(runs["status"] == "done") | ~runs["cell"].isin(collected.runs["cell"])]
    own = collected.runs[~collected.runs["cell"].isin(runs["cell"])]
    evaluations, sentences = _earlier(folder, EVALUATIONS), collected.sentences
    evaluations = evaluations[evaluations["cell"].isin(runs["cell"])]
    if (folder / SENTENCES).exists():
        sentences = pd.concat([sentences, _earlier(folder, SENTENCES)]).drop_duplicates("file_sha256")
    # settings that are younger than the results: cells of then had what is the default now
    settings = {f"config.{name}": field.default for name, field in CellConfig.model_fields.items()}
    younger = {name: value for name, value in settings.items() if name not in runs and name in own}
    still = runs["cell"].isin(planned)
    dropped = int((runs["planned"] & ~still).sum()) if "planned" in runs else 0
    runs = runs.assign(planned=still, **younger)
    both = collected._replace(
        runs=_with_integers(_in_order(own, runs)),
        evaluations=_in_order(collected.evaluations, evaluations),
        sentences=sentences,
    )
    return Joined(both, len(runs), dropped)


def _in_order(*tables: pd.DataFrame) -> pd.DataFrame:
    """Rows of several tables in the order of the cells' names."""
    together = pd.concat([table for table in tables if len(table)])
    return together.sort_values("cell", kind="stable", ignore_index=True)


def _earlier(folder: Path, name: str) -> pd.DataFrame:
    path = folder / name
    if not path.exists():
        raise StudyError(f"there is no {name} in {folder}: name a folder that `olmp collect` has written")
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise StudyError(f"{path} cannot be read ({error})") from None


def write(folder: Path, collected: Collected) -> None:
    """Write the tables, and the schema of what is in them, into a folder.

    Without statistics of any sentence there is no table of them.
    """
    tables = {RUNS: collected.runs, EVALUATIONS: collected.evaluations, SENTENCES: collected.sentences}
    if collected.sentences.empty:
        (folder / SENTENCES).unlink(missing_ok=True)
        del tables[SENTENCES]
    for name, table in tables.items():
        # statistics are all different, so a dictionary of them is a waste
        options = {"index": False, "compression": "zstd", "use_dictionary": name != SENTENCES}
        write_atomically(folder / name, partial(table.to_parquet, **options))
    write_json(folder / records.SCHEMA, schemas())


def copy_plan(grid: Grid, folder: Path) -> None:
    """Put the grid's plan beside tables that are written elsewhere, for those who only read results."""
    if (plan := grid.folder / PLAN).exists():
        write_text(folder / PLAN, plan.read_text(encoding="utf-8"))


def _planned(grid: Grid) -> list[PlannedCell]:
    """The cells of the plan; none where there are folders of cells alone."""
    try:
        return grid.planned()
    except StudyError:
        return []


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
