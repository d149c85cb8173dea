"""Files that are there whole or not at all, and what is in them."""

import hashlib
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path

from grouping.errors import StudyError

#: the end of the name of a file that is being written
PART = ".part"


def write_atomically(path: Path, write: Callable[[Path], object], durable: bool = True) -> None:
    """Write beside ``path`` and rename, so that a failed write leaves what was there.

    The file is on the disk before it gets its name: neither a crash nor a power cut leaves half of it. Where
    it is not ``durable``, which saves tens of milliseconds, a power cut may leave an empty one.
    Raises StudyError when that fails, or when ``path`` is a folder or a device.
    """
    if path.exists() and not path.is_file():
        raise StudyError(f"could not write {path}: it is no regular file; choose another name")
    # processes of several machines may write the same file, and have the same number
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PART}")
    try:
        write(draft)
        if durable:
            with draft.open("rb") as file:
                os.fsync(file.fileno())
        draft.replace(path)
    except (OSError, RuntimeError) as error:
        raise StudyError(f"could not write {path}: {error}; check its folder and the free space") from error
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str, durable: bool = True) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda draft: draft.write_text(text, encoding="utf-8"), durable)


def write_json(path: Path, content: object, durable: bool = True) -> None:
    """Write JSON atomically, for people to read."""
    write_text(path, json.dumps(content, indent=2) + "\n", durable)


def file_hash(path: Path) -> str:
    """sha256 of a file's contents, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
