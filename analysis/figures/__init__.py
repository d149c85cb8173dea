"""Figures of collected results, each a function from the results to an Altair chart."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import altair as alt

from analysis.figures import candidates, cells, groupings, style
from analysis.figures.figure import Figure, LeftOut
from analysis.frame import NotCollected, Results

SETTING = "All cells share one setting besides grouping, search and seed: the one with most groupings. "
FIGURES = (
    Figure(
        "cells",
        "What compression costs on test",
        SETTING + "Each point is a cell: how much of the model went, and how much BLEU the test set lost. A "
        "staircase joins the cells of a grouping that none of its other cells beats in both. Lower and "
        "further right is better.",
        cells.cells,
    ),
    Figure(
        "candidates",
        "What the searches tried",
        SETTING
        + "Dots are some of the candidates that were translated whole, on the search set, which chose "
        "them: what they promise is too good to be true. Staircases are those of all candidates.",
        candidates.candidates,
    ),
    Figure(
        "progress",
        "What more search buys",
        SETTING + "The smallest model found within the tolerance on the search set, after so many delivered "
        "tokens: median over seeds (line) and quartiles (band). What comes out may be larger: some of these "
        "candidates fail when they are judged again in full precision, and on the confirm set.",
        candidates.progress,
    ),
    Figure(
        "pairwise",
        "Groupings against each other",
        "In how many of the identical settings (same model, search, tolerance, budget and seed) the grouping "
        "of the row ends with a smaller model than that of the column. Ties count half.",
        groupings.pairwise,
    ),
    Figure(
        "group-sparsity",
        "What the smallest models leave out",
        SETTING
        + "Percent of each group's connections that the smallest model of a grouping has pruned, read "
        "from its thresholds: not what each group could lose alone.",
        groupings.group_sparsity,
    ),
    Figure(
        "roles",
        "Which connections go",
        SETTING
        + "Percent pruned of the connections of each role: a point per search, their median as a tick, "
        "what is pruned of the whole model as a dashed line. Roles right of the line are the redundant ones.",
        groupings.roles,
    ),
    Figure(
        "sensitivity",
        "What each group costs",
        SETTING + "BLEU points on the search set lost per percent of the model's connections that is pruned "
        "from a group: slopes of a linear fit to the candidates of one search, which move all groups at "
        "once. The fit has only candidates that racing did not stop; those lose little, which pulls slopes "
        "towards zero. A point per search, their median as a tick. Where the slopes of two groups differ, "
        "pruning could still move from one to the other.",
        candidates.sensitivity,
    ),
    Figure(
        "see2016",
        "Pruned to a given sparsity, with and without retraining",
        "The three rules of See, Luong and Manning (2016) on their classes; the dotted line is the dense "
        "model. Published results beside ours have other models and other text.",
        cells.see2016,
    ),
)


def drawn(results: Results) -> Iterator[tuple[Figure, alt.TopLevelMixin | LeftOut]]:
    """Every figure with its chart, or with the reason for which it is left out."""
    for figure in FIGURES:
        try:
            yield figure, figure.draw(results)
        except (LeftOut, NotCollected) as reason:
            yield figure, LeftOut(str(reason))


def specification(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """A chart in Vega-Lite, with all of its data."""
    with alt.data_transformers.enable("default", max_rows=None):
        return chart.to_dict()


def save(chart: alt.TopLevelMixin, path: Path, figure: Figure) -> None:
    """Write a chart in the format that the name's ending says; HTML is interactive and needs no network."""
    words = f"{figure.title}. {figure.caption}"
    styled = chart.configure(**style.configuration()).properties(description=words)
    with alt.data_transformers.enable("default", max_rows=None):
        if path.suffix == ".html":
            titled = styled.properties(title=alt.TitleParams(figure.title, anchor="start", offset=12))
            titled.save(str(path), inline=True, embed_options={"actions": {"editor": False}})
        else:
            styled.save(str(path), scale_factor=3 if path.suffix == ".png" else 1)
