"""Two programs take turns: each at its fastest setting, found by a short sweep beforehand."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any

from experiments.bench.workers import Layout, Workers

#: seconds between two turns, in which waiting OpenMP threads of the last one stop spinning
SETTLE = 0.5
#: a setting of the sweep is timed twice unless the first pass took longer than this, in seconds
LONG = 5.0


@dataclass(frozen=True)
class Contender:
    """A program in one precision, and the settings to choose from.

    ``engine`` (``module:class``) makes an object with ``prepare(numbers, batch)``, ``translate()``
    and ``hypotheses()`` from a layout and ``settings``. All ``layouts`` are tried with the first of
    ``batches``, the other batches with the fastest of them.
    """

    name: str
    precision: str
    engine: str
    settings: dict[str, Any]
    layouts: Sequence[Layout]
    batches: Sequence[dict[str, int]]

    @property
    def tries(self) -> int:
        """Settings that a sweep times."""
        return len(self.layouts) + len(self.batches) - 1


@dataclass(frozen=True)
class Setting:
    """What a sweep found best, its tokens/s, and all that it ``tried`` with theirs."""

    speed: float
    layout: Layout
    batch: dict[str, int]
    tried: list[dict[str, Any]]


class Runner:
    """A contender that has loaded in one layout; translates the same sentences again and again."""

    def __init__(self, contender: Contender, layout: Layout, lengths: Sequence[int]) -> None:
        """``lengths`` are those of the sentences, in source tokens: the longest come first everywhere."""
        #: of the last pass, in the order of the sentences, without end of sentence
        self.hypotheses: list[list[int]] = []
        self._parts = deal(lengths, layout.processes)
        self._workers = Workers(contender.engine, contender.settings, layout)

    def prepare(self, batch: dict[str, int]) -> None:
        """Make everything but the translation itself."""
        self._workers.call("prepare", self._parts, [batch] * len(self._parts))

    def warm(self, batch: dict[str, int]) -> None:
        """Prepare, and translate once: the first pass loads code and memory."""
        self.prepare(batch)
        self.run()

    def run(self) -> float:
        """Translate all sentences once. Returns tokens/s, ends of sentences counted."""
        seconds = self._workers.call("translate").seconds
        answers = self._workers.call("hypotheses").answers
        said = {
            number: words
            for numbers, hypotheses in zip(self._parts, answers, strict=True)
            for number, words in zip(numbers, hypotheses, strict=True)
        }
        self.hypotheses = [said[number] for number in range(len(said))]
        return tokens(self.hypotheses) / seconds

    def __enter__(self) -> "Runner":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._workers.close()


def tokens(hypotheses: Sequence[Sequence[int]]) -> int:
    """Tokens of hypotheses, their ends of sentences counted."""
    return sum(len(words) + 1 for words in hypotheses)


def deal(lengths: Sequence[int], parts: int) -> list[list[int]]:
    """Sentences dealt in turn, longest first, so that all parts have about the same to do."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    return [order[part::parts] for part in range(parts)]


def sweep(contender: Contender, lengths: Sequence[int], tick: Callable[[], object]) -> Setting:
    """Time each layout with the first batch, then the other batches in the fastest layout."""
    tried: list[tuple[float, Layout, dict[str, int]]] = []
    runners: dict[Layout, Runner] = {}

    def measure(layout: Layout, batch: dict[str, int]) -> None:
        runners[layout].warm(batch)
        tried.append((_speed(runners[layout]), layout, batch))
        tick()

    def best() -> tuple[float, Layout, dict[str, int]]:
        return max(tried, key=lambda found: found[0])

    first, *others = contender.batches
    with ExitStack() as stack:
        for layout in contender.layouts:
            runners[layout] = stack.enter_context(Runner(contender, layout, lengths))
            measure(layout, first)
        layout = best()[1]
        for batch in others:
            measure(layout, batch)
    said = [asdict(layout) | batch | {"tokens_per_s": speed} for speed, layout, batch in tried]
    return Setting(*best(), said)


def _speed(runner: Runner) -> float:
    """Tokens/s of the faster of two passes; of one, if it takes long."""
    started = time.monotonic()
    first = runner.run()
    return first if time.monotonic() - started > LONG else max(first, runner.run())


def race(runners: Sequence[Runner], rounds: int, tick: Callable[[], object]) -> list[list[float]]:
    """Let the runners take turns. Returns tokens/s [runners][rounds]."""
    speeds: list[list[float]] = [[] for _ in runners]
    for _ in range(rounds):
        for runner, found in zip(runners, speeds, strict=True):
            time.sleep(SETTLE)
            found.append(runner.run())
            tick()
    return speeds
