"""``olmp plan``: what a plan consists of, without running anything."""

import argparse

from experiments.commands.options import add_plan

SUMMARY = "list the cells of a plan, what is done, and what the rest will take; runs nothing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_plan(parser)
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="say how long the rest takes with N cells side by side, too"
    )


def run(args: argparse.Namespace) -> None:
    from experiments.commands.options import planned
    from experiments.cost import estimate
    from experiments.grid import counted
    from grouping import StudyError

    if args.jobs is not None and args.jobs < 1:
        raise StudyError(f"--jobs {args.jobs} is not possible: give 1 or more")
    grid, cells = planned(args)
    states = [grid.state(cell) for cell in cells.cells]
    width = max((len(cell.name) for cell in cells.cells), default=0)
    for cell, state in zip(cells.cells, states, strict=True):
        print(f"{cell.name:{width}}  {state}")
    for skipped in cells.skipped:
        settings = " ".join(f"{key}={value}" for key, value in skipped.settings.items())
        print(f"skipped: {settings}: {skipped.reason}")
    print(f"{cells.title}: {len(cells.cells)} cells, {len(cells.skipped)} skipped, in {grid.folder}")
    print(", ".join(f"{count} {state}" for state, count in counted(states).items()))
    if states.count("done") < len(states):
        found = estimate(grid, cells.cells)
        basis = (
            f"as the {found.measured} finished ones took" if found.measured else "a guess, none is done yet"
        )
        print(f"about {found.hours:.2f} cell-hours left ({basis}); a cell takes one core")
        if args.jobs:
            print(f"with {args.jobs} cells side by side about {found.elapsed(args.jobs):.2f} hours")
