"""What ``olmp collect`` has gathered, as DataFrames: a row per cell, a row per evaluation.

Columns are those that ``schema.json`` beside the tables documents: ``config.<field>`` of the configuration;
the fields of the result by their own names, ``sets.<set>.<field>`` per set of sentences; ``failure.<field>``
where a cell failed. ``status`` is done or failed. To these come ``DERIVED``. BLEU, chrF and what is counted
in them are in percent (0 to 100), sizes are fractions of the prunable connections, times seconds.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.errors import NotCollected

__all__ = [
    *("NotCollected", "Results", "failed", "finished", "groups", "require"),
    *("description", "setting_columns", "translation"),
]

RUNS, EVALUATIONS, SENTENCES, SCHEMA = (
    "runs.parquet",
    "evaluations.parquet",
    "sentences.parquet",
    "schema.json",
)
#: the newest form of these tables that is understood here, as schema.json says it
TABLES_VERSION = 1
SETS = ("search", "confirm", "test")
#: counts of sacrebleu per sentence: lengths of hypothesis and reference, matches and totals of orders 1 to 4
STATISTICS = 10
#: columns that are added to what was collected, and what they mean
DERIVED = {
    "grid": "the folder that the row was read from, by its name",
    "sparsity": "fraction of the prunable connections that is gone: 1 - remaining",
    "connections_left": "prunable connections that are left: prunable - pruned",
    **{f"sets.{name}.low": f"lower end of sets.{name}.interval, in BLEU points" for name in SETS},
    **{f"sets.{name}.high": f"upper end of sets.{name}.interval, in BLEU points" for name in SETS},
}
#: settings that tables of an older version lack, and what they were then
BEFORE = {"config.batch_tokens": 2000}
#: what tells cells of one setting apart; every other field of the configuration is part of the setting
FACTORS = ("schema_version", "checkpoint_sha256", "training_sha256", "groups_sha256", "grouping", "seed")


@dataclass(frozen=True)
class Results:
    """One or more folders of collected results, each table read when it is first asked for."""

    folders: tuple[Path, ...]

    @classmethod
    def of(cls, paths: Iterable[Path]) -> "Results":
        """The folders among ``paths`` and right below them that hold tables.

        Raises NotCollected for a path without any.
        """
        found: list[Path] = []
        for path in paths:
            inside = [path] if (path / RUNS).exists() else sorted(p.parent for p in path.glob(f"*/{RUNS}"))
            if not path.exists():
                raise NotCollected(f"there is no {path}: name a folder that `olmp collect` has written to")
            if not inside:
                raise NotCollected(
                    f"there is no {RUNS} in {path}, nor in a folder of it: `olmp collect {path}` makes it"
                )
            found += [folder for folder in inside if folder not in found]
        return cls(tuple(found))

    @cached_property
    def runs(self) -> pd.DataFrame:
        """A row per cell, failed ones too. Raises NotCollected if there are none to read.

        A cell that is in several folders is there several times: ``finished`` takes it once.
        """
        return _derived(_concatenated(self._tables(RUNS)))

    @cached_property
    def evaluations(self) -> pd.DataFrame:
        """A row per candidate of a finished cell; ``knobs`` are arrays. Raises NotCollected without any.

        ``feasible`` is held against the tolerance of the cell, also where that of the round is another.
        """
        return _within(_concatenated(self._tables(EVALUATIONS)), self.runs)

    @cached_property
    def statistics(self) -> dict[str, NDArray[np.int64]]:
        """BLEU counts ``[sentences, 10]`` of translations of test, by the sha256 of their file.

        Empty where they were not collected. ``translation`` says which ones are a cell's.
        """
        found: dict[str, NDArray[np.int64]] = {}
        for folder in self.folders:
            if (folder / SENTENCES).exists():
                table = _read(folder / SENTENCES)
                require(table, ["file_sha256", "statistics"], f"the table {folder / SENTENCES}")
                for name, counts in zip(table["file_sha256"], table["statistics"], strict=True):
                    found[name] = np.frombuffer(counts, "<i2").astype(np.int64).reshape(-1, STATISTICS)
        return found

    def length_ratio(self, run: pd.Series | Mapping[str, Any]) -> float:
        """Tokens of a cell's translation of test per token of the references; NaN where not collected.

        Below one, BLEU is multiplied by the brevity penalty ``exp(1 - 1 / ratio)`` (Papineni et al., 2002).
        """
        counts = self.statistics.get(translation(run))
        if counts is None:
            return np.nan
        said, references = counts.sum(axis=0)[:2]
        return float(said / references)

    def schema(self) -> dict[str, dict[str, Any]]:
        """Type and description of every collected column, by table; of the first folder that says them."""
        return next((tables for folder in self.folders if (tables := _schema(folder))), {})

    def _tables(self, name: str) -> Iterator[pd.DataFrame]:
        for folder in self.folders:
            version = _schema(folder).get("version", 0)
            if version > TABLES_VERSION:
                raise NotCollected(
                    f"{folder / name} has version {version}, this program reads up to {TABLES_VERSION}: "
                    "install a newer olmp, or collect again with this one"
                )
            yield _read(folder / name).assign(grid=folder.resolve().name)


def finished(runs: pd.DataFrame) -> pd.DataFrame:
    """The cells that have a result, each once, whichever folders it is in."""
    return runs[runs["status"] == "done"].drop_duplicates("cell").reset_index(drop=True)


def failed(runs: pd.DataFrame) -> pd.DataFrame:
    """The cells that have failed and are finished in no other folder, each once."""
    done = runs.loc[runs["status"] == "done", "cell"]
    rows = runs[(runs["status"] == "failed") & ~runs["cell"].isin(done)]
    return rows.drop_duplicates("cell").reset_index(drop=True)


def setting_columns(runs: pd.DataFrame) -> list[str]:
    """The columns in which cells must agree to differ in model, grouping and seed alone."""
    own = {f"config.{name}" for name in FACTORS}
    return [name for name in runs.columns if name.startswith("config.") and name not in own]


def translation(run: pd.Series | Mapping[str, Any], model: str = "pruned") -> str:
    """Which of ``Results.statistics`` is a cell's: of its "pruned" or of the "dense" model."""
    return json.loads(run["files"]).get(f"test.{model}.txt", "")


