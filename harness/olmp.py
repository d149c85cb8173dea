"""OLMP over arbitrary groups: the smallest size whose BLEU stays within the tolerance.

The walk of one candidate: the search *asks* for knobs → the operator turns them into a size and,
only if the size can still matter, into weights → the decoder translates the search sentences →
BLEU statistics → the constraint *judges* → the archive and the record take note → the search is
*told*.
"""

import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from grouping.errors import StudyError
from harness.constraint import Constraint
from harness.operators import Operator
from harness.record import Record
from harness.records import CellConfig, Evaluation
from harness.search.optimisers import make_optimiser, release
from harness.search.rules import rules
from harness.search.scan import scan_then_bisect
from harness.sentences import SentenceSet, Translated

Stage = Literal["start", "search", "confirm"]
#: along the archive, the next candidate to confirm is larger by at least this fraction of the dense size
BACK_OFF_STEP = 0.005
#: steps of a search-free rule below its edge: down to the grid point below it
RULE_FALLBACKS = 20


class BudgetSpent(Exception):
    """The budget of evaluations or delivered tokens is used up."""


class Evaluator:
    """Evaluates candidates, replays what the record already holds, and keeps the archive.

    A cached candidate (same mask as an earlier one) costs its evaluation and its delivered tokens
    again but computes nothing. A skipped one (refused by its size alone) costs its evaluation and
    no tokens: no hypothesis was asked for.
    """

    def __init__(
        self,
        config: CellConfig,
        operator: Operator,
        record: Record,
        notify: Callable[[Evaluation], None] = lambda evaluation: None,
    ):
        self.config, self.operator, self.record, self.notify = config, operator, record, notify
        self.constraint = Constraint(config.tolerance, config.criterion, config.confidence)
        self.done: list[Evaluation] = []
        self._replay = list(reversed(record.replayed))
        self._known: dict[tuple[str, bytes], Evaluation] = {}
        self._last: tuple[tuple[str, bytes], Translated] | None = None

    @property
    def progress(self) -> float:
        """Share of the budget spent, in [0, 1]."""
        searched = [e for e in self.done if e.stage != "confirm"]
        shares = [len(searched) / self.config.evaluations]
        if self.config.tokens is not None:
            shares.append(sum(e.tokens for e in searched) / self.config.tokens)
        return min(max(shares), 1.0)

    @property
    def feasible(self) -> list[Evaluation]:
        """The archive: feasible candidates of the search set, smallest first."""
        found = [e for e in self.done if e.feasible and e.stage != "confirm"]
        return sorted(found, key=lambda e: (e.size, e.index))

    def evaluate(self, knobs: NDArray, sentences: SentenceSet, stage: Stage) -> Evaluation:
        """Judge one candidate on a set. Raises BudgetSpent when the search may not go on."""
        if stage != "confirm" and self.progress >= 1:
            raise BudgetSpent
        if (replayed := self._replayed(knobs, stage)) is None:
            replayed = self._fresh(knobs, sentences, stage)
            self.record.append(replayed)
        return self._note(replayed)

    def translations(self, knobs: NDArray, sentences: SentenceSet, stage: Stage) -> Translated:
        """The translations of an evaluated candidate, made again only if they are not the latest."""
        self.operator.apply(knobs)
        if self._last is not None and self._last[0] == self._key(knobs, stage):
            return self._last[1]
        return sentences.translate()

    def skip(self, knobs: NDArray) -> Evaluation:
        """Note a candidate that its size alone refuses; its score is that lower bound, the size."""
        size = float(self.operator.size(knobs))
        if (skipped := self._replayed(knobs, "search")) is None:
            skipped = self._entry(knobs, "search", how="skipped", score=size, feasible=False)
            self.record.append(skipped)
        return self._note(skipped)

    def _note(self, evaluation: Evaluation) -> Evaluation:
        self.done.append(evaluation)
        if evaluation.how != "skipped":
            self._known.setdefault(self._key(np.array(evaluation.knobs), evaluation.stage), evaluation)
        self.notify(evaluation)
        return evaluation

    def _key(self, knobs: NDArray, stage: Stage) -> tuple[str, bytes]:
        where = "confirm" if stage == "confirm" else "search"
        return where, self.operator.counts(knobs).tobytes()

    def _replayed(self, knobs: NDArray, stage: Stage) -> Evaluation | None:
        if not self._replay:
            return None
        found = self._replay.pop()
        if found.stage != stage or found.knobs != knobs.tolist() or found.index != len(self.done):
            raise StudyError(
                f"evaluation {found.index} in {self.record.folder} is not the one this search asks for: "
                "it was written by another version; choose another --out"
            )
        return found

    def _fresh(self, knobs: NDArray, sentences: SentenceSet, stage: Stage) -> Evaluation:
        known = self._known.get(self._key(knobs, stage))
        if known is not None:
            same = known.model_dump(exclude={"index", "stage", "knobs", "how", "tokens_computed", "seconds"})
            return self._entry(knobs, stage, how="cached", **same)
        started = time.perf_counter()
        self.operator.apply(knobs)
        translated = sentences.translate()
        self._last = self._key(knobs, stage), translated
        verdict = sentences.judge(translated, self.constraint)
        return self._entry(
            knobs,
            stage,
            how="translated",
            score=self.constraint.score(float(self.operator.size(knobs)), verdict),
            feasible=verdict.feasible,
            bleu=verdict.bleu,
            drop=verdict.drop,
            bound=verdict.bound,
            standard_error=verdict.standard_error,
            tokens=translated.tokens,
            tokens_computed=translated.tokens,
            seconds=time.perf_counter() - started,
        )

    def _entry(self, knobs: NDArray, stage: Stage, **values: Any) -> Evaluation:
        blank: dict[str, Any] = dict.fromkeys(("bleu", "drop", "bound", "standard_error"))
        blank |= {"tokens": 0, "tokens_computed": 0, "seconds": 0.0}
        blank |= {"size": float(self.operator.size(knobs))} | values
        return Evaluation(index=len(self.done), stage=stage, knobs=knobs.tolist(), **blank)


