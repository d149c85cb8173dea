"""A progress bar over the evaluations of a cell."""

from types import TracebackType

from tqdm import tqdm

from harness.configuration import CellConfig
from harness.records import Evaluation


class SearchProgress:
    """Called with every evaluation; shows how many are done and the smallest feasible size so far."""

    def __init__(self, config: CellConfig, quiet: bool, position: int | None = None, label: str = ""):
        self._bar = tqdm(
            total=1 if config.given else config.evaluations,
            disable=quiet,
            position=position,
            unit="eval",
            desc=label or f"{config.grouping} {config.search}",
            dynamic_ncols=True,
        )
        self._best = 1.0

    def __call__(self, evaluation: Evaluation) -> None:
        if evaluation.stage in ("exact", "confirm"):
            self._bar.set_postfix_str(f"confirming {evaluation.size:.1%} remaining")
            return
        if evaluation.feasible:
            self._best = min(self._best, evaluation.size)
        self._bar.set_postfix_str(f"smallest feasible {self._best:.1%}")
        self._bar.update()

    def __enter__(self) -> "SearchProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
