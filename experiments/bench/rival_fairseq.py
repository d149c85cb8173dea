"""``fairseq-generate`` as a long-lived engine: its own steps, with only the translation in the timed part."""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq import checkpoint_utils, options, tasks, utils
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

from experiments.bench.workers import Layout
from harness.corpus.corpus import Corpus
from harness.model import quiet_fairseq
from harness.sentences import search_decoding


class FairseqGenerate:
    """What ``fairseq_cli.generate`` does between loading and printing, in its order and with its defaults.

    Batches are made and padded in ``prepare``, outside of the time, because the tokens/s that
    ``fairseq-generate`` prints leave that out, too.
    """

    def __init__(
        self, layout: Layout, checkpoint: Path, corpus: Path, split: str, beam: int, precision: str
    ) -> None:
        """``precision`` is "float32" or "float16", fairseq's only other one on this path (``--fp16``)."""
        torch.set_num_threads(layout.threads)
        self.split = split
        with quiet_fairseq():
            self._load(_arguments(checkpoint, corpus, split, beam, precision))

    def _load(self, arguments: list[str]) -> None:
        self.cfg = convert_namespace_to_omegaconf(
            options.parse_args_and_arch(options.get_generation_parser(), arguments)
        )
        self.task = tasks.setup_task(self.cfg.task)
        self.models, saved = checkpoint_utils.load_model_ensemble(
            utils.split_paths(self.cfg.common_eval.path),
            arg_overrides=ast.literal_eval(self.cfg.common_eval.model_overrides),
            task=self.task,
        )
        self.task.load_dataset(self.split, task_cfg=saved.task)
        for model in self.models:
            if self.cfg.common.fp16:
                model.half()
            model.prepare_for_inference_(self.cfg)
        self.generator = self.task.build_generator(self.models, self.cfg.generation)
        self.order = self.task.dataset(self.split).ordered_indices()

    def prepare(self, numbers: Sequence[int], batch: dict[str, int]) -> None:
        """Collate the sentences ``numbers``; ``batch`` holds ``max_tokens`` or ``batch_size``."""
        dataset = self.task.dataset(self.split)
        mine = self.order[np.isin(self.order, numbers)]
        # the data set has no other way to name a part of it that keeps fairseq's own batching
        dataset.ordered_indices = lambda: mine
        self.numbers = list(numbers)
        with quiet_fairseq():
            batches = self.task.get_batch_iterator(
                dataset=dataset,
                max_tokens=batch.get("max_tokens"),
                max_sentences=batch.get("batch_size"),
                max_positions=utils.resolve_max_positions(
                    self.task.max_positions(), *[model.max_positions() for model in self.models]
                ),
                required_batch_size_multiple=self.cfg.dataset.required_batch_size_multiple,
                seed=self.cfg.common.seed,
                num_workers=self.cfg.dataset.num_workers,
                data_buffer_size=self.cfg.dataset.data_buffer_size,
                disable_iterator_cache=True,
            )
            self.samples = list(batches.next_epoch_itr(shuffle=False))

    def translate(self) -> None:
        self.found = [
            self.task.inference_step(self.generator, self.models, sample) for sample in self.samples
        ]

    def hypotheses(self) -> list[list[int]]:
        """Best hypotheses in the order of ``numbers``, without end of sentence."""
        said: dict[int, list[int]] = {}
        for sample, found in zip(self.samples, self.found, strict=True):
            for number, hypotheses in zip(sample["id"].tolist(), found, strict=True):
                said[number] = hypotheses[0]["tokens"].tolist()[:-1]
        return [said[number] for number in self.numbers]


def _arguments(checkpoint: Path, corpus_folder: Path, split: str, beam: int, precision: str) -> list[str]:
    """The command line of ``fairseq-generate``, with the limits that a search decodes with."""
    corpus = Corpus.open(corpus_folder)
    limits = search_decoding(beam)
    given: dict[str, Any] = {
        "path": checkpoint,
        "gen-subset": split,
        "source-lang": corpus.source,
        "target-lang": corpus.target,
        "beam": beam,
        "max-len-a": limits.max_len_a,
        "max-len-b": limits.max_len_b,
        # its default of 8 silently drops the sentences beyond a multiple of it
        "required-batch-size-multiple": 1,
        "num-workers": 0,
    }
    switches = ["--cpu", "--fp16"] if precision == "float16" else ["--cpu"]
    pairs = [part for key, value in given.items() for part in (f"--{key}", str(value))]
    return [str(corpus.folder / "bin"), *pairs, *switches]
