"""What the verbs of the analysis have in common."""

import argparse
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path

from analysis.frame import NotCollected

USER_ERROR = 2


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


def explained(run: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    """A verb that ends with one line, and exit code 2, where results are missing."""

    @wraps(run)
    def guarded(args: argparse.Namespace) -> None:
        try:
            run(args)
        except NotCollected as error:
            print(f"olmp: error: {' '.join(str(error).split())}", file=sys.stderr)
            raise SystemExit(USER_ERROR) from None

    return guarded
