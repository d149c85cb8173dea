"""``olmp report``: what results say, as one page to explore."""

import argparse
from pathlib import Path

from analysis.commands.options import add_results
from analysis.errors import NotCollected, NotOurs

SUMMARY = "write what collected results say into one HTML page that needs no network"
ERRORS = (NotCollected, NotOurs)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_results(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report.html"),
        help="the page, a new file or that of an earlier call (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    from analysis.frame import Results
    from analysis.output import check_page
    from analysis.report import page

    results = Results.of(args.results)
    check_page(args.out)
    html = page(results)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(html, encoding="utf-8")
    print(args.out)
