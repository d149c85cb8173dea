"""How much better a search looks on the sentences that it searched on than on others, and what that costs."""

from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from analysis.frame import NotCollected, Results, require
from analysis.outcomes import DENSE, RULES, Outcome, one_shot, outcomes, placed
from analysis.significance import mean_interval
from analysis.tables.best import cost, drops, size
from analysis.tables.style import interval, table

CAPTION = """Optimism. Chosen: the model that a search hands to confirm first, before any back-off there (in
float32 and on all of its sentences it holds: what does not is passed over, and not counted); the mean of
its drop in BLEU points (dense minus pruned) on the sentences that it was searched on, and on confirm, which
had no say in it. Optimism: how much larger the second is, mean over seeds with the 95 % interval of
Student's t, which knows the noise of the search alone; two sets, and the decoders of search and confirm,
also differ by themselves, which is what rules show, that choose among few candidates. The rest is what is
left after the back-offs: remaining connections in percent of the prunable ones, the drop on test with the
mean ends of the 95 % intervals of the paired bootstrap over sentences, and beyond: the share of cells that
lose more than the tolerance there. Where the constraint is another measure than BLEU, the drop of the
chosen model and what lies beyond are not known. Tokens: the budget.
"""
#: fields that have a column of their own; ``tokens`` of these rows is the budget, not what was spent
SHOWN = ["search_sentences", "tokens"]
BY = ["model", "tolerance", "search", "grouping", "setting", *SHOWN]


def optimism(results: Results) -> Styler:
    """A row per model, search, grouping, constraint, number of search sentences and budget.

    Raises NotCollected if no search is finished.
    """
    rows = one_shot(placed(results.runs, SHOWN))
    require(rows, ["sets.search.sentences", "config.constraint"], "the table of runs")
    if rows["search"].isin(RULES).all():
        raise NotCollected("no search is finished: `olmp grid optimism` runs some")
    rows = rows[rows["search"] != DENSE]
    rows = rows.assign(search_sentences=rows["search_sentences"].fillna(rows["sets.search.sentences"]))
    rows = rows.merge(_chosen(results.evaluations), on="cell", how="left")
    return table(pd.DataFrame(_row(one) for one in outcomes(rows, BY)), CAPTION)


def _chosen(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Per cell the drop on search and on confirm of what the search found and confirm judged first.

    One that was searched in a lower precision, or on sentences drawn anew, has the drop of its last
    judgement on search, in float32 and on all sentences. The dense model has none.
    """
    tried = evaluations.assign(knobs=evaluations["knobs"].map(tuple)).sort_values("index")
    own = tried.loc[tried["stage"].isin(["start", "search"]), ["cell", "knobs"]].drop_duplicates()
    confirmed = tried[tried["stage"] == "confirm"].merge(own).drop_duplicates("cell")
    searched = tried[tried["stage"] != "confirm"].drop_duplicates(["cell", "knobs"], keep="last")
    found = confirmed.merge(searched, on=["cell", "knobs"], suffixes=(" on confirm", " on search"))
    return found[["cell", "drop on search", "drop on confirm"]]


def _row(one: Outcome) -> dict[str, Any]:
    place = {name.replace("_", " "): one.place[name] for name in BY}
    cells = one.cells
    bleu = (cells["config.constraint"] == "bleu").all()
    search, confirm = (cells[f"drop on {name}"].astype(float) for name in ("search", "confirm"))
    beyond = cells["sets.test.drop"].astype(float) > cells["tolerance"].astype(float)
    spent = cost(one)
    return {
        **place,
        "chosen search drop": search.mean() if bleu else None,
        "chosen confirm drop": confirm.mean() if bleu else None,
        "optimism drop": (confirm - search).mean() if bleu else None,
        "optimism interval": interval(*mean_interval(confirm - search)) if bleu else "",
        "back-offs": spent["back-offs"],
        **size(one),
        **drops(one, ("test",)),
        "beyond %": 100 * beyond.mean() if bleu else None,
        "core hours": spent["core hours"],
    }
