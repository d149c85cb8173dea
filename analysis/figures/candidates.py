"""Figures of what the searches tried: all candidates, the cost of each group, the best size over tokens."""

import altair as alt
import numpy as np
import pandas as pd

from analysis.figures import style
from analysis.figures.cells import TITLES, rounded, staircase
from analysis.figures.figure import LeftOut
from analysis.figures.panels import group_rows, panels
from analysis.frame import Results
from analysis.settings import is_rule, main_setting, ordered, way

#: dots of candidates per model; the staircases are those of all candidates
DOTS = 400
#: candidates per group that a slope needs
PER_GROUP = 4
#: points of a curve over tokens
TIMES = 100
#: groups of the finest grouping that is shown
MOST_GROUPS = 40


def candidates_data(results: Results) -> pd.DataFrame:
    """A row per candidate that was translated whole in the main setting: percent pruned, drop on search."""
    rows = main_setting(results.runs)
    tried = results.evaluations
    tried = tried[(tried["how"] == "translated") & tried["stage"].isin(["start", "search"])]
    # the rules all draw the same curve, which class-blind's stands for
    rows = rows[~is_rule(rows) | (way(rows) == "class-blind")]
    data = tried.merge(rows.assign(way=way(rows))[["cell", "model", "way", "config.search"]], on="cell")
    if data.empty or (rows["config.constraint"] != "bleu").any():
        raise LeftOut("no candidate of a cell that holds BLEU was translated")
    return pd.DataFrame(
        {
            "cell": data["cell"],
            "model": data["model"],
            "way": data["way"],
            "search": data["config.search"],
            "sparsity": 100 * (1 - data["size"]),
            "drop": data["drop"],
        }
    )


def candidates(results: Results) -> alt.TopLevelMixin:
    """Drop on the search set against sparsity: dots for some candidates, staircases of all."""
    data = candidates_data(results)
    order = ordered(data["way"])
    steps = staircase(data, ["model", "way"]).assign(kind="staircase")
    # whoever loses far more than the best says nothing about the edge
    ceiling = max(2.0, 2 * float(data["drop"].median()))
    shown = data[data["drop"] <= ceiling]
    dots = [rows.sample(min(len(rows), DOTS), random_state=1) for _, rows in shown.groupby("model")]
    x = alt.X("sparsity:Q", title=TITLES["sparsity"], scale=alt.Scale(zero=False, padding=4))
    y = alt.Y("drop:Q", title="drop of BLEU on the search set (points)", scale=alt.Scale(zero=False))
    base = alt.Chart().encode(x, y)
    faint = (
        base.transform_filter("datum.kind != 'staircase'")
        .mark_point(filled=True, size=7, opacity=0.3, color="#888888")
        .encode(tooltip=["cell", "way", "search", *rounded("sparsity", "drop")])
    )
    lines = (
        base.transform_filter("datum.kind == 'staircase'")
        .mark_line(interpolate="step-before", strokeWidth=1.4)
        .encode(style.colour("way", order, "grouping", lines=True), style.dash("way", order, "grouping"))
    )
    data = pd.concat([*dots, steps[steps["drop"] <= ceiling]])
    layers = alt.layer(faint, lines, data=data).properties(width=style.PANEL, height=style.PANEL)
    return layers.facet(alt.Facet("model:N", title=None), columns=3)


def sensitivity_data(results: Results) -> pd.DataFrame:
    """BLEU points lost per percent of the model's connections pruned from a group: a row per cell and group.

    The slopes of a least-squares fit, ``drop ~ 1 + percent pruned from each group``, to the candidates that
    one search translated whole: all groups move at once there, so a slope holds near that search's
    candidates and with the other groups held where they were. Cells with fewer than ``PER_GROUP``
    candidates per group are left out.
    """
    rows = main_setting(results.runs)
    held = (rows["config.operator"] == "magnitude") & (rows["config.constraint"] == "bleu")
    rows = rows[~is_rule(rows) & held]
    tried = results.evaluations
    tried = tried[(tried["how"] == "translated") & (tried["stage"] == "search")]
    by_cell = dict(list(tried.groupby("cell")))
    found = []
    for cell, table in group_rows(rows).groupby("cell", sort=False):
        mine = by_cell.get(cell)
        if not 2 <= len(table) <= MOST_GROUPS or mine is None or len(mine) < PER_GROUP * len(table):
            continue
        share = (table["connections"] / table["connections"].sum()).to_numpy()
        design = np.column_stack([np.ones(len(mine)), 100 * share * np.array(mine["knobs"].tolist())])
        slopes, _, rank, _ = np.linalg.lstsq(design, mine["drop"].to_numpy(), rcond=None)
        if rank == design.shape[1]:
            found.append(table.assign(slope=slopes[1:]))
    if not found:
        raise LeftOut(f"no search translated {PER_GROUP} candidates per group, which a slope needs")
    return pd.concat(found, ignore_index=True)


