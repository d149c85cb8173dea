"""``olmp compress``: run one cell."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.options import add_device, add_model, add_workers, use_threads

if TYPE_CHECKING:  # heavy, and needed in run() only
    from harness.cell import Study

SUMMARY = "compress a model under a BLEU tolerance; rerun resumes, a finished cell returns at once"
RESUMES = True
#: fraction of the weights; a dense model has hardly a zero but padding rows
MANY_ZEROS = 0.01


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="cell folder (default: runs/<name>)")
    add_workers(parser)
    add_device(parser)
    cell = parser.add_argument_group("the cell")
    _add_search(cell)
    _add_decoding(cell)
    _add_schedule(cell)
    cell.add_argument("--vectors", action="store_const", const=True, help="prune biases and norms, too")
    cell.add_argument("--seed", type=int, help="of the search and of shuffled groupings (default: 1)")


def _add_search(cell: argparse._ArgumentGroup) -> None:
    """What is searched for, under which constraint and budget."""
    cell.add_argument("--grouping", metavar="NAME", help="see `olmp groups` (default: layer)")
    cell.add_argument("--operator", metavar="NAME", help="magnitude (knob = fraction) or magnitude-threshold")
    cell.add_argument(
        "--search",
        metavar="NAME",
        help="NCS, any nevergrad optimiser (CMA, OnePlusOne, DE, …), or a search-free rule: "
        "class-blind, class-uniform, class-distribution, lamp; dense prunes nothing (default: NCS)",
    )
    cell.add_argument(
        "--sparsity",
        type=float,
        metavar="X",
        help="remove this fraction of the prunable connections by a search-free rule, whatever it costs",
    )
    cell.add_argument(
        "--tolerance", type=float, metavar="X", help="allowed drop, in the constraint's unit (default: 1.0)"
    )
    cell.add_argument(
        "--constraint",
        metavar="NAME",
        help="what may drop: bleu (points; default), or of the references under teacher forcing: "
        "accuracy (percentage points of tokens, SiPO's) or likelihood (nats per token)",
    )
    cell.add_argument(
        "--criterion",
        metavar="NAME",
        help="bound: an upper confidence bound of the drop is within the tolerance (default); "
        "point: the drop itself is",
    )
    cell.add_argument(
        "--confidence", type=float, metavar="X", help="of the bound, a fraction (default: 0.95)"
    )
    cell.add_argument(
        "--evaluations",
        type=int,
        metavar="N",
        help="budget, those of the start included, those on confirm apart (default: 150)",
    )
    cell.add_argument("--tokens", type=int, metavar="N", help="budget of delivered tokens (default: none)")
    cell.add_argument("--start", metavar="NAME", help="class-blind (default) or dense")
    cell.add_argument("--sigma", type=float, help="first step in knob space (default: 0.05)")


def _add_decoding(cell: argparse._ArgumentGroup) -> None:
    """Which sentences candidates are judged by, and how they are translated."""
    cell.add_argument(
        "--search-sentences",
        type=int,
        metavar="N",
        help="search on N sentences drawn at random (default: all)",
    )
    cell.add_argument(
        "--redraw",
        action="store_const",
        const=True,
        help="draw those N sentences anew in every generation; what holds is judged again on all",
    )
    cell.add_argument("--search-beam", type=int, metavar="K", help="on the search set (default: 1, greedy)")
    cell.add_argument("--final-beam", type=int, metavar="K", help="on confirm and test (default: 5)")
    cell.add_argument(
        "--racing",
        type=float,
        metavar="P",
        help="stop a candidate once it is infeasible but for this probability, below 0.5; 0 = never "
        "(default: 0.01)",
    )
    cell.add_argument(
        "--no-skipping",
        dest="skipping",
        action="store_const",
        const=False,
        help="translate a candidate even if its size alone settles what becomes of it",
    )
    cell.add_argument(
        "--precision",
        metavar="NAME",
        help="of the search: float32 (default), bfloat16, float16, int8, or auto: what a short probe finds "
        "fastest here; whatever the search accepts is judged again in float32",
    )


def _add_schedule(cell: argparse._ArgumentGroup) -> None:
    """Whether and how the pruned model is trained on."""
    cell.add_argument(
        "--schedule",
        metavar="NAME",
        help="one-shot: prune (default); retrain: then train on, what was pruned held at zero; "
        "iterative: prune and retrain until BLEU does not come back or nothing shrinks twice running; "
        "gradual: prune to --sparsity by a rule while training on",
    )
    cell.add_argument("--epochs", type=int, metavar="N", help="of retraining, in all (default: 10)")
    cell.add_argument("--round-epochs", type=int, metavar="N", help="in a round of iterative (default: 3)")
    cell.add_argument(
        "--round-tolerance",
        type=float,
        metavar="X",
        help="what pruning may cost before a retraining; what counts keeps --tolerance, as the last search "
        "does (default: the same)",
    )
    cell.add_argument("--learning-rate", type=float, metavar="X", help="of retraining (default: 0.0005)")
    cell.add_argument(
        "--distillation",
        type=float,
        metavar="X",
        help="weight of the dense model's word distributions in the loss of retraining, a fraction "
        "(default: 0)",
    )
    cell.add_argument(
        "--dropout",
        type=float,
        metavar="X",
        help="of embeddings and layers in retraining, a fraction (default: that of the model's training); "
        "what pruning leaves wants less, by the square root of the remaining fraction (Han et al., 2015)",
    )
    cell.add_argument(
        "--batch-tokens",
        type=int,
        metavar="N",
        help="tokens of a batch of retraining, at most: longer sentences of train are left out, and valid "
        "may have none (default: 2000)",
    )
    cell.add_argument(
        "--training-device",
        metavar="NAME",
        help="cpu or cuda: what retrains (default: what translates, --device)",
    )
    cell.add_argument(
        "--autocast",
        metavar="NAME",
        help="bfloat16: retrain in it, where the processor has it (default: float32)",
    )


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """The configuration fields that were given on the command line."""
    from grouping.errors import StudyError
    from harness.configuration import PRECISIONS, CellConfig

    given = {name: getattr(args, name, None) for name in CellConfig.model_fields if name != "device"}
    if given["precision"] == "auto":
        from harness.decoding.linear import fastest_precision

        given["precision"] = fastest_precision(args.device)
        print(f"the search translates in {given['precision']}, the fastest here", file=sys.stderr)
    elif given["precision"] not in (None, *PRECISIONS):
        raise StudyError(
            f"--precision {given['precision']} is not possible: give {', '.join(PRECISIONS)}, or auto"
        )
    elif given["precision"] == "bfloat16" and args.device == "cpu":
        import torch

        from harness.decoding.linear import multiplies

        if not multiplies(torch.bfloat16):
            print("this processor has no bfloat16: it takes longer than float32 does", file=sys.stderr)
    if given["constraint"] == "likelihood" and given["tolerance"] is None:
        raise StudyError(
            "--constraint likelihood wants its own --tolerance, in nats per token: "
            "the default of 1.0 would allow almost anything; 0.05 is a beginning"
        )
    refuse_training(given)
    return {name: value for name, value in given.items() if value is not None}


def refuse_training(given: Mapping[str, Any]) -> None:
    """Raise StudyError for what was given for a training that is not.

    Only here: the cells of a plan share its defaults, those that train and those that do not.
    """
    from grouping.errors import StudyError

    if given["schedule"] not in (None, "one-shot"):
        return
    for name in ("epochs", "round_epochs", "learning_rate", "training_device", "autocast"):
        if given[name] is not None:
            raise StudyError(
                f"--{name.replace('_', '-')} means nothing to the schedule one-shot: leave it out, or give "
                "--schedule retrain, iterative or gradual"
            )


def run(args: argparse.Namespace) -> None:
    """Run the cell with a progress bar and print what came of it."""
    from harness.cell import Study, run_cell
    from harness.progress import SearchProgress
    from harness.record import cell_name, read_evaluations
    from harness.report import beginning_lines, summary_lines

    use_threads(1)
    study = Study.open(args.checkpoint, args.corpus, args.trust_checkpoint, args.device)
    config = study.config(**settings(args))
    _warn_of_zeros(study)
    folder = args.out or Path("runs") / cell_name(config)
    with SearchProgress(config, quiet=not sys.stderr.isatty()) as progress:
        result = run_cell(study, config, folder, progress, args.workers)
    begun = beginning_lines(config, result, read_evaluations(folder))
    print("\n".join([*summary_lines(config, result), *begun]))
    print(f"written to {folder}")


def _warn_of_zeros(study: "Study") -> None:
    """Say on standard error if the model was pruned before: what is zero already goes first."""
    zeros = float((study.model.flat == 0).float().mean())
    if zeros > MANY_ZEROS:
        print(
            f"{zeros:.1%} of the weights of this model are zero already; they count as connections, and "
            "what is smallest goes first, so a part of the sparsity removes nothing",
            file=sys.stderr,
        )
