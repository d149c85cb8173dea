"""The connection table: a translation model as a list of blocks, each with what it is for."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from grouping.anatomy import GATES, ModelDescription, Part, parts_of
from grouping.errors import StudyError

_TEXT = pd.StringDtype(na_value=np.nan)
COLUMNS: Mapping[str, Any] = {
    "parameter": _TEXT,
    "row": "int64",
    "rows": "int64",
    "col": "int64",
    "cols": "int64",
    "size": "int64",
    "component": _TEXT,
    "layer": "Int64",
    "module": _TEXT,
    "role": _TEXT,
    "gate": _TEXT,
    "direction": _TEXT,
    "head": "Int64",
    "prunable": "bool",
}


class _Rectangle(NamedTuple):
    """Rows and columns of a parameter [rows, cols] from a start on, and the role that cut them out."""

    row: int
    rows: int
    col: int
    cols: int
    gate: str | None = None
    head: int | None = None


def connection_table(description: ModelDescription, vectors: bool = False) -> pd.DataFrame:
    """The blocks of a model in state-dict order: one row for each, one column for each role.

    A block is a rectangle of one parameter whose connections play the same roles: ``row`` and ``col``
    are where it starts, ``rows`` and ``cols`` count, ``size`` is in parameters. Rows of a matrix are
    outputs, and a vector is one column. Roles that a block does not have are missing. LSTM parameters
    are cut into gates, the query, key and value projections of a Transformer by rows into heads, its
    output projections by columns. A tied tensor stands once, under its first name, as component
    ``shared`` with the roles of all its places joined by ``/``. The padding row of an embedding is in
    no block.

    Only matrices are ``prunable``; with ``vectors``, biases and normalisation parameters are too.
    Raises StudyError for an architecture or a parameter that no anatomy covers.
    """
    records = [
        {
            "parameter": name,
            **rectangle._asdict(),
            "size": rectangle.rows * rectangle.cols,
            "component": part.component,
            "layer": part.layer,
            "module": part.module,
            "role": part.role,
            "direction": part.direction,
            "prunable": vectors or len(description.shapes[name]) > 1,
        }
        for name, part in parts_of(description).items()
        for rectangle in _rectangles(name, part, description)
    ]
    return pd.DataFrame.from_records(records, columns=list(COLUMNS)).astype(COLUMNS)


def coverage(blocks: pd.DataFrame, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """How many blocks hold each connection: parameter name -> counts of its shape."""
    counts = {name: np.zeros(shape, dtype=np.int32) for name, shape in shapes.items()}
    places = (blocks[column] for column in ("parameter", "row", "rows", "col", "cols"))
    for name, row, rows, col, cols in zip(*places, strict=True):
        matrix = counts[name].reshape(shapes[name][0], -1)
        matrix[row : row + rows, col : col + cols] += 1
    return counts


def check_partition(table: pd.DataFrame, description: ModelDescription) -> None:
    """ValueError unless each trained connection, padding rows apart, is in exactly one block."""
    shapes = {name: shape for name, shape in description.shapes.items() if name not in description.tied}
    for name, counts in coverage(table, shapes).items():
        expected = np.ones_like(counts)
        if name in description.padding_rows:
            expected[description.padding_rows[name]] = 0
        if not np.array_equal(counts, expected):
            wrong = int((counts != expected).sum())
            raise ValueError(f"{wrong} connections of {name} are in no block, or in several, or padding")


def _rectangles(name: str, part: Part, description: ModelDescription) -> Iterator[_Rectangle]:
    """The blocks of one parameter, in order of their first row and column."""
    rows, cols = (*description.shapes[name], 1)[:2]
    if part.split == "gate":
        each = rows // len(GATES)
        for index, gate in enumerate(GATES):
            yield _Rectangle(index * each, each, 0, cols, gate=gate)
    elif part.split == "head rows":
        each = _head_width(name, rows, description.heads[part.component])
        for head in range(rows // each):
            yield _Rectangle(head * each, each, 0, cols, head=head)
    elif part.split == "head columns" and len(description.shapes[name]) > 1:
        each = _head_width(name, cols, description.heads[part.component])
        for head in range(cols // each):
            yield _Rectangle(0, rows, head * each, each, head=head)
    elif name in description.padding_rows:
        padding = description.padding_rows[name]
        for first, end in ((0, padding), (padding + 1, rows)):
            if end > first:
                yield _Rectangle(first, end - first, 0, cols)
    else:
        yield _Rectangle(0, rows, 0, cols)


def _head_width(name: str, size: int, heads: int) -> int:
    if size % heads:
        raise StudyError(
            f"parameter {name!r} has {size} rows or columns for {heads} attention heads: every layer of a "
            f"side must have all its heads; use a checkpoint from which none was removed"
        )
    return size // heads
