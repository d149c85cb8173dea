"""Figures whose points are cells: BLEU against sparsity within a tolerance, and at given sparsities."""

import altair as alt
import pandas as pd

from analysis.figures import style
from analysis.figures.figure import LeftOut
from analysis.frame import Results
from analysis.outcomes import column, placed
from analysis.settings import main_setting, ordered, searched, way
from analysis.tables.published import published_rows

#: what the panel of published results is called
PUBLISHED = "published, other text"
RETRAINED, PRUNED_ONLY = "retrained", "pruned only"
TITLES = {"sparsity": "% of the connections pruned", "drop": "drop of test BLEU (points)"}


def staircase(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The rows that no other row of the same ``by`` beats in both: more ``sparsity``, less ``drop``.

    In the order of sparsity; drawn as steps, they say the least drop of all that are at least as sparse.
    """
    rows = table.sort_values(["sparsity", "drop"], ascending=[False, True])
    least = rows.groupby(by, sort=False)["drop"].cummin()
    before = least.groupby([rows[name] for name in by], sort=False).shift()
    return rows[(rows["drop"] < before) | before.isna()].iloc[::-1]


def cells_data(results: Results) -> pd.DataFrame:
    """A row per cell of the main setting among those that hold BLEU: percent pruned, drop of test BLEU.

    Cells of other tolerances, budgets or schedules are not there: a staircase over several would say of a
    grouping what its setting did.
    """
    rows = searched(results.runs)
    rows = main_setting(rows[rows["config.constraint"] == "bleu"]) if len(rows) else rows
    if rows.empty:
        raise LeftOut("no cell that holds BLEU is finished")
    return pd.DataFrame(
        {
            "cell": rows["cell"],
            "model": rows["model"],
            "way": way(rows),
            "search": rows["config.search"],
            "seed": rows["config.seed"].astype(int),
            "tolerance": rows["config.tolerance"],
            "sparsity": 100 * rows["sparsity"],
            "drop": rows["sets.test.drop"],
            "low": rows["sets.test.low"],
            "high": rows["sets.test.high"],
            "BLEU": rows["sets.test.bleu"],
        }
    )


def cells(results: Results) -> alt.TopLevelMixin:
    """Drop of test BLEU against sparsity, a point per cell, with the staircase of each grouping."""
    data = cells_data(results)
    order = ordered(data["way"])
    steps = staircase(data, ["model", "way"]).assign(kind="staircase")
    x = alt.X("sparsity:Q", title=TITLES["sparsity"], scale=alt.Scale(zero=False, padding=6))
    base = alt.Chart().encode(x, style.colour("way", order, "grouping or rule"))
    # the line at zero has no grid of its own, and its axis is the same
    axis = alt.Axis(grid=True)
    y = alt.Y("drop:Q", title=TITLES["drop"], scale=alt.Scale(zero=False, padding=6), axis=axis)
    zero = alt.Chart().mark_rule(strokeWidth=0.5, strokeDash=[1, 0]).encode(y=alt.datum(0))
    points = base.transform_filter("datum.kind != 'staircase'").mark_point(size=34, strokeWidth=1.4)
    lines = base.transform_filter("datum.kind == 'staircase'").mark_line(
        interpolate="step-before", strokeWidth=1.2
    )
    layers = alt.layer(
        zero,
        lines.encode(y),
        points.encode(
            y,
            style.shape("way", order, "grouping or rule"),
            tooltip=[
                "cell",
                "way",
                "search",
                "seed",
                "tolerance",
                *rounded("sparsity", "drop", "low", "high", "BLEU"),
            ],
        ),
        data=pd.concat([data, steps]),
    ).properties(width=style.PANEL, height=style.PANEL)
    return layers.facet(alt.Facet("model:N", title=None), columns=3)


def pruned_to(results: Results) -> pd.DataFrame:
    """A row per cell that was pruned to a given sparsity: the rule, how it was retrained, test BLEU.

    A retraining with a dropout of its own stands apart from one with that of the dense model.
    """
    rows = placed(results.runs)
    given = column(rows, "sparsity").notna() & column(rows, "schedule").isin(["one-shot", "retrain"])
    rows = rows[given]

    def others(dropout: float | None) -> str:
        return "" if pd.isna(dropout) else f", dropout {dropout:g}"

    if column(rows, "sparsity").nunique() < 2:
        raise LeftOut("no cells are pruned to two or more given sparsities (plan sparsity)")
    return pd.DataFrame(
        {
            "cell": rows["cell"],
            "model": rows["model"],
            "rule": rows["config.search"],
            "classes": rows["config.grouping"],
            "retraining": [
                PRUNED_ONLY if schedule == "one-shot" else RETRAINED + others(dropout)
                for schedule, dropout in zip(rows["config.schedule"], column(rows, "dropout"), strict=True)
            ],
            "seed": rows["config.seed"].astype(int),
            "sparsity": 100 * rows["sparsity"],
            "BLEU": rows["sets.test.bleu"],
            "dense BLEU": rows["sets.test.dense_bleu"],
        }
    )


def published_points() -> pd.DataFrame:
    """The published results that have a BLEU, in the columns of ``pruned_to``: other models, other text."""
    rows = [row for row in published_rows() if "bleu" in row]
    return pd.DataFrame(
        {
            "model": PUBLISHED,
            "rule": [row["work"] for row in rows],
            "classes": [f"{row['method']}; {row['model']}; {row['data']}" for row in rows],
            "retraining": [RETRAINED if row["retrained"] else PRUNED_ONLY for row in rows],
            "sparsity": [row["pruned"] for row in rows],
            "BLEU": [row["bleu"] for row in rows],
        }
    )


def see2016(results: Results) -> alt.TopLevelMixin:
    """Test BLEU against sparsity of See et al.'s rules with and without retraining, and of published work."""
    ours, theirs = pruned_to(results), published_points()
    data = pd.concat([ours, theirs])
    rules = [*sorted(ours["rule"].unique()), *sorted(theirs["rule"].unique())]
    x = alt.X("sparsity:Q", title=TITLES["sparsity"], scale=alt.Scale(zero=False, padding=6))
    top = 1.08 * float(data[["BLEU", "dense BLEU"]].max().max())
    y = alt.Y("BLEU:Q", title="test BLEU", scale=alt.Scale(domain=[0, top]))
    base = alt.Chart().encode(x, y, style.colour("rule", rules))
    others = sorted(set(ours["retraining"]) - {RETRAINED, PRUNED_ONLY})
    dashes = alt.Scale(
        domain=[RETRAINED, *others, PRUNED_ONLY], range=[[1, 0], *[[8, 2]] * len(others), [3, 2]]
    )
    legend = alt.Legend(title="after pruning", **style.LINES)
    lines = base.mark_line(strokeWidth=1.3).encode(
        detail="classes:N",
        y=alt.Y("mean(BLEU):Q", title="test BLEU"),
        strokeDash=alt.StrokeDash("retraining:N", scale=dashes, legend=legend),
    )
    points = base.mark_point(size=34, strokeWidth=1.3).encode(
        style.shape("rule", rules),
        tooltip=["cell", "rule", "classes", "retraining", "seed", *rounded("sparsity", "BLEU", "dense BLEU")],
    )
    dense = alt.Chart().mark_rule(strokeWidth=0.8, strokeDash=[1, 2]).encode(y="mean(dense BLEU):Q")
    dense = dense.transform_filter("isValid(datum['dense BLEU'])")
    layers = alt.layer(dense, lines, points, data=data).properties(width=style.PANEL, height=style.PANEL)
    order = [*sorted(ours["model"].unique()), PUBLISHED]
    return layers.facet(alt.Facet("model:N", title=None, sort=order), columns=2 if len(order) == 4 else 3)


def rounded(*fields: str) -> list[alt.Tooltip]:
    """Tooltips of numbers with two decimals."""
    return [alt.Tooltip(f"{field}:Q", format=".2f") for field in fields]
