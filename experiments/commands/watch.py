"""``olmp watch``: a running grid, live in the terminal."""

import argparse
import contextlib

from experiments.commands.options import add_grid

SUMMARY = "watch a running grid in the terminal: its cells, the best so far, when it will end"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_grid(parser)
    parser.add_argument(
        "--seconds",
        type=float,
        default=5.0,
        metavar="S",
        help="seconds between two looks (default: %(default)g)",
    )


def run(args: argparse.Namespace) -> None:
    from datetime import datetime

    from rich.console import Console
    from rich.live import Live

    from experiments.grid import Grid
    from experiments.watch import Watch, watch
    from grouping import StudyError

    if not 0 < args.seconds < float("inf"):
        raise StudyError(f"--seconds {args.seconds} is not possible: give more than 0")
    grid, console = Grid(args.folder), Console(highlight=False)
    if not console.is_terminal:
        Console(width=120, highlight=False).print(Watch(grid).look().render(datetime.now()))
        return
    # Ctrl-C ends the looking, not the grid
    with contextlib.suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
        for view in watch(grid, args.seconds):
            live.update(view.render(datetime.now()), refresh=True)
