"""What ``olmp collect`` has gathered, as DataFrames: a row per cell, a row per evaluation.

Columns are the fields of the records, as ``schema.json`` beside the tables describes them:
``config.<field>`` of the configuration; the fields of the result by their own names, ``sets.<set>.<field>``
per set of sentences; ``failure.<field>`` where a cell failed. ``status`` is done or failed.
"""

from pathlib import Path

import pandas as pd

RUNS, EVALUATIONS = "runs.parquet", "evaluations.parquet"


class NotCollected(Exception):
    """There are no tables to read; the message says what to do."""


def read_runs(folder: Path) -> pd.DataFrame:
    """The cells of a grid. Raises NotCollected if there are none to read."""
    return _read(folder / RUNS)


def read_evaluations(folder: Path) -> pd.DataFrame:
    """The evaluations of a grid's finished cells. Raises NotCollected if there are none to read."""
    return _read(folder / EVALUATIONS)


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise NotCollected(
            f"{path} cannot be read ({reason}): `olmp collect {path.parent}` makes it"
        ) from None
