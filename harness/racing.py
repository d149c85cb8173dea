"""Racing: a candidate that can no longer be feasible is not translated to its end.

The sentences are translated in one shuffled order, in growing blocks. After each block but the
last comes a *look*: what has been seen is held against the constraint on the whole set, and a
candidate that the whole set would hardly call feasible is refused. Only refusals come early: that
a candidate is feasible, the whole set says (``Constraint.judge``).

A look knows the dense model's statistics of all N sentences and the pruned model's of the first n,
a random sample without replacement. With D, d and p the sums of the dense statistics over the set,
of the dense and of the pruned ones over the sample, it estimates

    drop = BLEU(D) - BLEU(D p / d)            each of the ten counts scaled by what the sample kept

(the ratio estimator of survey sampling; Cochran, Sampling Techniques, 1977, ch. 6). The jackknife,
a bootstrap's linear approximation without resamples (Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, ch. 11), gives s, the standard deviation of what one sentence contributes:
n - 1 times that of the drops that leave one sentence out. All in BLEU points,

    se_whole = s / sqrt(N)                    the standard error that the whole set would show
    bound    = drop + z(confidence) se_whole  the upper bound that the whole set would show
    se_rest  = s sqrt(1/n - 1/N)              how far the unseen can still move the two

and a look refuses if (bound or drop) - z(1 - level / looks) se_rest > tolerance. se_rest covers
that the sample's mean is not the population's, too: a bootstrap that only draws the rest from the
sample has n/N of its variance and refuses a third of the candidates at the edge wrongly.
"""

import itertools
import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from grouping.errors import StudyError
from harness import bleu
from harness.constraint import Constraint, Verdict

#: shares of the sentences after which there is a look; few, as a decoder is slow on small blocks
LOOKS = (1 / 16, 1 / 4, 1 / 2)
#: sentences; fewer say too little about how much they vary
SMALLEST_BLOCK = 30


def blocks(sentences: int, seed: int) -> list[NDArray[np.int64]]:
    """Places of all sentences in a shuffled order, cut at ``LOOKS``: together a permutation.

    A cut that would make a block of less than ``SMALLEST_BLOCK`` sentences is left out, so that a
    small set is one block. Raises StudyError if there are no sentences.
    """
    if sentences < 1:
        raise StudyError("there are no sentences: a race needs at least one")
    cuts = [0]
    for share in LOOKS:
        cut = round(share * sentences)
        if min(cut - cuts[-1], sentences - cut) >= SMALLEST_BLOCK:
            cuts.append(cut)
    return np.split(np.random.default_rng(seed).permutation(sentences), cuts[1:])


class Race:
    """Looks at the candidates of one set of sentences under one constraint.

    ``blocks`` are the places of the sentences, to be translated one block after the other.
    ``level`` is the probability, over the random order, that a candidate at the very edge is
    refused at any of its looks though the whole set would call it feasible; the looks share it
    equally (Bonferroni). All candidates meet the same order, so their errors come together.
    """

    def __init__(
        self, dense: NDArray[np.int64], constraint: Constraint, *, seed: int, level: float = 0.01
    ) -> None:
        """``dense``: the dense model's statistics ``[sentences, 10]``, in the order of the set.

        Raises StudyError for a level outside of (0, 0.5) or no sentences, ValueError for another shape.
        """
        if not 0 < level < 0.5:
            raise StudyError(f"error level {level} is not possible: give a fraction between 0 and 0.5")
        if dense.ndim != 2 or dense.shape[1] != bleu.STATISTICS:
            raise ValueError(f"statistics {dense.shape}, expected (sentences, {bleu.STATISTICS})")
        self.constraint, self.level = constraint, level
        self.blocks = blocks(len(dense), seed)
        #: numbers of sentences after which there is a look
        self.looks = list(itertools.accumulate(map(len, self.blocks)))[:-1]
        self._dense = dense[np.concatenate(self.blocks)]
        self._sums = dense.sum(axis=0)
        self._dense_bleu = float(bleu.bleu_of_sums(self._sums))

    def refuses(self, pruned: NDArray[np.int64]) -> Verdict | None:
        """What the whole set would say of a candidate that is not to go on; None for one that is.

        ``pruned``: the candidate's statistics ``[n, 10]`` of the blocks translated so far, in their
        order. A verdict's numbers are estimates for the whole set, in BLEU points; its excess is
        above the tolerance, so that ``Constraint.score`` takes it like any other. Raises ValueError
        unless there is a look after n sentences and their references are as long as the race's.
        """
        seen, sentences = len(pruned), len(self._dense)
        if seen not in self.looks or pruned.shape[1:] != self._dense.shape[1:]:
            raise ValueError(f"statistics {pruned.shape}, but there are looks after {self.looks} sentences")
        if not np.array_equal(pruned[:, 1], self._dense[:seen, 1]):
            raise ValueError("the statistics are not in the order of the race: other reference lengths")
        drop, deviation = self._estimate(pruned)
        standard_error = deviation / math.sqrt(sentences)
        bound = drop + NormalDist().inv_cdf(self.constraint.confidence) * standard_error
        excess = bound if self.constraint.criterion == "bound" else drop
        margin = -NormalDist().inv_cdf(self.level / len(self.looks))
        probable = excess - margin * deviation * math.sqrt(1 / seen - 1 / sentences)
        certain = self.least_drop(pruned)
        if max(probable, certain) <= self.constraint.tolerance:
            return None
        return Verdict(
            bleu=self._dense_bleu - drop,
            dense_bleu=self._dense_bleu,
            drop=drop,
            bound=bound,
            standard_error=standard_error,
            feasible=False,
            excess=max(excess, certain),
        )

    def least_drop(self, pruned: NDArray[np.int64]) -> float:
        """The least drop on the whole set, in BLEU points, that the unseen sentences can lead to.

        Every n-gram of their references is matched, no other one is written, and the brevity
        penalty is 1: perfect translations of the rest could leave it below 1 if what was seen is
        too short. For the criterion ``bound``, too, no candidate with such a drop is feasible: a
        bound lies above the drop. ``pruned`` as in ``refuses``.
        """
        lengths = self._dense[len(pruned) :, 1, None]
        rest = np.maximum(lengths - np.arange(4), 0).sum(axis=0)
        sums = pruned.sum(axis=0)
        # an order without any match counts as half a match at most
        matches, totals = np.maximum(sums[2:6] + rest, 0.5), np.maximum(sums[6:] + rest, 1)
        return self._dense_bleu - float(bleu.bleu_of_sums(np.concatenate([[1, 1], matches, totals])))

    def _estimate(self, pruned: NDArray[np.int64]) -> tuple[float, float]:
        """Drop on the whole set and standard deviation of a sentence's contribution, in BLEU points."""
        seen = len(pruned)
        # row 0: sums of the sample; row i + 1: the same without sentence i
        d, p = (
            side.sum(axis=0) - np.vstack([np.zeros_like(side[:1]), side])
            for side in (self._dense[:seen], pruned)
        )
        # what the dense model has nothing of in the sample is taken as kept: nothing is known of it
        kept = np.divide(p, d, out=np.ones(d.shape), where=d > 0)
        drops = self._dense_bleu - bleu.bleu_of_sums(self._sums * kept)
        return float(drops[0]), (seen - 1) * float(drops[1:].std(ddof=1))