def check_search(config: CellConfig, knobs: int) -> None:
    """Raise StudyError for a search that cannot run over this many knobs, before anything is written."""
    if config.search not in rules.names():
        release(make_optimiser(config.search, np.zeros(knobs), config.sigma, config.evaluations, config.seed))


def run_search(evaluator: Evaluator, sentences: SentenceSet) -> None:
    """Spend the cell's budget: a search-free rule, or an optimiser from where class-blind ends."""
    config = evaluator.config
    try:
        if config.search in rules.names():
            scan_rule(config.search, evaluator, sentences, fallbacks=RULE_FALLBACKS)
            return
        start = np.zeros(len(evaluator.operator.groups))
        if config.start == "class-blind":
            start = scan_rule("class-blind", evaluator, sentences)
        _optimise(start, evaluator, sentences)
    except BudgetSpent:
        return


def scan_rule(name: str, evaluator: Evaluator, sentences: SentenceSet, fallbacks: int = 0) -> NDArray:
    """Knobs at the edge of the constraint along a one-parameter rule.

    The bisection leaves the archive empty for some way below the edge; ``fallbacks`` more
    evaluations, ``BACK_OFF_STEP`` apart, fill it, so that a rule can back off by steps as small as
    a search can.
    """
    rule, operator = rules.get(name), evaluator.operator
    magnitudes = operator.magnitudes()

    def knobs_at(strength: float) -> NDArray:
        return operator.knobs(rule(magnitudes, strength))

    def feasible(strength: float) -> bool:
        return evaluator.evaluate(knobs_at(strength), sentences, "start").feasible

    edge = scan_then_bisect(feasible)
    for step in range(1, fallbacks + 1):
        if (strength := edge - step * BACK_OFF_STEP) > 0:
            feasible(strength)
    return knobs_at(edge)


def _optimise(start: NDArray, evaluator: Evaluator, sentences: SentenceSet) -> None:
    config, operator = evaluator.config, evaluator.operator
    left = max(1, config.evaluations - len(evaluator.done))
    optimiser = make_optimiser(config.search, start, config.sigma, budget=left, seed=config.seed)
    # NCS can say that it would refuse a candidate of some size even if it were feasible
    refuses = getattr(optimiser, "refuses", lambda candidate, size: False)
    try:
        while True:
            optimiser.progress = evaluator.progress
            candidate = optimiser.ask()
            knobs = np.clip(np.asarray(candidate.value, dtype=float), 0, 1)
            if evaluator.progress < 1 and refuses(candidate, float(operator.size(knobs))):
                evaluation = evaluator.skip(knobs)
            else:
                evaluation = evaluator.evaluate(knobs, sentences, "search")
            optimiser.tell(candidate, evaluation.score)
    finally:
        release(optimiser)


def confirm(evaluator: Evaluator, sentences: SentenceSet) -> tuple[NDArray, Translated, int]:
    """Back off along the archive until a candidate also holds on confirm.

    The same rule for every search: smallest first, each next one larger by at least
    ``BACK_OFF_STEP``, the dense model last. Returns its knobs, its translations and how many failed.
    """
    waiting = [np.array(e.knobs) for e in evaluator.feasible]
    waiting.append(np.zeros(len(evaluator.operator.groups)))
    last_size, failed = -np.inf, 0
    for knobs in waiting:
        size = float(evaluator.operator.size(knobs))
        if size < last_size + BACK_OFF_STEP and knobs.any():
            continue
        last_size = size
        if evaluator.evaluate(knobs, sentences, "confirm").feasible:
            return knobs, evaluator.translations(knobs, sentences, "confirm"), failed
        failed += 1
    raise AssertionError("the dense model is within any tolerance of itself")
