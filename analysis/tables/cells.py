"""Every finished cell, a row each."""

import pandas as pd
from pandas.io.formats.style import Styler

from analysis.frame import Results, require
from analysis.outcomes import placed
from analysis.tables.style import interval, table

CAPTION = """Cells. Remaining connections in percent of the prunable ones; BLEU in percent and drops in BLEU
points (dense minus pruned), with the 95 % interval of the paired bootstrap over sentences. A candidate that
is skipped counts as an evaluation, but is not translated.
"""
COLUMNS = {
    "remaining": "remaining %",
    "sets.search.drop": "search drop",
    "sets.confirm.bleu": "confirm BLEU",
    "sets.confirm.drop": "confirm drop",
    "sets.test.bleu": "test BLEU",
    "sets.test.drop": "test drop",
    "backed_off": "back-offs",
    "evaluations": "evaluations",
    "skipped": "skipped",
    "tokens": "tokens",
}


def cells(results: Results) -> Styler:
    """Smallest remaining fraction first within a model. Raises NotCollected if no cell is finished."""
    rows = placed(results.runs)
    require(rows, [*COLUMNS, "sets.test.low", "sets.test.high"], "the table of runs")
    rows = rows.sort_values(["model", "remaining", "cell"], ignore_index=True)
    shown = rows[["model", "tolerance", "search", "grouping", "setting"]].assign(seed=rows["config.seed"])
    for column, name in COLUMNS.items():
        shown[name] = rows[column] * (100 if name.endswith("%") else 1)
    ends = zip(rows["sets.test.low"], rows["sets.test.high"], strict=True)
    place = list(shown.columns).index("test drop") + 1
    shown.insert(place, "test interval", [interval(*both) for both in ends])
    return table(pd.DataFrame(shown), CAPTION)
