"""A panel for each grouping and model whose rows are groups, since every one has groups of its own."""

import json

import altair as alt
import pandas as pd

from analysis.figures import style
from analysis.figures.cells import rounded

COLUMNS = ["cell", "model", "grouping", "search", "seed", "group", "connections", "sparsity", "overall"]


def panels(data: pd.DataFrame, value: str, title: str, reference: float | str) -> alt.TopLevelMixin:
    """Points of ``value`` per group, and their median as a tick; the highest median comes first.

    ``data`` has the columns cell, model, grouping, search, seed, group and ``value``. ``reference`` is a
    number, or a column with the same number in all rows of a panel: a line to compare with.
    """
    searches = sorted(data["search"].unique())
    found = [
        _panel(rows, f"{model}, {grouping}", searches, value, title, reference)
        for (grouping, model), rows in data.groupby(["grouping", "model"])
    ]
    page = alt.concat(*found, columns=3)
    if isinstance(reference, str):
        return page.resolve_scale(y="independent", x="shared")
    return page.resolve_scale(y="independent", x="independent")


def _panel(
    rows: pd.DataFrame, name: str, searches: list[str], value: str, title: str, reference: float | str
) -> style.Panel:
    order = rows.groupby("group")[value].median().sort_values(ascending=False).index.tolist()
    base = alt.Chart(rows)
    y = alt.Y("group:N", title=None, sort=order, axis=alt.Axis(labelLimit=style.NAMES, grid=True))
    # a line at a number has no grid of its own, and its axis is the same
    axis = alt.Axis(grid=True)
    x = alt.X(f"{value}:Q", title=title, scale=alt.Scale(zero=False, padding=6), axis=axis)
    points = base.mark_point(size=18, strokeWidth=1, opacity=0.8).encode(
        x,
        y,
        style.shape("search", searches),
        style.colour("search", searches),
        tooltip=["cell", "group", "search", "seed", *rounded(value)],
    )
    ticks = base.mark_tick(thickness=2, size=10).encode(alt.X(f"median({value}):Q"), y)
    line = alt.datum(reference) if isinstance(reference, int | float) else f"mean({reference}):Q"
    rule = base.mark_rule(strokeWidth=0.8, strokeDash=[3, 2]).encode(x=line)
    size = {"width": style.PANEL - 55, "height": alt.Step(13)}
    return alt.layer(rule, ticks, points).properties(title=name, **size)


def group_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per group of every cell: which cell it is, connections, and percent pruned, ``overall`` too."""
    found = [
        (
            run["cell"],
            run["model"],
            run["config.grouping"],
            run["config.search"],
            int(run["config.seed"]),
            group["group"],
            group["connections"],
            100 * group["pruned"] / group["connections"],
            100 * run["sparsity"],
        )
        for run in rows.to_dict("records")
        for group in json.loads(run["groups"])
    ]
    return pd.DataFrame(found, columns=COLUMNS)
