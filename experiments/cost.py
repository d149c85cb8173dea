"""What the cells of a plan will take, from those that are done or, before, from a rate."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from experiments.grid import Grid
from experiments.plan import PlannedCell
from grouping import StudyError
from harness import records
from harness.corpus.corpus import Corpus
from harness.record import read
from harness.records import CellConfig, Result

#: tokens that one core translates a second, where no cell is done yet: half of what docs/performance.md
#: measured on a processor with AVX-512, for the slower family
RATE = 6000.0
#: what the dense and the final translations take, with a beam, in units of a translation of the search set
FINAL = 20


@dataclass(frozen=True)
class Estimate:
    """Cell-hours (one core each) for the cells that are left, and for the longest of them.

    ``measured`` cells are behind the figures.
    """

    hours: float
    measured: int
    longest: float

    def elapsed(self, jobs: int) -> float:
        """Hours that ``jobs`` cells side by side take, at least: no cell is cut into pieces."""
        return max(self.hours / jobs, self.longest)


class _Spent(NamedTuple):
    """Seconds of one finished cell: per evaluation, per delivered token, and beside its evaluations."""

    evaluation: float
    token: float
    other: float


def estimate(grid: Grid, cells: Sequence[PlannedCell]) -> Estimate:
    """The time that the cells without a result take, if each goes as those of its model did.

    Cells of the grids beside this one count where it has none of the model.
    """
    left = [cell for cell in cells if not (grid.cell_folder(cell) / records.RESULT).exists()]
    spent: dict[tuple[str, str], list[_Spent]] = {_inputs(cell.config): [] for cell in left}
    for folder in (grid.cells_folder, *sorted(grid.folder.parent.glob("*/cells"))):
        if not all(spent.values()):
            for inputs, one in _finished(folder, {key for key, found in spent.items() if not found}):
                spent[inputs].append(one)
    guesses: dict[Path, _Spent] = {}
    seconds = []
    for cell in left:
        if not (rates := spent[_inputs(cell.config)]):
            if cell.corpus not in guesses:
                once = _tokens(Corpus.open(cell.corpus)) / RATE
                guesses[cell.corpus] = _Spent(once, 1 / RATE, FINAL * once)
            rates = [guesses[cell.corpus]]
        budgets = [cell.config.evaluations * mean(rate.evaluation for rate in rates)]
        if cell.config.tokens is not None:
            budgets.append(cell.config.tokens * mean(rate.token for rate in rates))
        seconds.append(min(budgets) + mean(rate.other for rate in rates))
    return Estimate(sum(seconds) / 3600, sum(map(len, spent.values())), max(seconds, default=0.0) / 3600)


def _inputs(config: CellConfig) -> tuple[str, str]:
    """What decides how fast a cell goes, before anything else: the model and the text."""
    return config.checkpoint_sha256, config.corpus_sha256


def _finished(folder: Path, wanted: set[tuple[str, str]]) -> Iterator[tuple[tuple[str, str], _Spent]]:
    """What the finished cells of these inputs took."""
    for path in sorted(folder.glob(f"*/*/{records.RESULT}")):
        try:
            inputs = _inputs(read(path.with_name(records.CONFIG), CellConfig))
            if inputs in wanted:
                result = read(path, Result)
                rates = result.seconds / result.evaluations, result.seconds / max(result.tokens, 1)
                yield inputs, _Spent(*rates, result.other_seconds)
        except StudyError:
            continue  # damaged, or of another version: `olmp verify` tells


def _tokens(corpus: Corpus) -> int:
    """Tokens of the references of the search set: fairseq stores ids of a small vocabulary in 2 bytes."""
    path = corpus.folder / "bin" / f"search.{corpus.source}-{corpus.target}.{corpus.target}.bin"
    return path.stat().st_size // 2
