"""The comparison table: remaining fraction and BLEU of every (grouping, search), per model."""

import argparse
import sys
from pathlib import Path

import pandas as pd

from analysis.frame import read_cells


def comparison(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per cell, smallest remaining fraction first within a model.

    ``remaining`` in percent of the prunable connections; BLEU in points; the test drop with its
    95 % interval.
    """
    rows = frame.assign(model=frame["cell"].str.split("/").str[0]).sort_values(["model", "remaining"])
    return pd.DataFrame(
        {
            "model": rows["model"],
            "search": rows["search"],
            "grouping": rows["grouping"],
            "remaining %": (100 * rows["remaining"]).map("{:.1f}".format),
            "search drop": rows["search_drop"].map("{:.2f}".format),
            "confirm BLEU": rows["confirm_bleu"].map("{:.2f}".format),
            "confirm drop": rows["confirm_drop"].map("{:.2f}".format),
            "test BLEU": rows["test_bleu"].map("{:.2f}".format),
            "test drop [95 %]": [
                f"{drop:.2f} [{low:.2f}, {high:.2f}]"
                for drop, low, high in zip(
                    rows["test_drop"], rows["test_low"], rows["test_high"], strict=True
                )
            ],
            "backed off": rows["backed_off"],
            "evaluations (skipped)": [
                f"{all_} ({skipped})"
                for all_, skipped in zip(rows["evaluations"], rows["skipped"], strict=True)
            ],
            "tokens": rows["tokens"].map("{:,}".format),
        }
    )


def markdown(table: pd.DataFrame) -> str:
    """A table in GitHub's Markdown."""
    lines = [list(table.columns), ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser("python -m analysis.comparison", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/comparison"))
    args = parser.parse_args()
    frame = read_cells(args.folder)
    if frame.empty:
        print(f"no finished cell in {args.folder}: `make table` makes them", file=sys.stderr)
        return 2
    print(markdown(comparison(frame)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
