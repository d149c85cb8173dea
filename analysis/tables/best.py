"""The main table: how small each grouping gets each model at each tolerance."""

from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from analysis.frame import SETS, Results
from analysis.outcomes import PLACE, Outcome, one_shot, outcomes, placed, rule_beside
from analysis.significance import Comparison, compare
from analysis.tables.style import interval, spread, table

CAPTION = (
    "Remaining connections in percent of the prunable ones: median and range over search seeds. Points are the "
    "mean difference to class-blind under the same constraint and to the shuffled control of the same seeds "
    "(negative: smaller), with 95 % intervals of Student's t; bold where that against class-blind lies below "
    "zero. Drops are means over seeds in BLEU points (dense minus pruned), their intervals the mean ends of the "
    "paired bootstrap's over sentences. Back-offs, tokens of the search and core-hours are means of a cell."
)


def best(results: Results) -> Styler:
    """A row per model, tolerance, search and grouping, the smallest first. Raises NotCollected without any."""
    rows = one_shot(placed(results.runs))
    found = list(outcomes(rows, results.runs))
    against = [_against_class_blind(rows, one) for one in found]
    listed = pd.DataFrame(
        [
            _row(one)
            | _points("class-blind", versus)
            | _points("control", _against_control(one, found))
            | _drops(one)
            | _cost(one)
            for one, versus in zip(found, against, strict=True)
        ]
    )
    listed["smaller"] = [versus is not None and versus.high < 0 for versus in against]
    listed = listed.sort_values(["model", "tolerance", "setting", "remaining %"], ignore_index=True)
    bold = [(row, "remaining %") for row in listed.index[listed.pop("smaller")]]
    return table(listed, CAPTION, bold)


def _row(one: Outcome) -> dict[str, Any]:
    remaining = one.cells["remaining"]
    return {
        **{name: one.place[name] for name in PLACE},
        "seeds": len(remaining),
        "failed": one.failed or None,
        "remaining %": 100 * remaining.median(),
        "range": spread(remaining, scale=100),
    }


def _against_class_blind(rows: pd.DataFrame, one: Outcome) -> Comparison | None:
    rule = rule_beside(rows, one)
    if rule is None or rule["cell"] in set(one.cells["cell"]):
        return None
    return compare(one.cells["remaining"], float(rule["remaining"]))


def _against_control(one: Outcome, found: list[Outcome]) -> Comparison | None:
    """Against the same rows dealt at random, or those of another grouping where there are no own ones."""
    grouping = one.place["grouping"]
    beside = {
        other.place["grouping"]: other
        for other in found
        if all(other.place[name] == one.place[name] for name in PLACE if name != "grouping")
        and other.place["grouping"].startswith("shuffled(")
    }
    if grouping in beside or not beside:
        return None
    control = beside.get(f"shuffled({grouping})", next(iter(beside.values())))
    pairs = one.cells.merge(control.cells, on="config.seed", suffixes=("", " control"))
    return compare(pairs["remaining"], pairs["remaining control"])


def _points(name: str, versus: Comparison | None) -> dict[str, Any]:
    if versus is None:
        return {f"{name} points": None, f"{name} 95 %": ""}
    return {
        f"{name} points": 100 * versus.mean,
        f"{name} 95 %": interval(versus.low, versus.high, digits=1, scale=100),
    }


def _drops(one: Outcome) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in SETS:
        mean = one.cells[[f"sets.{name}.{field}" for field in ("drop", "low", "high")]].mean()
        found |= {f"{name} drop": mean.iloc[0], f"{name} 95 %": interval(mean.iloc[1], mean.iloc[2])}
    return found


def _cost(one: Outcome) -> dict[str, Any]:
    spent = one.cells[["backed_off", "tokens", "seconds", "other_seconds"]].astype(float).mean()
    return {
        "back-offs": spent["backed_off"],
        "tokens": spent["tokens"],
        "core hours": (spent["seconds"] + spent["other_seconds"]) / 3600,
    }
