"""The main table: how small each grouping gets each model at each tolerance."""

from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from analysis.contrasts import paired
from analysis.frame import SETS, Results, require
from analysis.outcomes import PLACE, RULES, Outcome, failures, one_shot, outcomes, placed, rule_beside
from analysis.settings import SHUFFLED
from analysis.significance import Comparison, compare
from analysis.tables.style import interval, spread, table

CAPTION = """Best compression. Remaining connections in percent of the prunable ones: median and range over
search seeds. Points: mean difference to class-blind under the same constraint, and to the grouping's own
shuffled control over the same seeds, or another's where that was not run (negative: smaller), with 95 %
intervals of Student's t; bold where the one against class-blind lies below zero. Drops: means over seeds in
BLEU points (dense minus pruned), with the mean ends of the two-sided 95 % intervals of the paired bootstrap
over sentences; a tolerance is held by a one-sided bound, so an interval may end above it. Back-offs, tokens
of the search and core hours: means of a cell.
"""
NEEDED = ["backed_off", "tokens", "seconds", "other_seconds"]
MEASURED = ("drop", "low", "high")


def best(results: Results) -> Styler:
    """A row per model, tolerance, search and grouping, the smallest first; also where all cells have failed.

    Raises NotCollected if no cell is finished.
    """
    rows = one_shot(placed(results.runs))
    measured = [f"sets.{name}.{field}" for name in SETS for field in MEASURED]
    require(rows, [*NEEDED, *measured], "the table of runs")
    found, lost = list(outcomes(rows)), failures(results.runs)
    listed: list[dict[str, Any]] = []
    for one in found:
        versus = _against_class_blind(rows, one)
        smaller = versus is not None and versus.high < 0
        failed = lost.pop(tuple(one.place.values()), 0)
        listed.append(
            {"smaller": smaller, **_size(one, failed)}
            | _points("class-blind", versus)
            | _points("shuffled", _against_control(one, found))
            | drops(one)
            | cost(one)
        )
    for place, failed in lost.items():  # where every seed has failed
        listed.append(dict(zip(PLACE, place, strict=True)) | {"smaller": False, "seeds": 0, "failed": failed})
    table_ = pd.DataFrame(listed)
    table_ = table_.sort_values(["model", "tolerance", "setting", "remaining %"], ignore_index=True)
    smaller_rows = table_.index[table_.pop("smaller")]
    return table(table_, CAPTION, [(row, "remaining %") for row in smaller_rows])


def size(one: Outcome) -> dict[str, Any]:
    """What is left of the connections, in percent: median and range over the seeds."""
    remaining = one.cells["remaining"].astype(float)
    return {
        "seeds": len(remaining),
        "remaining %": 100 * remaining.median(),
        "range": spread(remaining, scale=100),
    }


def drops(one: Outcome, sets: tuple[str, ...] = SETS) -> dict[str, Any]:
    """Means of the drop on each set and of the ends of its intervals, in BLEU points."""
    found: dict[str, Any] = {}
    for name in sets:
        drop, low, high = (float(one.cells[f"sets.{name}.{field}"].mean()) for field in MEASURED)
        found |= {f"{name} drop": drop, f"{name} interval": interval(low, high)}
    return found


def cost(one: Outcome) -> dict[str, Any]:
    """What a cell took on average: back-offs on confirm, tokens of the search, hours of one core."""
    spent = one.cells[NEEDED].astype(float).mean()
    hours = (spent["seconds"] + spent["other_seconds"]) / 3600
    return {"back-offs": spent["backed_off"], "tokens": spent["tokens"], "core hours": hours}


def _size(one: Outcome, failed: int) -> dict[str, Any]:
    found = size(one)
    place = {name: one.place[name] for name in PLACE}
    return place | {"seeds": found.pop("seeds"), "failed": failed or None} | found


def _against_class_blind(rows: pd.DataFrame, one: Outcome) -> Comparison | None:
    rule = rule_beside(rows, one)
    if rule is None or one.place["search"] in RULES:
        return None
    pairs = paired(one, rule)
    return compare(pairs["remaining"], pairs["other remaining"])


def _against_control(one: Outcome, found: list[Outcome]) -> Comparison | None:
    """Against the same rows dealt at random, or another grouping's where there are no own ones."""
    grouping = one.place["grouping"]
    beside = {
        other.place["grouping"]: other
        for other in found
        if other.place["grouping"].startswith(SHUFFLED) and other.place | {"grouping": grouping} == one.place
    }
    if grouping in beside or not beside:
        return None
    pairs = paired(one, beside.get(f"{SHUFFLED}{grouping})", next(iter(beside.values()))))
    return compare(pairs["remaining"], pairs["other remaining"])


def _points(name: str, versus: Comparison | None) -> dict[str, Any]:
    if versus is None:
        return {f"{name} points": None, f"{name} interval": ""}
    ends = interval(versus.low, versus.high, digits=1, scale=100)
    return {f"{name} points": 100 * versus.mean, f"{name} interval": ends}
