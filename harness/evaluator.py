"""Candidates in, judgements out: replayed, cached, skipped, raced or translated to the end.

A candidate that the record already holds is replayed; one whose mask was judged before is not
translated again; one that its size alone refuses is not translated at all; one that can no longer be
feasible is not translated to its end (``racing``). The others are judged on the whole set.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from grouping.errors import StudyError
from harness.configuration import CellConfig
from harness.constraint import Constraint, Verdict
from harness.operators import Operator
from harness.racing import Race
from harness.record import Record
from harness.records import Evaluation, Stage
from harness.sentences import Translated, subset
from harness.workers import Workers

#: the order in which sentences are translated is part of the yardstick: the same for all cells
RACE_SEED = 1
#: stages that the budget of a search does not count
FINAL = ("exact", "confirm")
#: of what was judged: the set, the draw, and the numbers of pruned connections
Key = tuple[str, int | None, bytes]


class BudgetSpent(Exception):
    """The budget of evaluations or delivered tokens is used up."""


class Judging(Protocol):
    """A set of sentences that candidates are judged by."""

    @property
    def dense_statistics(self) -> NDArray[Any]: ...
    def translate(self) -> Translated: ...
    def stream(self, blocks: Sequence[NDArray[np.int64]]) -> Iterator[Translated]: ...
    def judge(self, translated: Translated, constraint: Constraint) -> Verdict: ...


class Divisible(Judging, Protocol):
    """One of which a part can be taken, by the places of its sentences."""

    def part(self, places: NDArray[np.int64]) -> Judging: ...


class Task(NamedTuple):
    """A candidate to translate, in which stage, and on which draw of the sentences (None: all of them)."""

    knobs: NDArray
    stage: Stage
    draw: int | None


class Judged(NamedTuple):
    """What came of one translated candidate; ``translated`` only outside of the search."""

    verdict: Verdict
    tokens: int
    sentences: int
    seconds: float
    translated: Translated | None


class Evaluator:
    """Evaluates candidates, replays what the record already holds, and keeps the archive.

    A cached candidate (same mask as an earlier one) costs its evaluation and its delivered tokens
    again but computes nothing. A skipped one (refused by its size alone) costs its evaluation and
    no tokens: no hypothesis was asked for. A raced one costs the tokens of the sentences that were
    translated before it was stopped.

    ``sets`` are the sentences of each stage: "search", "confirm" and "exact", the search set in float32 and
    not drawn anew, which may be that of "search". If the search draws its sentences anew, all that is asked
    for at once is judged by the same draw, the k-th in a round by the k-th draw: the same for all cells.
    ``workers`` processes judge candidates side by side; how many decides the time only. Used as a context
    manager, it ends them. ``number`` is that of the round, in which evaluations are counted from 0.
    """

    def __init__(
        self,
        config: CellConfig,
        operator: Operator,
        record: Record,
        sets: Mapping[str, Divisible],
        notify: Callable[[Evaluation], None] = lambda evaluation: None,
        workers: int = 1,
        number: int = 0,
    ):
        self.number = number
        self.config, self.operator, self.record, self.notify = config, operator, record, notify
        self.constraint = Constraint(config.tolerance, config.criterion, config.confidence)
        self.sets = sets
        self.done: list[Evaluation] = []
        # a worker may be at one draw only
        self._searched = lru_cache(maxsize=1)(self._drawn)
        self._draw = None if not config.redraw else -1
        if not config.redraw:
            self._searched(None)  # once, before there are workers
        self._replay = [e for e in reversed(record.replayed) if e.round == number]
        self._known: dict[Key, Evaluation] = {}
        self._last: tuple[Key, Translated] | None = None
        self._workers = Workers(self._judge, workers)

    def __enter__(self) -> "Evaluator":
        return self

    def __exit__(self, *exception: object) -> None:
        self._workers.__exit__(*exception)

    @property
    def progress(self) -> float:
        """Share of the budget spent, in [0, 1]."""
        searched = [e for e in self.done if e.stage not in FINAL]
        shares = [len(searched) / self.config.evaluations]
        if self.config.tokens is not None:
            shares.append(sum(e.tokens for e in searched) / self.config.tokens)
        return min(max(shares), 1.0)

    @property
    def feasible(self) -> list[Evaluation]:
        """The archive: feasible candidates of the search set, smallest first."""
        found = [e for e in self.done if e.feasible and e.stage not in FINAL]
        return sorted(found, key=lambda e: (e.size, e.index))

    def evaluate(self, knobs: NDArray, stage: Stage) -> Evaluation:
        """Judge one candidate. Raises BudgetSpent when the search may not go on."""
        return next(self.evaluate_all([knobs], stage))

    def evaluate_all(
        self, candidates: Sequence[NDArray], stage: Stage, refused: Sequence[bool] = ()
    ) -> Iterator[Evaluation]:
        """Judge candidates side by side and yield them in their order, each when it is noted.

        ``refused`` are those whose size alone settles what becomes of them: they are told that
        size, a lower bound of their score, and not translated. Raises BudgetSpent in the place of
        the first candidate that the budget does not pay for.
        """
        refused = refused or [False] * len(candidates)
        if self._draw is not None and stage not in FINAL:
            self._draw += 1
        judged = self._workers.map(self._to_judge(candidates, stage, refused))
        for knobs, skip in zip(candidates, refused, strict=True):
            if stage not in FINAL and self.progress >= 1:
                raise BudgetSpent
            if (evaluation := self._replayed(knobs, stage)) is None:
                key = self._key(knobs, stage)
                if skip:
                    size = float(self.operator.size(knobs))
                    evaluation = self._entry(knobs, stage, how="skipped", score=size, feasible=False)
                elif key in self._known:
                    evaluation = self._cached(knobs, stage, self._known[key])
                else:
                    evaluation = self._translated(knobs, stage, next(judged))
                self.record.append(evaluation)
            self._note(evaluation)
            yield evaluation

    def translations(self, knobs: NDArray, stage: Stage) -> Translated:
        """The translations of an evaluated candidate, made again only if they are not the latest."""
        self.operator.apply(knobs)
        if self._last is not None and self._last[0] == self._key(knobs, stage):
            return self._last[1]
        return self._sentences(stage, self._draw)[0].translate()

    def _to_judge(self, candidates: Sequence[NDArray], stage: Stage, refused: Sequence[bool]) -> list[Task]:
        """Those that are neither in the record nor known, each mask once."""
        replayed = len(self._replay)
        seen = set(self._known)
        tasks = []
        for i, (knobs, skip) in enumerate(zip(candidates, refused, strict=True)):
            key = self._key(knobs, stage)
            if skip or key in seen:
                continue
            seen.add(key)
            if i >= replayed:
                tasks.append(Task(knobs, stage, self._draw))
        return tasks

    def _drawn(self, draw: int | None) -> tuple[Judging, Race | None]:
        """The sentences of a draw of the search set, and the race over them, if there is one."""
        config, whole = self.config, self.sets["search"]
        sentences: Judging = whole
        if draw is not None:
            number = (self.number, draw)
            sentences = whole.part(subset(len(whole.dense_statistics), config.search_sentences, number))
        # teacher forcing is one pass over all sentences; what is reported whatever it costs is judged whole
        if not config.racing or config.constraint != "bleu" or config.given:
            return sentences, None
        dense = sentences.dense_statistics
        return sentences, Race(dense, self.constraint, seed=RACE_SEED, level=config.racing)

    def _sentences(self, stage: Stage, draw: int | None) -> tuple[Judging, Race | None]:
        """The sentences of a stage, and the race over them."""
        return (self.sets[stage], None) if stage in FINAL else self._searched(draw)

    def _judge(self, task: Task) -> Judged:
        """Translate and judge one candidate; runs in a worker."""
        started = time.perf_counter()
        sentences, race = self._sentences(task.stage, task.draw)
        self.operator.apply(task.knobs)
        parts: list[Translated] = []
        if race is not None:
            for part in sentences.stream(race.blocks):
                parts.append(part)
                if len(parts) == len(race.blocks):
                    break
                verdict = race.refuses(np.concatenate([part.statistics for part in parts]))
                if verdict is not None:
                    return self._judged(verdict, parts, started)
            parts = [Translated.joined(parts, np.concatenate(race.blocks))]
        else:
            parts = [sentences.translate()]
        whole = parts[0]
        return self._judged(
            sentences.judge(whole, self.constraint), parts, started, whole if task.stage in FINAL else None
        )

    @staticmethod
    def _judged(
        verdict: Verdict, parts: Sequence[Translated], started: float, translated: Translated | None = None
    ) -> Judged:
        tokens = sum(part.tokens for part in parts)
        sentences = sum(len(part.statistics) for part in parts)
        return Judged(verdict, tokens, sentences, time.perf_counter() - started, translated)

    def _note(self, evaluation: Evaluation) -> None:
        self.done.append(evaluation)
        if evaluation.how != "skipped":
            self._known.setdefault(self._key(np.array(evaluation.knobs), evaluation.stage), evaluation)
        self.notify(evaluation)

    def _key(self, knobs: NDArray, stage: Stage) -> Key:
        if stage in FINAL and self.sets[stage] is not self.sets["search"]:
            return stage, None, self.operator.counts(knobs).tobytes()
        draw = None if stage in FINAL else self._draw
        return "search", draw, self.operator.counts(knobs).tobytes()

    def _replayed(self, knobs: NDArray, stage: Stage) -> Evaluation | None:
        if not self._replay:
            return None
        found = self._replay.pop()
        if found.stage != stage or found.knobs != knobs.tolist() or found.index != len(self.done):
            raise StudyError(
                f"evaluation {found.index} in {self.record.folder} is not the one this search asks for: "
                "it was written by another version; choose another --out, or remove the lines from there on"
            )
        return found

    def _cached(self, knobs: NDArray, stage: Stage, known: Evaluation) -> Evaluation:
        own = {"round", "index", "stage", "knobs", "how", "tokens_computed", "seconds"}
        return self._entry(knobs, stage, how="cached", **known.model_dump(exclude=own))

    def _translated(self, knobs: NDArray, stage: Stage, judged: Judged) -> Evaluation:
        if judged.translated is not None:
            self._last = self._key(knobs, stage), judged.translated
        verdict = judged.verdict
        sentences, _ = self._sentences(stage, self._draw)
        whole = judged.sentences == len(sentences.dense_statistics)
        return self._entry(
            knobs,
            stage,
            how="translated" if whole else "raced",
            score=self.constraint.score(float(self.operator.size(knobs)), verdict),
            feasible=verdict.feasible,
            bleu=verdict.bleu,
            drop=verdict.drop,
            bound=verdict.bound,
            standard_error=verdict.standard_error,
            sentences=judged.sentences,
            tokens=judged.tokens,
            tokens_computed=judged.tokens,
            seconds=judged.seconds,
        )

    def _entry(self, knobs: NDArray, stage: Stage, **values: Any) -> Evaluation:
        blank: dict[str, Any] = dict.fromkeys(("bleu", "drop", "bound", "standard_error"))
        blank |= {"sentences": 0, "tokens": 0, "tokens_computed": 0, "seconds": 0.0}
        blank |= {"size": float(self.operator.size(knobs))} | values
        return Evaluation(round=self.number, index=len(self.done), stage=stage, knobs=knobs.tolist(), **blank)
