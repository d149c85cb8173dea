"""``olmp grid``: run what is not done of a plan."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.commands.options import add_plan
from harness.workers import cores

if TYPE_CHECKING:
    from experiments.grid import Grid
    from experiments.plan import Cells

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
        "--tracker",
        action="append",
        default=[],
        metavar="NAME",
        help="also tensorboard, mlflow, wandb or module:Class",
    )
    parser.add_argument("--site", type=Path, metavar="FILE", help="what your SLURM cluster asks for (TOML)")
    parser.add_argument("--wait", action="store_true", help="with slurm: return when no job is left")


def run(args: argparse.Namespace) -> None:
    from experiments.commands.options import chosen, planned
    from experiments.executors import Options, executors, refuse_failed
    from experiments.executors.slurm import read_site
    from experiments.trackers import check_trackers
    from grouping import StudyError

    for name, value in (
        ("jobs", args.jobs),
        ("cell-seconds", args.cell_seconds),
        ("cell-memory", args.cell_memory),
    ):
        if value is not None and not value > 0:
            raise StudyError(f"--{name.replace('_', '-')} {value} is not possible: give more than 0")
    execute = executors.get(args.executor)
    check_trackers(args.tracker)
    refuse_unused(args)
    grid, cells, inputs = planned(args)
    if not cells.cells:
        raise StudyError(f"plan {args.plan} has no cell that is not skipped: `olmp plan` says why")
    wanted = chosen(cells.cells, args.only)
    options = Options(
        jobs=args.jobs,
        seconds=args.cell_seconds,
        memory_gb=args.cell_memory,
        retry_failed=args.retry_failed,
        trust=args.trust_checkpoint,
        trackers=tuple(args.tracker),
        keep_checkpoints=args.keep_checkpoints,
        site=read_site(args.site) if args.site else None,
        wait=args.wait,
    )
    if said := replaced(grid, cells):
        print(said, file=sys.stderr)
    grid.write_plan(cells)
    inputs.keep()
    execute(grid, wanted, options)
    states = [grid.state(cell) for cell in wanted]
    if set(states) <= {"done", "failed"}:  # not where SLURM goes on
        refuse_failed(grid, wanted)
        elsewhere = sum(cell.name in grid.known for cell in wanted)
        beside = f", {elsewhere} of them in {args.done_in}" if elsewhere else ""
        into = f" --into {args.done_in}" if args.done_in else ""
        of = f"{args.plan} that --only names" if args.only else args.plan
        collect = f"`olmp collect {grid.folder}{into}`"
        print(f"all {len(states)} cells of {of} are done in {grid.folder}{beside}: {collect}")


def replaced(grid: "Grid", cells: "Cells") -> str:
    """What there is to say where another plan takes the place of the one that the folder has; or nothing."""
    from grouping import StudyError

    try:
        title, before = grid.title(), {cell.name for cell in grid.planned()}
    except StudyError:  # none, or a damaged one
        return ""
    beside = grid.finished_beside(cells.cells)
    same = title == cells.title
    if same and (not beside or before == {cell.name for cell in cells.cells}):
        return ""
    which = f"another version of {title!r}" if same else f"the plan {title!r}"
    return (
        f"{grid.folder} had {which}, now it has {cells.title!r}; finished cells that are not in it "
        f"and stay: {beside}"
    )


#: executor → options that mean nothing to it
UNUSED = {
    "local": ("site", "wait"),
    "debug": ("site", "wait", "jobs", "cell_seconds", "cell_memory"),
    "slurm": ("jobs",),
}


def refuse_unused(args: argparse.Namespace) -> None:
    """Raise StudyError for an option that the executor would not heed."""
    from grouping import StudyError

    for name in UNUSED.get(args.executor, ()):
        if getattr(args, name):
            raise StudyError(f"--{name.replace('_', '-')} does not go with --executor {args.executor}")
