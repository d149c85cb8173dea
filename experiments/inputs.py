"""What the inputs of a plan are, by their contents: hashes and shapes of checkpoints, hashes of corpora."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from grouping import ModelDescription, NotApplicable, StudyError, connection_table, content_hash, partition
from grouping.groups import uses_seed
from harness.corpus.corpus import Corpus
from harness.files import file_hash, write_json

#: changes whenever the same file would be known by something else
FORMAT = 1


@dataclass(frozen=True)
class KnownModel:
    """What deciding about cells takes of a dense model: no weights."""

    content_hash: str
    description: ModelDescription


@dataclass
class Inputs:
    """Checkpoints and corpora of a plan.

    Reading a checkpoint takes torch and seconds; what is known of it afterwards is kept in the file
    ``memory``, by the hash of the checkpoint's file, at once if ``keeps``. What the folders beside that of
    ``memory`` remember is known, too. ``trust`` lets checkpoints run code while they are read.
    """

    memory: Path
    trust: bool = False
    keeps: bool = True
    _known: dict[str, Any] | None = None
    _models: dict[tuple[Path, Path], KnownModel] = field(default_factory=dict)
    _tables: dict[tuple[str, bool], pd.DataFrame] = field(default_factory=dict)
    _groups: dict[tuple[Any, ...], str | NotApplicable] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.corpus_hash: Callable[[Path], str] = cache(lambda folder: Corpus.open(folder).content_hash())
        self.training_hash: Callable[[Path], str] = cache(lambda folder: Corpus.open(folder).training_hash())
        self._file_hash = cache(file_hash)

    def model(self, checkpoint: Path, corpus: Path) -> KnownModel:
        """A checkpoint's identity and shapes. Raises StudyError if it is missing or unusable."""
        key = checkpoint, corpus
        if key not in self._models:
            self._models[key] = self._read(checkpoint, corpus)
        return self._models[key]

    def groups_hash(self, model: KnownModel, grouping: str, vectors: bool, seed: int) -> str:
        """sha256 of the partition that a grouping makes of a model.

        Raises NotApplicable where it says nothing about this model.
        """
        key = model.content_hash, grouping, vectors, seed if uses_seed(grouping) else None
        if key not in self._groups:
            table = self._tables.get(key[:1] + (vectors,))
            if table is None:
                table = self._tables[model.content_hash, vectors] = connection_table(
                    model.description, vectors
                )
            try:
                self._groups[key] = content_hash(partition(table, grouping, seed))
            except NotApplicable as reason:
                self._groups[key] = reason
        found = self._groups[key]
        if isinstance(found, NotApplicable):
            raise found
        return found

    def _read(self, checkpoint: Path, corpus: Path) -> KnownModel:
        if not checkpoint.is_file():
            raise StudyError(f"checkpoint {checkpoint} does not exist")
        known = self._remembered()
        name = self._file_hash(checkpoint)
        if name not in known:
            known[name] = asdict(_load(checkpoint, corpus, self.trust))
            if self.keeps:
                self.keep()
        return _known_model(known[name])

    def keep(self) -> None:
        """Write down what is known of checkpoints, for the next time."""
        with contextlib.suppress(StudyError, OSError):  # reading the checkpoints again is no harm
            self.memory.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.memory, {"format": FORMAT, "checkpoints": self._remembered()})

    def _remembered(self) -> dict[str, Any]:
        if self._known is None:
            self._known = {}
            beside = self.memory.parent.parent.glob(f"*/{self.memory.name}")
            for path in (*sorted(beside), self.memory):
                # only a memory: what is not in it, or is damaged, is read again
                with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
                    found = json.loads(path.read_text(encoding="utf-8"))
                    checkpoints = found["checkpoints"] if found["format"] == FORMAT else {}
                    for known in checkpoints.values():
                        _known_model(known)
                    self._known |= checkpoints
        return self._known


def _known_model(found: dict[str, Any]) -> KnownModel:
    """A model as it is remembered."""
    description = found["description"]
    shapes = {parameter: tuple(shape) for parameter, shape in description["shapes"].items()}
    return KnownModel(found["content_hash"], ModelDescription(**description | {"shapes": shapes}))


def _load(checkpoint: Path, corpus: Path, trust: bool) -> KnownModel:
    from harness.model import load_model

    opened = Corpus.open(corpus)
    model = load_model(checkpoint, opened.source_dictionary, opened.target_dictionary, trust)
    return KnownModel(model.content_hash, model.description)
