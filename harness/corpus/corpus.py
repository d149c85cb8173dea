"""The prepared corpus as the rest of the harness reads it.

A corpus folder holds plain text, fairseq's data-bin, and what made them::

    text/<split>.<language>                       one sentence a line
    bin/<split>.<source>-<target>.<language>.*    the same sentences in dictionary ids
    bin/dict.<language>.txt                       fairseq's dictionaries
    bpe.model or bpe.codes                        sentencepiece's model, or the codes of subword-nmt
    corpus.json                                   languages, counts, floors of BLEU, origin
"""

import hashlib
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from grouping.errors import StudyError
from harness.files import file_hash

if TYPE_CHECKING:  # fairseq takes seconds to import, so it is imported where it is used
    from fairseq.data import Dictionary

T = TypeVar("T")

ABOUT = "corpus.json"
#: changes whenever the same request would give another corpus
FORMAT = 1
#: the splits that a study cannot do without
DECIDING = ("search", "confirm", "test")
#: the splits that training takes
TRAINING = ("train", "valid")
#: what a damaged dictionary or data-bin raises inside fairseq
DAMAGE = (OSError, ValueError, AssertionError, RuntimeError, IndexError, struct.error)


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus folder."""

    folder: Path
    source: str
    target: str
    about: dict[str, Any]

    @classmethod
    def open(cls, folder: Path | str) -> "Corpus":
        """Open a corpus folder. Raises StudyError when it is none, an older one, or incomplete."""
        folder = Path(folder)
        try:
            about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
            source, target, made_by = about["source"], about["target"], about.get("format")
        except FileNotFoundError:
            raise StudyError(
                f"{folder} is no corpus folder (it has no {ABOUT}): make one with `olmp corpus`"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise StudyError(
                f"{folder} is no corpus folder ({ABOUT} is damaged, or another program's): "
                f"make one elsewhere with `olmp corpus`, or remove {ABOUT} first"
            ) from None
        except OSError as error:
            raise StudyError(
                f"{folder} is no corpus folder ({ABOUT}: {error}): make one with `olmp corpus`"
            ) from None
        if made_by != FORMAT:
            raise StudyError(
                f"{folder} has format {made_by}, this version reads {FORMAT}: "
                "delete it and make it again with `olmp corpus`"
            )
        corpus = cls(folder, source, target, about)
        for path in corpus._deciding_files():
            if not path.is_file():
                raise StudyError(f"{path} is missing: delete {folder}, make it again with `olmp corpus`")
        return corpus

    def sources(self, split: str) -> list[str]:
        """The source sentences of a split, as plain text."""
        return self._lines(split, self.source)

    def references(self, split: str) -> list[str]:
        """The reference translations of a split, as plain text."""
        return self._lines(split, self.target)

    def source_tokens(self, split: str) -> list[np.ndarray]:
        """Source dictionary ids of each sentence, end of sentence included: int64, shape (length,)."""
        return self._tokens(split, self.source, self.source_dictionary)

    def target_tokens(self, split: str) -> list[np.ndarray]:
        """Target dictionary ids of each reference, end of sentence included: int64, shape (length,)."""
        return self._tokens(split, self.target, self.target_dictionary)

    @cached_property
    def source_dictionary(self) -> "Dictionary":
        """fairseq's dictionary of the source language."""
        return load_dictionary(self.folder / "bin" / f"dict.{self.source}.txt")

    @cached_property
    def target_dictionary(self) -> "Dictionary":
        """fairseq's dictionary of the target language."""
        return load_dictionary(self.folder / "bin" / f"dict.{self.target}.txt")

    def detokenise(self, tokens: Sequence[str]) -> str:
        """Plain text of one hypothesis, given as dictionary symbols without the end of sentence."""
        return self._detokenise(tokens)

    def content_hash(self) -> str:
        """sha256 over what decides a study: dictionaries, text and data-bin of search, confirm, test.

        The place of the folder, the training text and the floors stay out of it.
        """
        kind = [self.source, self.target, self.about["bpe"], str(self.about["moses"])]
        digest = hashlib.sha256("\n".join(kind).encode())
        for path in self._deciding_files():
            digest.update(f"\n{path.relative_to(self.folder).as_posix()} {file_hash(path)}".encode())
        return digest.hexdigest()

    def training_hash(self) -> str:
        """sha256 over what decides a training: the data-bins of train and valid.

        Raises StudyError where one of them is not there.
        """
        digest = hashlib.sha256()
        for split in TRAINING:
            self._count(split)  # refuses a split that the corpus does not have
            for path in self._binaries(split):
                if not path.is_file():
                    raise StudyError(f"{path} is missing: training needs it, make the corpus again")
                digest.update(f"\n{path.relative_to(self.folder).as_posix()} {file_hash(path)}".encode())
        return digest.hexdigest()

    @cached_property
    def _detokenise(self) -> Callable[[Sequence[str]], str]:
        return detokeniser(self.about["bpe"], self.target if self.about["moses"] else None)

    def _deciding_files(self) -> list[Path]:
        languages = (self.source, self.target)
        files = [self.folder / "bin" / f"dict.{language}.txt" for language in languages]
        for split in DECIDING:
            for language in languages:
                files.append(self.folder / "text" / f"{split}.{language}")
                files += self._binaries(split, language)
        return files

    def _binaries(self, split: str, *languages: str) -> list[Path]:
        """The files of a binarised split, in both languages or in those given."""
        return [
            self.folder / "bin" / f"{split}.{self.source}-{self.target}.{language}.{suffix}"
            for language in languages or (self.source, self.target)
            for suffix in ("bin", "idx")
        ]

    def _count(self, split: str) -> int:
        counts = self.about["sentences"]
        if split not in counts:
            how = "; to train, import the data-bin anew with --split train=… and --split valid=…, too"
            raise StudyError(
                f"{self.folder} has no split {split!r}; it has {', '.join(counts)}"
                f"{how if split in TRAINING else ''}"
            )
        return counts[split]

    def _lines(self, split: str, language: str) -> list[str]:
        path = self.folder / "text" / f"{split}.{language}"
        expected = self._count(split)
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        return self._complete(lines, expected, path)

    def _tokens(self, split: str, language: str, dictionary: "Dictionary") -> list[np.ndarray]:
        path = self.folder / "bin" / f"{split}.{self.source}-{self.target}.{language}"
        expected = self._count(split)
        return self._complete(load_tokens(path, dictionary), expected, path)

    @staticmethod
    def _complete(sentences: list[T], expected: int, path: Path) -> list[T]:
        if len(sentences) != expected:
            raise StudyError(
                f"{path} holds {len(sentences)} sentences, {ABOUT} says {expected}: make the corpus again"
            )
        return sentences


