"""``olmp figures``: what results show, to print and to explore."""

import argparse
import sys
from pathlib import Path

from analysis.commands.options import add_results
from analysis.errors import NotCollected

SUMMARY = "draw the figures of collected results"
ERRORS = (NotCollected,)
FORMATS = ("svg", "pdf", "png", "html")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_results(parser)
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder (default: %(default)s)")
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

    results = Results.of(args.results)
    args.out.mkdir(parents=True, exist_ok=True)
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
