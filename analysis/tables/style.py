"""How tables are written: one format for each kind of column, whatever the table.

The last word of a column's name says its kind, so that ``remaining %`` and ``share %`` look alike. Columns of
text, such as intervals, have no format.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

#: "z": no negative zeros
FORMATS = {
    **dict.fromkeys(["%"], "{:z.1f}"),
    **dict.fromkeys(["points"], "{:+z.1f}"),
    **dict.fromkeys(["drop", "BLEU", "hours", "effect", "rank", "wins"], "{:z.2f}"),
    **dict.fromkeys(["loss", "ratio"], "{:.3f}"),
    **dict.fromkeys(["p", "threshold"], "{:.4f}"),
    **dict.fromkeys(["back-offs"], "{:z.1f}"),
    **dict.fromkeys(["tolerance", "epochs"], "{:g}"),
    **dict.fromkeys(["seed", "seeds", "cells", "failed", "pairs", "models"], "{:.0f}"),
    **dict.fromkeys(
        ["evaluations", "skipped", "tokens", "connections", "parameters", "sentences"], "{:,.0f}"
    ),
}
#: p-values below are not told apart
SMALLEST = 0.0001


def table(rows: pd.DataFrame, caption: str, bold: Iterable[tuple[int, str]] = ()) -> Styler:
    """A table with its caption; ``bold`` are the places (row, column) that stand out.

    Columns in which no row says anything are left out.
    """
    kept = [name for name in rows if not (rows[name].isna() | (rows[name].astype(str) == "")).all()]
    styler = rows[kept].reset_index(drop=True).style.hide(axis="index").set_caption(" ".join(caption.split()))
    for row, column in bold:
        styler.set_properties(subset=pd.IndexSlice[[row], [column]], **{"font-weight": "bold"})
    return styler


def interval(low: float, high: float, digits: int = 2, scale: float = 1) -> str:
    """Both ends of an interval; empty where there is none."""
    if pd.isna(low) or pd.isna(high):
        return ""
    return f"[{scale * low:z.{digits}f}, {scale * high:z.{digits}f}]"


def spread(values: pd.Series, digits: int = 1, scale: float = 1) -> str:
    """The smallest and the largest of several values; empty for one alone."""
    return interval(values.min(), values.max(), digits, scale) if len(values) > 1 else ""


def data_of(styler: Any) -> pd.DataFrame:
    """The values of a table."""
    return styler.data


def caption_of(styler: Any) -> str:
    """What stands above a table."""
    return str(styler.caption)


def numbers(styler: Styler) -> list[str]:
    """The columns of a table that are numbers, not text."""
    data = data_of(styler)
    return [str(name) for name in data if pd.api.types.is_numeric_dtype(data[name])]


def written(styler: Styler, escape: str | None = None, thousands: str = ",") -> Styler:
    """The same table with all numbers in their formats, and text escaped for "html" or "latex"."""
    below = "&lt;" if escape == "html" else "<"  # what is formatted is not escaped any more
    formats: Any = {
        name: _number(kind, FORMATS[kind].replace(",", thousands), below)
        for name in numbers(styler)
        for kind in [name.split()[-1]]
    }
    return styler.format(formats, escape=escape).format_index(axis="columns", escape=escape)


def _number(kind: str, pattern: str, below: str) -> Callable[[Any], str]:
    def text(value: Any) -> str:
        if pd.isna(value) or not math.isfinite(value):
            return ""
        if kind == "p" and value < SMALLEST:
            return f"{below}{pattern.format(SMALLEST)}"
        return pattern.format(value)

    return text
