"""``olmp tables``: what results say in numbers."""

import argparse
from pathlib import Path

from analysis.commands.options import add_results
from analysis.errors import NotCollected, NotOurs

SUMMARY = "write the tables of collected results as Markdown, HTML and LaTeX, or print them"
ERRORS = (NotCollected, NotOurs)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_results(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="write into this folder, new or empty or of an earlier call, instead of printing",
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="tables of these names (default: all)")


def run(args: argparse.Namespace) -> None:
    from analysis.frame import Results, failed
    from analysis.output import own_folder
    from analysis.tables import made, save

    results = Results.of(args.results)
    tables = made(results, args.only)
    if args.out is None:
        print("\n".join(one.markdown() for one in tables), end="")
    else:
        own_folder(args.out, "olmp tables")
        save(tables, args.out)
        for one in tables:
            print(f"{one.name}: {one.missing}" if one.missing else args.out / f"{one.name}.md")
    if count := len(failed(results.runs)):
        print(f"\n{count} cells failed: `olmp status` of their grid says why")
