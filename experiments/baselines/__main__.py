"""``python -m experiments.baselines``: train the dense models of the study."""

import argparse
import dataclasses
import signal
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from experiments.baselines.scale import RETRAINING, scaled
from experiments.baselines.train import HERE, MODELS, Recipe, read_recipe, train
from grouping import connection_table
from harness.cli import guarded
from harness.commands.options import add_device
from harness.corpus.corpus import Corpus
from harness.workers import cores


def main(arguments: list[str] | None = None) -> int:
    """Train what the command line asks for; exit code 2 if it cannot be done, or on Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m experiments.baselines", description=__doc__)
    parser.add_argument("--model", choices=(*MODELS, "all"), default="all")
    parser.add_argument(
        "--parameters",
        type=int,
        metavar="N",
        help="a smaller model of the family of --model, with about N parameters (padding rows apart)",
    )
    parser.add_argument(
        "--more-updates",
        type=int,
        metavar="N",
        help="train the smaller model for N updates more than its recipe says; default: "
        f"{RETRAINING}, what ten epochs of retraining take on the default corpus",
    )
    parser.add_argument(
        "--dropout", type=float, metavar="X", help="of the smaller model; default: what its recipe says"
    )
    parser.add_argument("--corpus", type=Path, default=Path("data/homeassistant.en-de"))
    parser.add_argument("--out", type=Path, default=Path("checkpoints"))
    parser.add_argument("--seed", type=int, default=1, help="of initial weights, dropout and batch order")
    parser.add_argument("--jobs", type=int, default=cores(), help="models at a time, a core each")
    add_device(parser)
    parser.add_argument(
        "--float32",
        action="store_true",
        help="no bfloat16: slower; what a device without its instructions does anyway",
    )
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error("--jobs: give a whole number of at least 1")
    if options.parameters is not None and options.model == "all":
        parser.error("--parameters: name one --model")
    if options.more_updates is None:
        options.more_updates = RETRAINING
    elif options.parameters is None or options.more_updates < 0:
        parser.error("--more-updates: give a whole number of at least 0, and --parameters")
    if options.dropout is not None and (options.parameters is None or not 0 <= options.dropout < 1):
        parser.error("--dropout: give a fraction from 0 to below 1, and --parameters")
    # as Ctrl-C does: what fairseq-train has saved stays, and its folder is free at once
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    return guarded(lambda: _train(options))


def counting(corpus: Path) -> Callable[[Recipe], int]:
    """How many parameters a recipe's model has, as cells count them: tied ones once, padding rows apart."""
    opened = Corpus.open(corpus)

    def count(recipe: Recipe) -> int:
        from harness.model import description_of

        found = description_of(recipe.arguments, opened.source_dictionary, opened.target_dictionary)
        return int(connection_table(found)["size"].sum())

    return cache(count)


def _train(options: argparse.Namespace) -> None:
    names = MODELS if options.model == "all" else (options.model,)
    recipes = [read_recipe(HERE / f"{name}.toml") for name in names]
    if options.parameters is not None:
        count = counting(options.corpus)
        own = options.parameters, count, options.more_updates, options.dropout
        recipes = [scaled(recipe, *own) for recipe in recipes]
    if options.float32:
        recipes = [dataclasses.replace(recipe, autocast="") for recipe in recipes]
    recipes = [recipe.at(options.device) for recipe in recipes]
    for folder in train(recipes, options.corpus, options.out, options.seed, options.jobs):
        print(folder / "checkpoint_best.pt")


if __name__ == "__main__":
    sys.exit(main())
