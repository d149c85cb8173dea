"""Which cells may be compared, and what they are called in figures and in the report."""

from typing import Any

import pandas as pd

from analysis.frame import require, setting_columns
from analysis.outcomes import DENSE, RULES, column, placed

SHUFFLED = "shuffled("
#: columns that a finished cell has to have
NEEDED = [
    *("config.constraint", "config.operator", "config.schedule"),
    *("groups", "sets.test.drop", "sets.test.bleu"),
]


def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dictionaries by column, which are faster to go through than rows of a DataFrame."""
    found: Any = rows.to_dict("records")
    return found


def is_rule(runs: pd.DataFrame) -> pd.Series:
    """Which cells follow a rule instead of searching."""
    return runs["config.search"].isin(RULES)


def way(runs: pd.DataFrame) -> pd.Series:
    """What a cell does, in a word: its grouping, or the rule it follows with the classes of that."""
    rule = runs["config.search"] + (" (" + runs["config.grouping"] + ")").where(
        runs["config.grouping"] != "single", ""
    )
    return runs["config.grouping"].where(~is_rule(runs), rule)


def ordered(ways: pd.Series) -> list[str]:
    """All ways, in the order of every legend: groupings, shuffled ones, rules."""
    return sorted(
        map(str, ways.unique()),
        key=lambda name: (name.startswith(RULES), name.startswith(SHUFFLED), name != "single", name),
    )


def searched(runs: pd.DataFrame) -> pd.DataFrame:
    """Finished cells whose size a constraint decided; those of a given sparsity and dense ones stand apart.

    Raises NotCollected if no cell is finished, or if columns are missing.
    """
    rows = placed(runs)
    require(rows, NEEDED, "the table of runs")
    return rows[column(rows, "sparsity").isna() & (rows["search"] != DENSE)].reset_index(drop=True)


def main_setting(runs: pd.DataFrame) -> pd.DataFrame:
    """The finished cells of the setting in which most groupings were tried on most models.

    A setting is everything in the configuration besides grouping, search, seed and text. Of several with as
    many, it is the one with most cells. Raises NotCollected if no cell is finished.
    """
    rows = searched(runs)
    columns = [c for c in setting_columns(rows) if c not in ("config.search", "config.corpus_sha256")]
    if rows.empty or not columns:
        return rows
    number = rows.groupby(columns, dropna=False, sort=False).ngroup()
    kinds = (rows["model"] + " " + rows["config.grouping"]).groupby(number).agg(["nunique", "size"])
    return rows[number == kinds.sort_values(["nunique", "size"]).index[-1]].reset_index(drop=True)


def setting_name(rows: pd.DataFrame) -> str:
    """The setting of cells that have one, in words."""
    first = rows.iloc[0]
    unit = {"bleu": "BLEU", "accuracy": "points of token accuracy", "likelihood": "nats per token"}
    budget = [
        f"{first[f'config.{name}']:,.0f} {name}"
        for name in ("tokens", "evaluations")
        if pd.notna(first.get(f"config.{name}"))
    ]
    return (
        f"tolerance {first['config.tolerance']:g} {unit[first['config.constraint']]}, "
        f"a budget of {' and '.join(budget)} a search, {first['config.schedule']}, {first['config.operator']}"
    )
