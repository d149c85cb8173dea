"""Our own decoder as a long-lived engine."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from experiments.bench.workers import Layout
from harness.cell import Study
from harness.sentences import search_decoding


class Ours:
    """A dense model that translates a split as a search does."""

    def __init__(
        self, layout: Layout, checkpoint: Path, corpus: Path, split: str, beam: int, precision: str
    ) -> None:
        torch.set_num_threads(layout.threads)
        self.study = Study.open(checkpoint, corpus)
        self.sources = self.study.corpus.source_tokens(split)
        self.decoding = dataclasses.replace(search_decoding(beam), precision=precision)

    def prepare(self, numbers: Sequence[int], batch: dict[str, Any]) -> None:
        """Choose the sentences ``numbers``; ``batch`` may hold ``rows``, else it is the default."""
        self.mine = [self.sources[i] for i in numbers]
        self.batched = dataclasses.replace(self.decoding, **batch)

    def translate(self) -> None:
        self.found = self.study.translator.translate(self.mine, self.batched)

    def hypotheses(self) -> list[list[int]]:
        """Hypotheses in the order of ``numbers``, without end of sentence."""
        return self.found.hypotheses
