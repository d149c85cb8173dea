"""A set of sentences under one decoder: translate it, and judge a candidate by it."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grouping.errors import StudyError
from harness.bleu import Bleu, chrf
from harness.constraint import Constraint, PairedBootstrap, Verdict, interval, smallest_detectable
from harness.corpus.corpus import Corpus
from harness.decoding import Decoding, Translator
from harness.files import write_text
from harness.records import SetResult

#: the order in which sentences are drawn is part of the yardstick: the same for all cells
SUBSET_SEED = 1


def subset(sentences: int, count: int | None, draw: Sequence[int] = ()) -> NDArray[np.int64]:
    """Places of ``count`` sentences of a set, all of them for None; a smaller subset is part of a larger one.

    ``draw`` are whole numbers that say which one of many subsets it is. Raises StudyError if there are not as
    many sentences.
    """
    if count is None:
        return np.arange(sentences)
    if count > sentences:
        raise StudyError(f"search-sentences {count} is not possible: the search set has {sentences}")
    return np.sort(np.random.default_rng([SUBSET_SEED, *draw]).permutation(sentences)[:count])


def search_decoding(beam: int, precision: str = "float32") -> Decoding:
    """How a search translates: a badly pruned model may run on, so it is cut at twice the source."""
    return Decoding(beam, max_len_a=2.0, max_len_b=10, precision=precision)


@dataclass(frozen=True)
class Translated:
    """Hypotheses of one model on one set, detokenised, with their BLEU statistics [sentences, 10].

    Under teacher forcing there are no hypotheses, and other statistics.
    """

    hypotheses: list[str]
    statistics: NDArray[Any]
    tokens: int

    @classmethod
    def joined(cls, parts: Sequence["Translated"], places: NDArray[np.int64]) -> "Translated":
        """A whole set from its parts, whose sentences have these places in it."""
        order = np.argsort(places)
        hypotheses = [hypothesis for part in parts for hypothesis in part.hypotheses]
        statistics = np.concatenate([part.statistics for part in parts])[order]
        return cls([hypotheses[i] for i in order], statistics, sum(part.tokens for part in parts))


def shared_translations(path: Path, translate: Callable[[], Translated]) -> Translated:
    """Translations from a file, or made and written there: all who read it have the same yardstick."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = translate()
        rows = {"hypotheses": made.hypotheses, "statistics": made.statistics.tolist(), "tokens": made.tokens}
        write_text(path, json.dumps(rows) + "\n")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Translated(found["hypotheses"], np.array(found["statistics"], dtype=np.int64), found["tokens"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudyError(f"{path} is damaged ({error}): remove it, it is made again") from None


class SentenceSet:
    """One split of a corpus, or ``count`` of its sentences, translated by the model's current weights.

    Made while the model is dense: the dense model's own translations are the first thing it does;
    ``dense`` may know them already.
    """

    def __init__(
        self,
        corpus: Corpus,
        split: str,
        translator: Translator,
        decoding: Decoding,
        resamples: int,
        seed: int,
        count: int | None = None,
        dense: Callable[[Callable[[], Translated]], Translated] = lambda translate: translate(),
    ):
        self.split, self.decoding = split, decoding
        references, sources = corpus.references(split), corpus.source_tokens(split)
        places = subset(len(references), count)
        self.references = [references[i] for i in places]
        self._corpus, self._translator = corpus, translator
        self._sources = [sources[i] for i in places]
        self.bleu = Bleu(self.references)
        self._bootstrap_of = cache(partial(PairedBootstrap, resamples=resamples, seed=seed))
        self.bootstrap = self._bootstrap_of(len(self.references))
        self.dense = dense(self.translate)

    @property
    def dense_statistics(self) -> NDArray[np.int64]:
        """Of the dense model's own translations, ``[sentences, 10]``."""
        return self.dense.statistics

    def translate(self) -> Translated:
        """Translate with the weights as they are now."""
        return next(self.stream([np.arange(len(self.references))]))

    def stream(self, blocks: Sequence[NDArray[np.int64]]) -> Iterator[Translated]:
        """Translate blocks of sentences, given by their places, one after the other."""
        symbols = self._corpus.target_dictionary.symbols
        for block in blocks:
            found = self._translator.translate([self._sources[i] for i in block], self.decoding)
            texts = [self._corpus.detokenise([symbols[i] for i in words]) for words in found.hypotheses]
            yield Translated(texts, self.bleu.statistics(texts, block), found.tokens)

    def judge(self, translated: Translated, constraint: Constraint) -> Verdict:
        return constraint.judge(self.dense.statistics, translated.statistics, self.bootstrap)

    def part(self, places: NDArray[np.int64]) -> "Part":
        """Some of the sentences, by their places; the dense model is not translated again."""
        return Part(self, places, self._bootstrap_of(len(places)))

    def result(self, translated: Translated, constraint: Constraint) -> SetResult:
        """Everything a record says about the final candidate on this set."""
        verdict = self.judge(translated, constraint)
        differences = self.bootstrap.differences(self.dense.statistics, translated.statistics)
        scores = [chrf(side.hypotheses, self.references) for side in (self.dense, translated)]
        return SetResult(
            sentences=len(self.references),
            beam=self.decoding.beam,
            dense_bleu=verdict.dense_bleu,
            bleu=verdict.bleu,
            drop=verdict.drop,
            bound=verdict.bound,
            interval=interval(differences),
            standard_error=verdict.standard_error,
            smallest_detectable=smallest_detectable(verdict.standard_error),
            dense_chrf=scores[0][0],
            chrf=scores[1][0],
            bleu_signature=self.bleu.signature,
            chrf_signature=scores[0][1],
        )


@dataclass(frozen=True)
class Part:
    """Some sentences of a set, to a search what a set is; places count from 0 within the part."""

    whole: SentenceSet
    places: NDArray[np.int64]
    bootstrap: PairedBootstrap

    @property
    def dense_statistics(self) -> NDArray[np.int64]:
        return self.whole.dense.statistics[self.places]

    def translate(self) -> Translated:
        """Translate with the weights as they are now."""
        return next(self.stream([np.arange(len(self.places))]))

    def stream(self, blocks: Sequence[NDArray[np.int64]]) -> Iterator[Translated]:
        return self.whole.stream([self.places[block] for block in blocks])

    def judge(self, translated: Translated, constraint: Constraint) -> Verdict:
        return constraint.judge(self.dense_statistics, translated.statistics, self.bootstrap)
