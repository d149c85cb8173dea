"""``olmp retrain``: train a pruned model on, with what was pruned held at zero."""

import argparse
import sys
from pathlib import Path

from harness.commands.options import add_device, add_model, use_threads

SUMMARY = "retrain a pruned model, its pruned connections held at zero; rerun resumes"
RESUMES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_device(parser)
    parser.add_argument("--cell", type=Path, required=True, metavar="FOLDER", help="the cell that pruned it")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="of the retraining")
    parser.add_argument("--epochs", type=int, default=5, metavar="N", help="at most (default: %(default)s)")
    parser.add_argument(
        "--learning-rate",
        type=float,
        default=5e-4,
        metavar="X",
        help="halved each epoch (default: %(default)s)",
    )
    parser.add_argument(
        "--dropout",
        type=float,
        metavar="X",
        help="of embeddings and layers, a fraction (default: that of the model's training)",
    )
    parser.add_argument(
        "--batch-tokens",
        type=int,
        default=2000,
        metavar="N",
        help="tokens of a batch, at most: longer sentences of train are left out, and valid may have none "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--autocast",
        default="",
        metavar="NAME",
        help="bfloat16: compute in it, where the processor has it (default: float32)",
    )
    parser.add_argument(
        "--distillation",
        type=float,
        default=0.0,
        metavar="X",
        help="weight of the dense model's word distributions in the loss (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")


def run(args: argparse.Namespace) -> None:
    """Retrain with a progress bar over the epochs; say what it took and how good the model is on valid."""
    from tqdm import tqdm

    from grouping.errors import StudyError
    from harness import records
    from harness.configuration import CellConfig
    from harness.corpus.corpus import Corpus
    from harness.masks import read_masks
    from harness.model import load_model
    from harness.record import Record, read
    from harness.records import Result
    from harness.retraining import SHARED, Schedule, check_valid, retrain

    use_threads(1)
    schedule = Schedule(
        *(args.epochs, args.learning_rate),
        **{name: getattr(args, name) for name in SHARED},
        device=args.device,
    )
    corpus = Corpus.open(args.corpus)
    model = load_model(
        args.checkpoint, corpus.source_dictionary, corpus.target_dictionary, args.trust_checkpoint
    )
    if not (args.cell / records.CONFIG).is_file():
        raise StudyError(f"there is no cell in {args.cell}: name a folder that `olmp compress` has written")
    config = read(args.cell / records.CONFIG, CellConfig)
    if config.checkpoint_sha256 != model.content_hash:
        raise StudyError(f"{args.cell} is of another model than {args.checkpoint}: name its dense model")
    if not (args.cell / records.RESULT).is_file():
        raise StudyError(f"the cell in {args.cell} is not finished: `olmp compress` again goes on with it")
    with Record(args.cell, config) as record:
        record.check_files(read(args.cell / records.RESULT, Result))
    masks, dense = read_masks(args.cell / records.MASKS), model.flat.clone()
    check_valid(model, corpus, args.batch_tokens)
    if config.trains:
        model.load_weights(args.cell / records.CHECKPOINT)
    with tqdm(total=args.epochs, unit="epoch", disable=not sys.stderr.isatty(), dynamic_ncols=True) as bar:

        def ended(epoch: int, valid_loss: float) -> None:
            bar.set_postfix(valid_loss=valid_loss, refresh=False)
            bar.update(epoch - bar.n)

        found = retrain(model, masks, corpus, args.out, schedule, ended, teacher=dense)
    model.save(args.out / "retrained.pt")
    losses = ", ".join(f"{loss:.3f}" for loss in found.valid_loss)
    how = f" in {found.precision}" if found.precision else ""
    if args.autocast and found.precision == "float32":
        how += ", since there is no bfloat16 here, or it is a GPU"
    took = f"{found.words:,} words, {found.seconds:.0f} s{how}"
    print(f"{found.epochs} epochs, {found.updates} updates, {took}")
    print(f"loss on valid: {losses}")
    print(f"written to {args.out / 'retrained.pt'}: `olmp evaluate` says its BLEU")
