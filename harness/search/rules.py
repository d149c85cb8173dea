"""Search-free rules: one strength in, the number of pruned connections of each class out.

The signature is `rule(magnitudes, strength)`. `magnitudes` holds one array per class with the absolute values
of its weights, float32, ascending, finite and not empty; `strength` is in [0, 1]. The result has shape
(classes,), int64: how many of the smallest connections of each class go. It never falls when the strength
rises. Strength 0 prunes nothing.

Class-blind, class-uniform and class-distribution: A. See, M.-T. Luong, C. D. Manning, "Compression of Neural
Machine Translation Models via Pruning", CoNLL 2016 (arXiv 1606.09274). LAMP: J. Lee et al., "Layer-adaptive
Sparsity for the Magnitude-based Pruning", ICLR 2021.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from grouping.registry import Registry

Rule = Callable[[Sequence[np.ndarray], float], np.ndarray]

rules: Registry[Rule] = Registry("rule", "olmp.rules")


@rules.register("class-blind")
def class_blind(magnitudes: Sequence[np.ndarray], strength: float) -> np.ndarray:
    """One threshold for all: the fraction `strength` of all connections goes, ties in class order."""
    return smallest_per_class(magnitudes, round(strength * sum(m.size for m in magnitudes)))


@rules.register("class-uniform")
def class_uniform(magnitudes: Sequence[np.ndarray], strength: float) -> np.ndarray:
    """The same fraction `strength` of every class."""
    return np.array([round(strength * m.size) for m in magnitudes], dtype=np.int64)


@rules.register("class-distribution")
def class_distribution(magnitudes: Sequence[np.ndarray], strength: float) -> np.ndarray:
    """Threshold λ·σ of each class, with the λ at which the fraction `strength` of all connections goes.

    Only magnitudes are known, so σ is √(mean w²): the standard deviation of weights with mean zero, which
    trained weights have to a good approximation.
    """
    sigmas = [np.sqrt(np.mean(np.square(m, dtype=np.float64))) for m in magnitudes]
    in_sigmas = [
        np.divide(m, sigma if sigma > 0 else 1, dtype=np.float64)
        for m, sigma in zip(magnitudes, sigmas, strict=True)
    ]
    return smallest_per_class(in_sigmas, round(strength * sum(m.size for m in magnitudes)))


@rules.register("lamp")
def lamp(magnitudes: Sequence[np.ndarray], strength: float) -> np.ndarray:
    """The fraction `strength` of all connections, by LAMP score; every class keeps its largest connection.

    The score of a connection is w² / Σ w'² over the connections of its class that are not smaller (itself
    included), so the largest of a class has score 1 and stays.
    """
    scores = [_lamp_scores(m)[:-1] for m in magnitudes]
    wanted = round(strength * sum(m.size for m in magnitudes))
    return smallest_per_class(scores, min(wanted, sum(s.size for s in scores)))


def _lamp_scores(magnitudes: np.ndarray) -> np.ndarray:
    """LAMP scores of one class, ascending like its magnitudes; float64, shape (n,). Zeros score 0."""
    squares = np.square(magnitudes, dtype=np.float64)
    not_smaller = np.cumsum(squares[::-1])[::-1]
    return np.divide(squares, not_smaller, out=np.zeros_like(squares), where=not_smaller > 0)


def smallest_per_class(ascending: Sequence[np.ndarray], count: int) -> np.ndarray:
    """How many of the `count` smallest values over all classes lie in each class; ties go in class order.

    `ascending` holds one ascending array of non-negative floats per class, all of one dtype; returns shape
    (classes,), int64. Non-negative IEEE floats are ordered like their bit patterns, so the count-th smallest
    value is found by bisection on the pattern, at most 63 steps of one binary search a class, without merging
    or sorting the classes.
    """
    dtype = ascending[0].dtype
    pattern = np.dtype(f"u{dtype.itemsize}")

    def per_class(bits: int, side: Literal["left", "right"]) -> np.ndarray:
        value = np.array(bits, dtype=pattern).view(dtype)
        return np.array([np.searchsorted(a, value, side=side) for a in ascending], dtype=np.int64)

    infinity = int(np.array(np.inf, dtype=dtype).view(pattern))
    threshold = bisect_left(range(infinity), count, key=lambda bits: int(per_class(bits, "right").sum()))
    below = per_class(threshold, "left")
    tied = per_class(threshold, "right") - below
    tied_before = np.cumsum(tied) - tied
    return below + np.clip(count - below.sum() - tied_before, 0, tied)
