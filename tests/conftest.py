"""A small corpus of real text, the shipped models on it, and cells that several test files look at."""

import fcntl
import json
import os
import resource
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from experiments.executors import Options, run_local
from experiments.grid import Grid
from experiments.inputs import Inputs
from experiments.plan import Cells, Plan, PlannedCell, cells_of
from harness.cell import Study, run_cell
from harness.configuration import CellConfig
from harness.corpus.corpus import Corpus
from harness.corpus.prepare import Pieces, prepare
from harness.model import import_fairseq
from harness.records import Evaluation, Result

import_fairseq()  # the quick way, before a test module imports it whole

ROOT = Path(__file__).parents[1]
# where tests are started in the background, Ctrl-C is ignored, and so it would be by their children
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
MODELS = ROOT / "models" / "homeassistant.en-de"
SENTENCES = {"train": 12, "valid": 8, "search": 20, "confirm": 12, "test": 12}
LONGEST = 60  # characters of a source sentence
#: few resamples and two beams are enough to see what a cell does; the wide tolerance makes sure
#: that something is pruned, whatever the shipped weights are
QUICK = {"resamples": 100, "final_beam": 2, "tolerance": 15.0, "criterion": "point"}
#: a cell of a second or less
QUICK_CELL = {
    "model": "rnnsearch",
    "search": "OnePlusOne",
    "start": "dense",
    "sigma": 0.1,
    "tolerance": 15.0,
    "criterion": "point",
    "resamples": 100,
    "final_beam": 1,
    "evaluations": 4,
}
CELLS = {
    "NCS": ("transformer", {"grouping": "layer", "search": "NCS", "evaluations": 18}),
    "OnePlusOne": (
        "rnnsearch",
        {"grouping": "gate", "search": "OnePlusOne", "start": "dense", "sigma": 0.1, "evaluations": 6},
    ),
    "bfloat16": (
        "transformer",
        {"grouping": "attention-role", "search": "CMA", "precision": "bfloat16", "evaluations": 12},
    ),
    "rule": ("rnnsearch", {"grouping": "matrix", "search": "lamp", "operator": "magnitude-threshold"}),
}


class Finished(NamedTuple):
    """A cell that has run."""

    study: Study
    config: CellConfig
    folder: Path
    result: Result

    def evaluations(self) -> list[Evaluation]:
        return read_evaluations(self.folder)


def read_evaluations(folder: Path) -> list[Evaluation]:
    """All lines of a cell's record."""
    lines = (folder / "evaluations.jsonl").read_text(encoding="utf-8").splitlines()
    return [Evaluation.model_validate_json(line) for line in lines]


def mostly_long(cases: Iterable[Any], quick: Collection[Any]) -> list[Any]:
    """Values of one parameter, much alike: `make test` has the quick ones, `make test-long` the others."""
    return [case if case in quick else pytest.param(case, marks=pytest.mark.long) for case in cases]


def wait_until(condition: Callable[[], bool], seconds: float = 60, between: float = 0.1) -> None:
    """Fail if something does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happens"
        time.sleep(between)


def is_alive(process: int) -> bool:
    """Whether a process runs: a dead one may wait for whoever asks how it ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def prepare_small(folder: Path, sentences: Mapping[str, int] = SENTENCES, longest: int = LONGEST) -> None:
    """The first short sentences of each split of the default corpus, in the pieces of the shipped models."""
    whole = Corpus.open(ROOT / "data" / "homeassistant.en-de")
    text = {}
    for split, size in sentences.items():
        pairs = zip(whole.sources(split), whole.references(split), strict=True)
        text[split] = [pair for pair in pairs if len(pair[0]) <= longest][:size]
    prepare(text, folder, "en", "de", pieces=Pieces(MODELS / "bpe.model", MODELS / "dict.txt"))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """While it lasts, the kernel refuses to let any file of this process grow beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.hookimpl(trylast=True)  # of those that are run
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that wait for SLURM come first, while others compute; coverage measures one case of each."""
    items.sort(key=lambda item: item.get_closest_marker("slurm") is None)
    seen: set[str] = set()
    for item in items:
        test = item.nodeid.partition("[")[0]
        if test in seen:
            item.add_marker("no_cover")
        seen.add(test)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """As the command line does it; sums of floats may differ with other numbers of threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A folder that the processes of one test run have in common."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """What two processes want to make is made by one of them while the other waits."""
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def small(shared) -> Path:
    """The corpus of ``prepare_small``, made once for all processes of a test run."""
    folder = shared / "small.en-de"
    with one_at_a_time(folder):
        if not folder.exists():
            prepare_small(folder)
    return folder


@pytest.fixture(scope="session")
def studies(small) -> Callable[[str], Study]:
    """The study of a shipped model on the small corpus, by the model's name."""
    return cache(lambda model: Study.open(MODELS / f"{model}.pt", small))


@pytest.fixture(scope="session")
def finished(studies, shared) -> Callable[[str], Finished]:
    """One of ``CELLS`` in a folder that nobody may change, by its name."""

    @cache
    def cell(name: str) -> Finished:
        model, settings = CELLS[name]
        study = studies(model)
        config = study.config(**QUICK | settings)
        folder = shared / f"cell-{name}"
        with one_at_a_time(folder):
            result = run_cell(study, config, folder)
        return Finished(study, config, folder, result)

    return cell


def start(folder: Path, cells: list[PlannedCell], **options) -> Grid:
    """Run cells as `olmp grid` does."""
    grid = Grid(folder)
    grid.write_plan(Cells("quick", cells, []))
    run_local(grid, cells, Options(**{"jobs": 1} | options))
    return grid


@pytest.fixture
def planned(small, shared):
    """A plan of quick cells on the small corpus."""

    def made(*tables: dict) -> list[PlannedCell]:
        plan = Plan(title="quick", corpus=small, models=MODELS, defaults=QUICK_CELL, cells=list(tables))
        return cells_of(plan, Inputs(shared / "checkpoints-grid.json")).cells

    return made


@pytest.fixture
def toml(small, tmp_path):
    """The plan of ``planned`` as a file for the command line."""

    def made(*tables: str) -> Path:
        path = tmp_path / "quick.toml"
        head = [f"{key} = {json.dumps(value)}" for key, value in QUICK_CELL.items()]
        text = f'title = "quick"\ncorpus = "{small}"\nmodels = "{MODELS}"\n[defaults]\n' + "\n".join(head)
        path.write_text(text + "".join(f"\n[[cells]]\n{table}" for table in tables))
        return path

    return made


@pytest.fixture
def done(planned, tmp_path) -> tuple[Grid, list[PlannedCell]]:
    """A grid of two finished cells, and these."""
    cells = planned({"grouping": ["component", "layer"]})
    return start(tmp_path / "grid", cells), cells
