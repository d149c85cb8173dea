"""Magnitudes in ascending order, in half the memory of float32."""

from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray


class Ascending(Protocol):
    """Numbers in ascending order: a numpy vector, or what takes less memory and answers like one."""

    @property
    def size(self) -> int: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any:
        """The number at an index, or the vector of those in a slice."""
        ...

    def searchsorted(self, v: Any, /, side: Literal["left", "right"] = "left") -> Any:
        """How many numbers are below each of ``v`` (left), or not above it (right)."""
        ...


class Magnitudes:
    """Ascending float32 magnitudes at two bytes each; ``np.asarray`` makes them a vector of floats.

    The bit patterns of non-negative floats are ordered like their values. So in ascending order the
    upper halves of the patterns (exponent and seven bits of the fraction) form long runs, and it
    takes the start of each run and the lower halves to know every number.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, ascending: NDArray[np.float32], lower: NDArray[np.uint16]):
        """From ``ascending`` [n], finite and not negative; ``lower`` [n] is where the lower halves go."""
        bits = ascending.view(np.uint32)
        upper = np.arange(bits[0] >> 16, (bits[-1] >> 16) + 1, dtype=np.uint32)
        starts = np.append(bits.searchsorted(upper << 16), bits.size)
        used = np.flatnonzero(np.diff(starts))
        self.upper: NDArray[np.uint32] = upper[used]  # of each run
        self.starts: NDArray[np.int64] = np.append(starts[used], bits.size)  # of each run, and the end
        self.lower = lower
        np.copyto(lower, bits, casting="unsafe")

    @property
    def size(self) -> int:
        return self.lower.size

    def __len__(self) -> int:
        return self.lower.size

    def __getitem__(self, index: Any, /) -> Any:
        if isinstance(index, slice):
            first, end, step = index.indices(self.size)
            if step == 1:
                lengths = np.diff(np.clip(self.starts, first, max(first, end)))
                return self._join(np.repeat(self.upper, lengths), self.lower[first:end])
            index = np.arange(first, end, step)
        lower = self.lower[index]
        places = np.where(np.less(index, 0), np.add(index, self.size), index)
        return self._join(self.upper[self.starts.searchsorted(places, "right") - 1], lower)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("there is no array of these magnitudes without a copy")
        return self[:].astype(dtype or self.dtype, copy=False)

    def searchsorted(self, v: Any, /, side: Literal["left", "right"] = "left", sorter: None = None) -> Any:
        """How many magnitudes are below each of ``v`` (left), or not above it (right).

        Other numbers than float32 that are not negative cost the memory of an array of all magnitudes.
        """
        values = np.asarray(v)
        if values.dtype != self.dtype or np.signbit(values).any():
            return np.asarray(self).searchsorted(values, side)
        bits = values.view(np.uint32)
        upper, lower = bits >> 16, bits.astype(np.uint16)
        run = self.upper.searchsorted(upper)
        known = np.append(self.upper, 0)[run] == upper
        return self._search(lower, self.starts[run], self.starts[run + known], side)

    def _search(self, wanted: Any, first: Any, end: Any, side: Literal["left", "right"]) -> Any:
        """Binary searches for the lower halves ``wanted``, all at once, each from ``first`` to ``end``."""
        if np.ndim(wanted) == 0:
            return first + self.lower[first:end].searchsorted(wanted, side)
        before = np.less if side == "left" else np.less_equal
        while (open_ := first < end).any():
            middle = (first + end) // 2
            found = self.lower[np.minimum(middle, self.size - 1)]
            go_on = open_ & before(found, wanted)
            first, end = np.where(go_on, middle + 1, first), np.where(open_ & ~go_on, middle, end)
        return first

    @staticmethod
    def _join(upper: Any, lower: Any) -> Any:
        return (upper << 16 | lower).view(np.float32)
