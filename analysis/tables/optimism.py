"""How much better a search looks on the sentences that it searched on than on others."""

from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from analysis.frame import SETS, NotCollected, Results, require
from analysis.outcomes import RULES, one_shot, placed
from analysis.significance import mean_interval
from analysis.tables.style import interval, table

CAPTION = """Optimism. Mean drop in BLEU points (dense minus pruned) of the final models on the sentences
that decided the search, on confirm, which may refuse a model, and on test, which chose nothing; with the 95
% interval of the mean over cells (all groupings, searches and seeds). Optimism: how much larger the drop on
test is than on search, over cells. Cells share their sentences and the dense model, so these intervals say
nothing about other sentences, and nothing is bold.
"""
#: columns that cells must agree in, and what they are called here
KEYS = {
    "model": "model",
    "tolerance": "tolerance",
    "sets.search.sentences": "search sentences",
    "config.evaluations": "evaluations",
    "config.tokens": "tokens",
}


def optimism(results: Results) -> Styler:
    """A row per model, number of search sentences and budget.

    Raises NotCollected if no search is finished.
    """
    rows = one_shot(placed(results.runs))
    require(rows, list(KEYS), "the table of runs")
    rows = rows[~rows["search"].isin(RULES)]
    if rows.empty:
        raise NotCollected("no search is finished: `olmp grid study` runs some")
    listed: list[dict[str, Any]] = []
    place: Any
    for place, cells in rows.groupby(list(KEYS), dropna=False, sort=True):
        gap = (cells["sets.test.drop"] - cells["sets.search.drop"]).astype(float)
        known = [None if pd.isna(value) else value for value in place]
        row = dict(zip(KEYS.values(), known, strict=True)) | {"cells": len(cells)}
        for name in SETS:
            row |= _drop(cells, name)
        listed.append(row | {"optimism drop": gap.mean(), "optimism interval": interval(*mean_interval(gap))})
    return table(pd.DataFrame(listed), CAPTION)


def _drop(cells: pd.DataFrame, name: str) -> dict[str, Any]:
    drops = cells[f"sets.{name}.drop"].astype(float)
    return {f"{name} drop": drops.mean(), f"{name} interval": interval(*mean_interval(drops))}
