"""The checkpoints that fairseq-train leaves in a folder, and goes on from."""

import shutil
import zipfile
from pathlib import Path

from grouping.errors import StudyError
from harness.files import write_atomically

BEST, LAST = "checkpoint_best.pt", "checkpoint_last.pt"


def mend(folder: Path) -> None:
    """Leave no checkpoint in a folder that was cut off while it was written.

    fairseq renames what it has written, but where the last one is the best, it copies that, and a kill
    leaves a part of the copy. The copy is then made anew. Where there is no whole best one, both go, and
    training begins anew. Raises StudyError where one cannot be read at all.
    """
    best, last = folder / BEST, folder / LAST
    if _is_torn(best):
        best.unlink()
        last.unlink(missing_ok=True)
    elif _is_torn(last):
        if best.exists():
            write_atomically(last, lambda draft: shutil.copyfile(best, draft))
        else:
            last.unlink()


def _is_torn(checkpoint: Path) -> bool:
    """Whether a file is there and its end, the directory of the archive that torch writes, is not."""
    try:
        with checkpoint.open("rb") as file:
            return not zipfile.is_zipfile(file)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StudyError(f"{checkpoint} cannot be read: {error}") from error
