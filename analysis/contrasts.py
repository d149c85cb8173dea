"""Grouping against grouping on one model, over the seeds that both have; across models only described."""

import math
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pandas as pd

from analysis.frame import require, translation
from analysis.outcomes import CLASS_BLIND, RULES, Outcome, one_shot, outcomes, placed, rule_beside
from analysis.significance import BleuDifference, Comparison, PairedBootstrap, compare, holm, ranks

#: what belongs together besides the grouping
SETTING = ["model", "tolerance", "search", "setting"]
BLEU = ("bleu", "bleu_low", "bleu_high", "bleu_p")
COLUMNS = [*SETTING, "first", "second", *Comparison._fields, "p_holm", "wins", *BLEU]


def contrasts(runs: pd.DataFrame, bootstrap: PairedBootstrap | None = None) -> pd.DataFrame:
    """Every pair of groupings under the same search, budget and tolerance, and each against class-blind.

    ``mean`` is the mean difference of the remaining fraction over shared seeds, first - second, so that a
    negative one is a smaller first; ``low`` and ``high`` its 95 % interval, ``effect`` Cohen's d_z, ``wins``
    the share of pairs in which the first is smaller, a tie being half of one. ``p`` is of the paired t-test,
    ``p_exact`` of all sign flips, ``p_holm`` is p after Holm's correction over all comparisons of the model
    in one setting. ``bleu`` is the mean difference of BLEU on test, first - second in points, with interval
    and p of the paired bootstrap; nan without a ``bootstrap`` that knows the translations. The
    rule class-blind draws nothing at random: it is one constant for all seeds.

    Raises NotCollected if no cell is finished, or if columns are missing.
    """
    rows = one_shot(placed(runs))
    if bootstrap is not None:
        require(rows, ["files"], "the table of runs")
    searched = rows[~rows["search"].isin(RULES)]
    found = [
        setting | pair
        for place, cells in searched.groupby(SETTING, dropna=False, sort=True)
        for setting in [dict(zip(SETTING, place, strict=True))]
        for pair in _pairs(rows, list(outcomes(cells)), bootstrap)
    ]
    table = pd.DataFrame(found, columns=[name for name in COLUMNS if name != "p_holm"])
    corrected = table.groupby(SETTING, dropna=False)["p"].transform(lambda p: holm(p.tolist()))
    return table.assign(p_holm=corrected)[COLUMNS]


def ranked(runs: pd.DataFrame) -> pd.DataFrame:
    """Groupings over models, descriptive only: mean rank and wins of their median remaining fraction.

    One block per tolerance, search and setting; a grouping counts on the models that it says something about.
    """
    rows = one_shot(placed(runs))
    searched = rows[~rows["search"].isin(RULES)]
    blocks: list[pd.DataFrame] = []
    place: Any
    for place, cells in searched.groupby(SETTING[1:], dropna=False, sort=True):
        medians = cells.pivot_table("remaining", "grouping", "model", aggfunc="median")
        found = ranks(medians).reset_index()
        blocks.append(found.assign(**dict(zip(SETTING[1:], place, strict=True))))
    columns = [*SETTING[1:], "grouping", "mean rank", "wins", "models"]
    return pd.concat(blocks, ignore_index=True)[columns] if blocks else pd.DataFrame(columns=columns)


def paired(first: Outcome, second: Outcome | pd.Series) -> pd.DataFrame:
    """The cells of the seeds that both have, with the columns of the second as ``other <column>``.

    A single cell, of a rule, is the second of all seeds.
    """
    mine = first.cells.drop_duplicates("config.seed")
    if isinstance(second, Outcome):
        other = second.cells.drop_duplicates("config.seed").add_prefix("other ")
        return mine.merge(other, left_on="config.seed", right_on="other config.seed")
    return mine.merge(second.to_frame().T.add_prefix("other "), how="cross")


def _pairs(
    rows: pd.DataFrame, found: list[Outcome], bootstrap: PairedBootstrap | None
) -> Iterator[dict[str, Any]]:
    """Contrasts of the groupings of one setting."""
    for first in found:
        if (rule := rule_beside(rows, first)) is not None:
            yield _contrast(first.place["grouping"], CLASS_BLIND, paired(first, rule), bootstrap)
    for first, second in combinations(found, 2):
        yield _contrast(first.place["grouping"], second.place["grouping"], paired(first, second), bootstrap)


def _contrast(
    first: str, second: str, pairs: pd.DataFrame, bootstrap: PairedBootstrap | None
) -> dict[str, Any]:
    mine, other = pairs["remaining"].astype(float), pairs["other remaining"].astype(float)
    wins = ((mine < other) + (mine == other) / 2).mean()
    bleu = dict.fromkeys(BLEU, math.nan)
    if bootstrap is not None and (found := lost(pairs, bootstrap)) is not None:
        bleu = dict(zip(BLEU, (-found.drop, -found.high, -found.low, found.p), strict=True))
    return {"first": first, "second": second, **compare(mine, other)._asdict(), "wins": wins, **bleu}


def lost(pairs: pd.DataFrame, bootstrap: PairedBootstrap) -> BleuDifference | None:
    """What test BLEU the first of ``paired`` cells lose against the others, on average.

    None without pairs, or where a translation was not collected.
    """
    systems, baselines = (
        [translation({"files": text}) for text in pairs[name]] for name in ("files", "other files")
    )
    if not systems or not all(name in bootstrap for name in (*systems, *baselines)):
        return None
    return bootstrap.mean_difference(baselines, systems)
