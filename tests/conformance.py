"""What every grouping strategy must keep to, ours and those of others."""

import numpy as np
import pandas as pd

from grouping.groups import labels, partition
from grouping.strategies import NotApplicable, Strategy
from grouping.table import coverage


def check_strategy(strategy: Strategy, table: pd.DataFrame) -> None:
    """AssertionError or StudyError unless ``strategy`` gives each block one label, purely.

    A strategy that does not apply to the model must say why.
    """
    blocks = table[table["prunable"]].reset_index(drop=True)
    before = blocks.copy(deep=True)
    first = _said(strategy, blocks)
    pd.testing.assert_frame_equal(blocks, before)
    second = _said(strategy, blocks)
    pd.testing.assert_frame_equal(blocks, before)
    assert first == second, "the strategy does not say the same twice"
    assert first, "a strategy that does not apply says why"


def _said(strategy: Strategy, blocks: pd.DataFrame) -> list[str] | str:
    try:
        # not the copy that labels() makes: what the strategy does to its input is to be seen
        return labels(blocks, lambda copy: strategy(blocks), "under test").tolist()
    except NotApplicable as reason:
        return str(reason)


def check_partition_of(table: pd.DataFrame, spec: str) -> None:
    """AssertionError unless the groups of ``spec`` hold every prunable connection of the table once."""
    before = table.copy(deep=True)
    groups = partition(table, spec, seed=3)
    pd.testing.assert_frame_equal(groups, partition(table, spec, seed=3))
    pd.testing.assert_frame_equal(table, before)
    assert groups["group"].map(bool).all()
    assert groups["size"].eq(groups["rows"] * groups["cols"]).all()
    prunable = table[table["prunable"]]
    assert groups["parameter"].unique().tolist() == prunable["parameter"].unique().tolist()
    shapes = _extents(prunable)
    found = coverage(groups, shapes)
    for name, counts in coverage(prunable, shapes).items():
        assert np.array_equal(found[name], counts), f"{spec} does not hold {name} exactly once"


def _extents(table: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Rows and columns of each parameter, as far as its blocks reach."""
    ends = pd.DataFrame({"rows": table["row"] + table["rows"], "cols": table["col"] + table["cols"]})
    reach = ends.groupby(table["parameter"]).max()
    return {name: (int(rows), int(cols)) for name, rows, cols in reach.itertuples()}
