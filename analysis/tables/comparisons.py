"""Tables of groupings against each other, of optimisers, and of groupings over models."""

from collections.abc import Iterator
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from analysis.contrasts import contrasts, ranked
from analysis.frame import NotCollected, Results
from analysis.outcomes import RULES, one_shot, placed
from analysis.significance import PairedBootstrap, compare, holm
from analysis.tables.style import interval, spread, table

CONTRASTS = """Groupings against each other. Points: mean difference of the remaining connections over
shared seeds, in percent of the prunable ones (grouping minus against; negative: smaller), with the 95 %
interval of Student's t, bold where it excludes zero, not corrected. p of the paired t-test; Holm p corrected
over all comparisons of a model in one setting; sign-flip p exact, which with five seeds is never below
0.0625. Effect: Cohen's d_z. Wins: share of seeds in which the grouping is smaller. Test BLEU: mean difference
in points with the 95 % interval of the paired bootstrap over sentences. Class-blind draws nothing at random
and is one constant.
"""
RANKS = """Groupings over models, descriptive: mean rank of the median remaining connections, and on how
many models a grouping is the smallest (equal ones share a win). Seeds of one model are no independent
blocks, so there is no test.
"""
OPTIMISERS = """Optimisers at equal budget. Pairs are groupings and seeds that an optimiser and {first} have
both finished; of {first}, those that it shares with any. Remaining connections over these in percent of the
prunable ones: median and range. Points: mean difference to {first} (negative: smaller), with the 95 %
interval of Student's t, bold where it excludes zero; Holm p of the paired t-test, corrected over the
optimisers of the block. Mean rank: over the groupings and seeds that all of the block have finished.
"""
#: what the others are compared to, where it is there
NCS = "NCS"


def groupings(results: Results) -> Styler:
    """A row per pair of groupings. Raises NotCollected if no two outcomes can be compared."""
    found = contrasts(results.runs, PairedBootstrap(results.statistics))
    if found.empty:
        raise NotCollected("no two groupings are finished in one setting: `olmp grid study` runs them")
    rows = pd.DataFrame(
        {
            **{name: found[name] for name in ("model", "tolerance", "search", "setting")},
            "grouping": found["first"],
            "against": found["second"],
            "pairs": found["pairs"],
            "points": 100 * found["mean"],
            "interval": _intervals(found, "low", "high", 1, 100),
            "p": found["p"],
            "Holm p": found["p_holm"],
            "sign-flip p": found["p_exact"],
            "effect": found["effect"],
            "wins": found["wins"],
            "test BLEU": found["bleu"],
            "test interval": _intervals(found, "bleu_low", "bleu_high", 2, 1),
        }
    )
    return table(rows, CONTRASTS, [(row, "points") for row in found.index[_excludes_zero(found)]])


def ranks(results: Results) -> Styler:
    """A row per grouping and setting. Raises NotCollected if no search is finished."""
    found = ranked(results.runs)
    if found.empty:
        raise NotCollected("no search over a grouping is finished: `olmp grid study` runs them")
    return table(found.sort_values(["tolerance", "search", "setting", "mean rank"]), RANKS)


def optimisers(results: Results) -> Styler:
    """A row per model, budget and optimiser. Raises NotCollected unless two optimisers share settings."""
    rows = one_shot(placed(results.runs))
    rows = rows[~rows["search"].isin(RULES)]
    found = [
        {"model": place[0], "tolerance": place[1], "setting": place[2], **one}
        for place, cells in rows.groupby(["model", "tolerance", "setting"], dropna=False, sort=True)
        for one in _race(cells)
    ]
    if not found:
        raise NotCollected(
            "no two optimisers are finished with the same groupings, seeds and budget: "
            "`olmp grid optimisers` runs them"
        )
    listed = pd.DataFrame(found)
    blocks = listed.groupby(["model", "tolerance", "setting"], dropna=False)
    listed["Holm p"] = blocks["p"].transform(lambda p: holm(p.tolist()))
    bold = [(row, "points") for row in listed.index[_excludes_zero(listed)]]
    firsts = " or ".join(listed.pop("first").unique())
    return table(listed.drop(columns=["low", "high", "p"]), OPTIMISERS.format(first=firsts), bold)


def _race(cells: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The optimisers of one model and budget, each over what it shares with the first."""
    finished = cells.pivot_table("remaining", ["grouping", "config.seed"], "search")
    tried = finished.columns.tolist()
    first = NCS if NCS in tried else tried[0]
    # of the first, what it shares with any other
    common = finished[finished.notna().sum(axis="columns") > 1]
    shared = {name: common.dropna(subset=[first, name]) for name in tried}
    names = sorted((n for n in tried if len(shared[n])), key=lambda n: shared[n][n].median())
    if len(names) < 2:
        return
    ranks_ = finished[names].dropna().rank(axis="columns").mean()
    for name in names:
        pairs = shared[name]
        versus = compare(pairs[name], pairs[first])
        other = name != first
        yield {
            "optimiser": name,
            "pairs": len(pairs),
            "remaining %": 100 * pairs[name].median(),
            "range": spread(pairs[name], scale=100),
            "points": 100 * versus.mean if other else None,
            "interval": interval(versus.low, versus.high, 1, 100) if other else "",
            "Holm p": None,
            "mean rank": ranks_[name],
            "first": first,
            "low": versus.low,
            "high": versus.high,
            "p": versus.p if other else None,
        }


def _intervals(found: pd.DataFrame, low: str, high: str, digits: int, scale: float) -> list[str]:
    return [interval(a, b, digits, scale) for a, b in zip(found[low], found[high], strict=True)]


def _excludes_zero(found: pd.DataFrame) -> pd.Series:
    return (found["low"] > 0) | (found["high"] < 0)
