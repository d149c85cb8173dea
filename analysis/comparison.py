"""The comparison table: remaining fraction and BLEU of every (grouping, search), per model."""

import argparse
import json
import sys
from pathlib import Path

import pandas as pd

from analysis.frame import NotCollected, read_runs


def comparison(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per finished cell, smallest remaining fraction first within a model.

    ``remaining`` in percent of the prunable connections; BLEU in points; the test drop with its
    95 % interval.
    """
    rows = runs[runs["status"] == "done"].sort_values(["model", "remaining", "cell"])
    intervals = [
        f"{drop:.2f} [{low:.2f}, {high:.2f}]"
        for drop, (low, high) in zip(
            rows["sets.test.drop"], map(json.loads, rows["sets.test.interval"]), strict=True
        )
    ]
    return pd.DataFrame(
        {
            "model": rows["model"],
            "search": rows["config.search"],
            "grouping": rows["config.grouping"],
            "seed": rows["config.seed"],
            "remaining %": (100 * rows["remaining"]).map("{:.1f}".format),
            "search drop": rows["sets.search.drop"].map("{:.2f}".format),
            "confirm BLEU": rows["sets.confirm.bleu"].map("{:.2f}".format),
            "confirm drop": rows["sets.confirm.drop"].map("{:.2f}".format),
            "test BLEU": rows["sets.test.bleu"].map("{:.2f}".format),
            "test drop [95 %]": intervals,
            "backed off": rows["backed_off"].astype(int),
            "evaluations (skipped)": [
                f"{all_:.0f} ({skipped:.0f})"
                for all_, skipped in zip(rows["evaluations"], rows["skipped"], strict=True)
            ],
            "tokens": rows["tokens"].map("{:,.0f}".format),
        }
    )


def markdown(table: pd.DataFrame) -> str:
    """A table in GitHub's Markdown."""
    lines = [list(table.columns), ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser("python -m analysis.comparison", description=__doc__)
    parser.add_argument("folder", type=Path, help="the grid's folder, such as runs/smoke")
    args = parser.parse_args()
    try:
        runs = read_runs(args.folder)
    except NotCollected as error:
        print(error, file=sys.stderr)
        return 2
    print(markdown(comparison(runs)))
    if failed := int((runs["status"] == "failed").sum()):
        print(f"\n{failed} cells failed: `olmp status {args.folder}` says why")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
