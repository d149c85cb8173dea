"""``olmp evaluate``: BLEU of any checkpoint on any split."""

import argparse
from pathlib import Path

from harness.commands.options import add_device, add_model, add_threads, use_threads

SUMMARY = "score a checkpoint on a split with sacrebleu"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--split", default="test", help="a split of the corpus (default: %(default)s)")
    parser.add_argument("--beam", type=int, default=5, metavar="K", help="hypotheses (default: %(default)s)")
    parser.add_argument(
        "--hypotheses", type=Path, metavar="FILE", help="write the translations to this new file"
    )
    add_threads(parser)
    add_device(parser)


def run(args: argparse.Namespace) -> None:
    """Translate, then print BLEU and chrF with their signatures."""
    from grouping import connection_table
    from grouping.errors import StudyError
    from harness.bleu import chrf, score
    from harness.cell import Study
    from harness.files import write_text
    from harness.operators.magnitude import connection_indices

    if args.beam < 1:
        raise StudyError(f"--beam {args.beam} is not possible: give 1 (greedy) or more")
    if args.hypotheses:
        _check_new(args.hypotheses)  # before minutes of translating
    use_threads(args.threads)
    study = Study.open(args.checkpoint, args.corpus, args.trust_checkpoint, args.device)
    sentences = study.sentences(args.split, args.beam)
    found = sentences.dense
    characters, signature = chrf(found.hypotheses, sentences.references)
    # what is printed by `olmp groups`, too: without the padding rows, which are no connections
    places = connection_indices(connection_table(study.model.description), study.model)
    kept = int((study.model.flat[places] != 0).sum())
    print(f"{args.split}: {len(found.hypotheses)} sentences, {found.tokens} tokens, beam {args.beam}")
    print(f"BLEU {score(found.statistics.sum(axis=0)):.2f}  {sentences.bleu.signature}")
    print(f"chrF {characters:.2f}  {signature}")
    print(f"{kept:,} of {len(places):,} parameters are not zero")
    if args.hypotheses:
        text = "".join(line + "\n" for line in found.hypotheses)
        write_text(args.hypotheses, text)


def _check_new(path: Path) -> None:
    """Raise StudyError if there is something at this path, or no folder for it."""
    from grouping.errors import StudyError

    if path.exists():
        raise StudyError(f"{path} exists: give --hypotheses another name, or remove it")
    if not path.parent.is_dir():
        raise StudyError(f"could not write {path}: there is no folder {path.parent}; make it first")
