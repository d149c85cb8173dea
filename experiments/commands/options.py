"""Options that several verbs share."""

import argparse
import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what they need is not there where results are only read
    from experiments.grid import Grid
    from experiments.inputs import Inputs
    from experiments.plan import Cells, PlannedCell

RUNS = Path("runs")
#: searches that are always there: rules, and others
RULES = {"class-blind", "class-uniform", "class-distribution", "lamp"}
KNOWN = {"NCS", "CMA", "OnePlusOne", "DE", "dense", *RULES}


def add_plan(parser: argparse.ArgumentParser) -> None:
    """The plan, and where its grid is."""
    parser.add_argument("plan", help="name of a shipped plan, a .toml file, or module:function")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="the grid's folder (default: runs/<plan>)")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="of the plan those cells alone whose whole names, as `olmp plan` prints them, match a shell's "
        "pattern, for example 'luong/stage-*'; may be given again",
    )
    add_known(parser)
    add_trust(parser)


def add_known(parser: argparse.ArgumentParser) -> None:
    """Which cells count as done although their folders are not there."""
    parser.add_argument(
        "--done-in",
        type=Path,
        metavar="FOLDER",
        help="collected results, such as results/study: cells that are finished there count as done",
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Whether checkpoints may be read that are more than data."""
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="let checkpoints run code of their own while they are read; only if you trust their authors",
    )


def add_grid(parser: argparse.ArgumentParser) -> None:
    """A grid that was started."""
    parser.add_argument(
        "folder", type=grid_folder, help="the grid's folder, such as runs/smoke, or smoke for short"
    )


def grid_folder(name: str) -> Path:
    """A folder, or the one in runs/ that the grid of a plan has by default."""
    return RUNS / name if not Path(name).exists() and (RUNS / name).is_dir() else Path(name)


def known(args: argparse.Namespace) -> frozenset[str]:
    """The cells that count as done. Raises StudyError where there are no collected results."""
    if args.done_in is None:
        return frozenset()
    from experiments.collect import finished_in

    return finished_in(args.done_in)


def planned(args: argparse.Namespace) -> tuple["Grid", "Cells", "Inputs"]:
    """The grid's folder, all cells of its plan, checked, and their inputs; writes nothing but into a grid."""
    from experiments.grid import Grid
    from experiments.inputs import Inputs
    from experiments.plan import cells_of, read_plan
    from grouping import StudyError

    plan = read_plan(args.plan)
    name = Path(args.plan).stem if args.plan.endswith(".toml") else args.plan.replace(":", ".")
    grid = Grid(args.out or RUNS / name, known(args))
    grid.refuse_foreign()
    inputs = Inputs(grid.memory, args.trust_checkpoint, keeps=grid.begun)
    try:
        cells = cells_of(plan, inputs)
        check_names(cells.cells)
    except StudyError as error:
        raise StudyError(f"plan {args.plan}: {error}") from None
    return grid, cells, inputs


def chosen(cells: Sequence["PlannedCell"], patterns: Sequence[str]) -> list["PlannedCell"]:
    """The cells whose names match one of the patterns of a shell; all without any.

    Raises StudyError for a pattern that no name matches.
    """
    from grouping import StudyError

    names = [cell.name for cell in cells]
    for pattern in patterns:
        if names and not fnmatch.filter(names, pattern):
            raise StudyError(
                f"--only {pattern}: no cell of the plan has such a name; names are like {names[0]} "
                "(`olmp plan` lists them)"
            )
    return [cell for cell in cells if not patterns or any(fnmatch.fnmatch(cell.name, p) for p in patterns)]


def check_names(cells: Sequence["PlannedCell"]) -> None:
    """Raise StudyError for a search or an operator that does not exist, before anything runs."""
    kinds = {(one.config.search, one.config.operator, one.config.sparsity is None): one for one in cells}
    # what is known without loading torch and nevergrad, which takes seconds
    known = {(search, "magnitude", True) for search in KNOWN} | {(rule, "magnitude", False) for rule in RULES}
    if not set(kinds) <= known:
        from grouping import StudyError
        from harness.olmp import check_search
        from harness.operators import operators

        for cell in kinds.values():
            try:
                operators.get(cell.config.operator)
                check_search(cell.config, knobs=2)
            except StudyError as error:
                raise StudyError(f"{error} (in the cell {cell.name})") from None
