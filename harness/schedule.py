"""Prune, retrain, prune again: how often, and which of the models on the way counts.

The tolerance is always held against the original dense model. A model counts if it holds on *search* and on
*confirm*; of those the smallest is the result, and of several as small the one that loses least on *confirm*,
because training may also make a model worse. A schedule
ends when its rounds are, or when in two rounds running BLEU does not come back or nothing shrinks.
One such round is not enough: more training may do, and a rival that ends early has had fewer epochs.
Where the size is given, every model counts: the last one is reported whatever BLEU it has. An iterative
schedule of the dense model is the same training in the same rounds, without the searches between them.

A search that retraining follows may have a tolerance of its own, the round's: what it finds need not count,
what comes of its retraining has to. The last search has the tolerance itself: in the last round, or, where
BLEU has not come back there, over the smallest model that counts, which may be the dense one.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from harness.configuration import CellConfig
from harness.corpus.corpus import Corpus
from harness.evaluator import Evaluator
from harness.gradual import Gradual
from harness.model import TranslationModel
from harness.olmp import BACK_OFF_STEP, at_given_size, confirm, run_search
from harness.operators import Operator
from harness.records import RETRAINING, Evaluation
from harness.retraining import SHARED, Retrained, Schedule, check_valid, retrain
from harness.sentences import Translated

Masks = Mapping[str, NDArray[np.bool_]]
#: rounds running in which BLEU does not come back or nothing shrinks, after which a schedule ends
FRUITLESS = 2


@dataclass(frozen=True)
class Round:
    """One search, or one retraining: the model as it is afterwards, and whether it counts.

    ``weights`` float32 [parameters] are those of the whole model, ``operator`` says what ``knobs`` mean,
    ``translated`` is what was judged on confirm.
    """

    number: int
    operator: Operator
    knobs: NDArray[np.float64]
    size: float
    weights: torch.Tensor
    masks: Masks
    confirmed: Evaluation
    translated: Translated
    retrained: Retrained | None
    counts: bool


@dataclass
class Rounds:
    """Runs the rounds of one cell; afterwards ``done`` holds all evaluations, of all rounds.

    ``failed`` is how many models confirm refused after a search, ``training_seconds`` what retraining took in
    this process.

    ``operator_of`` makes the operator over the model's weights as they are then, ``evaluator_of`` the
    evaluator of a round, under a tolerance; ``folder`` gets a folder for each retraining; ``blocks`` are
    those of the operator.
    """

    model: TranslationModel
    corpus: Corpus
    config: CellConfig
    folder: Path
    blocks: pd.DataFrame
    operator_of: Callable[[], Operator]
    evaluator_of: Callable[[Operator, int, float], Evaluator]
    masks_of: Callable[[Operator], Masks]

    def __post_init__(self) -> None:
        self.done: list[Evaluation] = []
        self.failed = 0
        self.training_seconds = 0.0
        self._dense = self.model.flat.clone()

    def run(self) -> list[Round]:
        """All rounds; the weights of the one that is reported are in the model."""
        found = [self._gradual()] if self.config.schedule == "gradual" else self._alternating()
        self.model.flat.copy_(self.final(found).weights)
        return found

    def _keeps(self, judged: Evaluation) -> bool:
        """Whether a model keeps the tolerance of the cell, whatever that of the round is."""
        config = self.config
        lost = judged.bound if config.criterion == "bound" else judged.drop
        return lost is not None and lost <= config.tolerance

    def final(self, rounds: Sequence[Round]) -> Round:
        """The model that is reported: the smallest that counts; where the size is given, the last."""
        counting = [one for one in rounds if one.counts]
        if self.config.given:
            return counting[-1]
        return min(counting, key=lambda one: (one.size, one.confirmed.drop))

    def _alternating(self) -> list[Round]:
        """Prune; retrain; prune again; …"""
        config, operator = self.config, self.operator_of()
        planned = _epochs_of_rounds(config)
        with self._evaluator(operator, 0, not planned) as evaluator:
            found = [self._searched(0, operator, evaluator)]
            self.done += evaluator.done
        fruitless = 0
        for number, epochs in enumerate(planned, start=1):
            before = found[-1]
            retrained, operator = self._retrained(number, before, epochs)
            with self._evaluator(operator, number, number == len(planned)) as evaluator:
                again = self._round(number, operator, _as_many(before, operator), evaluator, retrained)
                found.append(again)
                if config.schedule == "iterative" and again.counts and not config.given:
                    smaller = self._searched(number, operator, evaluator, again.knobs)
                    if smaller.size <= again.size - BACK_OFF_STEP:
                        found.append(smaller)
                self.done += evaluator.done
            shrank = found[-1] is not again
            fruitless = 0 if shrank or config.given else fruitless + 1
            if fruitless == FRUITLESS:
                break
        spent = found[-1].counts and found[-1].number == len(planned)
        return found if spent or config.round_tolerance is None else found + self._closing(found)

    def _closing(self, found: Sequence[Round]) -> list[Round]:
        """What a search under the tolerance itself finds over the smallest model that counts, if smaller."""
        before = self.final(found) if any(one.counts for one in found) else None
        number = found[-1].number + 1
        self.model.flat.copy_(self._dense if before is None else before.weights)
        operator = self.operator_of()
        start = None if before is None else _as_many(before, operator)
        with self._evaluator(operator, number, last=True) as evaluator:
            smaller = self._searched(number, operator, evaluator, start)
            self.done += evaluator.done
        return [smaller] if before is None or smaller.size <= before.size - BACK_OFF_STEP else []

    def _evaluator(self, operator: Operator, number: int, last: bool) -> Evaluator:
        """That of a round; in the last one no retraining follows, so that what is found has to count."""
        own = None if last else self.config.round_tolerance
        return self.evaluator_of(operator, number, self.config.tolerance if own is None else own)

    def _gradual(self) -> Round:
        """Train the dense model on and prune it meanwhile, to the given size."""
        config, number = self.config, 1
        assert config.sparsity is not None
        gradual = Gradual(self.blocks, config.search, config.sparsity)
        retrained = self._retrain(number, {}, schedule_of(config, config.epochs), gradual)
        trained, operator = self.model.flat.clone(), self.operator_of()
        with self._evaluator(operator, number, last=True) as evaluator:
            one = self._round(number, operator, at_given_size(evaluator), evaluator, retrained)
            self.done += evaluator.done
        if not torch.equal(one.weights, trained):
            raise AssertionError("not all that was to go is zero after training")
        return one

    def _searched(
        self, number: int, operator: Operator, evaluator: Evaluator, start: NDArray | None = None
    ) -> Round:
        """The model of the given size, or the smallest that a search finds and that holds."""
        if self.config.given:
            knobs = at_given_size(evaluator)
        else:
            run_search(evaluator, start)
            knobs, _, failed = confirm(evaluator, start)
            self.failed += failed
        return self._round(number, operator, knobs, evaluator)

    def _retrained(self, number: int, before: Round, epochs: int) -> tuple[Retrained, Operator]:
        """Retrain the model of a round; the operator is that over its new weights."""
        self.model.flat.copy_(before.weights)
        return self._retrain(number, before.masks, schedule_of(self.config, epochs)), self.operator_of()

    def _retrain(
        self, number: int, masks: Masks, schedule: Schedule, gradual: Gradual | None = None
    ) -> Retrained:
        folder, started = self.folder / retraining_folder(number), time.perf_counter()
        teacher = self._dense if self.config.distillation else None
        found = retrain(self.model, masks, self.corpus, folder, schedule, gradual=gradual, teacher=teacher)
        # without start-up, and without what another process has done
        self.training_seconds += min(found.seconds, time.perf_counter() - started)
        return found

    def _round(
        self,
        number: int,
        operator: Operator,
        knobs: NDArray,
        evaluator: Evaluator,
        retrained: Retrained | None = None,
    ) -> Round:
        """The model at these knobs, judged on confirm (known already after a search).

        One that was retrained is judged on the search set as well, as what a search finds was.
        """

        def own(stage: str) -> list[Evaluation]:
            return [e for e in evaluator.done if e.stage == stage and e.knobs == knobs.tolist()]

        if retrained is not None and not self.config.given:
            evaluator.evaluate(knobs, "exact")
        confirmed = (own("confirm") or [evaluator.evaluate(knobs, "confirm")])[-1]
        counts = self.config.given or all(map(self._keeps, [*own("exact"), confirmed]))
        operator.apply(knobs)
        translated = evaluator.translations(knobs, "confirm")
        size, weights, masks = float(operator.size(knobs)), self.model.flat.clone(), self.masks_of(operator)
        return Round(number, operator, knobs, size, weights, masks, confirmed, translated, retrained, counts)


def schedule_of(config: CellConfig, epochs: int) -> Schedule:
    """How a cell trains for so many epochs."""
    settings = {name: getattr(config, name) for name in SHARED} | {"device": config.trains_on}
    make = Schedule.gradual if config.schedule == "gradual" else Schedule
    return make(epochs, config.learning_rate, **settings)


def check_training(config: CellConfig, model: TranslationModel, corpus: Corpus) -> None:
    """Refuse a training that cannot be, before anything is translated. Raises StudyError."""
    if config.trains:
        schedule_of(config, config.epochs)
        check_valid(model, corpus, config.batch_tokens)


def _epochs_of_rounds(config: CellConfig) -> list[int]:
    """Epochs of each retraining.

    What does not fill a round is part of the last one: its epochs would be too few for the learning rate to
    shrink.
    """
    if config.schedule == "one-shot":
        return []
    rounds = max(1, config.epochs // config.round_epochs) if config.schedule == "iterative" else 1
    last = config.epochs - (rounds - 1) * config.round_epochs
    return [config.round_epochs] * (rounds - 1) + [last]


def _as_many(before: Round, operator: Operator) -> NDArray[np.float64]:
    """Knobs that prune as many of the retrained connections as were pruned before: those held at zero."""
    counts = before.operator.counts(before.knobs)
    return before.knobs if np.array_equal(operator.counts(before.knobs), counts) else operator.knobs(counts)


def retraining_folder(number: int | str) -> str:
    """Where a round of a cell is retrained, until the cell is finished."""
    return f"{RETRAINING}{number}"
