"""Optional trackers of experiments, off by default: callbacks that see every evaluation and the result.

A tracker is a class of its own in the entry points ``olmp.trackers`` or below; what it needs has to be
installed by its user.
"""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from grouping import Registry, StudyError
from harness.configuration import CellConfig
from harness.records import Evaluation, Result


class Tracker(Protocol):
    """What one cell tells; made when the cell begins."""

    def evaluated(self, evaluation: Evaluation) -> None: ...
    def finished(self, result: Result) -> None: ...
    def close(self) -> None: ...


class TrackerKind(Protocol):
    def __call__(self, name: str, config: CellConfig, folder: Path) -> Tracker: ...


trackers: Registry[TrackerKind] = Registry("tracker", "olmp.trackers")


def _package(name: str, tracker: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise StudyError(f"tracker {tracker!r} needs a package that is not installed ({error})") from None


def _measures(evaluation: Evaluation) -> dict[str, float]:
    found = {"size": evaluation.size, "score": evaluation.score, "drop": evaluation.drop}
    found |= {"bleu": evaluation.bleu, "tokens": float(evaluation.tokens)}
    return {f"{evaluation.stage}/{key}": value for key, value in found.items() if value is not None}


def _outcome(result: Result) -> dict[str, float]:
    found = {"remaining": result.remaining, "backed_off": float(result.backed_off)}
    return found | {f"{name}_drop": found_set.drop for name, found_set in result.sets.items()}


@trackers.register("tensorboard")
class TensorBoard:
    """Curves below ``tensorboard/`` in the folder of the grid."""

    package = "torch.utils.tensorboard"

    def __init__(self, name: str, config: CellConfig, folder: Path):
        writer = _package(self.package, "tensorboard").SummaryWriter
        self._writer = writer(str(folder / "tensorboard" / name))
        self._writer.add_text("configuration", config.model_dump_json())

    def evaluated(self, evaluation: Evaluation) -> None:
        for key, value in _measures(evaluation).items():
            self._writer.add_scalar(key, value, evaluation.index)

    def finished(self, result: Result) -> None:
        for key, value in _outcome(result).items():
            self._writer.add_scalar(f"result/{key}", value)

    def close(self) -> None:
        self._writer.close()


@trackers.register("mlflow")
class MLflow:
    """A run in the experiment named by the grid's folder, where MLflow's own settings say."""

    package = "mlflow"

    def __init__(self, name: str, config: CellConfig, folder: Path):
        mlflow = _package(self.package, "mlflow")
        self._client = mlflow.MlflowClient()
        found = self._client.get_experiment_by_name(folder.name)
        experiment = found.experiment_id if found else self._client.create_experiment(folder.name)
        self._run = self._client.create_run(experiment, run_name=name).info.run_id
        for key, value in config.model_dump().items():
            self._client.log_param(self._run, key, value)

    def evaluated(self, evaluation: Evaluation) -> None:
        for key, value in _measures(evaluation).items():
            self._client.log_metric(self._run, key, value, step=evaluation.index)

    def finished(self, result: Result) -> None:
        for key, value in _outcome(result).items():
            self._client.log_metric(self._run, f"result/{key}", value)

    def close(self) -> None:
        self._client.set_terminated(self._run)


@trackers.register("wandb")
class WeightsAndBiases:
    """A run in the project named by the grid's folder."""

    package = "wandb"

    def __init__(self, name: str, config: CellConfig, folder: Path):
        wandb = _package(self.package, "wandb")
        self._run = wandb.init(
            project=folder.name, name=name, config=config.model_dump(), dir=folder, reinit="create_new"
        )

    def evaluated(self, evaluation: Evaluation) -> None:
        self._run.log(_measures(evaluation) | {"evaluation": evaluation.index})

    def finished(self, result: Result) -> None:
        self._run.summary.update(_outcome(result))

    def close(self) -> None:
        self._run.finish()


class Tracking:
    """All trackers of one cell. What goes wrong with one of them is said once and fails no cell."""

    def __init__(self, used: Sequence[Tracker]):
        self._used = list(used)

    def evaluated(self, evaluation: Evaluation) -> None:
        self._tell("evaluated", evaluation)

    def finished(self, result: Result) -> None:
        self._tell("finished", result)

    def _tell(self, what: str, about: Evaluation | Result) -> None:
        for tracker in list(self._used):
            try:
                getattr(tracker, what)(about)
            except Exception as error:
                self._used.remove(tracker)
                print(f"{type(tracker).__name__} is left out from here on: {error}", file=sys.stderr)


def check_trackers(names: Sequence[str]) -> None:
    """Raise StudyError for a tracker that does not exist or whose package is missing."""
    for name in names:
        package = getattr(trackers.get(name), "package", None)
        if package is not None:
            _package(package, name)


@contextmanager
def tracking(names: Sequence[str], cell: str, config: CellConfig, folder: Path) -> Iterator[Tracking]:
    """The trackers of these names while a cell runs. Raises StudyError for one that cannot be used."""
    with ExitStack() as stack:
        used = []
        for name in names:
            tracker = trackers.get(name)(cell, config, folder)
            used.append(stack.enter_context(contextlib.closing(tracker)))
        yield Tracking(used)
