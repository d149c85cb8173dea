"""``olmp groups``: what a grouping makes of a model."""

import argparse

from harness.commands.options import add_model

SUMMARY = "print the groups of a model: blocks, connections, share, mean |w|, std"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "--grouping",
        default="layer",
        metavar="NAME",
        help="a strategy, a product such as gate+layer, shuffled(NAME), or module:function "
        "(default: %(default)s; a wrong name lists the known ones)",
    )
    parser.add_argument("--vectors", action="store_true", help="biases and normalisation parameters, too")
    parser.add_argument("--seed", type=int, default=1, help="of shuffled(NAME) (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Print one line per group and a total."""
    from grouping import connection_table, partition, summary
    from grouping.errors import StudyError
    from harness.corpus.corpus import Corpus
    from harness.model import load_model
    from harness.operators.magnitude import connection_indices

    if args.seed < 0:
        raise StudyError(f"--seed {args.seed} is not possible: give 0 or more")
    corpus = Corpus.open(args.corpus)
    model = load_model(
        args.checkpoint, corpus.source_dictionary, corpus.target_dictionary, args.trust_checkpoint
    )
    table = connection_table(model.description, args.vectors)
    blocks = partition(table, args.grouping, args.seed)
    overview = summary(blocks).set_index("group")
    by_group = blocks.groupby("group", sort=False)
    weights = {name: model.flat.numpy()[connection_indices(rows, model)] for name, rows in by_group}
    overview["mean |w|"] = {name: abs(w).mean(dtype="float64") for name, w in weights.items()}
    overview["std"] = {name: w.std(dtype="float64") for name, w in weights.items()}
    overview["share"] = [f"{share:.2%}" for share in overview["share"]]
    print(overview.to_string(float_format=lambda x: f"{x:.5f}"))
    prunable, everything = int(blocks["size"].sum()), int(table["size"].sum())
    print(f"{len(overview)} groups, {prunable:,} prunable connections of {everything:,} parameters")
