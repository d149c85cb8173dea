"""Published results beside ours, marked as published."""

import tomllib
from importlib.resources import files
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from analysis.frame import NotCollected, Results
from analysis.outcomes import DENSE, RULES, Outcome, column, outcomes, placed
from analysis.settings import SHUFFLED
from analysis.tables.style import interval, table

CAPTION = """Published results, and those of this study: the smallest median over seeds of each model, with
and without retraining, where the bound of the drop keeps the tolerance (the note has what else is not as
usual). Pruned: of the prunable connections here, of all parameters in most published work. BLEU on test,
mean over seeds, the drop with the mean ends of its 95 % intervals (paired bootstrap). Text, models and
versions of BLEU differ between works, so BLEU and its drop are for orientation.
"""
SOURCE = "published.toml"
#: what tells the rows of one model apart besides the grouping
BY = ["model", "tolerance", "search", "grouping", "schedule", "setting"]


def published(results: Results) -> Styler:
    """A row per published result and per best model of ours; only the former where there is none yet."""
    rows = [_published(row) for row in published_rows()] + _ours(results)
    return table(pd.DataFrame(rows), CAPTION)


def published_rows() -> list[dict[str, Any]]:
    """The rows of published.toml."""
    return tomllib.loads(files("analysis").joinpath(SOURCE).read_text(encoding="utf-8"))["row"]


def _published(row: dict[str, Any]) -> dict[str, Any]:
    dense, bleu = row.get("dense_bleu"), row.get("bleu")
    return {
        "origin": "published",
        "work": row["work"],
        "model": row["model"],
        "parameters": row.get("parameters"),
        "data": row["data"],
        "method": row["method"],
        "retrained": "yes" if row["retrained"] else "no",
        "pruned %": row.get("pruned"),
        "dense BLEU": dense,
        "BLEU": bleu,
        "drop": None if dense is None or bleu is None else dense - bleu,
        "interval": "",
        "note": row.get("note", ""),
        "source": row["source"],
    }


def _ours(results: Results) -> list[dict[str, Any]]:
    try:
        rows = placed(results.runs, ["schedule"])
    except NotCollected:
        return []
    # of hundreds of candidates, the drop itself flatters the one that is chosen
    apart = (
        column(rows, "sparsity").notna() | (rows["search"] == DENSE) | (column(rows, "criterion") == "point")
    )
    rows = rows[~rows["grouping"].str.startswith(SHUFFLED) & ~apart]
    best: dict[tuple[str, float, bool], Outcome] = {}
    for one in outcomes(rows, BY):
        key = one.place["model"], one.place["tolerance"], one.place["schedule"] != "one-shot"
        if key not in best or one.remaining < best[key].remaining:
            best[key] = one
    return [_row(one, retrained) for (_, _, retrained), one in sorted(best.items(), key=lambda item: item[0])]


def _row(one: Outcome, retrained: bool) -> dict[str, Any]:
    fields = ("dense_bleu", "bleu", "drop", "low", "high")
    means = one.cells[[f"sets.test.{name}" for name in fields]].astype(float).mean()
    rule = one.place["search"] in RULES
    setting = f", {one.place['setting']}" if one.place["setting"] else ""
    method = one.place["search"] if rule else f"{one.place['grouping']}, {one.place['search']}"
    return {
        "origin": "this study",
        "work": "",
        "model": one.place["model"],
        "parameters": one.cells["parameters"].iloc[0],
        "data": "",
        "method": method,
        "retrained": one.place["schedule"] if retrained else "no",
        "pruned %": 100 * (1 - one.remaining),
        "dense BLEU": means.iloc[0],
        "BLEU": means.iloc[1],
        "drop": means.iloc[2],
        "interval": interval(means.iloc[3], means.iloc[4]),
        "note": f"tolerance {one.place['tolerance']:g}, seeds: {len(one.cells)}{setting}",
        "source": "",
    }