def load_dictionary(path: Path) -> "Dictionary":
    """Load fairseq's dictionary. Raises StudyError when it is missing or damaged."""
    from harness.model import import_fairseq

    import_fairseq()
    from fairseq.data import Dictionary

    try:
        return Dictionary.load(str(path))
    except DAMAGE as error:
        raise StudyError(f"{path} is not a dictionary of fairseq: {error}") from None


def load_tokens(prefix: Path, dictionary: "Dictionary") -> list[np.ndarray]:
    """Read a binarised file, given without its suffix: one int64 array of shape (length,) a sentence.

    Raises StudyError when it is missing or damaged, or holds ids that the dictionary does not have.
    """
    from fairseq.data.data_utils import load_indexed_dataset

    try:
        dataset = load_indexed_dataset(str(prefix), dictionary)
        sentences = None if dataset is None else [dataset[i].numpy() for i in range(len(dataset))]
    except DAMAGE as error:
        raise StudyError(f"{prefix}.bin is not a data-bin of fairseq: {error}") from None
    if sentences is None:
        raise StudyError(f"{prefix}.bin and .idx are missing")
    largest = max((int(ids.max()) for ids in sentences if ids.size), default=0)
    if largest >= len(dictionary):
        raise StudyError(
            f"{prefix}.bin holds id {largest}, its dictionary only {len(dictionary)} entries: "
            "take the dictionary it was made with"
        )
    return sentences


def detokeniser(bpe: str, moses: str | None) -> Callable[[Sequence[str]], str]:
    """From dictionary symbols to plain text, as ``fairseq-generate --post-process`` does it.

    ``bpe`` is fairseq's name of the scheme, "sentencepiece" or "subword_nmt"; ``moses`` the language
    whose Moses tokenisation is undone afterwards, if any.
    """
    from fairseq.data.data_utils import post_process

    if moses is None:
        return lambda tokens: post_process(" ".join(tokens), bpe)
    from sacremoses import MosesDetokenizer

    words = MosesDetokenizer(lang=moses)
    return lambda tokens: words.detokenize(post_process(" ".join(tokens), bpe).split())
