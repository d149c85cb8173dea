"""Search-free rules against each other where all prune to the same size."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from analysis.contrasts import lost, paired
from analysis.frame import NotCollected, Results, finished, require
from analysis.outcomes import CLASS_BLIND, RULES, Outcome, column, outcomes, placed
from analysis.significance import PairedBootstrap
from analysis.tables.best import drops
from analysis.tables.style import interval, table

CAPTION = """Search-free rules that prune to the same size, with and without retraining. Removed: connections
in percent of the prunable ones. BLEU of the model on test and its drop from the dense model in
points, with the mean ends of the 95 % intervals of the paired bootstrap over sentences. Class-blind drop: the
BLEU that a model has less than class-blind's of the same size (negative: more), over shared seeds, with the
interval of the same bootstrap, bold where it excludes zero, not corrected. What another seed of a retraining
would change is not in it, nor what another device would, a CPU or a GPU: they are not told apart.
"""
SHOWN = ["schedule", "dropout", "sparsity"]
#: what concerns searches, or iterative schedules, alone, and devices: no part of a setting here
IDLE = (
    *("device", "training_device"),
    *("evaluations", "tokens", "start", "sigma", "racing", "skipping", "precision"),
    *("criterion", "confidence", "round_epochs"),
)
BY = ["model", "schedule", "dropout", "sparsity", "setting", "search", "grouping"]
NEEDED = ["files", "sets.test.bleu", "sets.test.drop", "sets.test.low", "sets.test.high"]
AGAINST, SHOWN_TO_BE = f"{CLASS_BLIND} drop", "is bold"


def rules(results: Results) -> Styler:
    """A row per model, schedule, size and rule. Raises NotCollected if no cell was pruned to a given size."""
    runs = results.runs
    given = runs[column(runs, "sparsity").notna() & column(runs, "search").isin(RULES)]
    if finished(given).empty:
        raise NotCollected("no cell was pruned to a given size: `olmp grid sparsity` runs some")
    require(given, NEEDED, "the table of runs")
    rows = placed(given, [*SHOWN, *IDLE])
    bootstrap = PairedBootstrap(results.statistics)
    found = list(outcomes(rows, BY))
    blind = [one for one in found if one.place["search"] == CLASS_BLIND]
    listed = pd.DataFrame([_row(one, _beside(one, blind), bootstrap) for one in found])
    bold = [(place, AGAINST) for place, is_shown in enumerate(listed.pop(SHOWN_TO_BE)) if is_shown]
    return table(listed, CAPTION, bold)


def _beside(one: Outcome, blind: Sequence[Outcome]) -> Outcome | None:
    """Class-blind's outcome at the same size; over the same groups where there are several: it has none."""
    equal = [other for other in blind if _peers(other) == _peers(one)]
    return min(equal, key=lambda other: other.place["grouping"] != one.place["grouping"], default=None)


def _peers(one: Outcome) -> list[str]:
    """What outcomes have in common that prune one model to one size in one way."""
    # as text: no missing value equals another
    return [str(value) for name, value in one.place.items() if name not in ("search", "grouping")]


def _row(one: Outcome, blind: Outcome | None, bootstrap: PairedBootstrap) -> dict[str, Any]:
    place = one.place
    dropout = place["dropout"]
    against = None
    if blind is not None and place["search"] != CLASS_BLIND:
        against = lost(paired(one, blind), bootstrap)
    return {
        **{name: place[name] for name in ("model", "schedule")},
        "dropout": "" if pd.isna(dropout) else f"{dropout:g}",
        "removed %": 100 * place["sparsity"],
        **{name: place[name] for name in ("search", "grouping", "setting")},
        "test BLEU": one.cells["sets.test.bleu"].mean(),
        **drops(one, ("test",)),
        AGAINST: against.drop if against else None,
        "interval": interval(against.low, against.high) if against else "",
        SHOWN_TO_BE: against is not None and (round(against.low, 2) > 0 or round(against.high, 2) < 0),
    }
