"""A cell: one run of the study, from dense model to compressed model."""

import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from grouping import StudyError, connection_table, content_hash, partition
from harness import records
from harness.configuration import CellConfig, configuration
from harness.constraint import Constraint, PairedBootstrap
from harness.corpus.corpus import Corpus
from harness.decoding import Decoding, Translator
from harness.decoding.linear import Place
from harness.environment import environment
from harness.evaluator import FINAL, Divisible, Evaluator
from harness.masks import pruned_masks
from harness.model import TranslationModel, load_model
from harness.olmp import check_search
from harness.operators import operators
from harness.record import Record
from harness.records import Evaluation, GroupResult, Held, Result, RetrainingResult, RoundResult
from harness.schedule import Round, Rounds, check_training, retraining_folder
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
        training = self.corpus.training_hash() if config.trains else ""
        return config.model_copy(update={"groups_sha256": content_hash(blocks), "training_sha256": training})

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
    and decide the time only. Without ``keep_checkpoint`` a pruned model that was not retrained is kept
    as its masks alone. Raises StudyError when the folder holds something
    else or a name is unknown; an interrupted cell resumes to the same result.
    """
    blocks = study.groups(config.grouping, config.vectors, config.seed)
    if content_hash(blocks) != config.groups_sha256:
        raise StudyError(f"grouping {config.grouping!r} gives other groups than when the cell was planned")
    if config.trains and study.corpus.training_hash() != config.training_sha256:
        raise StudyError(f"the training text in {study.corpus.folder} has changed since the cell was planned")
    check_search(config, blocks["group"].nunique())
    subset(len(study.corpus.references("search")), config.search_sentences)  # refuses more than there are
    operators.get(config.operator)
    check_workers(workers)
    if not (folder / records.RESULT).exists():  # what is finished returns on any machine
        Place.of(study.translator.device, config.precision)  # refuses one that this machine does not have
        check_training(config, study.model, study.corpus)
    dense = study.model.flat.clone()
    with Record(folder, config) as record:
        if (finished := record.result()) is not None:
            record.check_files(finished)
            return finished
        try:
            result = _run(study, config, blocks, record, notify, workers, keep_checkpoint)
        finally:
            study.model.flat.copy_(dense)
        for retrained in folder.glob(retraining_folder("*")):
            shutil.rmtree(retrained)
        return result


def _run(
    study: Study,
    config: CellConfig,
    blocks: pd.DataFrame,
    record: Record,
    notify: Callable[[Evaluation], None],
    workers: int,
    keep_checkpoint: bool,
) -> Result:
    started = time.perf_counter()
    sets = sets_of(study, config)
    stages = _stages(study, config, sets)
    rounds = Rounds(
        study.model,
        study.corpus,
        config,
        record.folder,
        blocks,
        operator_of=lambda: operators.get(config.operator)(study.model, blocks),
        evaluator_of=lambda operator, number, tolerance: Evaluator(
            config.model_copy(update={"tolerance": tolerance}),
            *(operator, record, stages, notify, workers, number),
        ),
        masks_of=lambda operator: pruned_masks(study.model, operator),
    )
    found = rounds.run()
    last = rounds.final(found)
    bleu = config.constraint == "bleu"
    translated = {
        "search": sets["search"].translate(),
        "confirm": last.translated if bleu else sets["confirm"].translate(),
        "test": sets["test"].translate(),
    }
    for split in ("confirm", "test"):
        record.write_lines(records.hypotheses(split, "dense"), sets[split].dense.hypotheses)
        record.write_lines(records.hypotheses(split, "pruned"), translated[split].hypotheses)
    record.write_masks(last.masks)
    if keep_checkpoint or config.schedule != "one-shot":
        study.model.save(record.folder / records.CHECKPOINT)
    constraint = Constraint(config.tolerance, config.criterion, config.confidence)
    fresh = sum(e.seconds for e in rounds.done) - sum(e.seconds for e in record.replayed)
    fresh += rounds.training_seconds
    if config.uses_gpu:
        torch.cuda.init()  # it is named below, though another process may have trained on it
    result = Result(
        **_pruned(study, config, last),
        **_spent(rounds, found),
        # workers may judge side by side
        other_seconds=max(0.0, time.perf_counter() - started - fresh),
        held=_held(config, last.confirmed),
        rounds=[_round(config, one) for one in found],
        sets={name: sets[name].result(translated[name], constraint) for name in sets},
        files=record.file_hashes(),
        environment=environment(config.uses_gpu),
    )
    record.finish(result)
    return result


def _stages(study: Study, config: CellConfig, sets: dict[str, SentenceSet]) -> dict[str, Divisible]:
    """What candidates are judged by in each stage."""
    found: dict[str, Divisible] = {name: sets[name] for name in ("search", "confirm")}
    if config.constraint != "bleu":
        measure, resamples = MEASURES[config.constraint], config.resamples
        counts = {"search": config.search_sentences, "confirm": None}
        found = {split: study.forced(split, measure, resamples, count) for split, count in counts.items()}
    found["exact"] = found["search"]
    if config.precision != "float32" or config.redraw:
        found["search"] = study.sentences(
            *("search", config.search_beam, config.resamples, True, config.precision, _count(config))
        )
    return found


def sets_of(study: Study, config: CellConfig) -> dict[str, SentenceSet]:
    """The three sets on which a cell reports, under its decoders."""
    count = _count(config)
    return {
        "search": study.sentences("search", config.search_beam, config.resamples, True, count=count),
        "confirm": study.sentences("confirm", config.final_beam, config.resamples),
        "test": study.sentences("test", config.final_beam, config.resamples),
    }


def _count(config: CellConfig) -> int | None:
    """How many sentences the search set has; all of them are there to be drawn from."""
    return None if config.redraw else config.search_sentences


def _pruned(study: Study, config: CellConfig, last: Round) -> dict[str, Any]:
    """The fields of a result that say what is left of the model."""
    table = connection_table(study.model.description, config.vectors)
    prunable = int(table.loc[table.prunable, "size"].sum())
    parameters = int(table["size"].sum())
    operator, knobs = last.operator, last.knobs
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
    return {
        "family": study.model.family,
        "knobs": knobs.tolist(),
        "groups": groups,
        "prunable": prunable,
        "parameters": parameters,
        "pruned": pruned,
        "remaining": 1 - pruned / prunable,
        "remaining_of_all": 1 - pruned / parameters,
    }


def _spent(rounds: Rounds, found: Sequence[Round]) -> dict[str, Any]:
    """The fields of a result that say what all its rounds took."""
    done = rounds.done
    training = sum(one.retrained.seconds for one in found if one.retrained is not None)
    return {
        "backed_off": rounds.failed,
        "evaluations": sum(e.stage not in FINAL for e in done),
        "skipped": sum(e.how == "skipped" for e in done),
        "raced": sum(e.how == "raced" for e in done),
        "cached": sum(e.how == "cached" for e in done),
        "tokens": sum(e.tokens for e in done if e.stage not in FINAL),
        "confirm_tokens": sum(e.tokens for e in done if e.stage in FINAL),
        "tokens_computed": sum(e.tokens_computed for e in done),
        "seconds": sum(e.seconds for e in done) + training,
    }


def _held(config: CellConfig, confirmed: Evaluation) -> Held:
    """What a model was confirmed by."""
    value, drop, bound = confirmed.bleu, confirmed.drop, confirmed.bound
    assert value is not None
    assert drop is not None
    assert bound is not None
    return Held(constraint=config.constraint, dense=value + drop, value=value, drop=drop, bound=bound)


def _round(config: CellConfig, one: Round) -> RoundResult:
    retraining = None if one.retrained is None else RetrainingResult(**asdict(one.retrained))
    held = _held(config, one.confirmed)
    return RoundResult(
        round=one.number, remaining=one.size, held=held, counts=one.counts, retraining=retraining
    )
