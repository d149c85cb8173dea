"""From sentence pairs to a corpus folder: text, joint sentencepiece BPE, ``fairseq-preprocess``.

What the folder holds is said in :mod:`harness.corpus.corpus`; sentences in pieces are kept beside it, in
``bpe/<split>.<language>``.
"""

import io
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import sentencepiece

from grouping.errors import StudyError
from harness.corpus.corpus import ABOUT, FORMAT
from harness.corpus.floors import floors
from harness.corpus.splits import SPLITS
from harness.files import file_hash

VOCABULARY = 4000
#: fairseq-preprocess names further test sets test1, test2, …; we give them our names afterwards
TEST_SETS = ("test", "search", "confirm")

Text = Mapping[str, Sequence[tuple[str, str]]]


def read_parallel(folder: Path, source: str, target: str) -> dict[str, list[tuple[str, str]]]:
    """Read ``<split>.<language>`` files, two per split, one sentence a line.

    Raises StudyError for a missing, empty or misaligned file.
    """
    text = {}
    for split in SPLITS:
        sides = []
        for language in (source, target):
            path = folder / f"{split}.{language}"
            if not path.is_file():
                names = ", ".join(f"{s}.{source}/.{target}" for s in SPLITS)
                raise StudyError(f"{path} is missing: a corpus folder holds {names}")
            try:
                lines = path.read_text(encoding="utf-8").split("\n")
            except UnicodeDecodeError as error:
                raise StudyError(f"{path} is not UTF-8 text: {error}") from None
            sides.append(lines[:-1] if lines[-1] == "" else lines)
        if len(sides[0]) != len(sides[1]):
            raise StudyError(
                f"{split} is misaligned in {folder}: {len(sides[0])} lines of {source}, "
                f"{len(sides[1])} lines of {target}"
            )
        if not sides[0]:
            raise StudyError(f"{folder}/{split}.{source} is empty: every split needs sentences")
        for language, lines in zip((source, target), sides, strict=True):
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    raise StudyError(f"{folder}/{split}.{language}:{number} is blank: remove the pair")
        text[split] = list(zip(*sides, strict=True))
    return text


class Pieces(NamedTuple):
    """A sentencepiece model and the joint fairseq dictionary that numbers its pieces."""

    model: Path
    dictionary: Path


