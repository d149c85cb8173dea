"""Tables: each a function from results to a pandas Styler, or NotCollected with what is missing."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from pandas.io.formats.style import Styler

from analysis.frame import NotCollected, Results
from analysis.tables import render
from analysis.tables.best import best
from analysis.tables.cells import cells
from analysis.tables.comparisons import groupings, optimisers, ranks
from analysis.tables.groups import sparsities
from analysis.tables.optimism import optimism
from analysis.tables.published import published
from analysis.tables.retraining import retraining
from analysis.tables.rounds import rounds
from analysis.tables.rules import rules

__all__ = ["TABLES", "Made", "made", "save"]

#: every table by its name, which is also that of its files
TABLES: Mapping[str, Callable[[Results], Styler]] = MappingProxyType(
    {
        "best": best,
        "groupings": groupings,
        "ranks": ranks,
        "optimisers": optimisers,
        "retraining": retraining,
        "rounds": rounds,
        "rules": rules,
        "sparsities": sparsities,
        "optimism": optimism,
        "published": published,
        "cells": cells,
    }
)


class Made(NamedTuple):
    """A table, or what is missing for it."""

    name: str
    styler: Styler | None
    missing: str

    def markdown(self) -> str:
        return render.markdown(self.styler) if self.styler is not None else f"{self.missing}\n"

    def html(self) -> str:
        if self.styler is None:
            return render.paragraph(self.missing)
        return render.html(self.styler, self.name)

    def latex(self) -> str:
        return render.latex(self.styler, self.name) if self.styler is not None else f"% {self.missing}\n"


def made(results: Results, names: Sequence[str] | None = None) -> list[Made]:
    """The tables of these names, or all, in this order.

    Raises NotCollected for a name that is not known, or if the cells cannot be read.
    """
    names = list(TABLES) if names is None else names
    for name in names:
        if name not in TABLES:
            nearest = difflib.get_close_matches(name.lower(), TABLES, n=1)
            advice = f", did you mean {nearest[0]!r}?" if nearest else "."
            raise NotCollected(f"there is no table {name!r}{advice} Known are {', '.join(TABLES)}")
    _ = results.runs  # what cannot be read is said once, not by every table
    return [_made(results, name) for name in names]


def _made(results: Results, name: str) -> Made:
    try:
        return Made(name, TABLES[name](results), "")
    except NotCollected as reason:
        return Made(name, None, " ".join(str(reason).split()))


def save(tables: Sequence[Made], folder: Path) -> None:
    """A file of each kind per table, and all tables in ``tables.md``, ``tables.html`` and ``tables.tex``.

    A table that has nothing to show says what is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for one in tables:
        texts = {"md": one.markdown(), "html": render.page(one.name, [one.html()]), "tex": one.latex()}
        for kind, text in texts.items():
            (folder / f"{one.name}.{kind}").write_text(text, encoding="utf-8")
    everything = {
        "md": "\n".join(f"## {one.name}\n\n{one.markdown()}" for one in tables),
        "html": render.page("Tables", [f"<h2>{one.name}</h2>\n{one.html()}" for one in tables]),
        "tex": render.document([one.name for one in tables]),
    }
    for kind, text in everything.items():
        (folder / f"tables.{kind}").write_text(text, encoding="utf-8")
