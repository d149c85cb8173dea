"""Which cells belong together: what the seeds of one grouping found on one model in one setting.

Two cells are of one *setting* if their configurations agree in all but model, grouping and seed. Tables show
``PLACE``; ``setting`` there is text, and says only in which fields a cell differs from most others.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd

from analysis.frame import NotCollected, failed, finished, require, setting_columns

#: the search that leaves a model as it is
DENSE = "dense"
#: what searches nothing and has one outcome, whatever the seed; dense prunes nothing either
RULES = ("class-blind", "class-uniform", "class-distribution", "lamp", DENSE)
#: the rule that a grouping has to beat (See, Luong and Manning, 2016)
CLASS_BLIND = "class-blind"
#: what is shown in a column of its own
SHOWN = ("search", "tolerance")  # further ones where a table says so
#: columns that say which outcome a row is about
PLACE = ["model", "tolerance", "search", "grouping", "setting"]
#: fields in which class-blind must agree with what it is compared to; the others do not concern a rule
YARDSTICK = (
    *("checkpoint_sha256", "corpus_sha256", "tolerance", "constraint", "criterion", "confidence"),
    *("schedule", "round_tolerance", "dropout", "batch_tokens", "operator", "vectors", "final_beam"),
    *("search_sentences", "redraw", "search_beam", "precision"),
)
NEEDED = ["remaining", "config.grouping", "config.search", "config.tolerance", "config.seed"]


class Outcome(NamedTuple):
    """The cells of one grouping on one model in one setting, in the order of their seeds."""

    #: values of the columns that were grouped by
    place: dict[str, Any]
    cells: pd.DataFrame

    @property
    def remaining(self) -> float:
        """Remaining fraction of the prunable connections, median over seeds."""
        return float(self.cells["remaining"].median())


def placed(runs: pd.DataFrame, shown: Sequence[str] = ()) -> pd.DataFrame:
    """Finished cells, each once, with the columns ``PLACE``.

    ``shown`` are further fields of the configuration that get columns of their own, and so are not part of
    the setting. Raises NotCollected if no cell is finished, or if columns are missing.
    """
    rows = finished(runs)
    if rows.empty:
        raise NotCollected("no cell is finished yet: `olmp grid` runs them, `olmp collect` gathers them")
    require(rows, NEEDED, "the table of runs")
    return _with_place(rows, usual(rows, shown), shown)


def one_shot(rows: pd.DataFrame) -> pd.DataFrame:
    """The cells that were not retrained and whose size the constraint decided.

    Raises NotCollected if there is none.
    """
    found = rows[(column(rows, "schedule") == "one-shot") & column(rows, "sparsity").isna()]
    if found.empty:
        raise NotCollected(
            "no cell of the schedule one-shot that searches is finished yet: `olmp grid study` runs some"
        )
    return found.reset_index(drop=True)


def outcomes(rows: pd.DataFrame, by: Sequence[str] = PLACE) -> Iterator[Outcome]:
    """The outcomes in placed cells, which agree in the columns ``by``."""
    place: Any
    for place, cells in rows.groupby(list(by), dropna=False, sort=True):
        ordered = cells.sort_values("config.seed").reset_index(drop=True)
        yield Outcome(dict(zip(by, place, strict=True)), ordered)


def failures(runs: pd.DataFrame) -> dict[tuple[Any, ...], int]:
    """How many cells have failed at each place, in the order of ``PLACE``."""
    broken = failed(runs)
    if broken.empty:
        return {}
    require(broken, NEEDED[1:], "the table of runs")
    common = usual(finished(runs))
    counts: Any = _with_place(broken, common).groupby(PLACE, dropna=False).size()
    return dict(counts)


def rule_beside(rows: pd.DataFrame, outcome: Outcome, rule: str = CLASS_BLIND) -> pd.Series | None:
    """The cell of a rule under the same yardstick, the one that agrees best where there are several."""
    first = outcome.cells.iloc[0]
    found = rows[rows["search"] == rule]
    for name in YARDSTICK:
        if (full := f"config.{name}") in rows:
            found = found[_equal(found[full], first[full])]
    if found.empty:
        return None
    others = setting_columns(rows)
    agreeing = pd.DataFrame({name: _equal(found[name], first[name]) for name in others}, found.index)
    return found.iloc[int(agreeing.sum(axis="columns").to_numpy().argmax())]


def usual(rows: pd.DataFrame, shown: Sequence[str] = ()) -> dict[str, Any]:
    """The most common value of each column of the setting."""
    apart = {f"config.{name}" for name in (*SHOWN, "corpus_sha256", *shown)}
    columns = [name for name in setting_columns(rows) if name not in apart]
    return {name: next(iter(rows[name].value_counts(dropna=False).index), None) for name in columns}


def column(rows: pd.DataFrame, field: str) -> pd.Series:
    """A field of the configuration; empty where an older version did not know it."""
    name = f"config.{field}"
    return rows[name] if name in rows else pd.Series(None, index=rows.index, dtype=object)


def _with_place(rows: pd.DataFrame, common: dict[str, Any], shown: Sequence[str] = ()) -> pd.DataFrame:
    fields: dict[str, Any] = {name: column(rows, name) for name in (*SHOWN, "grouping", *shown)}
    return rows.assign(model=_labels(rows), setting=_differences(rows, common), **fields)


def _labels(rows: pd.DataFrame) -> pd.Series:
    """The model's name, with its hash and its texts' where several of that name are together."""
    checkpoint, corpus, training = (
        column(rows, f"{what}_sha256").fillna("").astype(str).str[:6]
        for what in ("checkpoint", "corpus", "training")
    )
    identity = checkpoint + " " + corpus
    several = identity.groupby(rows["model"]).transform("nunique") > 1
    # cells that train nothing have no training text, whatever the others have
    trained = training.where(training != "").groupby(rows["model"]).transform("nunique") > 1
    labels = rows["model"].where(~several, rows["model"] + " " + identity)
    return labels.where(~(trained & (training != "")), labels + " " + training)


def _differences(rows: pd.DataFrame, common: dict[str, Any]) -> pd.Series:
    """For each cell the fields of its setting that are not as usual."""
    said = pd.Series("", index=rows.index)
    for name, value in common.items():
        if name in rows and not (equal := _equal(rows[name], value)).all():
            text = name.removeprefix("config.") + "=" + rows[name].astype(object).map(_written)
            said = said.where(equal, said + " " + text)
    return said.str.strip()


def _written(value: Any) -> str:
    if pd.isna(value):
        return "none"
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _equal(values: pd.Series, value: Any) -> pd.Series:
    return values.isna() if pd.isna(value) else (values == value).fillna(False).astype(bool)
