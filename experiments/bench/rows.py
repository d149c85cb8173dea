"""Rows of results: the ratio of two speeds, the file they are kept in, the table on the screen."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grouping.errors import StudyError
from harness.files import write_text

Row = dict[str, Any]
COLUMNS = ("id", "model", "ours", "rival", "ratio", "low", "high", "ours/s", "rival/s", "same", "BLEU")


def ratios(ours: Sequence[float], rival: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest of ours over the rival's, pair by pair."""
    found = [one / other for one, other in zip(ours, rival, strict=True)]
    return {"value": statistics.median(found), "low": min(found), "high": max(found)}


def merged(before: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """``new`` in place of all rows of the same ids, in the order of ids; rows of one id keep theirs."""
    replaced = {row["id"] for row in new}
    return sorted([*(row for row in before if row["id"] not in replaced), *new], key=lambda row: row["id"])


def read(path: Path) -> list[Row]:
    """The rows in a file; none if it does not exist. Raises StudyError if it holds something else."""
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(f"{path} cannot be read ({error}): delete it, or name another with --out") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "id" in row for row in rows):
        raise StudyError(f"{path} holds no results of the benchmark: name another file with --out")
    return rows


def keep(path: Path, new: Sequence[Row]) -> None:
    """Merge ``new`` into the file; it holds the old rows or the new ones at any time."""
    text = json.dumps(merged(read(path), new), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def table(rows: Sequence[Row]) -> str:
    """The rows for the eye, one a line under a head; speeds in tokens/s."""
    lines = [COLUMNS, *map(_cells, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    def said(key: str, form: str) -> str:
        return format(row[key], form) if row.get(key) is not None else ""

    bleu = " ".join(said(f"{side}_bleu", ".2f") for side in ("ours", "rival")).strip()
    return (
        *(row["id"], row["model"], row.get("ours", ""), row["rival"]),
        *(said(key, ".2f") for key in ("value", "low", "high")),
        *(said(f"{side}_tokens_per_s", ",.0f") for side in ("ours", "rival")),
        *(said("identical", ".1%"), bleu),
    )
