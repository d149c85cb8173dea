"""``olmp status``: how a grid is going, from its folder alone."""

import argparse
import contextlib

from experiments.commands.options import add_grid, add_known

SUMMARY = "say how a grid is going, and why cells have failed; reads the folder, from any machine"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_grid(parser)
    add_known(parser)
    parser.add_argument("--cells", action="store_true", help="list every cell")


def run(args: argparse.Namespace) -> None:
    from experiments.commands.options import known
    from experiments.cost import estimate
    from experiments.grid import Grid, counted
    from experiments.schema import RUNS
    from experiments.watch import reason
    from grouping import StudyError
    from harness import records

    grid = Grid(args.folder, known(args))
    if (args.folder / RUNS).exists() and not grid.cells_folder.exists() and args.done_in is None:
        raise StudyError(
            f"{args.folder} holds results without their cells: give --done-in {args.folder}, too, "
            "and the cells in them count as done"
        )
    cells = grid.planned()
    states = [grid.state(cell) for cell in cells]
    for cell, state in zip(cells, states, strict=True):
        if state == "failed":
            print(f"failed: {cell.name}: {reason(grid.cell_folder(cell) / records.FAILURE)}")
        elif args.cells or state == "running":
            print(f"{state}: {cell.name}")
    print(f"{grid.title()}: " + ", ".join(f"{n} {state}" for state, n in counted(states).items()))
    if beside := grid.finished_beside(cells):
        print(f"{beside} finished cells in the folder are not in this plan")
    with contextlib.suppress(StudyError):  # without the text there is no guess, where nothing was measured
        if (found := estimate(grid, cells)).measured and found.hours:
            print(f"about {found.hours:.2f} cell-hours left")
