"""What the cells of a plan will take, from those that are done or, before, from a rate."""

import glob
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from experiments.grid import Grid
from experiments.plan import PlannedCell
from harness import records
from harness.corpus.corpus import Corpus

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
    spent = {model: _spent(grid, model) for model in {cell.model for cell in left}}
    tokens = {corpus: _tokens(Corpus.open(corpus)) for corpus in {cell.corpus for cell in left}}
    seconds = []
    for cell in left:
        once = tokens[cell.corpus] / RATE
        rates = spent[cell.model] or [_Spent(once, 1 / RATE, FINAL * once)]
        evaluation, token, other = (statistics.mean(part) for part in zip(*rates, strict=True))
        budgets = [cell.config.evaluations * evaluation]
        if cell.config.tokens is not None:
            budgets.append(cell.config.tokens * token)
        seconds.append(min(budgets) + other)
    return Estimate(sum(seconds) / 3600, sum(map(len, spent.values())), max(seconds, default=0.0) / 3600)


def _spent(grid: Grid, model: str) -> list[_Spent]:
    """What finished cells of a model took, in this grid or, if there are none, in those beside it."""
    pattern = f"cells/{glob.escape(model)}/*/{records.RESULT}"
    paths = list(grid.folder.glob(pattern)) or list(grid.folder.parent.glob(f"*/{pattern}"))
    found = []
    for path in paths:
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            seconds, evaluations, tokens = result["seconds"], result["evaluations"], result["tokens"]
            found.append(_Spent(seconds / evaluations, seconds / tokens, result["other_seconds"]))
        except (OSError, ValueError, KeyError, ZeroDivisionError):
            continue  # damaged, or of another version: `olmp verify` tells
    return found


def _tokens(corpus: Corpus) -> int:
    """Tokens of the references of the search set: fairseq stores ids of a small vocabulary in 2 bytes."""
    path = corpus.folder / "bin" / f"search.{corpus.source}-{corpus.target}.{corpus.target}.bin"
    return path.stat().st_size // 2
