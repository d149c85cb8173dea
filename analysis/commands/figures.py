"""``olmp figures``: what results show, to print and to explore."""

import argparse
import sys
from pathlib import Path

from analysis.commands.options import add_results
from analysis.errors import NotCollected, NotOurs

SUMMARY = "draw the figures of collected results"
ERRORS = (NotCollected, NotOurs)
FORMATS = ("svg", "pdf", "png", "html")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_results(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("figures"),
        help="folder, new or empty or of an earlier call (default: %(default)s)",
    )
    parser.add_argument(
        "--format",
        nargs="+",
        choices=FORMATS,
        default=["svg"],
        metavar="FORMAT",
        help="svg, pdf, png, html: interactive, needs no network (default: svg)",
    )


def run(args: argparse.Namespace) -> None:
    from analysis.figures import LeftOut, drawn, save
    from analysis.frame import Results
    from analysis.output import own_folder

    results = Results.of(args.results)
    _ = results.runs  # what cannot be read is said once, not by every figure
    own_folder(args.out, "olmp figures")
    captions = ["# Figures\n"]
    for figure, chart in drawn(results):
        if isinstance(chart, LeftOut):
            print(f"left out: {figure.name}: {chart}", file=sys.stderr)
            continue
        for kind in args.format:
            save(chart, args.out / f"{figure.name}.{kind}", figure)
        captions.append(f"**{figure.name}: {figure.title}.** {figure.caption}\n")
        print(*(args.out / f"{figure.name}.{kind}" for kind in args.format))
    (args.out / "captions.md").write_text("\n".join(captions), encoding="utf-8")
