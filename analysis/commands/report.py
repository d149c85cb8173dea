"""``olmp report``: what results say, as one page to explore."""

import argparse
from pathlib import Path

from analysis.commands.options import add_results
from analysis.errors import NotCollected

SUMMARY = "write what collected results say into one HTML page that needs no network"
ERRORS = (NotCollected,)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_results(parser)
    parser.add_argument(
        "--out", type=Path, default=Path("report.html"), help="the page (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    from analysis.frame import Results
    from analysis.report import page

    html = page(Results.of(args.results))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(html, encoding="utf-8")
    print(args.out)
