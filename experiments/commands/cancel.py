"""``olmp cancel``: take a grid's jobs out of a SLURM queue."""

import argparse

from experiments.commands.options import add_grid

SUMMARY = "cancel the SLURM jobs of a grid; what they have done stays, `olmp grid` goes on from there"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_grid(parser)


def run(args: argparse.Namespace) -> None:
    from experiments.executors.slurm import cancel
    from experiments.grid import Grid

    grid = Grid(args.folder)
    grid.planned()  # tells whether this is the folder of a grid at all
    print(f"{cancel(grid)} jobs cancelled")
