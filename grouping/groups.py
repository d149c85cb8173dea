"""From a connection table and the name of a grouping to groups of blocks."""

import hashlib
import re

import numpy as np
import pandas as pd

from grouping.errors import StudyError
from grouping.strategies import Strategy, groupings

#: the null control of a spec
CONTROL = r"shuffled\((.*)\)"
REST = "rest"  # the group of the blocks that a strategy has nothing to say about


def partition(table: pd.DataFrame, spec: str, seed: int = 0) -> pd.DataFrame:
    """The prunable blocks of a connection table, in table order, with their ``group``.

    ``spec`` is the name of a strategy; several joined by ``+``, each splitting the groups of the others
    (a group is called by all its labels, joined by ``+``, and ``rest`` if no strategy has any);
    ``module:function`` for a strategy on the import path; or ``shuffled(spec)``, the null control: all
    matrices are cut into rows, which are dealt at random by ``seed`` into ``shuffled0``, ``shuffled1``, …
    of the sizes of the groups of ``spec``, each to within one row.

    Raises StudyError for an unknown spec and for a strategy that returns something else than one label
    per block, NotApplicable where a strategy cannot split this model.
    """
    blocks = table[table["prunable"]].reset_index(drop=True)
    control = re.fullmatch(CONTROL, spec.strip())
    if control is None:
        return blocks.assign(group=_product(blocks, spec))
    groups = blocks.assign(group=_product(blocks, control[1]))
    sizes = groups.groupby("group", sort=False)["size"].sum().to_numpy()
    rows = _matrix_rows(blocks)
    dealt = deal(rows["size"].to_numpy(), sizes, np.random.default_rng(seed))
    names = np.array([f"shuffled{index}" for index in range(len(sizes))], dtype=object)
    return rows.assign(group=names[dealt]).astype({"group": blocks["parameter"].dtype})


def content_hash(partition: pd.DataFrame) -> str:
    """sha256 of a partition: which connections are in which group."""
    digest = hashlib.sha256()
    for column in ("parameter", "group"):
        digest.update("\n".join(partition[column].to_list()).encode())
    for column in ("row", "rows", "col", "cols"):
        digest.update(partition[column].to_numpy(dtype="<i8").tobytes())
    return digest.hexdigest()


def uses_seed(spec: str) -> bool:
    """Whether the seed decides anything about a partition."""
    return re.fullmatch(CONTROL, spec.strip()) is not None


def summary(partition: pd.DataFrame) -> pd.DataFrame:
    """One row per group, in table order: ``group, blocks, connections`` and ``share`` (fraction of all)."""
    sizes = partition.groupby("group", sort=False)["size"]
    groups = sizes.agg(blocks="count", connections="sum").reset_index()
    return groups.assign(share=groups["connections"] / groups["connections"].sum())


def labels(table: pd.DataFrame, strategy: Strategy, name: str) -> pd.Series:
    """What a strategy says about each block, ``rest`` where nothing; ``name`` is for messages.

    Raises StudyError unless the strategy returns one label per block, each a text that is not empty or
    None.
    """
    if not callable(strategy):
        raise StudyError(f"grouping {name!r} is no function: it must be one, from a table to its labels")
    try:
        said = strategy(table.copy())
    except StudyError:
        raise
    except Exception as error:  # whatever the code of somebody else raises
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        columns = ", ".join(table.columns)
        raise StudyError(f"grouping {name!r} failed ({what}); its table has the columns {columns}") from error
    if isinstance(said, pd.Series) and not said.index.equals(table.index):
        raise StudyError(f"grouping {name!r} returned a Series in another order: keep the table's index")
    try:
        given = None if isinstance(said, str) else list(said)
    except TypeError:
        given = None
    if given is None or len(given) != len(table):
        what = f"a value of type {type(said).__name__}"
        if given is not None:
            what = f"{len(given)} labels for {len(table)} blocks"
        raise StudyError(
            f"grouping {name!r} returned {what}: it must return a sequence of one label per block"
        )
    found = pd.Series(given, index=table.index, dtype=object)
    for label in found[found.notna()]:
        if not isinstance(label, str) or not label:
            raise StudyError(
                f"grouping {name!r} returned the label {label!r}: return text that is not empty, or None"
            )
    return found.fillna(REST).astype(table["parameter"].dtype)


def deal(widths: np.ndarray, sizes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Deal rows at random into groups: for each row of ``widths`` connections the index of its group.

    The groups get the ``sizes`` (connections, with the same sum as the widths), each to within the
    widest row; only a group smaller than that can stay empty.
    """
    order = generator.permutation(len(widths))
    ends = np.cumsum(widths[order])
    # a row across the border of two groups goes to the one that holds its middle
    middles = ends - widths[order] / 2
    group = np.empty(len(widths), dtype=np.int64)
    group[order] = np.searchsorted(np.cumsum(sizes)[:-1], middles, side="right")
    return group


def _product(blocks: pd.DataFrame, spec: str) -> pd.Series:
    names = [name.strip() for name in spec.split("+")]
    if any(name.startswith("shuffled") for name in names):
        raise StudyError(
            f"grouping {spec!r} has shuffled inside or is not closed: write it around all, as "
            "shuffled(gate+layer)"
        )
    if not all(names):
        raise StudyError(f"grouping {spec!r} lacks a name: write one, as layer, or a product, as gate+layer")
    parts = [labels(blocks, groupings.get(name), name) for name in names]
    if len(parts) == 1:
        return parts[0]
    joined = parts[0].str.cat(pd.concat(parts[1:], axis=1), sep="+")
    return joined.mask(joined == "+".join([REST] * len(parts)), REST)


def _matrix_rows(blocks: pd.DataFrame) -> pd.DataFrame:
    """Every matrix as blocks of one whole row each; a row over several heads belongs to none."""
    widths = (blocks["col"] + blocks["cols"]).groupby(blocks["parameter"], sort=False).transform("max")
    # blocks beside each other have the same rows: the leftmost stands for all
    leftmost = blocks["col"] == 0
    first = blocks[leftmost].assign(cols=widths, size=widths)
    first["head"] = first["head"].mask(first["cols"] > blocks["cols"][leftmost])
    rows = first.loc[first.index.repeat(first["rows"])]
    within = rows.groupby(level=0).cumcount()
    return rows.assign(row=rows["row"] + within, rows=1).reset_index(drop=True)
