"""``olmp corpus``: fetch or import text and make it ready for training and for a study."""

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from grouping.errors import StudyError

SUMMARY = "prepare parallel text: homeassistant, multi30k, your own text or data-bin"

PAIR = re.compile(r"([A-Za-z]\w*)-([A-Za-z][\w-]*)")
#: weights that come with the project bring the pieces and the dictionary they were trained with
SHIPPED = Path(__file__).resolve().parents[2] / "models"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the four kinds of corpus."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")

    def kind(name: str, summary: str, run: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        sub = kinds.add_parser(name, help=summary, description=summary)
        sub.add_argument(
            "--pair", default="en-de", metavar="SOURCE-TARGET", help="languages (default: en-de)"
        )
        sub.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="corpus folder to make")
        sub.add_argument("--quiet", action="store_true", help="say nothing where the corpus is there already")
        sub.set_defaults(make=run)
        return sub

    def learns(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--vocabulary", type=int, metavar="N", help="joint sentencepiece pieces (default: 4000)"
        )

    learns(
        kind("homeassistant", "text of the PyPI package homeassistant (downloaded, 68 MB)", _homeassistant)
    )
    sub = kind("multi30k", "image captions, raw text of the repository multi30k/dataset", _multi30k)
    sub.add_argument(
        "--from", dest="folder", type=Path, metavar="FOLDER", help="where train.en, val.en, … are"
    )
    learns(sub)
    sub = kind("text", "your own sentences: <split>.<language>, one a line, two files per split", _text)
    sub.add_argument("folder", type=Path, help="holds train, valid, search, confirm, test")
    learns(sub)
    sub = kind("databin", "an existing fairseq data-bin", _databin)
    sub.add_argument("folder", type=Path, help="what fairseq-preprocess wrote")
    sub.add_argument("--bpe", type=Path, required=True, help="its sentencepiece model or subword-nmt codes")
    sub.add_argument("--moses", action="store_true", help="undo Moses tokenisation, too (sacremoses)")
    sub.add_argument(
        "--split",
        action="append",
        default=[],
        metavar="OURS=THEIRS[FROM:TO]",
        help="for example search=valid[:1000] (repeat; search, confirm and test are needed, "
        "and to retrain train and valid, too)",
    )


def run(args: argparse.Namespace) -> None:
    """Make the corpus unless the folder already holds it; print sentences, words and floors of BLEU."""
    args.make(args)


def languages(pair: str) -> tuple[str, str]:
    """Source and target of a pair such as ``en-de``. Raises StudyError for anything else."""
    match = PAIR.fullmatch(pair)
    if not match or match[1] == match[2]:
        raise StudyError(f"bad language pair {pair!r}: write two different languages, such as en-de")
    return match[1], match[2]


def _homeassistant(args: argparse.Namespace) -> None:
    from harness.corpus import homeassistant, prepare, splits

    source, target = languages(args.pair)
    pieces = None
    shipped = SHIPPED / f"homeassistant.{args.pair}"
    if args.vocabulary is None and (shipped / "bpe.model").is_file() and (shipped / "dict.txt").is_file():
        pieces = prepare.Pieces(shipped / "bpe.model", shipped / "dict.txt")
    origin = _origin(
        args, wheel=homeassistant.WHEEL_SHA256, pieces=_hash(pieces) if pieces else _vocabulary(args)
    )

    def make() -> dict[str, Any]:
        print(f"{homeassistant.PACKAGE}: downloading into {args.out.parent} unless it is there", flush=True)
        wheel = homeassistant.fetch(args.out.parent)
        dealt = splits.split_by_component(homeassistant.pairs(wheel, source, target))
        text = {name: [(pair.source, pair.target) for pair in pairs] for name, pairs in dealt.items()}
        return prepare.prepare(
            text, args.out, source, target, _vocabulary(args), pieces=pieces, origin=origin
        )

    _show(args, origin, make)


