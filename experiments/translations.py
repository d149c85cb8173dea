"""What BLEU counts in each sentence of a translation of test, so that results can be compared without text.

A row per file of hypotheses, known by its sha256: the dense model's is the same for all cells of a model, a
text and a beam, and so it is there once. ``files`` of the table of runs says which are a cell's.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from experiments.grid import Grid
from experiments.schema import SENTENCES
from grouping import StudyError
from harness.bleu import STATISTICS, Bleu
from harness.corpus.corpus import Corpus
from harness.records import hypotheses

SPLIT = "test"
#: a count: no sentence has 2^15 n-grams
NUMBER = "<i2"
COLUMNS = ("file_sha256", "corpus_sha256", "checkpoint_sha256", "model", "beam", "sentences", "statistics")


class _Translation(NamedTuple):
    """A file of hypotheses, and whose it is."""

    path: Path
    file_sha256: str
    corpus_sha256: str
    checkpoint_sha256: str
    model: str
    beam: int


def sentence_statistics(
    grid: Grid, runs: pd.DataFrame, corpora: Mapping[str, Path]
) -> tuple[pd.DataFrame, list[str]]:
    """The counts of all translations of finished cells, and why some are missing.

    ``corpora`` are folders of texts by their hashes. What was collected before is taken over, since a file
    with the same contents has the same counts; so a text is needed once. ``statistics`` are the bytes of
    little-endian int16: the ten counts of each sentence in sacrebleu's order, sentence by sentence.
    """
    known = _collected(grid.folder / SENTENCES)
    references = cache(_references)
    counts: dict[str, bytes] = {}
    rows: list[dict[str, Any]] = []
    missing: Counter[str] = Counter()
    for found in _translations(grid, runs):
        if (name := found.file_sha256) in counts:
            continue
        try:
            if name not in known:
                known[name] = _counted(
                    found, references(found.corpus_sha256, corpora.get(found.corpus_sha256))
                )
        except StudyError as error:
            missing[str(error)] += 1
            continue
        counts[name] = known[name]
        sentences = len(counts[name]) // (STATISTICS * np.dtype(NUMBER).itemsize)
        rows.append(found._asdict() | {"sentences": sentences, "statistics": counts[name]})
    reasons = [f"{number} translations: {reason}" for reason, number in missing.items()]
    return pd.DataFrame(rows, columns=list(COLUMNS)), reasons


def _translations(grid: Grid, runs: pd.DataFrame) -> Iterator[_Translation]:
    columns = ["cell", "files", "config.corpus_sha256", "config.checkpoint_sha256", f"sets.{SPLIT}.beam"]
    done = runs[runs["status"] == "done"]
    if done.empty:
        return
    for cell, files, corpus, checkpoint, beam in done[columns].itertuples(index=False):
        for model in ("dense", "pruned"):
            file = hypotheses(SPLIT, model)
            path = grid.cells_folder / cell / file
            yield _Translation(path, json.loads(files).get(file, ""), corpus, checkpoint, model, beam)


def _counted(found: _Translation, bleu: Bleu) -> bytes:
    """The counts of one file. Raises StudyError when it is missing or damaged."""
    try:
        text = found.path.read_bytes()
    except OSError as error:
        raise StudyError(f"{found.path} cannot be read ({error})") from None
    if hashlib.sha256(text).hexdigest() != found.file_sha256:
        raise StudyError(f"{found.path} is not what it was when the cell ended")
    return bleu.statistics(text.decode().split("\n")[:-1]).astype(NUMBER).tobytes()


def _references(expected: str, folder: Path | None) -> Bleu:
    """The references of a text. Raises StudyError where it is gone or another one."""
    if folder is None:
        raise StudyError("no plan says where their text is")
    if not folder.is_absolute() and not folder.exists():
        raise StudyError(f"there is no {folder} here: run it from the folder where the grid was started")
    corpus = Corpus.open(folder)
    if corpus.content_hash() != expected:
        raise StudyError(f"{folder} is another text than the one they translate")
    return Bleu(corpus.references(SPLIT))


def _collected(path: Path) -> dict[str, bytes]:
    """What an earlier collection has counted."""
    try:
        table = pd.read_parquet(path, columns=["file_sha256", "statistics"])
    except (OSError, ValueError):
        return {}
    return dict(zip(table["file_sha256"], table["statistics"], strict=True))
