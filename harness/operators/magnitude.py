"""Magnitude pruning: in each group the connections of smallest magnitude are set to zero."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.model import TranslationModel
from harness.operators.operator import operators


@operators.register("magnitude")
class MagnitudePruning:
    """The knob is the fraction of a group's connections that is pruned (SiPO, Li et al. 2022).

    Each group is sorted once by magnitude, equal magnitudes in table order. A candidate is then a
    position in that order: its size needs no weights, and going from one candidate to the next
    touches only the connections between two positions. Memory: one signed float32 and one index
    per prunable connection.
    """

    def __init__(self, model: TranslationModel, blocks: pd.DataFrame):
        """``blocks`` is a partition of the model's connection table (a row per block, with ``group``)."""
        self.flat: NDArray[np.float32] = model.flat.numpy()
        codes, names = pd.factorize(blocks["group"])
        self.groups = [str(name) for name in names]
        self.order, self.values = [], []
        for code in range(len(names)):
            places = connection_indices(blocks[codes == code], model)
            order = places[np.argsort(np.abs(self.flat[places]), kind="stable")]
            self.order.append(order)
            self.values.append(self.flat[order])
        self.totals = np.array([len(order) for order in self.order])
        self.pruned = np.zeros(len(names), dtype=np.int64)

    def counts(self, knobs: np.ndarray) -> NDArray[np.int64]:
        """Pruned connections [..., G]: the fraction, rounded to whole connections."""
        return np.rint(np.asarray(knobs) * self.totals).astype(np.int64)

    def knobs(self, counts: np.ndarray) -> NDArray[np.float64]:
        return np.asarray(counts) / self.totals

    def size(self, knobs: np.ndarray) -> np.ndarray:
        return 1 - self.counts(knobs).sum(axis=-1) / self.totals.sum()

    def magnitudes(self) -> list[NDArray[np.float32]]:
        return [np.abs(values) for values in self.values]

    def apply(self, knobs: np.ndarray) -> None:
        self._prune(self.counts(knobs))

    def kept(self) -> NDArray[np.bool_]:
        kept = np.ones(self.flat.size, dtype=bool)
        for order, count in zip(self.order, self.pruned, strict=True):
            kept[order[:count]] = False
        return kept

    def restore(self) -> None:
        self._prune(np.zeros_like(self.pruned))

    def _prune(self, counts: NDArray[np.int64]) -> None:
        changes = zip(self.order, self.values, self.pruned, counts, strict=True)
        for order, values, before, after in changes:
            if after > before:
                self.flat[order[before:after]] = 0
            else:
                self.flat[order[after:before]] = values[after:before]
        self.pruned = counts.copy()


@operators.register("magnitude-threshold")
class ThresholdPruning(MagnitudePruning):
    """The knob is OLMP's threshold (Li et al. 2018): |w| ≤ max(mean|w| + c·std|w|, 0) is pruned.

    c runs affinely from where nothing goes (threshold 0) to where all goes (threshold max|w|), so
    that threshold = knob · max|w|. At knob 0 even connections that are zero already stay.
    """

    def __init__(self, model: TranslationModel, blocks: pd.DataFrame):
        super().__init__(model, blocks)
        self._magnitudes = super().magnitudes()  # kept, so that a size is a binary search in each group

    def magnitudes(self) -> list[NDArray[np.float32]]:
        return self._magnitudes

    def counts(self, knobs: np.ndarray) -> NDArray[np.int64]:
        knobs = np.asarray(knobs)
        pruned = np.empty(knobs.shape, dtype=np.int64)
        for g, magnitudes in enumerate(self.magnitudes()):
            # in float32, so that knob 1 reaches the largest magnitude exactly
            thresholds = (knobs[..., g] * magnitudes[-1]).astype(np.float32)
            pruned[..., g] = np.searchsorted(magnitudes, thresholds, side="right")
        return np.where(knobs > 0, pruned, 0)

    def knobs(self, counts: np.ndarray) -> NDArray[np.float64]:
        least = np.nextafter(0.0, 1.0)  # prunes zeros alone, which knob 0 does not
        largest_pruned = [
            max(float(magnitudes[count - 1]) / (float(magnitudes[-1]) or 1.0), least) if count else 0.0
            for magnitudes, count in zip(self.magnitudes(), counts, strict=True)
        ]
        return np.array(largest_pruned)


def connection_indices(blocks: pd.DataFrame, model: TranslationModel) -> NDArray[np.int32]:
    """Where the connections of blocks stand in the flat vector, in table order."""
    pieces = []
    columns = [blocks[name] for name in ("parameter", "row", "rows", "col", "cols")]
    for parameter, row, rows, col, cols in zip(*columns, strict=True):
        width = int(np.prod(model.description.shapes[parameter][1:], initial=1))
        first = model.offsets[parameter] + row * width + col
        starts = np.arange(first, first + rows * width, width, dtype=np.int32)
        pieces.append((starts[:, None] + np.arange(cols, dtype=np.int32)).ravel())
    return np.concatenate(pieces)
