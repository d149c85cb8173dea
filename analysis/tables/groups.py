"""What the winning thresholds take from each group."""

import pandas as pd
from pandas.io.formats.style import Styler

from analysis.frame import NotCollected, Results, groups, require
from analysis.outcomes import PLACE, RULES, Outcome, one_shot, outcomes, placed
from analysis.settings import SHUFFLED
from analysis.tables.style import spread, table

CAPTION = """Per-group sparsities of the winning thresholds: of each model and tolerance the grouping and
search with the smallest median, shuffled controls and rules apart. Share: of the prunable connections.
Pruned: of the group's connections, median and range over seeds. Threshold: largest pruned magnitude,
median.
"""


def sparsities(results: Results) -> Styler:
    """A row per group of the winners. Raises NotCollected if no search is finished."""
    rows = one_shot(placed(results.runs))
    require(rows, ["groups"], "the table of runs")
    apart = rows["search"].isin(RULES) | rows["grouping"].str.startswith(SHUFFLED)
    searched = rows[~apart]
    if searched.empty:
        raise NotCollected("no search over a grouping is finished: `olmp grid study` runs them")
    best: dict[tuple[str, float, str], Outcome] = {}
    for one in outcomes(searched):
        key = one.place["model"], one.place["tolerance"], one.place["setting"]
        if key not in best or one.remaining < best[key].remaining:
            best[key] = one
    return table(pd.concat([group_sparsities(one) for one in best.values()], ignore_index=True), CAPTION)


def group_sparsities(one: Outcome) -> pd.DataFrame:
    """A row per group of an outcome, in the order of the model."""
    found = pd.concat([groups(run) for _, run in one.cells.iterrows()], ignore_index=True)
    prunable = found["connections"].sum() / len(one.cells)
    rows = [
        {name: one.place[name] for name in PLACE}
        | {
            "group": name,
            "connections": mine["connections"].iloc[0],
            "share %": 100 * mine["connections"].mean() / prunable,
            "pruned %": 100 * mine["sparsity"].median(),
            "range": spread(mine["sparsity"], scale=100),
            "threshold": mine["threshold"].median(),
        }
        for name, mine in found.groupby("group", sort=False)
    ]
    return pd.DataFrame(rows)
