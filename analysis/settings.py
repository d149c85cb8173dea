"""Which cells may be compared, and what they are called in figures and in the report."""

import pandas as pd

from analysis.frame import finished, setting_columns

#: searches that search nothing: they spread one strength over all connections
RULES = ("class-blind", "class-uniform", "class-distribution", "lamp")
SHUFFLED = "shuffled("
#: of the configuration, what the name of a setting says, with the words around it
SAID = {
    "config.tolerance": "tolerance {:g}",
    "config.constraint": "{}",
    "config.tokens": "{:,.0f} tokens",
    "config.evaluations": "{:,.0f} evaluations",
    "config.schedule": "{}",
    "config.operator": "{}",
    "config.start": "start {}",
}


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
    """Finished cells that keep the drop within a tolerance; those of a given sparsity stand apart."""
    rows = finished(runs)
    return rows[rows["config.sparsity"].isna()] if "config.sparsity" in rows else rows


def main_setting(runs: pd.DataFrame) -> pd.DataFrame:
    """The finished cells of the setting that most cells have, so that they may be compared.

    A setting is everything in the configuration besides grouping, search, seed and text.
    """
    rows = searched(runs)
    columns = [c for c in setting_columns(rows) if c not in ("config.search", "config.corpus_sha256")]
    if rows.empty or not columns:
        return rows
    setting = rows.groupby(columns, dropna=False, sort=False).ngroup()
    return rows[setting == setting.mode().iloc[0]]


def setting_name(rows: pd.DataFrame) -> str:
    """The setting of cells that have one, in words."""
    first = rows.iloc[0]
    said = [words.format(first[c]) for c, words in SAID.items() if c in rows and pd.notna(first[c])]
    return ", ".join(said)
