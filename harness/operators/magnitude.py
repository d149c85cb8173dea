"""Magnitude pruning: in each group the connections of smallest magnitude are set to zero."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from harness.model import TranslationModel
from harness.operators.ascending import Magnitudes
from harness.operators.operator import operators

#: connections that are looked at together: few enough to stay in a processor's cache
PIECE = 1 << 17
#: below any magnitude
NOTHING = np.float32(-1)
NONE = np.empty(0, dtype=np.int64)


class Piece(NamedTuple):
    """Connections of one group in one parameter, seen as a matrix; row by row in table order."""

    parameter: str
    #: rows and columns; rows that do not follow each other are an array of indices
    where: tuple[slice | NDArray[np.int64], slice]
    #: weights [rows, cols] of the dense model
    dense: NDArray[np.float32]


class Cut(NamedTuple):
    """What goes in a piece: all connections up to a threshold, and some of the next larger ones."""

    piece: Piece
    #: largest magnitude of which all go
    threshold: np.float32
    #: the others that go, as positions in the piece, row by row
    equal: NDArray[np.int64]


@operators.register("magnitude")
class MagnitudePruning:
    """The knob is the fraction of a group's connections that is pruned (SiPO, Li et al. 2022).

    A candidate is a position in the sorted magnitudes of each group, equal magnitudes in table
    order. Its size needs no weights. The magnitude at the position is a threshold between what
    goes and what stays, so applying it is one pass over the groups whose position changed. Memory
    for each prunable connection: its dense weight in float32 and half of its sorted magnitude.
    """

    def __init__(self, model: TranslationModel, blocks: pd.DataFrame):
        """``blocks`` is a partition of the model's connection table (a row per block, with ``group``)."""
        self.model = model
        self.flat: NDArray[np.float32] = model.flat.numpy()
        codes, names = pd.factorize(blocks["group"])
        self.groups = [str(name) for name in names]
        self.totals = np.bincount(codes, weights=blocks["size"]).astype(np.int64)
        self.pruned = np.zeros(len(names), dtype=np.int64)
        self._weights = matrices(self.flat, model)
        ends = np.cumsum(self.totals)
        dense = np.split(np.empty(ends[-1], dtype=np.float32), ends[:-1])
        lower = np.split(np.empty(ends[-1], dtype=np.uint16), ends[:-1])
        self._pieces: list[list[Piece]] = []
        self._magnitudes: list[Magnitudes] = []
        for code in range(len(names)):
            self._pieces.append(pieces(blocks[codes == code], dense[code]))
            # sorted where the dense weights will be, because a third vector of floats has no room
            self._read(code)
            np.abs(dense[code], out=dense[code]).sort()
            self._magnitudes.append(Magnitudes(dense[code], lower[code]))
            self._read(code)

    def counts(self, knobs: np.ndarray) -> NDArray[np.int64]:
        """Pruned connections [..., G]: the fraction, rounded to whole connections."""
        return np.rint(np.asarray(knobs) * self.totals).astype(np.int64)

    def knobs(self, counts: np.ndarray) -> NDArray[np.float64]:
        return np.asarray(counts) / self.totals

    def size(self, knobs: np.ndarray) -> np.ndarray:
        return 1 - self.counts(knobs).sum(axis=-1) / self.totals.sum()

    def magnitudes(self) -> Sequence[Magnitudes]:
        return self._magnitudes

    def apply(self, knobs: np.ndarray) -> None:
        self._prune(self.counts(knobs))

    def kept(self) -> NDArray[np.bool_]:
        kept = np.ones(self.flat.size, dtype=bool)
        masks = matrices(kept, self.model)
        for group in np.flatnonzero(self.pruned):
            for piece, threshold, equal in self._cuts(group, self.pruned[group]):
                stays = np.abs(piece.dense) > threshold
                stays.flat[equal] = False
                masks[piece.parameter][piece.where] = stays
        return kept

    def restore(self) -> None:
        self._prune(np.zeros_like(self.pruned))

    def _read(self, group: int) -> None:
        """Copy the weights of a group from the model."""
        for piece in self._pieces[group]:
            piece.dense[...] = self._weights[piece.parameter][piece.where]

    def _prune(self, counts: NDArray[np.int64]) -> None:
        for group in np.flatnonzero(counts != self.pruned):
            for piece, threshold, equal in self._cuts(group, counts[group]):
                weights = self._weights[piece.parameter]
                in_place = isinstance(piece.where[0], slice)
                target = weights[piece.where] if in_place else np.empty_like(piece.dense)
                # 0 up to the threshold (never -0), else the dense weight
                dense = torch.from_numpy(piece.dense)
                torch.hardshrink(dense, float(threshold), out=torch.from_numpy(target))
                target.flat[equal] = 0
                if not in_place:
                    weights[piece.where] = target
        self.pruned = counts.copy()

    def _cuts(self, group: int, count: int) -> Iterator[Cut]:
        """Where the ``count`` smallest connections of a group are, piece by piece."""
        magnitudes = self._magnitudes[group]
        threshold = magnitudes[count - 1] if count else NOTHING
        if count in (0, len(magnitudes)) or magnitudes[count] > threshold:
            yield from (Cut(piece, threshold, NONE) for piece in self._pieces[group])
            return
        # some as large as the threshold stay: the first in table order go
        below = np.nextafter(threshold, NOTHING)
        going = count - magnitudes.searchsorted(threshold)
        for piece in self._pieces[group]:
            if going == 0:
                yield Cut(piece, below, NONE)
                continue
            equal = np.flatnonzero(np.abs(piece.dense) == threshold)
            yield Cut(piece, threshold, NONE) if len(equal) <= going else Cut(piece, below, equal[:going])
            going -= min(going, len(equal))


