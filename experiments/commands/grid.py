"""``olmp grid``: run what is not done of a plan."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.commands.options import add_plan
from harness.workers import cores

if TYPE_CHECKING:
    from experiments.plan import PlannedCell

SUMMARY = "run the cells of a plan that are not done, on this machine or on a SLURM cluster; rerun resumes"
RESUMES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_plan(parser)
    parser.add_argument(
        "--executor",
        default="local",
        metavar="NAME",
        help="local (default), slurm, or debug (in this process)",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="cells side by side on one machine; the results do not depend on it "
        f"(default: one per core, here {cores()}, or one per GPU)",
    )
    parser.add_argument("--retry-failed", action="store_true", help="run cells again that have failed before")
    parser.add_argument(
        "--keep-checkpoints",
        action="store_true",
        help="keep each pruned model as a checkpoint, not only as masks over the dense one",
    )
    parser.add_argument("--cell-seconds", type=float, metavar="S", help="a cell that takes longer has failed")
    parser.add_argument("--cell-memory", type=float, metavar="GB", help="a cell that uses more has failed")
    parser.add_argument(
        "--tracker", action="append", default=[], metavar="NAME", help="tensorboard, mlflow or wandb, as well"
    )
    parser.add_argument("--site", type=Path, metavar="FILE", help="what your SLURM cluster asks for (TOML)")
    parser.add_argument("--wait", action="store_true", help="with slurm: return when no job is left")


def run(args: argparse.Namespace) -> None:
    from experiments.commands.options import planned
    from experiments.executors import Options, executors
    from experiments.trackers import trackers
    from grouping import StudyError

    for name, value in (
        ("jobs", args.jobs),
        ("cell-seconds", args.cell_seconds),
        ("cell-memory", args.cell_memory),
    ):
        if value is not None and not value > 0:
            raise StudyError(f"--{name.replace('_', '-')} {value} is not possible: give more than 0")
    execute = executors.get(args.executor)
    for name in args.tracker:
        trackers.get(name)
    grid, cells = planned(args)
    check_names(cells.cells)
    options = Options(
        jobs=args.jobs,
        seconds=args.cell_seconds,
        memory_gb=args.cell_memory,
        retry_failed=args.retry_failed,
        trust=args.trust_checkpoint,
        trackers=tuple(args.tracker),
        keep_checkpoints=args.keep_checkpoints,
        site=args.site,
        wait=args.wait,
    )
    grid.write_plan(cells)
    execute(grid, cells.cells, options)


def check_names(cells: Sequence["PlannedCell"]) -> None:
    """Raise StudyError for a search or an operator that does not exist, before anything runs."""
    from harness.olmp import check_search
    from harness.operators import operators

    for config in {(cell.config.search, cell.config.operator): cell.config for cell in cells}.values():
        operators.get(config.operator)
        check_search(config, knobs=2)
