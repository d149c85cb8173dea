"""CTranslate2 as a long-lived engine, and the conversion of our checkpoints for it."""

import argparse
import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.bench.workers import Layout
from harness.corpus.corpus import Corpus
from harness.model import TranslationModel, quiet_fairseq
from harness.sentences import search_decoding


def why_not(precision: str) -> str | None:
    """Why CTranslate2 cannot compute in ``precision`` here; None if it can."""
    if importlib.util.find_spec("ctranslate2") is None:
        return "CTranslate2 is not installed: pip install ctranslate2"
    import ctranslate2

    if precision not in ctranslate2.get_supported_compute_types("cpu"):
        return f"CTranslate2 does not compute in {precision} on this processor"
    return None


def convert(model: TranslationModel, corpus: Corpus, folder: Path) -> None:
    """Write a Transformer into ``folder`` by CTranslate2's own converter of fairseq models.

    The converter reads the old kind of fairseq checkpoint only, with the settings under ``args``.
    """
    import torch
    from ctranslate2.converters import FairseqConverter

    settings = argparse.Namespace(**model.state["cfg"]["model"])
    settings.task = "translation"
    state = {"args": settings, "cfg": None, "model": model.module.state_dict()}
    with tempfile.TemporaryDirectory() as scratch, quiet_fairseq():
        legacy = Path(scratch) / "legacy.pt"
        torch.save(state, legacy)
        # unsafe refers to the pickle of the settings, which was written the line before
        FairseqConverter(
            str(legacy),
            str(corpus.folder / "bin"),
            source_lang=corpus.source,
            target_lang=corpus.target,
            unsafe_deserialization=True,
        ).convert(str(folder))


class CTranslate2:
    """Its ``Translator``, with ``layout.inner`` translators inside of one process.

    It takes one limit for all sentences, here that of the longest one; its sentences are words, not
    numbers, which are looked up outside of the time.
    """

    def __init__(
        self, layout: Layout, converted: Path, corpus: Path, split: str, beam: int, precision: str
    ) -> None:
        import ctranslate2

        opened = Corpus.open(corpus)
        source, target = (
            ["<blank>" if word == "<pad>" else word for word in dictionary.symbols]
            for dictionary in (opened.source_dictionary, opened.target_dictionary)
        )
        # it appends the end of sentence itself
        self.sources = [[source[i] for i in ids[:-1]] for ids in opened.source_tokens(split)]
        self.target = {word: i for i, word in enumerate(target)}
        self.limits, self.beam = search_decoding(beam), beam
        self.translator = ctranslate2.Translator(
            str(converted),
            device="cpu",
            compute_type=precision,
            inter_threads=layout.inner,
            intra_threads=layout.threads,
        )

    def prepare(self, numbers: Sequence[int], batch: dict[str, int]) -> None:
        """Choose the sentences ``numbers``; ``batch`` holds ``max_batch_size`` in source tokens."""
        self.mine = [self.sources[i] for i in numbers]
        longest = max(map(len, self.mine), default=0) + 1
        limit = int(longest * self.limits.max_len_a + self.limits.max_len_b)
        self.options: dict[str, Any] = dict(
            batch, batch_type="tokens", beam_size=self.beam, max_decoding_length=limit
        )

    def translate(self) -> None:
        self.found = self.translator.translate_batch(self.mine, **self.options)

    def hypotheses(self) -> list[list[int]]:
        """Hypotheses in the order of ``numbers``, without end of sentence."""
        return [[self.target[word] for word in result.hypotheses[0]] for result in self.found]
