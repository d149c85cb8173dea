"""``olmp collect``: finished cells as tables."""

import argparse
import sys

from experiments.commands.options import add_grid

SUMMARY = "gather finished and failed cells of a grid into tables (parquet) for the analysis"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_grid(parser)


def run(args: argparse.Namespace) -> None:
    from experiments.collect import collect, write
    from experiments.grid import Grid
    from experiments.schema import EVALUATIONS, RUNS, SENTENCES

    grid = Grid(args.folder)
    found = collect(grid)
    for name, reason in found.unreadable.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)
    for reason in found.missing:
        print(f"not in {SENTENCES}: {reason}", file=sys.stderr)
    write(grid, found)
    print(
        f"{len(found.runs)} cells in {grid.folder / RUNS}, "
        f"{len(found.evaluations)} evaluations in {grid.folder / EVALUATIONS}, "
        f"{len(found.sentences)} translations in {grid.folder / SENTENCES}"
    )
