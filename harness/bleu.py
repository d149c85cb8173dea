"""BLEU and chrF as sacrebleu computes them, split into statistics and score.

Corpus BLEU depends on its sentences only through a sum of ten counts each, so sets can be added
up, scored in parts and resampled without looking at the text again. Statistics are arrays
``[..., 10]`` in sacrebleu's order: hypothesis length, reference length, matched n-grams of order 1
to 4, n-grams of the hypothesis of order 1 to 4. Scores are in percent (0 to 100).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics import BLEU, CHRF

from grouping.errors import StudyError

#: hypothesis length, reference length, four numbers of matches, four totals
STATISTICS = 10


class Bleu:
    """Sentence statistics against one fixed list of detokenised references.

    The settings are sacrebleu's defaults: 13a tokenisation, case kept, exponential smoothing, no
    effective order. This class is the only user of sacrebleu's private interface, which has no
    public way to the counts of each sentence.
    """

    def __init__(self, references: Sequence[str]) -> None:
        """Tokenise and count ``references`` once. Raises StudyError if there are none."""
        if not references:
            raise StudyError("there are no references: BLEU needs at least one sentence")
        # force silences a warning about hypotheses that end in " ."; it changes no score
        self._metric = BLEU(references=[references], force=True)
        self._sentences = len(references)

    def statistics(
        self, hypotheses: Sequence[str], places: Sequence[int] | NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        """Counts of every sentence, int64 ``[sentences, 10]``; ``places`` of a part of the references.

        Raises StudyError unless there is one hypothesis for each reference: sacrebleu would
        score the common prefix of the two lists and say nothing.
        """
        metric: Any = self._metric
        places = range(self._sentences) if places is None else places
        _check_counts(hypotheses, len(places))
        counts = [
            metric._compute_segment_statistics(metric._preprocess_segment(hypothesis), metric._ref_cache[i])
            for hypothesis, i in zip(hypotheses, places, strict=True)
        ]
        return np.array(counts, dtype=np.int64)

    @property
    def signature(self) -> str:
        """sacrebleu's description of how the score is computed, for the record."""
        return str(self._metric.get_signature())


def score(sums: NDArray[np.int64]) -> float:
    """BLEU in percent of the summed statistics ``[10]`` of a set, by sacrebleu itself."""
    counts = [int(n) for n in sums]
    result = BLEU.compute_bleu(counts[2:6], counts[6:], counts[0], counts[1], smooth_method="exp")
    return float(result.score)


def bleu_of_sums(sums: NDArray) -> NDArray[np.float64]:
    """BLEU in percent of many sets at once: summed statistics ``[..., 10]`` to scores ``[...]``.

    The same number as ``score`` up to rounding. Exponential smoothing is method 3 of Chen and
    Cherry (2014): the k-th order without a match counts as 1/2^k of a match. A set without any
    match, or without a single n-gram of some order, has BLEU 0.
    """
    sums = np.asarray(sums, dtype=np.float64)
    length, reference_length = sums[..., 0], sums[..., 1]
    correct, total = sums[..., 2:6], sums[..., 6:]
    defined = correct.any(axis=-1) & total.all(axis=-1) & (length > 0)
    unmatched = correct == 0
    matches = np.where(unmatched, 0.5 ** np.cumsum(unmatched, axis=-1), correct)
    logarithms = np.log(matches / np.maximum(total, 1)).mean(axis=-1)
    brevity = np.minimum(0.0, 1 - reference_length / np.maximum(length, 1))
    return np.where(defined, 100 * np.exp(logarithms + brevity), 0.0)


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> tuple[float, str]:
    """chrF2 in percent with sacrebleu's default settings, and its signature.

    Raises StudyError unless there is one hypothesis for each reference, and at least one.
    """
    if not references:
        raise StudyError("there are no references: chrF needs at least one sentence")
    _check_counts(hypotheses, len(references))
    metric = CHRF()
    result = metric.corpus_score(hypotheses, [references])
    return float(result.score), str(metric.get_signature())


def _check_counts(hypotheses: Sequence[str], references: int) -> None:
    if len(hypotheses) != references:
        raise StudyError(
            f"{len(hypotheses)} hypotheses for {references} references: "
            "BLEU and chrF need exactly one hypothesis for each reference"
        )
