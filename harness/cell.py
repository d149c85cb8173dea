"""A cell: one run of the study, from dense model to compressed model."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from grouping import connection_table, content_hash, partition
from harness import records
from harness.constraint import PairedBootstrap
from harness.corpus.corpus import Corpus
from harness.decoding import Decoding, Translator
from harness.environment import environment
from harness.evaluator import FINAL, Evaluator, Judging
from harness.model import TranslationModel, load_model
from harness.olmp import check_search, confirm, run_search
from harness.operators import Operator, operators
from harness.record import Record
from harness.records import CellConfig, Evaluation, GroupResult, Held, Result, configuration
from harness.sentences import SentenceSet, Translated, search_decoding, shared_translations, subset
from harness.teacher_forcing import MEASURES, ForcedSet, Measure, TeacherForcing
from harness.workers import check_workers

#: the resamples of the bootstrap are part of the yardstick: the same for all cells, whatever their seed
BOOTSTRAP_SEED = 1


@dataclass
class Study:
    """A dense model and a corpus; what the cells of one model share.

    The dense model's translations are made once per set and decoder, and kept in the folder
    ``shared`` for other processes if there is one. The model is dense between two cells.
    """

    model: TranslationModel
    corpus: Corpus
    translator: Translator
    corpus_hash: str
    shared: Path | None = None
    _sets: dict[tuple[Any, ...], SentenceSet] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        checkpoint: Path,
        corpus_folder: Path,
        trust: bool = False,
        device: str = "cpu",
        shared: Path | None = None,
    ) -> "Study":
        corpus = Corpus.open(corpus_folder)
        model = load_model(checkpoint, corpus.source_dictionary, corpus.target_dictionary, trust)
        dictionary = corpus.target_dictionary
        translator = Translator(model, dictionary.pad(), dictionary.eos(), device)
        return cls(model, corpus, translator, corpus.content_hash(), shared)

    def sentences(
        self,
        split: str,
        beam: int,
        resamples: int = 1000,
        searching: bool = False,
        precision: str = "float32",
        count: int | None = None,
    ) -> SentenceSet:
        """One set of sentences, or ``count`` of them, under one decoder; made while the model is dense."""
        decoding = search_decoding(beam, precision) if searching else Decoding(beam, precision=precision)
        key = (split, decoding, resamples, count)
        if key not in self._sets:
            dense = partial(self._dense, split, decoding, count)
            self._sets[key] = SentenceSet(
                self.corpus, split, self.translator, decoding, resamples, BOOTSTRAP_SEED, count, dense
            )
        return self._sets[key]

    def _dense(
        self, split: str, decoding: Decoding, count: int | None, translate: Callable[[], Translated]
    ) -> Translated:
        """The dense model's translations: from the shared folder, or made and put there."""
        if self.shared is None:
            return translate()
        what = (self.model.content_hash, self.corpus_hash, self.translator.device.type, decoding, count)
        name = f"{split}-{hashlib.sha256(repr(what).encode()).hexdigest()[:16]}.json"
        return shared_translations(self.shared / name, translate)

    def forced(
        self, split: str, measure: Measure, resamples: int = 1000, count: int | None = None
    ) -> ForcedSet:
        """The same under teacher forcing; made while the model is dense."""
        dictionary, corpus = self.corpus.target_dictionary, self.corpus
        places = subset(len(corpus.references(split)), count)
        sides = [[s[i] for i in places] for s in (corpus.source_tokens(split), corpus.target_tokens(split))]
        forcing = TeacherForcing(self.model, sides[0], sides[1], dictionary.pad(), dictionary.eos())
        bootstrap = PairedBootstrap(len(places), resamples, seed=BOOTSTRAP_SEED)
        return ForcedSet.made(forcing, measure, bootstrap)

    def config(self, **settings: Any) -> CellConfig:
        """The configuration of a cell of this study; ``settings`` are fields of CellConfig.

        Raises StudyError for an unknown field or an impossible value.
        """
        config = configuration(
            checkpoint_sha256=self.model.content_hash,
            corpus_sha256=self.corpus_hash,
            **{"device": self.translator.device.type} | settings,
        )
        blocks = self.groups(config.grouping, config.vectors, config.seed)
        return config.model_copy(update={"groups_sha256": content_hash(blocks)})

    def groups(self, grouping: str, vectors: bool = False, seed: int = 1) -> pd.DataFrame:
        """The connection table, split: a row per block with its ``group``."""
        return partition(connection_table(self.model.description, vectors), grouping, seed)


def run_cell(
    study: Study,
    config: CellConfig,
    folder: Path,
    notify: Callable[[Evaluation], None] = lambda e: None,
    workers: int = 1,
    keep_checkpoint: bool = True,
) -> Result:
    """Run, resume, or return a finished cell.

    ``notify`` is called after every evaluation; ``workers`` processes judge candidates side by side
    and decide the time only. Without ``keep_checkpoint`` the pruned model is kept as its masks alone.
    Raises StudyError when the folder holds something
    else or a name is unknown; an interrupted cell resumes to the same result.
    """
    blocks = study.groups(config.grouping, config.vectors, config.seed)
    operator = operators.get(config.operator)(study.model, blocks)
    check_search(config, len(operator.groups))
    check_workers(workers)
    with Record(folder, config) as record:
        if (finished := record.result()) is not None:
            return finished
        try:
            return _run(study, config, operator, record, notify, workers, keep_checkpoint)
        finally:
            operator.restore()


