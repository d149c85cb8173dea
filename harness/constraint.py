"""May this candidate stand? A drop in BLEU against a tolerance, judged with its uncertainty.

The drop is BLEU(dense) - BLEU(pruned) in BLEU points on one set of sentences. How far it can be
trusted comes from a paired bootstrap (Koehn, 2004): the same resampled sentences score both
models, so what both find hard cancels out.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from grouping.errors import StudyError
from harness import bleu

Criterion = Literal["bound", "point"]

#: the smallest unit, in BLEU points, in which an infeasible candidate's excess is counted
SMALLEST_UNIT = 0.1


class PairedBootstrap:
    """Resamples of one set of sentences, drawn once, so that every candidate meets the same ones.

    ``counts[r, i]``, float64 ``[resamples, sentences]``, says how often resample r holds sentence
    i. Counts and their products with statistics are whole numbers far below 2^53, hence exact.
    """

    def __init__(self, sentences: int, resamples: int = 1000, *, seed: int) -> None:
        if sentences < 1 or resamples < 2:
            raise StudyError(
                f"a bootstrap of {resamples} resamples of {sentences} sentences is impossible: "
                "it takes at least 2 resamples of at least 1 sentence"
            )
        equal = np.full(sentences, 1 / sentences)
        drawn = np.random.default_rng(seed).multinomial(sentences, equal, size=resamples)
        self.counts = drawn.astype(np.float64)

    def differences(self, dense: NDArray[np.int64], pruned: NDArray[np.int64]) -> NDArray[np.float64]:
        """BLEU(dense) - BLEU(pruned) in BLEU points of every resample, ``[resamples]``.

        Both arguments are statistics ``[sentences, 10]`` of the same sentences in the same order.
        Raises ValueError for another number of sentences than this bootstrap was drawn for.
        """
        expected = (self.counts.shape[1], bleu.STATISTICS)
        if dense.shape != expected or pruned.shape != expected:
            raise ValueError(f"statistics {dense.shape} and {pruned.shape}, expected {expected} twice")
        return bleu.bleu_of_sums(self.counts @ dense) - bleu.bleu_of_sums(self.counts @ pruned)


@dataclass(frozen=True)
class Verdict:
    """What one set of sentences says about one candidate; all but ``feasible`` in BLEU points."""

    bleu: float
    dense_bleu: float
    #: BLEU(dense) - BLEU(pruned), the point estimate
    drop: float
    #: one-sided upper confidence bound of the drop
    bound: float
    #: of the drop
    standard_error: float
    feasible: bool
    #: what was held against the tolerance: the bound or the drop, as the criterion says
    excess: float


@dataclass(frozen=True)
class Constraint:
    """The drop may not exceed ``tolerance`` BLEU points.

    With the criterion ``bound`` the upper ``confidence`` bound of the drop must keep the
    tolerance, with ``point`` only the drop itself, as in the OLMP paper. The bound is the plain
    percentile of the paired bootstrap: no distribution is assumed, and a candidate whose
    hypotheses equal the dense model's has bound 0 exactly, so it is feasible at any tolerance.
    """

    tolerance: float
    criterion: Criterion = "bound"
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < math.inf:
            raise StudyError(f"tolerance {self.tolerance} is not possible: give BLEU points, 0 or more")
        if self.criterion not in get_args(Criterion):
            allowed = " or ".join(get_args(Criterion))
            raise StudyError(f"unknown criterion {self.criterion!r}: give {allowed}")
        _check_confidence(self.confidence)

    def judge(
        self, dense: NDArray[np.int64], pruned: NDArray[np.int64], bootstrap: PairedBootstrap
    ) -> Verdict:
        """Judge a candidate by the statistics ``[sentences, 10]`` of both models on one set."""
        before, after = bleu.score(dense.sum(axis=0)), bleu.score(pruned.sum(axis=0))
        return self.verdict(before, after, bootstrap.differences(dense, pruned))

    def verdict(self, dense: float, pruned: float, differences: NDArray[np.float64]) -> Verdict:
        """Judge a candidate by both models' values and the resampled differences between them."""
        drop, bound = dense - pruned, float(np.quantile(differences, self.confidence))
        excess = bound if self.criterion == "bound" else drop
        return Verdict(
            bleu=pruned,
            dense_bleu=dense,
            drop=drop,
            bound=bound,
            standard_error=float(differences.std(ddof=1)),
            feasible=excess <= self.tolerance,
            excess=excess,
        )

    def score(self, relative_size: float, verdict: Verdict) -> float:
        """One positive number to minimise in which feasibility comes first.

        Feasible: ``relative_size``, a fraction of the dense size and so at most 1. Infeasible:
        1 + (excess - tolerance) / max(tolerance, 0.1), always above 1.
        """
        if verdict.feasible:
            return relative_size
        penalty = (verdict.excess - self.tolerance) / max(self.tolerance, SMALLEST_UNIT)
        # an excess of one rounding error must not round to the score of a feasible dense model
        return max(1 + penalty, math.nextafter(1, 2))


def smallest_detectable(standard_error: float, confidence: float = 0.95) -> float:
    """The smallest observed drop, in BLEU points, that a set can tell from no drop at all.

    One-sided, in the normal approximation: z(confidence) standard errors of the drop.
    """
    _check_confidence(confidence)
    return NormalDist().inv_cdf(confidence) * standard_error


def interval(differences: NDArray[np.float64], confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided percentile interval of bootstrap ``differences``, in their unit."""
    _check_confidence(confidence)
    low, high = np.quantile(differences, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _check_confidence(confidence: float) -> None:
    if not 0.5 < confidence < 1:
        raise StudyError(f"confidence {confidence} is not possible: give a fraction between 0.5 and 1")
