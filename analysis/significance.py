"""How much of a difference is more than noise.

Two kinds of noise. Between *two models* it is the choice of test sentences: sacrebleu's paired bootstrap
(Koehn, 2004). Between *two groupings* on one model it is the seed of the search: the seeds are the pairs.
Seeds of one model say nothing about other models, so across models there are ranks and wins, and no test.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sacrebleu.metrics import BLEU
from scipy import stats
from statsmodels.stats.multitest import multipletests

#: sacrebleu's defaults of its paired bootstrap
RESAMPLES, SEED = 1000, 12345
#: with 16 pairs or fewer all flips of signs are tried, with more so many at random
FLIPS = 2**16


class BleuDifference(NamedTuple):
    """BLEU of a system and of its baseline on the same sentences, in percent, and what lies between."""

    baseline: float
    system: float
    #: baseline - system, in BLEU points: a drop is positive
    drop: float
    #: ends of its 95 % interval
    low: float
    high: float
    #: as sacrebleu computes it; where the sign of the drop is clear, about that of a one-sided test
    p: float


class Comparison(NamedTuple):
    """Paired outcomes of two groupings on one model; differences are first - second."""

    pairs: int
    mean: float
    #: ends of the 95 % interval of the mean, by Student's t; nan with fewer than two pairs or without spread
    low: float
    high: float
    #: two-sided, of the paired t-test
    p: float
    #: two-sided, of flipping the signs of the differences in all ways
    p_exact: float
    #: Cohen's d_z: mean over standard deviation of the differences (Lakens, 2013, equation 6)
    effect: float


class PairedBootstrap:
    """sacrebleu's paired bootstrap over translations of one test set, known by their names.

    It works from statistics ``[sentences, 10]``, as ``Results.statistics`` has them. BLEU, p and resamples
    are those of ``sacrebleu.significance.PairedTest`` with ``test_type="bs"`` on the same text; that gives no
    interval of the difference, which here is the percentiles of the resampled ones.
    """

    def __init__(self, statistics: Mapping[str, NDArray[np.int64]]) -> None:
        self._statistics = statistics
        self._counts = cache(_resamples)
        self._scores = cache(self._scored)

    def __contains__(self, name: str) -> bool:
        return name in self._statistics

    def difference(self, baseline: str, system: str) -> BleuDifference:
        """From a baseline to a system, by their names; as ``mean_difference``."""
        return self.mean_difference([baseline], [system])

    def mean_difference(self, baselines: Sequence[str], systems: Sequence[str]) -> BleuDifference:
        """The mean over pairs of a baseline and a system, all on the same resamples of the sentences.

        Raises KeyError for a name that is not known, ValueError where numbers of sentences differ or
        there is not a system for each baseline.
        """
        sizes = {len(self._statistics[name]) for name in (*baselines, *systems)}
        if len(sizes) != 1 or len(baselines) != len(systems):
            raise ValueError(f"{len(baselines)} baselines, {len(systems)} systems of {sizes} sentences")
        before, befores = self._mean(baselines)
        after, afters = self._mean(systems)
        differences = befores - afters
        spread = np.abs(differences) - np.abs(differences).mean()
        p = (np.sum(spread > abs(before - after)) + 1) / (RESAMPLES + 1)
        low, high = np.quantile(differences, [0.025, 0.975])
        return BleuDifference(before, after, before - after, float(low), float(high), float(p))

    def _mean(self, names: Sequence[str]) -> tuple[float, NDArray[np.float64]]:
        scores, resampled = zip(*map(self._scores, names), strict=True)
        return float(np.mean(scores)), np.mean(resampled, axis=0)

    def _scored(self, name: str) -> tuple[float, NDArray[np.float64]]:
        """BLEU of a translation, and of its resamples."""
        statistics = self._statistics[name]
        sums = self._counts(len(statistics)) @ statistics
        return _bleu(statistics.sum(axis=0)), np.array([_bleu(row) for row in sums])


def bleu_difference(baseline: NDArray[np.int64], system: NDArray[np.int64]) -> BleuDifference:
    """The same for two translations alone, from their statistics ``[sentences, 10]``."""
    return PairedBootstrap({"baseline": baseline, "system": system}).difference("baseline", "system")


def compare(first: ArrayLike, second: ArrayLike) -> Comparison:
    """Outcomes of two groupings over the same seeds, in the same order.

    ``second`` may be one number: a rule without seeds, which is compared as a constant. The t-test is what
    counts, because with five pairs neither Wilcoxon's test nor sign flips can give less than 2/2^5 =
    0.0625; its assumption, differences about normal, is looked at by ``p_exact``, which has none.
    """
    differences = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    pairs, mean = len(differences), float(differences.mean()) if len(differences) else np.nan
    if pairs < 2:
        return Comparison(pairs, mean, np.nan, np.nan, np.nan, np.nan, np.nan)
    exact = _sign_flips(differences)
    if np.ptp(differences) == 0:  # without any spread there is no t; sign flips say what can be said
        effect = float(np.copysign(np.inf, mean)) if mean else 0.0
        return Comparison(pairs, mean, np.nan, np.nan, exact, exact, effect)
    found = stats.ttest_1samp(differences, 0)
    low, high = map(float, found.confidence_interval(0.95))
    effect = mean / float(differences.std(ddof=1))
    return Comparison(pairs, mean, low, high, float(found.pvalue), exact, effect)


def sign_test(more: int, fewer: int) -> float:
    """Two-sided p of as many changes up and down, if both are as likely; what did not change is left out.

    Where each is a yes or a no this is McNemar's exact test (1947).
    """
    return float(stats.binomtest(more, more + fewer).pvalue) if more + fewer else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction over comparisons that belong together; nan, where nothing was tested, stays nan."""
    values = np.asarray(p, dtype=float)
    tested = ~np.isnan(values)
    if tested.any():
        values[tested] = multipletests(values[tested], method="holm")[1]
    return values.tolist()


