"""Optional trackers: they see what a cell evaluates and finds, and are needed only where asked for."""

import sys
from pathlib import Path

import pytest
from conftest import read_evaluations

from experiments.executors import Options, run_debug
from experiments.grid import Grid
from experiments.plan import Cells, PlannedCell
from experiments.trackers import trackers
from grouping.errors import StudyError
from harness.configuration import CellConfig
from harness.records import Evaluation, Result


class Notes:
    """A tracker of one's own."""

    taken: list = []

    def __init__(self, name: str, config: CellConfig, folder: Path):
        self.taken.append((name, config, folder))

    def evaluated(self, evaluation: Evaluation) -> None:
        self.taken.append(evaluation)

    def finished(self, result: Result) -> None:
        self.taken.append(result)

    def close(self) -> None:
        self.taken.append("closed")


@pytest.fixture
def cell(planned) -> PlannedCell:
    (found,) = planned({"grouping": "component"})
    return found


def run(cell: PlannedCell, folder: Path, tracker: str) -> Grid:
    grid = Grid(folder)
    grid.write_plan(Cells("", [cell], []))
    run_debug(grid, [cell], Options(trackers=(tracker,)))
    return grid


def test_a_tracker_sees_everything_once(cell, tmp_path):
    Notes.taken = []
    grid = run(cell, tmp_path, "test_trackers:Notes")
    started, *evaluations, result, closed = sys.modules["test_trackers"].Notes.taken
    assert started == (cell.name, cell.config, tmp_path)
    assert evaluations == read_evaluations(grid.cell_folder(cell))
    assert isinstance(result, Result)
    assert closed == "closed"


def test_known_trackers_and_one_whose_package_is_missing(cell, tmp_path, monkeypatch):
    assert trackers.names() == ["mlflow", "tensorboard", "wandb"]
    packages = {"mlflow": "mlflow", "wandb": "wandb", "tensorboard": "torch.utils.tensorboard"}
    for name, package in packages.items():
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(StudyError, match=f"tracker '{name}' needs a package that is not installed"):
            trackers.get(name)(cell.name, cell.config, tmp_path)


def test_tensorboard_gets_curves(cell, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    grid = run(cell, tmp_path, "tensorboard")
    events = EventAccumulator(str(tmp_path / "tensorboard" / cell.name))
    events.Reload()
    sizes = [event.value for event in events.Scalars("search/size")]
    expected = [e.size for e in read_evaluations(grid.cell_folder(cell)) if e.stage == "search"]
    assert sizes == pytest.approx(expected)
    assert events.Scalars("result/remaining")


def test_mlflow_gets_metrics(cell, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    run(cell, tmp_path / "grid", "mlflow")
    client = mlflow.MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("grid").experiment_id])
    assert found.data.params["grouping"] == "component"
    assert 0 < found.data.metrics["result/remaining"] < 1


def test_weights_and_biases_get_metrics(cell, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run(cell, tmp_path, "wandb")
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
