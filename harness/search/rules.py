"""Search-free rules: one strength in, the number of pruned connections of each class out.

The signature is `rule(magnitudes, strength)`. `magnitudes` holds for each class the absolute values of its
weights, float32, ascending, finite and not empty: numpy vectors, or what answers like them in less memory
(`Ascending`; `np.asarray` makes it a vector). `strength` is in [0, 1]. The result has shape (classes,),
int64: how many of the smallest connections of each class go. It never falls when the strength rises.
Strength 0 prunes nothing.

Class-blind, class-uniform and class-distribution: A. See, M.-T. Luong, C. D. Manning, "Compression of Neural
Machine Translation Models via Pruning", CoNLL 2016 (arXiv 1606.09274). LAMP: J. Lee et al., "Layer-adaptive
Sparsity for the Magnitude-based Pruning", ICLR 2021.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from grouping.registry import Registry
from harness.operators.ascending import Ascending

Rule = Callable[[Sequence[Ascending], float], np.ndarray]
Side = Literal["left", "right"]

#: numbers that are computed at a time, so that a rule takes no memory of a model's size
BLOCK = 1 << 13

rules: Registry[Rule] = Registry("rule", "olmp.rules")


@rules.register("class-blind")
def class_blind(magnitudes: Sequence[Ascending], strength: float) -> np.ndarray:
    """One threshold for all: the fraction `strength` of all connections goes, ties in class order."""
    return smallest_per_class(magnitudes, round(strength * sum(m.size for m in magnitudes)))


@rules.register("class-uniform")
def class_uniform(magnitudes: Sequence[Ascending], strength: float) -> np.ndarray:
    """The same fraction `strength` of every class."""
    return np.array([round(strength * m.size) for m in magnitudes], dtype=np.int64)


@rules.register("class-distribution")
def class_distribution(magnitudes: Sequence[Ascending], strength: float) -> np.ndarray:
    """Threshold λ·σ of each class, with the λ at which the fraction `strength` of all connections goes.

    Only magnitudes are known, so σ is √(mean w²): the standard deviation of weights with mean zero, which
    trained weights have to a good approximation.
    """
    in_sigmas = [_in_sigmas(m) for m in magnitudes]
    return smallest_per_class(in_sigmas, round(strength * sum(m.size for m in magnitudes)))


def _in_sigmas(magnitudes: Ascending) -> "_Computed":
    """The magnitudes of one class in units of its σ."""
    sigma = np.sqrt(sum_of_squares(magnitudes) / magnitudes.size)

    def scaled(some: slice) -> NDArray[np.float64]:
        return np.divide(magnitudes[some], sigma if sigma > 0 else 1, dtype=np.float64)

    return _Computed(scaled, scaled(slice(None, None, BLOCK)))


def sum_of_squares(magnitudes: Ascending) -> np.float64:
    """Sum in float64: the very number that ``np.sum`` of all squares gives, because it halves alike."""
    count = len(magnitudes)

    def between(start: int, end: int) -> np.float64:
        if end - start <= BLOCK:
            return np.sum(np.square(magnitudes[start:end], dtype=np.float64))
        half = (end - start) // 2
        middle = start + half - half % 8
        return between(start, middle) + between(middle, end)

    return between(0, count)


@rules.register("lamp")
def lamp(magnitudes: Sequence[Ascending], strength: float) -> np.ndarray:
    """The fraction `strength` of all connections, by LAMP score; every class keeps its largest connection.

    The score of a connection is w² / Σ w'² over the connections of its class that are not smaller (itself
    included), so the largest of a class has score 1 and stays.
    """
    scores = [_lamp_scores(m) for m in magnitudes]
    wanted = round(strength * sum(m.size for m in magnitudes))
    return smallest_per_class(scores, min(wanted, sum(m.size - 1 for m in magnitudes)))


def _lamp_scores(magnitudes: Ascending) -> "_Computed":
    """LAMP scores of one class but its largest connection; zeros score 0."""
    last = magnitudes.size - 1
    starts = range(0, magnitudes.size, BLOCK)
    larger = np.zeros(len(starts))  # Σ w² over the blocks behind each block

    def sums(some: slice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        squares = np.square(magnitudes[some], dtype=np.float64)
        return squares, np.cumsum(np.append(larger[some.start // BLOCK], squares[::-1]))[:0:-1]

    def scores(some: slice) -> NDArray[np.float64]:
        squares, not_smaller = sums(some)
        found = np.divide(squares, not_smaller, out=np.zeros_like(squares), where=not_smaller > 0)
        return found[: last - some.start]

    heads = np.zeros(len(starts))
    for index in reversed(range(len(starts))):
        squares, not_smaller = sums(slice(starts[index], starts[index] + BLOCK))
        heads[index] = squares[0] / (not_smaller[0] or 1)
        if index:
            larger[index - 1] = not_smaller[0]
    return _Computed(scores, heads[: -(-last // BLOCK)])


class _Searchable(Protocol):
    @property
    def dtype(self) -> np.dtype: ...

    def searchsorted(self, v: Any, /, side: Side = "left") -> Any: ...


class _Computed:
    """Ascending float64 numbers, computed a block at a time and only where a search ends."""

    dtype = np.dtype(np.float64)

    def __init__(self, compute: Callable[[slice], NDArray[np.float64]], heads: NDArray[np.float64]):
        """``heads`` are the first numbers of the blocks."""
        self.compute, self.heads = compute, heads

    def searchsorted(self, v: Any, /, side: Side = "left") -> int:
        start = (int(self.heads.searchsorted(v, side)) - 1) * BLOCK
        if start < 0:
            return 0
        return start + int(self.compute(slice(start, start + BLOCK)).searchsorted(v, side))


def smallest_per_class(ascending: Sequence[_Searchable], count: int) -> np.ndarray:
    """How many of the `count` smallest values over all classes lie in each class; ties go in class order.

    `ascending` holds one ascending array of non-negative floats per class, all of one dtype; returns shape
    (classes,), int64. Non-negative IEEE floats are ordered like their bit patterns, so the count-th smallest
    value is found by bisection on the pattern, at most 63 steps of one binary search a class, without merging
    or sorting the classes.
    """
    dtype = ascending[0].dtype
    pattern = np.dtype(f"u{dtype.itemsize}")

    def per_class(bits: int, side: Side) -> np.ndarray:
        value = np.array(bits, dtype=pattern).view(dtype)
        return np.array([a.searchsorted(value, side=side) for a in ascending], dtype=np.int64)

    infinity = int(np.array(np.inf, dtype=dtype).view(pattern))
    threshold = bisect_left(range(infinity), count, key=lambda bits: int(per_class(bits, "right").sum()))
    below = per_class(threshold, "left")
    tied = per_class(threshold, "right") - below
    tied_before = np.cumsum(tied) - tied
    return below + np.clip(count - below.sum() - tied_before, 0, tied)
