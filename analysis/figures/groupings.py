"""Figures of what is pruned: the groups of the smallest models, redundancy by role, groupings in pairs."""

import altair as alt
import pandas as pd

from analysis.figures import style
from analysis.figures.candidates import MOST_GROUPS
from analysis.figures.cells import rounded
from analysis.figures.figure import LeftOut
from analysis.figures.panels import group_rows, panels
from analysis.frame import Results, setting_columns
from analysis.settings import SHUFFLED, is_rule, main_setting, searched

#: groupings whose groups are what connections are for, not where they are
ROLES = ("attention-role", "gate", "stage", "embedding", "component", "see2016")


def group_sparsity_data(results: Results) -> pd.DataFrame:
    """Groups of the smallest model that each grouping's searches found: percent of the group pruned."""
    found = _groups(results)
    best = found.loc[found.groupby(["grouping", "model"])["overall"].idxmax(), "cell"]
    data = found[found["cell"].isin(best) & ~found["grouping"].str.startswith(SHUFFLED)]
    if data.empty:
        raise LeftOut("no search over two or more groups is finished")
    return data


def group_sparsity(results: Results) -> alt.TopLevelMixin:
    """Heat map of group by model: percent pruned in the smallest model, per grouping."""
    data = group_sparsity_data(results)
    return alt.concat(
        *(_heat(rows, str(grouping)) for grouping, rows in data.groupby("grouping")), columns=3, align="none"
    ).resolve_scale(x="independent", y="independent")


def _heat(rows: pd.DataFrame, grouping: str) -> style.Panel:
    # in the order of the model that has most of them
    finest = rows.groupby("model")["group"].transform("size").sort_values(ascending=False, kind="stable")
    order = list(dict.fromkeys(rows.loc[finest.index, "group"]))
    base = alt.Chart(rows).encode(
        alt.X("model:N", title=None, axis=alt.Axis(labelAngle=-35)),
        alt.Y("group:N", title=None, sort=order, axis=alt.Axis(labelLimit=style.NAMES)),
        tooltip=["cell", "group", "connections", *rounded("sparsity", "overall")],
    )
    scale = alt.Scale(domain=[0, 100], range=list(style.HEAT), interpolate="rgb")
    cells = base.mark_rect(stroke="#888888", strokeWidth=0.3).encode(
        alt.Color("sparsity:Q", scale=scale, legend=alt.Legend(title="% pruned")),
    )
    return alt.layer(cells, _numbers(base, "sparsity", "datum.sparsity > 55")).properties(
        title=grouping, width=alt.Step(32), height=alt.Step(14)
    )


def roles_data(results: Results) -> pd.DataFrame:
    """Percent pruned of each role in every searched cell, beside that of the whole model."""
    found = _groups(results)
    data = found[found["grouping"].isin(ROLES)]
    if data.empty:
        raise LeftOut(f"no search over roles is finished ({', '.join(ROLES)})")
    return data


def roles(results: Results) -> alt.TopLevelMixin:
    """Which connections go: percent pruned by role, a point per cell, the mean over all roles as a line."""
    return panels(roles_data(results), "sparsity", "% of connections pruned", reference="overall")


def pairwise_data(results: Results) -> pd.DataFrame:
    """How often a grouping's model is smaller than another's in identical settings, in percent.

    Settings are identical that differ in the grouping alone: same model, search, tolerance, budget, seed and
    everything else. A tie is half a win. ``settings`` counts the settings that both have.
    """
    rows = searched(results.runs)
    rows = rows[~is_rule(rows)]
    if rows.empty:
        raise LeftOut("no cell has searched")
    columns = ["model", "config.seed", *setting_columns(rows)]
    rows = rows.assign(setting=rows.groupby(columns, dropna=False).ngroup())
    found = []
    for model, mine in [("all models", rows), *rows.groupby("model")]:
        sizes = mine.pivot_table("remaining", "setting", "config.grouping", aggfunc="min")
        for one in sizes:
            for other in sizes:
                both = sizes[[one, other]].dropna() if one != other else sizes.iloc[:0]
                if not both.empty:
                    wins = (both[one] < both[other]) + (both[one] == both[other]) / 2
                    found.append((model, one, other, 100 * wins.mean(), len(both)))
    if not found:
        raise LeftOut("no two groupings were searched in identical settings")
    return pd.DataFrame(found, columns=["model", "grouping", "against", "wins", "settings"])


def pairwise(results: Results) -> alt.TopLevelMixin:
    """Win rates of grouping (row) against grouping (column), over all models and for each."""
    data = pairwise_data(results)
    rates = data[data["model"] == "all models"].groupby("grouping")["wins"].mean()
    order = rates.sort_values(ascending=False).index.tolist()
    models = ["all models", *sorted(set(data["model"]) - {"all models"})]
    if len(models) == 2:
        data, models = data[data["model"] != "all models"], models[1:]
    base = alt.Chart(data).encode(
        alt.X("against:N", title="… than", sort=order, axis=alt.Axis(labelAngle=-40)),
        alt.Y("grouping:N", title="smaller model with …", sort=order),
        tooltip=["model", "grouping", "against", *rounded("wins"), "settings"],
    )
    scale = alt.Scale(domain=[0, 100], range=list(style.HEAT), interpolate="rgb")
    cells = base.mark_rect(stroke="#888888", strokeWidth=0.3).encode(
        alt.Color("wins:Q", scale=scale, legend=alt.Legend(title="% of settings")),
    )
    layers = alt.layer(cells, _numbers(base, "wins", "datum.wins > 55"))
    return layers.properties(width=alt.Step(26), height=alt.Step(18)).facet(
        alt.Facet("model:N", title=None, sort=models), columns=2
    )


def _numbers(base: alt.Chart, field: str, dark: str) -> alt.Chart:
    """The number on each field of a heat map, light where the field is dark."""
    colour = alt.when(dark).then(alt.value("white")).otherwise(alt.value("black"))
    return base.mark_text(fontSize=9).encode(alt.Text(f"{field}:Q", format=".0f"), color=colour)


def _groups(results: Results) -> pd.DataFrame:
    """A row per group of every search over two or more groups in the main setting."""
    rows = main_setting(results.runs)
    found = group_rows(rows[~is_rule(rows)])
    many = found.groupby("cell")["group"].transform("size")
    found = found[(many >= 2) & (many <= MOST_GROUPS)].reset_index(drop=True)
    if found.empty:
        raise LeftOut(f"no search over 2 to {MOST_GROUPS} groups is finished")
    return found
