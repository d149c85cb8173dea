"""``olmp collect``: finished cells as two tables."""

import argparse
import sys

from experiments.commands.options import add_grid

SUMMARY = "gather finished and failed cells of a grid into runs.parquet and evaluations.parquet"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_grid(parser)


def run(args: argparse.Namespace) -> None:
    from experiments.collect import EVALUATIONS, RUNS, collect, write
    from experiments.grid import Grid

    grid = Grid(args.folder)
    found = collect(grid)
    for name, reason in found.unreadable.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)
    write(grid, found)
    print(
        f"{len(found.runs)} cells in {grid.folder / RUNS}, "
        f"{len(found.evaluations)} evaluations in {grid.folder / EVALUATIONS}"
    )