def mean_interval(values: ArrayLike) -> tuple[float, float]:
    """Ends of the 95 % interval of the mean, by Student's t; nan unless two values differ."""
    found = np.asarray(values, dtype=float)
    if len(found) < 2 or np.ptp(found) == 0:
        return np.nan, np.nan
    low, high = stats.ttest_1samp(found, 0).confidence_interval(0.95)
    return float(low), float(high)


def ranks(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Mean rank and wins of each row over the columns, descriptive only; smaller outcomes are better.

    ``outcomes`` has a row per grouping and a column per model. ``models`` counts
    those in which a row has an outcome; equal outcomes share a rank, and a win.
    """
    best = outcomes.eq(outcomes.min(axis="index"), axis="columns")
    found = {
        "mean rank": outcomes.rank(axis="index").mean(axis="columns"),
        "wins": (best / best.sum(axis="index")).sum(axis="columns"),
        "models": outcomes.notna().sum(axis="columns"),
    }
    return pd.DataFrame(found).sort_values("mean rank")


def _sign_flips(differences: NDArray[np.float64]) -> float:
    # more resamples than there are ways to flip means all of them
    found = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=FLIPS, vectorized=True, rng=SEED
    )
    return float(found.pvalue)


def _resamples(sentences: int) -> NDArray[np.float64]:
    """How often each resample holds each sentence, ``[resamples, sentences]``: the draws of sacrebleu."""
    drawn = np.random.default_rng(SEED).choice(sentences, size=(RESAMPLES, sentences), replace=True)
    return np.stack([np.bincount(one, minlength=sentences) for one in drawn]).astype(np.float64)


def _bleu(sums: NDArray) -> float:
    """BLEU in percent of the summed statistics ``[10]`` of a set, by sacrebleu itself."""
    counts = [int(n) for n in sums]
    found = BLEU.compute_bleu(counts[2:6], counts[6:], counts[0], counts[1], smooth_method="exp")
    return float(found.score)