def sensitivity(results: Results) -> alt.TopLevelMixin:
    """What pruning each group costs near the candidates of the searches: a point per cell, and the median."""
    data = sensitivity_data(results)
    data = data[~data["grouping"].str.startswith("shuffled(")]
    if data.empty:
        raise LeftOut("only shuffled groupings were searched")
    title = "BLEU points per % pruned"
    return panels(data, "slope", title, reference=0)


def progress_data(results: Results) -> pd.DataFrame:
    """Best feasible size in percent after so many delivered tokens: quartiles over seeds, as steps.

    A cell without a feasible candidate yet has its dense model, 100 %; one that has ended keeps what it
    has. Points at which nothing changes are left out.
    """
    rows = main_setting(results.runs)
    rows = rows[~is_rule(rows)]
    tried = results.evaluations
    tried = tried[tried["cell"].isin(rows["cell"]) & tried["stage"].isin(["start", "search"])]
    if tried.empty:
        raise LeftOut("no cell has searched")
    curves = {cell: _curve(mine) for cell, mine in tried.sort_values(["round", "index"]).groupby("cell")}
    times = np.linspace(0, max(tokens[-1] for tokens, _ in curves.values()), TIMES + 1)
    found = []
    for (model, grouping, search), cells in rows.groupby(["model", "config.grouping", "config.search"]):
        known = [_at(times, *curves[cell]) for cell in cells["cell"] if cell in curves]
        if not known:
            continue
        low, median, high = 100 * np.quantile(known, [0.25, 0.5, 0.75], axis=0)
        table = pd.DataFrame({"tokens": times, "low": low, "median": median, "high": high})
        changed = table[["low", "median", "high"]].diff().ne(0).any(axis="columns")
        changed.iloc[-1] = True
        curve = table[changed].assign(model=str(model), way=str(grouping), search=str(search))
        found.append(curve.assign(seeds=len(known)))
    return pd.concat(found, ignore_index=True)


def progress(results: Results) -> alt.TopLevelMixin:
    """Best feasible size against delivered tokens: medians over seeds as steps, quartiles as bands."""
    data = progress_data(results)
    order = ordered(data["way"])
    ends = data.groupby(["model", "way", "search"])[["low", "high"]].last()
    # the first steps from 100 % are cut, so that the ends can be told apart
    low, high = ends["low"].min(), ends["high"].max()
    domain = [low - 0.1 * (high - low) - 0.1, min(100.0, high + 0.5 * (high - low) + 0.1)]
    x = alt.X("tokens:Q", title="delivered tokens", axis=alt.Axis(format="~s", tickCount=4))
    scale = alt.Scale(domain=domain, nice=False)
    title = "best feasible size (% of connections)"
    base = alt.Chart().encode(x)
    band = base.mark_area(interpolate="step-after", opacity=0.12, clip=True).encode(
        alt.Y("low:Q", title=title, scale=scale),
        alt.Y2("high:Q"),
        style.colour("way", order, "grouping", lines=True),
    )
    line = base.mark_line(interpolate="step-after", strokeWidth=1.5, clip=True).encode(
        alt.Y("median:Q", title=title, scale=scale),
        style.colour("way", order, "grouping", lines=True),
        style.dash("way", order, "grouping"),
        tooltip=["way", "search", "seeds", "tokens", *rounded("low", "median", "high")],
    )
    data["panel"] = data["model"] + ", " + data["search"]
    panels = data.drop_duplicates("panel").sort_values(["search", "model"])["panel"].tolist()
    layers = alt.layer(band, line, data=data).properties(width=style.PANEL, height=style.PANEL)
    facet = alt.Facet("panel:N", title=None, sort=panels)
    return layers.facet(facet, columns=min(3, data["model"].nunique()))


def _curve(tried: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Tokens delivered after each candidate, and the smallest feasible size by then."""
    best = tried["size"].where(tried["feasible"].astype(bool), 1.0).clip(upper=1.0).cummin()
    return tried["tokens"].cumsum().to_numpy(), best.to_numpy()


def _at(times: np.ndarray, tokens: np.ndarray, best: np.ndarray) -> np.ndarray:
    return np.concatenate([[1.0], best])[np.searchsorted(tokens, times, side="right")]
