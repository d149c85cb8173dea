"""``olmp verify``: whether a grid's results are complete and can be had again."""

import argparse

from experiments.commands.options import add_grid, add_trust

SUMMARY = "check the files of finished cells, and evaluate a random sample of cells again"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_grid(parser)
    parser.add_argument(
        "--sample", type=int, default=3, metavar="N", help="cells to evaluate again (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the sample (default: %(default)s)")
    add_trust(parser)


def run(args: argparse.Namespace) -> None:
    from experiments.grid import Grid
    from experiments.verify import verify
    from grouping import StudyError
    from harness.commands.options import use_threads

    if args.sample < 0:
        raise StudyError(f"--sample {args.sample} is not possible: give 0 or more")
    use_threads(1)
    grid = Grid(args.folder)
    cells = grid.planned()
    damaged, differing = verify(grid, cells, args.sample, args.seed, args.trust_checkpoint)
    for name, found in (damaged | differing).items():
        for problem in found:
            print(f"{name}: {problem}")
    done = sum(grid.state(cell) == "done" for cell in cells)
    if damaged:
        raise StudyError(
            f"{len(damaged)} of {done} finished cells are damaged: remove their folders and run `olmp grid` "
            "again, it makes them anew"
        )
    if differing:
        raise StudyError(
            f"{len(differing)} cells come out otherwise than before: compare the environment in their "
            "result.json with this one (processor, versions), or run `olmp grid` in a new --out"
        )
    print(f"{done} finished cells are complete; {min(args.sample, done)} evaluated again: the same outcome")