def groups(run: pd.Series | Mapping[str, Any]) -> pd.DataFrame:
    """The groups of a finished cell: ``group``, ``connections``, ``pruned``, ``threshold``, ``sparsity``.

    The threshold is the largest pruned magnitude; sparsity is the fraction of the group that is gone.
    """
    table = pd.DataFrame(json.loads(run["groups"]))
    return table.assign(sparsity=table["pruned"] / table["connections"])


def require(table: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    """Raise NotCollected unless a table has the columns that something needs."""
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise NotCollected(
            f"{what} lacks {', '.join(missing)}: it was collected by another version, collect it again"
        )


def _concatenated(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(list(tables), ignore_index=True)


def _within(tried: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The candidates, feasible only if they keep the tolerance of their cell."""
    if "config.round_tolerance" not in runs:
        return tried
    own = runs[runs["config.round_tolerance"].notna()].drop_duplicates("cell").set_index("cell")
    criterion, tolerance = (tried["cell"].map(own[f"config.{name}"]) for name in ("criterion", "tolerance"))
    lost = tried["bound"].where(criterion == "bound", tried["drop"])
    return tried.assign(feasible=tried["feasible"].astype(bool) & ~(lost > tolerance))


def _derived(runs: pd.DataFrame) -> pd.DataFrame:
    require(runs, ["cell", "model", "status"], "the table of runs")
    runs = runs.fillna({name: value for name, value in BEFORE.items() if name in runs})
    added: dict[str, Any] = {}
    if "remaining" in runs:
        added["sparsity"] = 1 - runs["remaining"]
    if {"prunable", "pruned"} <= set(runs.columns):
        added["connections_left"] = runs["prunable"] - runs["pruned"]
    for name in SETS:
        if (column := f"sets.{name}.interval") in runs:
            ends = [json.loads(text) if isinstance(text, str) else [np.nan] * 2 for text in runs[column]]
            added[f"sets.{name}.low"], added[f"sets.{name}.high"] = zip(*ends, strict=True)
    return runs.assign(**added)


def description(path: Path) -> dict[str, Any]:
    """A JSON file beside collected tables; empty if there is none. Raises NotCollected for a damaged one."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = str(error)
    else:
        if isinstance(found, dict):
            return found
        reason = "no object"
    raise NotCollected(
        f"{path} cannot be read as JSON ({reason}): take it from a copy, or remove it, "
        "results can be read without it"
    )


def _schema(folder: Path) -> dict[str, Any]:
    found = description(folder / SCHEMA).get("tables", {})
    return found if isinstance(found, dict) else {}


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise NotCollected(
            f"{path} cannot be read ({reason}): `olmp collect {path.parent}` makes it"
        ) from None
