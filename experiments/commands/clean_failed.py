"""``olmp clean-failed``: forget failures, so that the cells are run again."""

import argparse

from experiments.commands.options import add_grid

SUMMARY = "forget the failures of a grid: its failed cells are run again, from where they were"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_grid(parser)


def run(args: argparse.Namespace) -> None:
    from experiments.grid import Grid, cell_folders
    from grouping import StudyError
    from harness import records

    grid = Grid(args.folder)
    if not grid.cells_folder.is_dir():
        raise StudyError(f"{args.folder} is no folder of a grid: it has no cells")
    failed = [folder for folder in cell_folders(grid.cells_folder) if (folder / records.FAILURE).exists()]
    for folder in failed:
        (folder / records.FAILURE).unlink(missing_ok=True)
    print(f"{len(failed)} failures forgotten: `olmp grid` runs these cells again")
