"""The folder of one cell: opened once, appended to, finished by a rename, replayed on resume."""

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from grouping.errors import StudyError
from harness import records
from harness.claim import Claim, is_leftover
from harness.configuration import CellConfig
from harness.files import file_hash, write_atomically, write_json, write_text
from harness.masks import write_masks
from harness.records import Evaluation, Failure, Result

T = TypeVar("T", bound=BaseModel)


#: fields that came later: where they have their default, a cell is named as before there were any
YOUNGER = ("training_sha256", "round_tolerance", "batch_tokens", "dropout", "training_device")


def cell_name(config: CellConfig) -> str:
    """Readable name and short hash of the whole configuration."""
    fields = CellConfig.model_fields
    left_out = {name for name in YOUNGER if getattr(config, name) == fields[name].default}
    digest = hashlib.sha256(config.model_dump_json(exclude=left_out).encode()).hexdigest()[:10]
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
        self._claim: Claim | None = None
        try:
            self.replayed = self._open(config)
        except BaseException:
            self.close()
            raise

    def _open(self, config: CellConfig) -> list[Evaluation]:
        check_folder(self.folder, config)
        if (self.folder / records.RESULT).exists():
            return []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StudyError(f"could not make {self.folder}: {error}") from error
        self._claim = Claim(self.folder)
        check_folder(self.folder, config)  # again: now nobody else writes
        self._claim.sweep()
        if (self.folder / records.RESULT).exists():
            return []
        # the configuration first, so that whatever stops us from here on leaves a folder that resumes
        for name, content in ((records.CONFIG, config.model_dump()), (records.SCHEMA, records.schemas())):
            if not _written(self.folder / name):
                write_json(self.folder / name, content, durable=False)
        found = self._read_evaluations()
        (self.folder / records.FAILURE).unlink(missing_ok=True)
        return found

    def _read_evaluations(self) -> list[Evaluation]:
        """All lines; a last one cut off by a crash is removed, its evaluation is done again.

        The file is written anew: a process that was taken for dead may still have the old one open.
        """
        path = self.folder / records.EVALUATIONS
        if not path.exists():
            return []
        evaluations, lines = [], path.read_bytes().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
        for number, line in enumerate(lines, start=1):
            try:
                evaluations.append(Evaluation.model_validate_json(line))
            except ValidationError:
                raise StudyError(
                    f"{path}:{number} is damaged or of another version: choose another --out, "
                    "or remove the lines from there on"
                ) from None
        write_atomically(path, lambda draft: draft.write_bytes(b"".join(lines)))
        return evaluations

    def result(self) -> Result | None:
        """The finished result, or None while there is none."""
        path = self.folder / records.RESULT
        return read(path, Result) if path.exists() else None

    def check_files(self, result: Result) -> None:
        """Raise StudyError unless the files of a finished cell are as they were when it was finished."""
        for name, digest in result.files.items():
            path = self.folder / name
            if not path.is_file() or file_hash(path) != digest:
                what = "has changed since the cell was finished" if path.is_file() else "is gone"
                raise StudyError(
                    f"{path} {what}: put it back, choose another --out, or remove the folder to run it again"
                )

    def append(self, evaluation: Evaluation) -> None:
        self._check()
        try:
            if self._file is None:
                self._file = (self.folder / records.EVALUATIONS).open("a")
            self._file.write(evaluation.model_dump_json() + "\n")
            self._file.flush()
        except OSError as error:
            raise StudyError(
                f"could not record an evaluation in {self.folder}: {error}; "
                "free some space and run the same command again, it resumes"
            ) from error

    def file_hashes(self) -> dict[str, str]:
        """sha256 of the files that a finished cell keeps, by name."""
        kept = (records.EVALUATIONS, records.MASKS, records.CHECKPOINT, *records.ALL_HYPOTHESES)
        return {name: file_hash(self.folder / name) for name in kept if (self.folder / name).exists()}

    def finish(self, result: Result) -> None:
        self._check()
        write_json(self.folder / records.RESULT, result.model_dump())

    def _check(self) -> None:
        """Raise an error unless the folder is still ours."""
        if self._claim is not None:
            self._claim.check()

    def write_lines(self, name: str, lines: list[str]) -> None:
        self._check()
        write_text(self.folder / name, "".join(line + "\n" for line in lines))

    def write_masks(self, masks: Mapping[str, np.ndarray]) -> None:
        self._check()
        write_masks(self.folder / records.MASKS, masks)

    def __enter__(self) -> "Record":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes have the folder."""
        if self._file is not None:
            # every line was flushed when it was appended; what could not be was reported then
            with contextlib.suppress(OSError):
                self._file.close()
        if self._claim is not None:
            self._claim.release()
            self._claim = None


def read_evaluations(folder: Path) -> list[Evaluation]:
    """All evaluations of a finished cell. Raises StudyError if one cannot be read."""
    path = folder / records.EVALUATIONS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [Evaluation.model_validate_json(line) for line in lines]
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise StudyError(f"{path} cannot be read ({reason})") from None


def check_folder(folder: Path, config: CellConfig) -> None:
    """Raise StudyError if the folder holds another cell, or something that is none."""
    path = folder / records.CONFIG
    own = (records.CONFIG, records.SCHEMA)
    if _written(path):
        found = read(path, CellConfig)
        if found != config:
            differing = [k for k in CellConfig.model_fields if getattr(found, k) != getattr(config, k)]
            raise StudyError(
                f"{folder} holds a cell of another configuration (differs in "
                f"{', '.join(differing)}): choose another --out"
            )
    elif folder.exists() and (
        not folder.is_dir()
        or any(not is_leftover(path.name) and path.name not in own for path in folder.iterdir())
    ):
        raise StudyError(f"{folder} exists and is no cell folder: choose another --out")


def _written(path: Path) -> bool:
    """Whether a file is there and not one that a power cut has left empty."""
    return path.exists() and path.stat().st_size > 0


def write_failure(folder: Path, config: CellConfig, failure: Failure) -> None:
    """Record that a cell failed. Raises StudyError where that is not possible or not ours to say."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(f"could not make {folder}: {error}") from error
    with Claim(folder):
        if (folder / records.RESULT).exists():
            return
        if not _written(folder / records.CONFIG):
            write_json(folder / records.CONFIG, config.model_dump(), durable=False)
        write_json(folder / records.FAILURE, failure.model_dump())


def read(path: Path, kind: type[T]) -> T:
    """Read a record. Raises StudyError when it is missing, damaged or of another version."""
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "all of it"
        reason = f"{where}: {first['msg']}; it is damaged or of another version"
        raise StudyError(f"{path} cannot be read ({reason}): choose another folder") from None
    except (ValueError, OSError) as error:
        raise StudyError(f"{path} cannot be read ({error}): choose another folder") from None
