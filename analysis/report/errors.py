"""What a pruned model gets wrong that its dense model got right.

Most is read from BLEU's counts per sentence, which come with the results; the kinds of errors need the text.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.frame import Results, translation
from analysis.significance import BleuDifference, bleu_difference, holm, sign_test

#: parts of the test set by length, of about the same number of sentences
PARTS = 4
#: a word of the training text is rare up to so many times
RARE = 5
#: a translation is too short below, too long above these multiples of its reference's words
SHORT, LONG = 0.7, 1.4
WORD = re.compile(r"\{\d+\}|\w+")
#: what must not be translated: placeholders and numbers
COPIED = re.compile(r"\{\d+\}|\d+")

Counts = NDArray[np.int64]


class Lengths(NamedTuple):
    """A part of the test set: references of ``shortest`` to ``longest`` words, and BLEU on them."""

    shortest: int
    longest: int
    sentences: int
    bleu: BleuDifference


class Profile(NamedTuple):
    """A dense and a pruned model on the same sentences.

    ``better``, ``worse`` and ``same`` count sentences by GLEU. ``precisions`` are those of n-grams of order
    1 to 4 in percent, ``ratio`` is words of the translation over those of the reference: dense, pruned each.
    """

    sentences: int
    better: int
    worse: int
    same: int
    precisions: list[tuple[float, float]]
    ratio: tuple[float, float]


class Kind(NamedTuple):
    """A kind of error: how often it happens in the dense and in the pruned model, of ``of`` chances each.

    ``more`` and ``fewer`` count the sentences in which it happens more and less often than in the dense
    model; ``p`` is of the sign test on them, after Holm's correction over the kinds.
    """

    name: str
    dense: int
    pruned: int
    of: int
    more: int
    fewer: int
    p: float


def counted(results: Results, run: Mapping[str, Any]) -> tuple[Counts, Counts] | None:
    """Counts of a cell's dense and pruned model on test, or None where they were not collected."""
    dense, pruned = (results.statistics.get(translation(run, model)) for model in ("dense", "pruned"))
    if dense is None or pruned is None or len(dense) != len(pruned):
        return None
    return dense, pruned


def gleu(counts: Counts) -> NDArray[np.float64]:
    """A score per sentence from its counts ``[sentences, 10]``: from 0, nothing matches, to 1.

    Matched n-grams of order 1 to 4 over those of the longer one of translation and reference (Wu et al.,
    2016, section 4: made for single sentences, where BLEU is not defined well).
    """
    orders = np.arange(4)
    of_reference = np.maximum(counts[:, 1:2] - orders, 0).sum(axis=1)
    most = np.maximum(counts[:, 6:].sum(axis=1), of_reference)
    return counts[:, 2:6].sum(axis=1) / np.maximum(most, 1)


def profile(dense: Counts, pruned: Counts) -> Profile:
    """Compare two translations by their counts ``[sentences, 10]``."""
    change = gleu(pruned) - gleu(dense)
    sums = dense.sum(axis=0), pruned.sum(axis=0)
    return Profile(
        sentences=len(dense),
        better=int((change > 0).sum()),
        worse=int((change < 0).sum()),
        same=int((change == 0).sum()),
        precisions=[
            (_percent(sums[0][2 + n], sums[0][6 + n]), _percent(sums[1][2 + n], sums[1][6 + n]))
            for n in range(4)
        ],
        ratio=(float(sums[0][0] / sums[0][1]), float(sums[1][0] / sums[1][1])),
    )


def by_length(dense: Counts, pruned: Counts) -> list[Lengths]:
    """BLEU of both on parts of the test set, from short references to long ones."""
    words = dense[:, 1]
    edges = np.unique(np.quantile(words, np.linspace(0, 1, PARTS + 1)[1:-1]).astype(int))
    part = np.searchsorted(edges, words, side="left")
    found = []
    for number in np.unique(part):
        mine = part == number
        bleu = bleu_difference(dense[mine], pruned[mine])
        found.append(Lengths(int(words[mine].min()), int(words[mine].max()), int(mine.sum()), bleu))
    return found


def kinds(
    sources: Sequence[str],
    references: Sequence[str],
    dense: Sequence[str],
    pruned: Sequence[str],
    training: Sequence[str],
) -> list[Kind]:
    """How often each kind of error happens; ``training`` are the references that the model was trained on."""
    frequency = Counter(word for line in training for word in _words(line))
    words: dict[str, Callable[[str], bool]] = {
        "frequent words of the reference missing": lambda word: frequency[word] > RARE,
        f"rare words of the reference missing (up to {RARE} times in training)": lambda word: (
            frequency[word] <= RARE
        ),
        "placeholders and numbers missing": lambda word: bool(COPIED.fullmatch(word)),
    }
    per_sentence: dict[str, Callable[[str, str, str], bool]] = {
        "sentences with a word of the source left untranslated": _untranslated,
        "sentences that repeat a word at once": _repeats,
        f"sentences under {SHORT:.0%} of the reference's length": lambda s, r, h: (
            len(_words(h)) < SHORT * len(_words(r))
        ),
        f"sentences over {LONG:.0%} of the reference's length": lambda s, r, h: (
            len(_words(h)) > LONG * len(_words(r))
        ),
    }
    found = []
    for name, which in words.items():
        chances = sum(which(word) for reference in references for word in _words(reference))
        missing = partial(_missing, which)
        counts = [list(map(missing, references, lines)) for lines in (dense, pruned)]
        found.append(_kind(name, *counts, chances=chances))
    for name, wrong in per_sentence.items():
        failing = [list(map(wrong, sources, references, lines)) for lines in (dense, pruned)]
        found.append(_kind(name, *failing, chances=len(references)))
    found = [kind for kind in found if kind.of]
    corrected = holm([kind.p for kind in found])
    return [kind._replace(p=p) for kind, p in zip(found, corrected, strict=True)]


def _kind(name: str, dense: Sequence[int], pruned: Sequence[int], *, chances: int) -> Kind:
    """From how often it happens in each sentence; p is not corrected yet."""
    change = np.array(pruned, dtype=int) - np.array(dense, dtype=int)
    more, fewer = int((change > 0).sum()), int((change < 0).sum())
    return Kind(name, sum(dense), sum(pruned), chances, more, fewer, sign_test(more, fewer))


def _missing(which: Callable[[str], bool], reference: str, hypothesis: str) -> int:
    wanted = Counter(word for word in _words(reference) if which(word))
    return sum((wanted - Counter(_words(hypothesis))).values())


def _untranslated(source: str, reference: str, hypothesis: str) -> bool:
    """Whether a word of letters stands in source and hypothesis, but not in the reference."""
    kept = set(_words(source)) & set(_words(hypothesis)) - set(_words(reference))
    return any(not COPIED.fullmatch(word) for word in kept)


def _repeats(source: str, reference: str, hypothesis: str) -> bool:
    right = set(pairwise(_words(reference)))
    return any(one == two and (one, two) not in right for one, two in pairwise(_words(hypothesis)))


def _words(line: str) -> list[str]:
    return WORD.findall(line)


def _percent(part: float, whole: float) -> float:
    return float(100 * part / whole) if whole else 0.0
