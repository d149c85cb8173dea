"""Search-free rules against each other where all prune to the same size."""

from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from analysis.contrasts import lost, paired
from analysis.frame import NotCollected, Results
from analysis.outcomes import CLASS_BLIND, RULES, Outcome, column, outcomes, placed
from analysis.significance import PairedBootstrap
from analysis.tables.best import drops
from analysis.tables.style import interval, table

CAPTION = """Search-free rules that prune to the same size, with and without retraining. Asked: remaining
connections in percent of the prunable ones. BLEU of the model on test and its drop from the dense model in
points, with the mean ends of the 95 % intervals of the paired bootstrap over sentences. Class-blind drop: the
BLEU that a model has less than class-blind's of the same size (negative: more), over shared seeds, with the
interval of the same bootstrap, bold where it excludes zero, not corrected; a rule has one outcome, so its own
spread is not in it.
"""
SHOWN = ["schedule", "dropout", "sparsity"]
BY = ["model", "schedule", "dropout", "sparsity", "setting", "grouping", "search"]
AGAINST, SHOWN_TO_BE = f"{CLASS_BLIND} drop", "is bold"


def rules(results: Results) -> Styler:
    """A row per model, schedule, size and rule. Raises NotCollected if no cell was pruned to a given size."""
    rows = placed(results.runs, SHOWN)
    rows = rows[column(rows, "sparsity").notna() & rows["search"].isin(RULES)]
    if rows.empty:
        raise NotCollected("no cell was pruned to a given size: `olmp grid sparsity` runs some")
    bootstrap = PairedBootstrap(results.statistics)
    found = list(outcomes(rows, BY))
    blind = {_peers(one): one for one in found if one.place["search"] == CLASS_BLIND}
    listed = pd.DataFrame([_row(one, blind.get(_peers(one)), bootstrap) for one in found])
    bold = [(place, AGAINST) for place, is_shown in enumerate(listed.pop(SHOWN_TO_BE)) if is_shown]
    return table(listed, CAPTION, bold)


def _peers(one: Outcome) -> str:
    """What outcomes have in common that prune one model to one size in one way."""
    return str([value for name, value in one.place.items() if name != "search"])


def _row(one: Outcome, blind: Outcome | None, bootstrap: PairedBootstrap) -> dict[str, Any]:
    place = dict(one.place)
    asked, dropout = 100 * (1 - place.pop("sparsity")), place.pop("dropout")
    against = None if blind is None or blind is one else lost(paired(one, blind), bootstrap)
    return {
        **{name: place[name] for name in ("model", "schedule")},
        "dropout": "" if pd.isna(dropout) else f"{dropout:g}",
        "asked %": asked,
        **{name: place[name] for name in ("grouping", "search", "setting")},
        "test BLEU": one.cells["sets.test.bleu"].mean(),
        **drops(one, ("test",)),
        AGAINST: against.drop if against else None,
        "interval": interval(against.low, against.high) if against else "",
        SHOWN_TO_BE: against is not None and (round(against.low, 2) > 0 or round(against.high, 2) < 0),
    }
