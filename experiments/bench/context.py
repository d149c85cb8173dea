"""What all figures share: the models, the sentences, the machine; and the registry of figures."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tqdm import tqdm

from experiments.bench import machine
from experiments.bench.race import Contender, Setting, sweep
from experiments.bench.rival_ct2 import convert
from experiments.bench.rows import Row
from grouping.registry import Registry
from harness.bleu import Bleu, score
from harness.cell import Study
from harness.corpus.corpus import Corpus
from harness.decoding.linear import fastest_precision

#: the sentences that a search translates thousands of times
SPLIT = "search"


class Skipped(Exception):
    """A figure cannot be made here; the message says why."""


@dataclass
class Context:
    """One run of the benchmark.

    ``scratch`` is a folder for converted checkpoints. ``sentences`` is how many of the split are
    translated, from its beginning; None for all. ``searches`` are those that are done, for other figures.
    """

    models: Path
    corpus_folder: Path
    scratch: Path
    pairs: int
    cores: int
    sentences: int | None = None
    searches: dict[str, Any] = field(default_factory=dict)
    _opened: dict[str, Study] = field(default_factory=dict)
    _swept: dict[str, Setting] = field(default_factory=dict)

    @cached_property
    def corpus(self) -> Corpus:
        return Corpus.open(self.corpus_folder)

    @cached_property
    def precision(self) -> str:
        """What a short probe finds fastest here; one answer for all figures of a run."""
        return fastest_precision("cpu")

    @cached_property
    def lengths(self) -> list[int]:
        """Source tokens of each sentence, end of sentence included."""
        return [len(ids) for ids in self.corpus.source_tokens(SPLIT)[: self.sentences]]

    @cached_property
    def _references(self) -> Bleu:
        return Bleu(self.corpus.references(SPLIT)[: self.sentences])

    def bleu(self, hypotheses: list[list[int]]) -> float:
        """BLEU in percent of hypotheses in dictionary ids, without end of sentence."""
        symbols = self.corpus.target_dictionary.symbols
        text = [self.corpus.detokenise([symbols[i] for i in words]) for words in hypotheses]
        return score(self._references.statistics(text).sum(axis=0))

    def checkpoint(self, model: str) -> Path:
        """The shipped checkpoint. Raises Skipped if there is none."""
        path = self.models / f"{model}.pt"
        if not path.is_file():
            raise Skipped(f"there is no model {model!r} in {self.models}")
        return path

    def study(self, model: str) -> Study:
        if model not in self._opened:
            self._opened[model] = Study.open(self.checkpoint(model), self.corpus_folder)
        return self._opened[model]

    def exported(self, model: str) -> Path:
        """The model as a checkpoint that plain ``fairseq-generate`` loads, in float32."""
        path = self.scratch / f"{model}.pt"
        if not path.exists():
            self.study(model).model.save(path)
        return path

    def converted(self, model: str) -> Path:
        """The model as CTranslate2 reads it, in float32."""
        path = self.scratch / f"{model}.ct2"
        if not path.exists():
            convert(self.study(model).model, self.corpus, path)
        return path

    def fastest(self, contender: Contender, bar: Any) -> Setting:
        """What a sweep finds best; each contender is swept once, whichever figure asks first."""
        key = repr(contender)
        if key in self._swept:
            bar.update(contender.tries)
        else:
            self._swept[key] = sweep(contender, self.lengths, bar.update)
        return self._swept[key]

    def provenance(self) -> dict[str, Any]:
        """What every row says about how it was made."""
        return {
            "split": SPLIT,
            "sentences": len(self.lengths),
            "pairs": self.pairs,
            "machine": machine.machine(self.cores),
            "versions": machine.versions(),
        }

    def progress(self, label: str, total: int) -> Any:
        """A bar on standard error; quiet when that is not a terminal."""
        return tqdm(total=total, desc=label, unit="pass", disable=not sys.stderr.isatty(), dynamic_ncols=True)


Figure = Callable[[Context], list[Row]]
figures: Registry[Figure] = Registry("figure", "olmp.figures")
