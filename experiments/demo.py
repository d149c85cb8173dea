"""``make demo``: compress the shipped Transformer and an LSTM under a tolerance of 1 BLEU point."""

import argparse
import time
from pathlib import Path

from experiments.pool import Cell, run_cells, shipped
from harness.cli import guarded
from harness.corpus.corpus import Corpus
from harness.report import summary_lines
from harness.workers import cores

#: model → grouping: each family by what its connections are for
GROUPINGS = {"transformer": "attention-role", "rnnsearch": "gate"}


def main() -> None:
    parser = argparse.ArgumentParser("python -m experiments.demo", description=__doc__)
    parser.add_argument("--corpus", type=Path, default=Path("data/homeassistant.en-de"), metavar="FOLDER")
    parser.add_argument("--models", type=Path, default=Path("models/homeassistant.en-de"), metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), metavar="FOLDER")
    parser.add_argument("--evaluations", type=int, default=50, metavar="N", help="budget of each cell")
    parser.add_argument("--jobs", type=int, default=min(cores(), len(GROUPINGS)), metavar="N")
    args = parser.parse_args()
    Corpus.open(args.corpus)  # before any process is started
    started = time.monotonic()
    cells = [
        Cell(
            name,
            shipped(name, args.models),
            args.corpus,
            args.out / name,
            {"grouping": grouping, "evaluations": args.evaluations, "tolerance": 1.0},
        )
        for name, grouping in GROUPINGS.items()
    ]
    print("Two trained models, searched side by side; a few minutes.", flush=True)
    for done in run_cells(cells, args.jobs):
        print(f"\n== {done.cell.name}\n" + "\n".join(summary_lines(done.config, done.result)))
        print(f"pruned model, masks and every evaluation: {done.folder}", flush=True)
    print(f"\n{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    raise SystemExit(guarded(main))
