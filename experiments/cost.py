"""What the cells of a plan will take, from those that are done or, before, from a rate."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

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


def estimate(grid: Grid, cells: Sequence[PlannedCell]) -> Estimate:
    """The time that the cells without a result take, if each goes as those of its model did."""
    spent: dict[str, list[tuple[float, float]]] = {}
    left = []
    for cell in cells:
        path = grid.cell_folder(cell) / records.RESULT
        if not path.exists():
            left.append(cell)
            continue
        found = json.loads(path.read_text(encoding="utf-8"))
        each = found["seconds"] / cell.config.evaluations, found["other_seconds"]
        spent.setdefault(cell.model, []).append(each)
    tokens = {corpus: _tokens(Corpus.open(corpus)) for corpus in {cell.corpus for cell in left}}
    seconds = []
    for cell in left:
        once = tokens[cell.corpus] / RATE
        rates = spent.get(cell.model, [(once, FINAL * once)])
        evaluation, other = (statistics.mean(part) for part in zip(*rates, strict=True))
        seconds.append(cell.config.evaluations * evaluation + other)
    return Estimate(sum(seconds) / 3600, sum(map(len, spent.values())), max(seconds, default=0.0) / 3600)


def _tokens(corpus: Corpus) -> int:
    """Tokens of the references of the search set: fairseq stores ids of a small vocabulary in 2 bytes."""
    path = corpus.folder / "bin" / f"search.{corpus.source}-{corpus.target}.{corpus.target}.bin"
    return path.stat().st_size // 2
