"""Options that several verbs share."""

import argparse
from pathlib import Path

from experiments.grid import Grid
from experiments.inputs import Inputs
from experiments.plan import Cells, cells_of, read_plan

RUNS = Path("runs")


def add_plan(parser: argparse.ArgumentParser) -> None:
    """The plan, and where its grid is."""
    parser.add_argument("plan", help="name of a shipped plan, a .toml file, or module:function")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="the grid's folder (default: runs/<plan>)")
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="let checkpoints run code of their own while they are read; only if you trust their authors",
    )


def add_grid(parser: argparse.ArgumentParser) -> None:
    """A grid that was started."""
    parser.add_argument("folder", type=Path, help="the grid's folder, such as runs/smoke")


def planned(args: argparse.Namespace) -> tuple[Grid, Cells]:
    """The grid's folder and all cells of its plan, checked."""
    plan = read_plan(args.plan)
    name = Path(args.plan).stem if args.plan.endswith(".toml") else args.plan.replace(":", ".")
    folder = args.out or RUNS / name
    return Grid(folder), cells_of(plan, Inputs(folder.parent / ".checkpoints.json", args.trust_checkpoint))
