"""The folder of one cell: opened once, appended to, finished by a rename, replayed on resume."""

import contextlib
import fcntl
import hashlib
import json
import os
from pathlib import Path
from types import TracebackType
from typing import IO, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from grouping.errors import StudyError
from harness import records
from harness.model import write_atomically
from harness.records import CellConfig, Evaluation, Result

T = TypeVar("T", bound=BaseModel)


def cell_name(config: CellConfig) -> str:
    """Readable name and short hash of the whole configuration."""
    digest = hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:10]
    readable = f"{config.grouping}-{config.search}-{config.tolerance:g}-seed{config.seed}"
    return "".join(c if c.isalnum() or c in "+-._" else "_" for c in readable) + f"-{digest}"


class Record:
    """Reads and writes a cell's folder.

    Opening a folder that holds another configuration, or anything that is not a cell, is a
    StudyError and changes nothing. Evaluations found in the folder are ``replayed``: a search with
    the same seed asks for the same candidates in the same order, so a resumed search is the
    original one, faster.
    """

    def __init__(self, folder: Path, config: CellConfig):
        self.folder = folder
        self._file: IO[str] | None = None
        self._lock: IO[bytes] | None = None
        try:
            self.replayed = self._open(config)
        except BaseException:
            self.close()
            raise

    def _open(self, config: CellConfig) -> list[Evaluation]:
        path = self.folder / records.CONFIG
        if path.exists():
            found = self._read(path, CellConfig)
            if found != config:
                differing = [k for k in CellConfig.model_fields if getattr(found, k) != getattr(config, k)]
                raise StudyError(
                    f"{self.folder} holds a cell of another configuration (differs in "
                    f"{', '.join(differing)}): choose another --out"
                )
            if (self.folder / records.RESULT).exists():
                return []
            self._hold(path)
            self._write_schema()
            return self._read_evaluations()
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise StudyError(f"{self.folder} exists and is no cell folder: choose another --out")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StudyError(f"could not make {self.folder}: {error}") from None
        # first, so that whatever stops us from here on leaves a folder that resumes
        self._write_json(records.CONFIG, config.model_dump())
        self._hold(path)
        self._write_schema()
        return []

    def _hold(self, path: Path) -> None:
        """Keep other processes of this machine out of the folder until it is closed."""
        self._lock = path.open("rb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise StudyError(f"another process is running the cell in {self.folder}: wait for it") from None

    @staticmethod
    def _read(path: Path, kind: type[T]) -> T:
        try:
            return kind.model_validate_json(path.read_text(encoding="utf-8"))
        except (ValidationError, ValueError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise StudyError(f"{path} cannot be read ({reason}): choose another --out") from None

    def _read_evaluations(self) -> list[Evaluation]:
        """All lines; a last one cut off by a crash is removed, its evaluation is done again."""
        path = self.folder / records.EVALUATIONS
        if not path.exists():
            return []
        good, evaluations = 0, []
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    evaluations.append(Evaluation.model_validate_json(line))
                except ValidationError:
                    number = len(evaluations) + 1
                    raise StudyError(
                        f"{path}:{number} is damaged or of another version: choose another --out, "
                        "or remove the lines from there on"
                    ) from None
                good += len(line)
        if good < path.stat().st_size:
            os.truncate(path, good)
        return evaluations

    def result(self) -> Result | None:
        """The finished result, or None while there is none."""
        path = self.folder / records.RESULT
        return self._read(path, Result) if path.exists() else None

    def append(self, evaluation: Evaluation) -> None:
        try:
            if self._file is None:
                self._file = (self.folder / records.EVALUATIONS).open("a")
            self._file.write(evaluation.model_dump_json() + "\n")
            self._file.flush()
        except OSError as error:
            raise StudyError(
                f"could not record an evaluation in {self.folder}: {error}; "
                "free some space and run the same command again, it resumes"
            ) from None

    def finish(self, result: Result) -> None:
        self._write_json(records.RESULT, result.model_dump())

    def write_lines(self, name: str, lines: list[str]) -> None:
        text = "".join(line + "\n" for line in lines)
        write_atomically(self.folder / name, lambda draft: draft.write_text(text, encoding="utf-8"))

    def write_masks(self, masks: dict[str, np.ndarray]) -> None:
        """Boolean masks by parameter (True = kept), packed to bits; ``<name>/shape`` beside each."""
        packed = {name: np.packbits(mask) for name, mask in masks.items()}
        shapes = {f"{name}/shape": np.array(mask.shape) for name, mask in masks.items()}

        def write(draft: Path) -> None:
            with draft.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **packed, **shapes)

        write_atomically(self.folder / records.MASKS, write)

    def _write_schema(self) -> None:
        if not (self.folder / records.SCHEMA).exists():
            self._write_json(records.SCHEMA, records.schemas())

    def _write_json(self, name: str, content: object) -> None:
        text = json.dumps(content, indent=2) + "\n"
        write_atomically(self.folder / name, lambda draft: draft.write_text(text, encoding="utf-8"))

    def __enter__(self) -> "Record":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes have the folder."""
        if self._lock is not None:
            self._lock.close()
        if self._file is not None:
            # every line was flushed when it was appended; what could not be was reported then
            with contextlib.suppress(OSError):
                self._file.close()
