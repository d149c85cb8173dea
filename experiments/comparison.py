"""``make table``: groupings searched by OLMP against search-free rules, on the baselines there are."""

import argparse
from pathlib import Path
from typing import Any

from experiments.pool import Cell, run_cells, shipped
from harness.cli import guarded
from harness.corpus.corpus import Corpus
from harness.workers import cores

MODELS = ("transformer", "rnnsearch", "luong")
RULES = ("class-blind", "class-uniform", "class-distribution", "lamp")
#: the classes a rule treats apart: every matrix, or See et al.'s
CLASSES = ("matrix", "see2016")
COMMON = ("single", "layer", "stage", "matrix")
OWN = {"transformer": "attention-role", "rnnsearch": "gate", "luong": "gate"}


def cells(model: str, models: Path, corpus: Path, out: Path, shared: dict[str, Any]) -> list[Cell]:
    """All cells of one model: (grouping, search) pairs at one budget and tolerance."""
    pairs = [("single", "class-blind")]
    pairs += [(classes, rule) for rule in RULES[1:3] for classes in CLASSES] + [("matrix", "lamp")]
    pairs += [(grouping, "NCS") for grouping in (*COMMON, OWN[model], "shuffled(layer)")]
    checkpoint = shipped(model, models)
    return [
        Cell(
            f"{model} {grouping} {search}",
            checkpoint,
            corpus,
            out / model,
            {"grouping": grouping, "search": search, **shared},
        )
        for grouping, search in pairs
    ]


def main() -> None:
    parser = argparse.ArgumentParser("python -m experiments.comparison", description=__doc__)
    parser.add_argument("--corpus", type=Path, default=Path("data/homeassistant.en-de"), metavar="FOLDER")
    parser.add_argument("--models", type=Path, default=Path("models/homeassistant.en-de"), metavar="FOLDER")
    parser.add_argument(
        "--only", nargs="+", choices=MODELS, metavar="MODEL", help="default: those in --models"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/comparison"), metavar="FOLDER")
    parser.add_argument("--tolerance", type=float, default=1.0, metavar="BLEU")
    parser.add_argument("--evaluations", type=int, default=150, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=cores(), metavar="N")
    args = parser.parse_args()
    Corpus.open(args.corpus)  # before any process is started
    shared = {"tolerance": args.tolerance, "evaluations": args.evaluations, "seed": args.seed}
    names = args.only or [name for name in MODELS if (args.models / f"{name}.pt").is_file()] or MODELS
    planned = [c for name in names for c in cells(name, args.models, args.corpus, args.out, shared)]
    for number, done in enumerate(run_cells(planned, args.jobs), start=1):
        test = done.result.sets["test"]
        print(
            f"[{number}/{len(planned)}] {done.cell.name}: {done.result.remaining:.1%} remaining, "
            f"test {test.dense_bleu:.2f} → {test.bleu:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    raise SystemExit(guarded(main))