def _multi30k(args: argparse.Namespace) -> None:
    from harness.corpus import multi30k, prepare

    source, target = languages(args.pair)
    origin = _origin(
        args, files=hashlib.sha256(repr(multi30k.SHA256).encode()).hexdigest(), pieces=_vocabulary(args)
    )

    def make() -> dict[str, Any]:
        if args.folder is None:
            raise StudyError(
                "multi30k needs --from FOLDER (make: FROM=FOLDER): the raw text files of the public "
                "repository multi30k/dataset, unpacked"
            )
        text = multi30k.splits(args.folder, source, target)
        return prepare.prepare(text, args.out, source, target, _vocabulary(args), origin=origin)

    _show(args, origin, make)


def _text(args: argparse.Namespace) -> None:
    from harness.corpus import prepare

    source, target = languages(args.pair)
    text = prepare.read_parallel(args.folder, source, target)
    digest = hashlib.sha256(json.dumps(text).encode()).hexdigest()
    origin = _origin(args, text=digest, pieces=_vocabulary(args))
    _show(
        args,
        origin,
        lambda: prepare.prepare(text, args.out, source, target, _vocabulary(args), origin=origin),
    )


def _databin(args: argparse.Namespace) -> None:
    from harness.corpus import databin

    source, target = languages(args.pair)
    parts = databin.parse_parts(args.split)
    kind = databin.bpe_kind(args.bpe)
    files = databin.used_files(args.folder, source, target, parts)
    origin = _origin(
        args,
        files=_hash(files),
        bpe=kind,
        model=_hash([args.bpe]),
        moses=args.moses,
        splits=sorted(args.split),
    )
    _show(
        args,
        origin,
        lambda: databin.import_databin(
            args.folder, args.out, source, target, parts, args.bpe, args.moses, origin
        ),
    )


def _origin(args: argparse.Namespace, **made_of: Any) -> dict[str, Any]:
    """What identifies a request, so that the same one is not done twice and another one is refused."""
    return {"corpus": args.kind, "pair": args.pair, **made_of}


def _vocabulary(args: argparse.Namespace) -> int:
    from harness.corpus.prepare import VOCABULARY

    return VOCABULARY if args.vocabulary is None else args.vocabulary


def _hash(paths: Iterable[Path]) -> str:
    from harness.files import file_hash

    return hashlib.sha256(" ".join(file_hash(path) for path in paths).encode()).hexdigest()


def _show(args: argparse.Namespace, origin: dict[str, Any], make: Callable[[], dict[str, Any]]) -> None:
    """Make the corpus if the folder is free, then print what it holds; not if it was there, with --quiet."""
    from harness.corpus.corpus import DECIDING, Corpus
    from harness.corpus.prepare import prepared
    from harness.corpus.splits import near_copies

    out, quiet = args.out, args.quiet
    about = prepared(out, origin)
    if about is not None and quiet:
        Corpus.open(out)  # refuses one that is not complete
        return
    if about is None:
        print(f"preparing {out}", flush=True)
        about = make()
    source, target = about["source"], about["target"]
    copy, near = about["floors"]["copy"], about["floors"]["nearest"]
    print(f"{out}: {source}-{target}")
    counts = f"{'sentences':>9} {'words ' + source:>10} {'words ' + target:>10}"
    print(f"  {'split':8} {counts}   floors of BLEU: copy, nearest")
    for split, sentences in about["sentences"].items():
        words = about["words"][split]
        bleu = [f"{floor[split]:8.2f}" if split in floor else f"{'':8}" for floor in (copy, near)]
        print(f"  {split:8} {sentences:9,} {words[0]:10,} {words[1]:10,}   {' '.join(bleu)}".rstrip())
    print(f"  {about['floors']['signature']}")
    corpus = Corpus.open(out)
    if origin["corpus"] in ("text", "databin"):  # the splits are the user's own
        copied = near_copies({split: corpus.sources(split) for split in about["sentences"]})
        for split, count in copied.items():
            print(
                f"  warning: {count} source sentences of {split} have a near-copy in another split",
                file=sys.stderr,
            )
    for split in DECIDING:
        if unknown := sum("<unk>" in line for line in corpus.references(split)):
            print(f"  warning: {unknown} references of {split} contain <unk>, which no translation can match")
