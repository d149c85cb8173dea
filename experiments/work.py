"""One cell of a grid in this process: run it, or say why it cannot be run."""

import errno
import functools
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from experiments.grid import Grid
from experiments.plan import PlannedCell
from grouping import StudyError
from harness.claim import Held, Lost
from harness.record import write_failure
from harness.records import Evaluation, Failure

if TYPE_CHECKING:
    from harness.cell import Study

#: what keeps any cell from being written, so that going on with the next one is no use
NO_PLACE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EIO, errno.ESTALE),
}


class Outcome(NamedTuple):
    """What came of a cell.

    ``busy``: somebody else holds it. ``stop``: nothing can be written there, so no cell can be run.
    """

    kind: Literal["done", "failed", "busy", "stop"]
    message: str = ""


@dataclass(frozen=True)
class Work:
    """How a grid's cells are run: in which folder, whether checkpoints may run code, and who looks on.

    ``keep_checkpoints``: pruned models are kept as checkpoints beside their masks.
    """

    grid: Grid
    trust: bool = False
    trackers: tuple[str, ...] = ()
    keep_checkpoints: bool = False

    def __call__(self, cell: PlannedCell, notify: Callable[[Evaluation], None]) -> Outcome:
        """Run a cell; a failure is recorded in its folder."""
        started = time.monotonic()
        try:
            self.run(cell, notify)
        except (Held, Lost) as error:
            return Outcome("busy", str(error))
        except Exception as error:
            if no_place(error):
                return Outcome("stop", str(error))
            said = str(error) if isinstance(error, StudyError) else f"{type(error).__name__}: {error}"
            reason: Literal["memory", "error"] = "memory" if isinstance(error, MemoryError) else "error"
            return self.failed(cell, reason, said, time.monotonic() - started, traceback.format_exc())
        return Outcome("done")

    def run(self, cell: PlannedCell, notify: Callable[[Evaluation], None]) -> None:
        """Run a cell and let every error through."""
        from experiments.trackers import tracking
        from harness.cell import run_cell

        study = study_of(cell, self.trust, self.grid.dense_folder)
        folder = self.grid.cell_folder(cell)
        with tracking(self.trackers, cell.name, cell.config, self.grid.folder) as tracked:

            def noted(evaluation: Evaluation) -> None:
                tracked.evaluated(evaluation)
                notify(evaluation)

            result = run_cell(
                study, cell.config, folder, noted, workers=1, keep_checkpoint=self.keep_checkpoints
            )
            tracked.finished(result)

    def failed(
        self,
        cell: PlannedCell,
        reason: Literal["error", "killed", "time", "memory"],
        message: str,
        seconds: float,
        trace: str = "",
    ) -> Outcome:
        """Record that a cell failed."""
        from harness.environment import environment

        failure = Failure(
            reason=reason,
            message=message,
            traceback=trace,
            seconds=seconds,
            environment=environment(cell.config.uses_gpu),
        )
        try:
            write_failure(self.grid.cell_folder(cell), cell.config, failure)
        except (Held, Lost) as error:
            return Outcome("busy", str(error))
        except StudyError as error:
            return Outcome("stop", str(error))
        return Outcome("failed", message)


def no_place(error: BaseException | None) -> bool:
    """Whether an error comes from a place where nothing can be written."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_PLACE:
            return True
        error = error.__cause__ or error.__context__
    return False


def study_of(cell: PlannedCell, trust: bool, shared: Path | None) -> "Study":
    """The model and the corpus of a cell, dense translations shared through a folder if there is one.

    Raises StudyError if they are no longer what they were when the cell was planned.
    """
    study = _study(cell.checkpoint, cell.corpus, cell.config.device, trust, shared)
    for path, now, then in (
        (cell.checkpoint, study.model.content_hash, cell.config.checkpoint_sha256),
        (cell.corpus, study.corpus_hash, cell.config.corpus_sha256),
    ):
        if now != then:
            raise StudyError(f"{path} has changed since the cell was planned: put it back, or plan anew")
    return study


@functools.lru_cache(maxsize=1)
def _study(checkpoint: Path, corpus: Path, device: str, trust: bool, shared: Path | None) -> "Study":
    from harness.cell import Study

    return Study.open(checkpoint, corpus, trust, device, shared)
