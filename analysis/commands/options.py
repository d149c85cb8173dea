"""What the verbs of the analysis have in common."""

import argparse
from pathlib import Path


def add_results(parser: argparse.ArgumentParser) -> None:
    """The folders of collected results."""
    parser.add_argument(
        "results",
        nargs="*",
        type=Path,
        default=[Path("results")],
        metavar="RESULTS",
        help="folders that `olmp collect` has written into, or that hold such folders (default: results)",
    )
