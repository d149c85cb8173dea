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


@dataclass(frozen=True)
class Estimate:
    """Cell-hours (one core each) for the cells that are left; ``measured`` cells are behind the figure."""

    hours: float
    measured: int


def estimate(grid: Grid, cells: Sequence[PlannedCell]) -> Estimate:
    """The time that the cells without a result take, if each goes as those of its model did."""
    spent: dict[str, list[float]] = {}
    left = []
    for cell in cells:
        path = grid.cell_folder(cell) / records.RESULT
        if not path.exists():
            left.append(cell)
            continue
        found = json.loads(path.read_text(encoding="utf-8"))
        spent.setdefault(cell.model, []).append(found["seconds"] / cell.config.evaluations)
    tokens = {corpus: _tokens(Corpus.open(corpus)) for corpus in {cell.corpus for cell in left}}
    seconds = 0.0
    for cell in left:
        rates = spent.get(cell.model)
        each = statistics.mean(rates) if rates else tokens[cell.corpus] / RATE
        seconds += cell.config.evaluations * each
    return Estimate(seconds / 3600, sum(map(len, spent.values())))


def _tokens(corpus: Corpus) -> int:
    """Tokens of the references of the search set: fairseq stores ids of a small vocabulary in 2 bytes."""
    path = corpus.folder / "bin" / f"search.{corpus.source}-{corpus.target}.{corpus.target}.bin"
    return path.stat().st_size // 2