def prepare(
    text: Text,
    folder: Path,
    source: str,
    target: str,
    vocabulary: int = VOCABULARY,
    seed: int = 1,
    pieces: Pieces | None = None,
    origin: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write text, train the BPE model on ``train``, encode every split and binarise it.

    Given ``pieces`` take the place of a BPE model and a dictionary learned here. Returns what
    ``corpus.json`` says. The folder appears whole or not at all.
    """
    with new_folder(folder) as draft:
        write_text(draft, text, source, target)
        if pieces:
            shutil.copyfile(pieces.model, draft / "bpe.model")
        else:
            sentences = (pair[side] for side in (0, 1) for pair in text["train"])
            _train_bpe(sentences, draft / "bpe.model", vocabulary, seed)
        _encode(draft, text, source, target)
        _binarise(draft, source, target, pieces.dictionary if pieces else None)
        return write_about(draft, text, source, target, "sentencepiece", False, origin or {})


def prepared(folder: Path, origin: Mapping[str, Any]) -> dict[str, Any] | None:
    """What ``corpus.json`` says if ``folder`` holds the corpus of this origin; None if it is free.

    Raises StudyError if the folder holds anything else.
    """
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        stored, made_by = dict(about["origin"]), about["format"]
    except FileNotFoundError:
        _check_free(folder)
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudyError(
            f"{folder / ABOUT} cannot be read ({error}): delete {folder} or take another"
        ) from None
    wanted = {"format": FORMAT, **origin}
    stored = {"format": made_by, **stored}
    differing = [key for key in {**wanted, **stored} if wanted.get(key) != stored.get(key)]
    if differing:
        raise StudyError(
            f"{folder} holds another corpus ({', '.join(differing)} differ): "
            "delete it or choose another folder with --out"
        )
    return about


def _check_free(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise StudyError(f"{folder} exists already: delete it or choose another folder with --out")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A draft that becomes ``folder`` when the block ends without an error, and vanishes otherwise.

    Raises StudyError if the folder exists and is not empty, or cannot be written.
    """
    _check_free(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            draft = Path(scratch) / folder.name
            draft.mkdir()
            yield draft
            draft.rename(folder)
    except OSError as error:
        raise StudyError(f"could not write {folder}: {error}") from error


def write_text(draft: Path, text: Text, source: str, target: str) -> None:
    """Write ``text/<split>.<language>`` for every split of ``text``."""
    (draft / "text").mkdir()
    for split, pairs in text.items():
        for side, language in enumerate((source, target)):
            _write_lines(draft / "text" / f"{split}.{language}", [pair[side] for pair in pairs])


def write_about(
    draft: Path, text: Text, source: str, target: str, bpe: str, moses: bool, origin: Mapping[str, Any]
) -> dict[str, Any]:
    """Write ``corpus.json``: languages, sentences and (source, target) words by split, floors, hashes.

    ``bpe`` and ``moses`` say how hypotheses become text (see ``corpus.detokeniser``). Returns its content.
    """
    files = sorted((*(draft / "text").iterdir(), *draft.glob("bpe.*"), *(draft / "bin").glob("dict.*")))
    about = {
        "format": FORMAT,
        "source": source,
        "target": target,
        "bpe": bpe,
        "moses": moses,
        "sentences": {split: len(pairs) for split, pairs in text.items()},
        "words": {
            split: [sum(len(pair[side].split()) for pair in pairs) for side in (0, 1)]
            for split, pairs in text.items()
        },
        "floors": floors(text),
        "origin": dict(origin),
        "sha256": {path.relative_to(draft).as_posix(): file_hash(path) for path in files},
    }
    (draft / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return about


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _train_bpe(sentences: Iterator[str], path: Path, vocabulary: int, seed: int) -> None:
    """Learn a model and write it; it holds no path, so the same text gives the same file anywhere."""
    sentencepiece.set_random_generator_seed(seed)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sentences,
            model_writer=model,
            model_type="bpe",
            vocab_size=vocabulary,
            character_coverage=1.0,
            # the reference of BLEU is the text itself, so the model must give back what it was given
            normalization_rule_name="identity",
            num_threads=1,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        raise StudyError(f"sentencepiece could not learn {vocabulary} pieces: {error}") from None
    path.write_bytes(model.getvalue())


def _encode(draft: Path, text: Text, source: str, target: str) -> None:
    try:
        model = sentencepiece.SentencePieceProcessor(model_file=str(draft / "bpe.model"))
    except (RuntimeError, OSError) as error:
        raise StudyError(f"not a sentencepiece model: {error}") from None
    (draft / "bpe").mkdir()
    for split, pairs in text.items():
        for side, language in enumerate((source, target)):
            pieces = model.encode([pair[side] for pair in pairs], out_type=str)
            _write_lines(draft / "bpe" / f"{split}.{language}", [" ".join(p) for p in pieces])


def _binarise(draft: Path, source: str, target: str, dictionary: Path | None) -> None:
    command = [sys.executable, "-m", "fairseq_cli.preprocess"]
    command += ["--source-lang", source, "--target-lang", target, "--joined-dictionary"]
    command += ["--trainpref", str(draft / "bpe" / "train")]
    command += ["--validpref", str(draft / "bpe" / "valid")]
    command += ["--testpref", ",".join(str(draft / "bpe" / name) for name in TEST_SETS)]
    command += ["--destdir", str(draft / "bin"), "--workers", "1"]
    if dictionary:
        command += ["--srcdict", str(dictionary)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip() or "it gave no reason").splitlines()[-1]
        raise StudyError(f"fairseq-preprocess failed: {reason}")
    for number, name in enumerate(TEST_SETS):
        for path in sorted((draft / "bin").glob(f"test{number or ''}.{source}-{target}.*")):
            path.rename(path.with_name(path.name.replace(f"test{number or ''}", name, 1)))
