"""``olmp plan``: what a plan consists of, without running anything."""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from experiments.commands.options import add_plan

if TYPE_CHECKING:
    from experiments.cost import Estimate
    from experiments.plan import PlannedCell

SUMMARY = "list the cells of a plan, what is done, and what the rest will take; runs nothing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_plan(parser)
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="say how long the rest takes with N cells side by side, too"
    )


def run(args: argparse.Namespace) -> None:
    from experiments.commands.options import chosen, planned
    from experiments.cost import estimate
    from experiments.grid import counted
    from grouping import StudyError

    if args.jobs is not None and args.jobs < 1:
        raise StudyError(f"--jobs {args.jobs} is not possible: give 1 or more")
    grid, cells, _ = planned(args)
    wanted = chosen(cells.cells, args.only)
    states = [grid.state(cell) for cell in wanted]
    width = max((len(cell.name) for cell in wanted), default=0)
    for cell, state, said in zip(wanted, states, differences(wanted), strict=True):
        print(f"{cell.name:{width}}  {state:11}  {said}".rstrip())
    kinds = Counter((s.reason, s.settings["model"], s.settings.get("grouping", "")) for s in cells.skipped)
    for (reason, model, grouping), count in kinds.items() if not args.only else ():
        print(f"skipped: {count} of {model} {grouping}".rstrip() + f": {reason}")
    of = f"{len(wanted)} of " if args.only else ""
    print(f"{cells.title}: {of}{len(cells.cells)} cells, {len(cells.skipped)} skipped, in {grid.folder}")
    print(", ".join(f"{count} {state}" for state, count in counted(states).items()))
    if states.count("done") < len(states):
        found = estimate(grid, wanted)
        print(f"about {found.hours:.2f} cell-hours left ({basis(found)}); a cell takes one core")
        if args.jobs:
            print(f"with {args.jobs} cells side by side about {found.elapsed(args.jobs):.2f} hours")


def basis(found: "Estimate") -> str:
    """What an estimate rests on."""
    if not found.measured:
        return "a guess for a CPU, here and beside it none of the same model, text and devices is done"
    ones = "finished one" if found.measured == 1 else f"{found.measured} finished ones"
    guessed = f", and a guess for {found.guessed} cells of which none is like these" if found.guessed else ""
    return f"as the {ones} took{guessed}"


def differences(cells: Sequence["PlannedCell"]) -> Iterator[str]:
    """For each cell the settings in which the cells of the plan differ and that its name does not say."""
    named = {"grouping", "search", "tolerance", "seed"}
    settings = [cell.config.model_dump(exclude=named) for cell in cells]
    differing = [
        name
        for name in (settings[0] if settings else {})
        if not name.endswith("sha256") and len({one[name] for one in settings}) > 1
    ]
    for one in settings:
        yield " ".join(f"{name}={one[name]}" for name in differing)
