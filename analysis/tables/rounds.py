"""The way of schedules that retrain: what is left and lost after each search and each retraining."""

import json
from collections.abc import Iterator
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from analysis.frame import NotCollected, Results, require
from analysis.outcomes import column, placed
from analysis.tables.style import table

CAPTION = """The way of each cell that was retrained: its models after each search and each retraining.
Remaining connections in percent of the prunable ones; confirm: BLEU there, or what the constraint measures
instead, the drop from the original dense model and its upper bound, in its unit; epochs of retraining so
far, and the loss on valid after the last of them (of a round, the weights of the best epoch count). One
that does not count lost too much on search or on confirm. The smallest that counts is the result, of
several as small the one with the smallest drop on confirm; where the size was given, the last. Before a
retraining a search may lose as much as the round tolerance says, if there is one.
"""
BY = ["model", "tolerance", "search", "grouping", "schedule", "round_tolerance", "setting"]


def rounds(results: Results) -> Styler:
    """A row per model on the way of a cell. Raises NotCollected if no cell was retrained."""
    rows = placed(results.runs, ["schedule", "round_tolerance"])
    rows = rows[column(rows, "schedule") != "one-shot"]
    if rows.empty:
        raise NotCollected("no retrained cell is finished: `olmp grid iterative` runs some")
    require(rows, ["rounds"], "the table of runs")
    rows = rows.sort_values([*BY, "config.seed"])
    listed = [row for _, cell in rows.iterrows() for row in _way(cell)]
    return table(pd.DataFrame(listed), CAPTION)


def _way(cell: pd.Series) -> Iterator[dict[str, Any]]:
    place = {name.replace("_", " "): cell[name] for name in BY} | {"seed": cell["config.seed"]}
    epochs = 0
    for one in json.loads(cell["rounds"]):
        losses = (one["retraining"] or {"valid_loss": []})["valid_loss"]
        epochs += len(losses)
        yield place | {
            "after": "retraining" if losses else "search",
            "epochs": epochs,
            "valid loss": losses[-1] if losses else None,
            "remaining %": 100 * one["remaining"],
            "confirm BLEU": one["held"]["value"],
            "confirm drop": one["held"]["drop"],
            "bound drop": one["held"]["bound"],
            "counts": "" if one.get("counts", True) else "no",
        }