def _run(
    study: Study,
    config: CellConfig,
    operator: Operator,
    record: Record,
    notify: Callable[[Evaluation], None],
    workers: int,
    keep_checkpoint: bool,
) -> Result:
    started, resumed = time.perf_counter(), len(record.replayed)
    sets = sets_of(study, config)
    stages: dict[str, Judging] = {"search": sets["search"], "confirm": sets["confirm"]}
    if config.constraint != "bleu":
        measure = MEASURES[config.constraint]
        counts = {"search": config.search_sentences, "confirm": None}
        stages = {split: study.forced(split, measure, config.resamples, counts[split]) for split in stages}
    elif config.precision != "float32":
        low = study.sentences(
            *("search", config.search_beam, config.resamples, True, config.precision, config.search_sentences)
        )
        stages |= {"search": low, "exact": sets["search"]}
    with Evaluator(config, operator, record, stages, notify, workers) as evaluator:
        run_search(evaluator)
        knobs, confirmed, failed = confirm(evaluator)
    translated = {
        "search": sets["search"].translate(),
        "confirm": confirmed if config.constraint == "bleu" else sets["confirm"].translate(),
        "test": sets["test"].translate(),
    }
    for split in ("confirm", "test"):
        record.write_lines(records.hypotheses(split, "dense"), sets[split].dense.hypotheses)
        record.write_lines(records.hypotheses(split, "pruned"), translated[split].hypotheses)
    record.write_masks(pruned_masks(study.model, operator))
    if keep_checkpoint:
        study.model.save(record.folder / records.CHECKPOINT)
    fresh = sum(e.seconds for e in evaluator.done[resumed:])
    other = max(0.0, time.perf_counter() - started - fresh)  # workers may judge side by side
    result = _result(study, config, operator, evaluator, knobs, sets, translated, failed, other)
    record.finish(result)
    return result


def sets_of(study: Study, config: CellConfig) -> dict[str, SentenceSet]:
    """The three sets on which a cell reports, under its decoders."""
    count = config.search_sentences
    return {
        "search": study.sentences("search", config.search_beam, config.resamples, True, count=count),
        "confirm": study.sentences("confirm", config.final_beam, config.resamples),
        "test": study.sentences("test", config.final_beam, config.resamples),
    }


def pruned_masks(model: TranslationModel, operator: Operator) -> dict[str, NDArray[np.bool_]]:
    """Connections that the applied knobs keep (True), by parameter name; tied parameters once."""
    kept = operator.kept()
    shapes = model.description.shapes
    return {
        name: kept[start : start + int(np.prod(shapes[name]))].reshape(shapes[name])
        for name, start in model.offsets.items()
    }


def _result(
    study: Study,
    config: CellConfig,
    operator: Operator,
    evaluator: Evaluator,
    knobs: NDArray,
    sets: dict[str, SentenceSet],
    translated: dict[str, Translated],
    failed: int,
    other_seconds: float,
) -> Result:
    table = connection_table(study.model.description, config.vectors)
    prunable = int(table.loc[table.prunable, "size"].sum())
    parameters = int(table["size"].sum())
    groups = [
        GroupResult(
            group=name,
            connections=len(magnitudes),
            pruned=int(count),
            threshold=float(magnitudes[count - 1]) if count else 0.0,
        )
        for name, magnitudes, count in zip(
            operator.groups, operator.magnitudes(), operator.counts(knobs), strict=True
        )
    ]
    pruned = sum(group.pruned for group in groups)
    done = evaluator.done
    return Result(
        family=study.model.family,
        knobs=knobs.tolist(),
        groups=groups,
        prunable=prunable,
        parameters=parameters,
        pruned=pruned,
        remaining=1 - pruned / prunable,
        remaining_of_all=1 - pruned / parameters,
        backed_off=failed,
        evaluations=sum(e.stage not in FINAL for e in done),
        skipped=sum(e.how == "skipped" for e in done),
        raced=sum(e.how == "raced" for e in done),
        cached=sum(e.how == "cached" for e in done),
        tokens=sum(e.tokens for e in done if e.stage not in FINAL),
        confirm_tokens=sum(e.tokens for e in done if e.stage in FINAL),
        tokens_computed=sum(e.tokens_computed for e in done),
        seconds=sum(e.seconds for e in done),
        other_seconds=other_seconds,
        held=_held(config.constraint, next(e for e in reversed(done) if e.stage == "confirm")),
        sets={name: sets[name].result(translated[name], evaluator.constraint) for name in sets},
        files=evaluator.record.file_hashes(),
        environment=environment(),
    )


def _held(constraint: str, confirmed: Evaluation) -> Held:
    """What the final candidate was confirmed by."""
    value, drop, bound = confirmed.bleu, confirmed.drop, confirmed.bound
    assert value is not None
    assert drop is not None
    assert bound is not None
    return Held(constraint=constraint, dense=value + drop, value=value, drop=drop, bound=bound)