@operators.register("magnitude-threshold")
class ThresholdPruning(MagnitudePruning):
    """The knob is OLMP's threshold (Li et al. 2018): |w| ≤ max(mean|w| + c·std|w|, 0) is pruned.

    c runs affinely from where nothing goes (threshold 0) to where all goes (threshold max|w|), so
    that threshold = knob · max|w|. At knob 0 even connections that are zero already stay.
    """

    def counts(self, knobs: np.ndarray) -> NDArray[np.int64]:
        knobs = np.asarray(knobs)
        pruned = np.empty(knobs.shape, dtype=np.int64)
        for g, magnitudes in enumerate(self.magnitudes()):
            # in float32, so that knob 1 reaches the largest magnitude exactly
            thresholds = (knobs[..., g] * magnitudes[-1]).astype(np.float32)
            pruned[..., g] = magnitudes.searchsorted(thresholds, side="right")
        return np.where(knobs > 0, pruned, 0)

    def knobs(self, counts: np.ndarray) -> NDArray[np.float64]:
        least = np.nextafter(0.0, 1.0)  # prunes zeros alone, which knob 0 does not
        largest_pruned = [
            max(float(magnitudes[count - 1]) / (float(magnitudes[-1]) or 1.0), least) if count else 0.0
            for magnitudes, count in zip(self.magnitudes(), counts, strict=True)
        ]
        return np.array(largest_pruned)


def matrices(vector: NDArray, model: TranslationModel) -> dict[str, NDArray]:
    """Views into a vector over all parameters: each one as a matrix, a vector as one column."""
    shapes = {name: model.description.shapes[name] for name in model.offsets}
    return {
        name: vector[start : start + int(np.prod(shapes[name]))].reshape(shapes[name][0], -1)
        for name, start in model.offsets.items()
    }


def pieces(blocks: pd.DataFrame, dense: NDArray[np.float32]) -> list[Piece]:
    """The blocks of a group, joined and cut into pieces, with room in ``dense`` [connections] for each."""
    columns = [blocks[name] for name in ("parameter", "col", "cols", "row", "rows")]
    found, start = [], 0
    for (parameter, col, cols), run in groupby(zip(*columns, strict=True), key=lambda block: block[:3]):
        rows = np.concatenate([np.arange(row, row + count) for *_, row, count in run])
        step = max(1, PIECE // cols)
        for some in (rows[first : first + step] for first in range(0, len(rows), step)):
            follow = (np.diff(some) == 1).all()
            where = slice(some[0], some[-1] + 1) if follow else some, slice(col, col + cols)
            end = start + len(some) * cols
            found.append(Piece(parameter, where, dense[start:end].reshape(len(some), cols)))
            start = end
    return found


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
