"""``python -m experiments.bench``: our speed as ratios to other programs, on this machine."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from experiments.bench import grids, roofline, rows, searches, speed  # noqa: F401 (the modules register their figures)
from experiments.bench.context import Context, Skipped, figures
from experiments.bench.machine import confine
from grouping.errors import StudyError
from harness.cli import guarded

#: every program gets this many cores of the machine
CORES = 2


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m experiments.bench", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="ID", help=f"of {', '.join(figures.names())}")
    parser.add_argument("--pairs", type=int, default=5, metavar="N", help="turns (default: %(default)s)")
    parser.add_argument("--models", type=Path, default=Path("models/homeassistant.en-de"), metavar="FOLDER")
    parser.add_argument("--corpus", type=Path, default=Path("data/homeassistant.en-de"), metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("results/bench.json"), metavar="FILE")
    parser.add_argument(
        "--sentences", type=int, metavar="N", help="the first ones only: a quick look, not a result"
    )
    args = parser.parse_args(arguments)
    for name, least in (("pairs", 1), ("sentences", CORES)):
        given = getattr(args, name)
        if given is not None and given < least:
            raise StudyError(f"--{name} {given} is not possible: give {least} or more")
    chosen = {name: figures.get(name) for name in args.only or figures.names()}
    rows.read(args.out)  # an unreadable file is told before an hour of work, not after
    made: list[rows.Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        context = Context(
            models=args.models,
            corpus_folder=args.corpus,
            scratch=Path(scratch),
            pairs=args.pairs,
            cores=confine(CORES),
            sentences=args.sentences,
        )
        context.corpus.references("search")  # so is a folder that is no corpus
        for name, figure in chosen.items():
            try:
                found = figure(context)
            except Skipped as reason:
                tqdm.write(f"{name} is skipped: {reason}", file=sys.stderr)
                continue
            rows.keep(args.out, found)  # at once: an interruption costs one figure
            made += found
    if made:
        print(rows.table(made))


if __name__ == "__main__":
    raise SystemExit(guarded(main, resumes=False))
