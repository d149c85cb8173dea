"""How figures look: readable in print, in grey and by colour-blind readers.

What tells series apart is colour, shape and dash together. Colours stand in the configuration, not in
the specifications, so that a page can show the same figure on light and on dark ground.
"""

from collections.abc import Sequence
from typing import Any

import altair as alt

Panel = alt.LayerChart | alt.FacetChart
#: Okabe and Ito's colours, told apart by colour-blind readers, without the yellow that paper swallows
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
#: the same on dark ground
DARK_COLOURS = ("#56B4E9", "#F0803C", "#2FC79A", "#E3A0C6", "#F0B429", "#9AD0F5", "#FFFFFF")
#: eight, so that colour and shape come together again only after 56 series
SHAPES = (
    "circle",
    "square",
    "triangle-up",
    "diamond",
    "cross",
    "triangle-down",
    "triangle-right",
    "triangle-left",
)
DASHES = ([1, 0], [6, 2], [2, 2], [8, 2, 2, 2], [4, 4], [10, 3], [1, 3], [6, 2, 1, 2, 1, 2])
#: from nothing to all; the same on any ground, since numbers are written on it
HEAT = ("#ffffff", "#c6dbef", "#6baed6", "#2171b5", "#08306b")

#: pixels: the width of one of three panels in a page's width
PANEL = 170
#: and of the name of a group at most: enough to tell encoder.lstm.weight_ih_l0 from that of _reverse
NAMES = 190
#: the legend of a series of lines, long enough for its dashes
LINES: dict[str, Any] = {
    "symbolType": "stroke",
    "symbolSize": 500,
    "symbolStrokeWidth": 1.6,
    "symbolOpacity": 1,
    "symbolFillColor": "transparent",
}


def configuration(dark: bool = False) -> dict[str, Any]:
    """The part of a Vega-Lite specification that says how things look, for light or dark ground."""
    ink, line, grid = ("#e6e6e6", "#8a8f98", "#33383f") if dark else ("#1a1a1a", "#666666", "#e4e4e4")
    return {
        "background": "transparent" if dark else "white",
        "font": "Arial, Liberation Sans, Helvetica, sans-serif",
        "view": {"stroke": line, "strokeWidth": 0.5},
        "range": {"category": list(DARK_COLOURS if dark else COLOURS), "symbol": list(SHAPES)},
        "axis": {
            "labelColor": ink,
            "titleColor": ink,
            "domainColor": line,
            "tickColor": line,
            "gridColor": grid,
            "labelFontSize": 10,
            "titleFontSize": 10.5,
            "titleFontWeight": "normal",
            "labelLimit": 150,
        },
        "legend": {
            "orient": "bottom",
            "columns": 4,
            "labelColor": ink,
            "titleColor": ink,
            "labelFontSize": 10,
            "titleFontSize": 10.5,
            "titleFontWeight": "normal",
            "symbolSize": 60,
            "symbolStrokeWidth": 1.5,
            "labelLimit": 220,
        },
        "header": {"labelColor": ink, "titleColor": ink, "labelFontSize": 11, "labelFontWeight": "bold"},
        "title": {"color": ink, "subtitleColor": ink, "fontSize": 11, "fontWeight": "bold"},
        "rule": {"color": ink},
        "text": {"color": ink},
        "tick": {"color": ink},
    }


def colour(field: str, order: Sequence[str], title: str | None = None, lines: bool = False) -> alt.Color:
    """A colour for each name, the same in all figures that are given the same order."""
    legend = alt.Legend(title=title or field, **(LINES if lines else {}))
    return alt.Color(f"{field}:N", scale=alt.Scale(domain=list(order)), legend=legend)


def shape(field: str, order: Sequence[str], title: str | None = None) -> alt.Shape:
    """A shape for each name, in one legend with its colour."""
    return alt.Shape(
        f"{field}:N", scale=alt.Scale(domain=list(order)), legend=alt.Legend(title=title or field)
    )


def dash(field: str, order: Sequence[str], title: str | None = None) -> alt.StrokeDash:
    """A dash for each name, in one legend with its colour."""
    dashes = [list(DASHES[i % len(DASHES)]) for i in range(len(order))]
    legend = alt.Legend(title=title or field, **LINES)
    return alt.StrokeDash(f"{field}:N", scale=alt.Scale(domain=list(order), range=dashes), legend=legend)
