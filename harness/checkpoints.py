"""The checkpoints that fairseq-train leaves in a folder, and goes on from."""

import shutil
from pathlib import Path

from grouping.errors import StudyError
from harness.files import write_atomically
from harness.model import read_checkpoint

BEST, LAST = "checkpoint_best.pt", "checkpoint_last.pt"


def mend(folder: Path) -> None:
    """Leave no checkpoint in a folder that was cut off while it was written.

    fairseq renames what it has written, but where the last one is the best, it copies that, and a kill
    leaves a part of the copy. The copy is then made anew. Where there is no whole best one, both go, and
    training begins anew.
    """
    best, last = folder / BEST, folder / LAST
    if _is_damaged(best):
        best.unlink()
        last.unlink(missing_ok=True)
    elif _is_damaged(last):
        if best.exists():
            write_atomically(last, lambda draft: shutil.copyfile(best, draft))
        else:
            last.unlink()


def _is_damaged(checkpoint: Path) -> bool:
    if not checkpoint.exists():
        return False
    try:
        read_checkpoint(checkpoint)
    except StudyError:
        return True
    return False
