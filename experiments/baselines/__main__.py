"""``python -m experiments.baselines``: train the dense models of the study."""

import argparse
import dataclasses
import signal
import sys
from pathlib import Path

from experiments.baselines.train import HERE, MODELS, read_recipe, train
from harness.cli import guarded
from harness.workers import cores


def main(arguments: list[str] | None = None) -> int:
    """Train what the command line asks for; exit code 2 if it cannot be done, or on Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m experiments.baselines", description=__doc__)
    parser.add_argument("--model", choices=(*MODELS, "all"), default="all")
    parser.add_argument("--corpus", type=Path, default=Path("data/homeassistant.en-de"))
    parser.add_argument("--out", type=Path, default=Path("checkpoints"))
    parser.add_argument("--seed", type=int, default=1, help="of initial weights, dropout and batch order")
    parser.add_argument("--jobs", type=int, default=cores(), help="models at a time, a core each")
    parser.add_argument(
        "--float32", action="store_true", help="no bfloat16: slower, for CPUs without its instructions"
    )
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error("--jobs: give a whole number of at least 1")
    # as Ctrl-C does: fairseq-train would go on alone
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    return guarded(lambda: _train(options))


def _train(options: argparse.Namespace) -> None:
    names = MODELS if options.model == "all" else (options.model,)
    recipes = [read_recipe(HERE / f"{name}.toml") for name in names]
    if options.float32:
        recipes = [dataclasses.replace(recipe, autocast="") for recipe in recipes]
    for folder in train(recipes, options.corpus, options.out, options.seed, options.jobs):
        print(folder / "checkpoint_best.pt")


if __name__ == "__main__":
    sys.exit(main())
