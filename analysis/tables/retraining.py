"""With and without retraining, beside the rivals that prune while training or do not prune at all."""

import json
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from analysis.frame import NotCollected, Results, require
from analysis.outcomes import CLASS_BLIND, DENSE, Outcome, outcomes, placed
from analysis.tables.best import cost, drops, size
from analysis.tables.style import table

CAPTION = """With and without retraining. Remaining connections in percent of the prunable ones: median and
range over seeds; what is left of the model in connections. Round tolerance: what pruning might cost before
a retraining, where that is not the tolerance. Asked: what was to remain, where the size was given. Epochs:
of the retraining that the model has had, and of all that the cell took, also that of models that lost too
much to count; means. BLEU of the model on test, and its
drop from the dense model in points, with the mean ends of the 95 % intervals of the paired bootstrap over
sentences; a dense model, such as a small one trained from scratch, has none but when it was trained on.
Length ratio: tokens of the translation per token of the references; below one, BLEU has a brevity penalty.
Gradual prunes while it trains on.
"""
SHOWN = ["schedule", "round_tolerance", "sparsity", "distillation"]
#: what decides how a cell was judged, besides its tolerance
JUDGED = [f"config.{name}" for name in ("criterion", "constraint", "search_sentences", "redraw", "tokens")]
BY = ["model", "tolerance", "search", "grouping", *SHOWN, "setting"]


def retraining(results: Results) -> Styler:
    """A row per model, schedule, search and grouping.

    Cells that were not retrained are there as far as they differ in nothing else, and so are class-blind and
    dense models. Raises NotCollected if no cell was retrained.
    """
    rows = placed(results.runs, SHOWN)
    require(rows, ["rounds"], "the table of runs")
    retrained = rows[rows["schedule"] != "one-shot"]
    if retrained.empty:
        raise NotCollected('no retrained cell is finished: give a plan schedule = "retrain" or "iterative"')
    own, judged = ["search", "grouping", "sparsity"], ["model", "tolerance", *JUDGED]
    beside = _like(rows, retrained, judged + own)
    known = (
        rows["search"].isin([CLASS_BLIND, DENSE]) & _like(rows, retrained, judged) & rows["sparsity"].isna()
    )
    small = rows["search"] == DENSE
    found = [
        _row(one, results)
        for one in outcomes(rows[beside | known | small | rows.index.isin(retrained.index)], BY)
    ]
    listed = pd.DataFrame(found).sort_values(
        ["model", "tolerance", "setting", "schedule", "remaining %"], ignore_index=True
    )
    return table(listed, CAPTION)


def _like(rows: pd.DataFrame, others: pd.DataFrame, names: list[str]) -> pd.Series:
    """Which rows agree with any of others in all these columns, as far as they are there."""
    present = [name for name in names if name in rows]
    # as text: nothing equals a missing value
    keys, known = ([str(key) for key in one[present].itertuples(index=False)] for one in (rows, others))
    return pd.Series(keys, index=rows.index).isin(known)


def _row(one: Outcome, results: Results) -> dict[str, Any]:
    place = {name: one.place[name] for name in BY}
    sparsity, distillation, loose = (
        place.pop(name) for name in ("sparsity", "distillation", "round_tolerance")
    )
    left = one.cells["connections_left"].astype(float).mean()
    spent, lost = cost(one), drops(one, ("test",))
    if place["search"] == DENSE and place["schedule"] == "one-shot":  # its own reference
        lost = {"test drop": None, "test interval": ""}
    return {
        **place,
        "round tolerance": None if pd.isna(loose) else loose,
        "asked %": None if pd.isna(sparsity) else 100 * (1 - sparsity),
        "distillation": "" if pd.isna(distillation) or not distillation else f"{distillation:g}",
        **size(one),
        "connections": left,
        "epochs": one.cells.apply(_own_epochs, axis="columns").mean(),
        "all epochs": one.cells["rounds"].map(_epochs).mean(),
        "test BLEU": one.cells["sets.test.bleu"].mean(),
        **lost,
        "length ratio": one.cells.apply(results.length_ratio, axis="columns").mean(),
        "tokens": spent["tokens"],
        "core hours": spent["core hours"],
    }


def _own_epochs(cell: pd.Series) -> int:
    """Epochs of retraining that the result of a cell has had."""
    way = json.loads(cell["rounds"])
    given = cell["search"] == DENSE or not pd.isna(cell["sparsity"])
    chosen = len(way) - 1 if given else _smallest(way)
    return _had(way, chosen) if way and chosen is not None else 0


def _had(way: list[dict[str, Any]], place: int) -> int:
    """Epochs that a model on the way has had; a search after one that does not count begins at another."""
    one = way[place]
    if one["retraining"]:
        return len(one["retraining"]["valid_loss"]) + (_had(way, place - 1) if place else 0)
    follows = place > 0 and way[place - 1].get("counts", True)
    before = place - 1 if follows else _smallest(way[:place])
    return 0 if before is None else _had(way, before)


def _smallest(way: list[dict[str, Any]]) -> int | None:
    """Where the smallest model that counts is, of several as small the best on confirm; None without one."""
    counting = [place for place, one in enumerate(way) if one.get("counts", True)]
    told = {place: (way[place]["remaining"], way[place]["held"]["drop"]) for place in counting}
    return min(told, key=lambda place: told[place], default=None)


def _epochs(rounds: str) -> int:
    """Epochs of retraining in all rounds."""
    trained = (one["retraining"] for one in json.loads(rounds))
    return sum(len(one["valid_loss"]) for one in trained if one)
