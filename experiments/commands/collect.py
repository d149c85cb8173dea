"""``olmp collect``: finished cells as tables."""

import argparse
import sys
from pathlib import Path

from experiments.commands.options import add_grid

SUMMARY = "gather finished and failed cells of a grid into tables (parquet) for the analysis"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_grid(parser)
    parser.add_argument(
        "--into",
        type=Path,
        metavar="FOLDER",
        help="write the tables there, such as results/study; cells that it has and the grid has not are kept "
        "(default: into the grid's folder, without any others)",
    )


def refuse_foreign(folder: Path) -> None:
    """Raise StudyError for a folder of something else than results, before anything is written into it."""
    from experiments.schema import RUNS
    from grouping import StudyError

    if folder.is_dir() and not (folder / RUNS).exists() and (found := sorted(folder.iterdir())):
        raise StudyError(
            f"{folder} holds no results, and is not empty (it has {found[0].name}): choose another --into"
        )


def run(args: argparse.Namespace) -> None:
    from experiments.collect import collect, copy_plan, joined, write
    from experiments.grid import Grid
    from experiments.schema import EVALUATIONS, RUNS, SENTENCES

    grid = Grid(args.folder)
    folder = args.into or grid.folder
    if folder != grid.folder:
        refuse_foreign(folder)
    found = collect(grid)
    for name, reason in found.unreadable.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)
    for reason in found.missing:
        print(f"not in {SENTENCES}: {reason}", file=sys.stderr)
    kept = 0
    if folder != grid.folder:
        if (folder / RUNS).exists():
            found, kept, dropped = joined(found, folder, grid)
            if dropped:
                print(
                    f"{dropped} cells of {folder} are no longer planned: the plan that {grid.folder} was run "
                    "with last is without them (if it was a part of another, run that one with --only, "
                    "which keeps its plan whole, and collect again)",
                    file=sys.stderr,
                )
        folder.mkdir(parents=True, exist_ok=True)
        copy_plan(grid, folder)
    write(folder, found)
    print(
        f"{len(found.runs)} cells in {folder / RUNS}, "
        + (f"{kept} of them were there and are not in {grid.folder}, " if kept else "")
        + f"{len(found.evaluations)} evaluations in {folder / EVALUATIONS}, "
        f"{len(found.sentences)} translations in {folder / SENTENCES}"
    )
