"""What the cells of a plan will take, from those that are done or, before, from a rate."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from experiments.grid import Grid
from experiments.plan import PlannedCell
from grouping import StudyError
from harness import records
from harness.configuration import CellConfig
from harness.corpus.corpus import Corpus
from harness.record import read
from harness.records import Result

#: tokens that one core translates a second, where no cell is done yet: half of what docs/performance.md
#: measured on a processor with AVX-512, for the slower family
RATE = 6000.0
#: tokens of the references that one core trains on a second: half of what was measured on that processor
TRAINING_RATE = 2500.0
#: what the dense and the final translations take, with a beam, in units of a translation of the search set
FINAL = 20


@dataclass(frozen=True)
class Estimate:
    """Cell-hours (one core each) for the cells that are left, and for the longest of them.

    ``measured`` cells are behind the figures; of ``guessed`` cells nothing like them is done.
    """

    hours: float
    measured: int
    guessed: int
    longest: float

    def elapsed(self, jobs: int) -> float:
        """Hours that ``jobs`` cells side by side take, at least: no cell is cut into pieces."""
        return max(self.hours / jobs, self.longest)


class Spent(NamedTuple):
    """Seconds of one finished cell: per evaluation, per delivered token, and beside its evaluations.

    ``epoch`` are those of an epoch of retraining, None where nothing was retrained. ``given``: the size was,
    so that the one evaluation also stands for what was judged after each retraining.
    """

    given: bool
    evaluation: float
    token: float
    other: float
    epoch: float | None


#: what decides how fast a cell goes, before anything else: the model, the text and the devices
Inputs = tuple[str, str, str, str]
#: what finished cells took, by the paths of their results, with what it depends on; None: cannot be read
Memory = dict[Path, tuple[Inputs, Spent] | None]


def estimate(grid: Grid, cells: Sequence[PlannedCell], memory: Memory | None = None) -> Estimate:
    """The time that the cells without a result take, if each goes as those like it (``Inputs``) did.

    Cells of the grids beside this one count where it has no search of the model. Who asks again and again
    gives the same ``memory``, so that no result is read twice.
    """
    memory = {} if memory is None else memory
    left = [cell for cell in cells if grid.state(cell) != "done"]
    spent: dict[Inputs, list[Spent]] = {_inputs(cell.config): [] for cell in left}
    for folder in dict.fromkeys((grid.cells_folder, *sorted(grid.folder.parent.glob("*/cells")))):
        missing = {key for key, found in spent.items() if all(one.given for one in found)}
        if missing:
            for inputs, one in _finished(folder, missing, memory):
                spent[inputs].append(one)
    guess = cache(_guess)
    seconds = [_seconds(cell.config, spent[_inputs(cell.config)], guess(cell.corpus)) for cell in left]
    guessed = sum(not spent[_inputs(cell.config)] for cell in left)
    measured = sum(map(len, spent.values()))
    return Estimate(sum(seconds) / 3600, measured, guessed, max(seconds, default=0.0) / 3600)


def _seconds(config: CellConfig, spent: Sequence[Spent], guess: Spent) -> float:
    """What a cell takes at most, if it goes as those that are done, or as guessed where there are none.

    An epoch counts the same, whatever its batches and its teacher.
    """
    rates = [one for one in spent if not one.given] or [guess]
    budgets = [(1 if config.given else config.evaluations) * fmean(rate.evaluation for rate in rates)]
    if config.tokens is not None:
        budgets.append(config.tokens * fmean(rate.token for rate in rates))
    epochs = 0 if config.schedule == "one-shot" else config.epochs
    rounds = 0
    if config.schedule == "iterative" and not config.given:
        rounds = max(1, epochs // config.round_epochs)
    closing = config.round_tolerance is not None
    epoch = fmean([one.epoch for one in spent if one.epoch is not None] or [guess.epoch or 0.0])
    return (1 + rounds + closing) * min(budgets) + epochs * epoch + fmean(rate.other for rate in rates)


def _guess(folder: Path) -> Spent:
    """What cells with this corpus take, before any has been run."""
    corpus = Corpus.open(folder)
    once, epoch = _tokens(corpus, "search") / RATE, _tokens(corpus, "train") / TRAINING_RATE
    return Spent(False, once, 1 / RATE, FINAL * once, epoch)


def _inputs(config: CellConfig) -> Inputs:
    return config.checkpoint_sha256, config.corpus_sha256, config.device, config.trains_on


def _finished(folder: Path, wanted: set[Inputs], memory: Memory) -> Iterator[tuple[Inputs, Spent]]:
    """What the finished cells of these inputs took."""
    for path in sorted(folder.glob(f"*/*/{records.RESULT}")):
        if path not in memory:
            memory[path] = _spent(path)
        if (found := memory[path]) is not None and found[0] in wanted:
            yield found


def _spent(path: Path) -> tuple[Inputs, Spent] | None:
    try:
        config = read(path.with_name(records.CONFIG), CellConfig)
        result = read(path, Result)
    except StudyError:
        return None  # damaged, or of another version: `olmp verify` tells
    retrained = [one.retraining for one in result.rounds if one.retraining is not None]
    training = sum(one.seconds for one in retrained)
    epochs = sum(len(one.valid_loss) for one in retrained)
    judging = max(0.0, result.seconds - training)
    rates = judging / result.evaluations, judging / max(result.tokens, 1)
    return _inputs(config), Spent(
        config.given, *rates, result.other_seconds, training / epochs if epochs else None
    )


def _tokens(corpus: Corpus, split: str) -> int:
    """Tokens of the references of a set: fairseq stores ids of a small vocabulary in 2 bytes.

    A corpus that was never for training has no set for it: 0.
    """
    path = corpus.folder / "bin" / f"{split}.{corpus.source}-{corpus.target}.{corpus.target}.bin"
    return path.stat().st_size // 2 if path.exists() else 0
