"""What a cheap measure would save as a filter before BLEU; no search asks it, because it costs as much."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FOLDS = 10  # parts of the calibration pairs; each part is predicted from the others


@dataclass(frozen=True)
class Prefilter:
    """Foretells a candidate's drop in BLEU from a cheap measure's drop, after those translated so far.

    CV+ (Barber et al., "Predictive inference with the jackknife+", Annals of Statistics 49(1), 2021)
    around a monotone regression: each end of the interval fails for about a share ``error`` of new
    candidates (at most twice that) if they come from where the calibration pairs came from.
    Silent below ``minimum`` pairs, and below 1/error - 1, where no such end exists.
    """

    error: float = 0.05
    minimum: int = 20

    def interval(self, measured: NDArray, drops: NDArray, new: float) -> tuple[float, float]:
        """Both ends for a candidate measured ``new``; calibration pairs [n], in the order of the search.

        ``drops`` is whatever is held against the tolerance, the drop in BLEU or its upper bound.
        """
        rank = int(self.error * (len(drops) + 1))
        if len(drops) < self.minimum or rank < 1:
            return -np.inf, np.inf
        fold = np.arange(len(drops)) % FOLDS
        foretold = np.empty(len(drops))
        for part in range(FOLDS):
            held, others = fold == part, fold != part
            fit = isotonic(measured[others], drops[others], np.append(measured[held], new))
            foretold[held] = fit[-1] + drops[held] - fit[:-1]
        foretold.sort()
        return float(foretold[rank - 1]), float(foretold[-rank])

    def refuses(self, measured: NDArray, drops: NDArray, new: float, tolerance: float) -> bool:
        """Whether the candidate cannot be feasible, at the error level of one end."""
        return self.interval(measured, drops, new)[0] > tolerance


def isotonic(x: NDArray, y: NDArray, at: NDArray) -> NDArray[np.float64]:
    """The non-decreasing step function through points [n] with least squares, at points [m].

    By the min-max formula: its i-th value is max over j ≤ i of min over k ≥ i of the mean of y[j..k].
    """
    order = np.lexsort((y, x))
    sums = np.concatenate([[0.0], np.cumsum(y[order])])
    count = np.arange(1, len(sums)) - np.arange(len(sums) - 1)[:, None]
    means = (sums[1:] - sums[:-1, None]) / np.maximum(count, 1)
    least = np.minimum.accumulate(means[:, ::-1], axis=1)[:, ::-1]  # over k ≥ i, where j ≤ i
    values = np.diagonal(np.maximum.accumulate(least, axis=0))
    return values[np.maximum(np.searchsorted(x[order], at, side="right") - 1, 0)]
