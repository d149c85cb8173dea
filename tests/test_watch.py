"""A grid at a glance, with real finished cells."""

import io
import os
import pty
import shutil
import signal
import subprocess
from datetime import datetime

import pytest
from conftest import MODELS, ROOT
from grids import OLMP
from rich.console import Console

from experiments import watch as module
from experiments.grid import Grid
from experiments.plan import Cells, PlannedCell
from experiments.watch import Watch, watch
from harness import cli
from harness.claim import Claim
from harness.environment import environment
from harness.record import write_failure
from harness.records import CONFIG, EVALUATIONS, Failure

NOW = datetime(2026, 3, 4, 12, 0)


@pytest.fixture
def cells(finished, small) -> list[PlannedCell]:
    """A finished cell of each of two models, and two more of the first that have not begun."""
    names = {"OnePlusOne": "rnnsearch", "NCS": "transformer"}
    done = [
        PlannedCell(model, MODELS / f"{model}.pt", small, finished(name).config)
        for name, model in names.items()
    ]
    config = done[0].config
    more = [config.model_copy(update={"seed": seed}) for seed in (2, 3)]
    return done + [PlannedCell("rnnsearch", MODELS / "rnnsearch.pt", small, one) for one in more]


@pytest.fixture
def grid(cells, finished, tmp_path) -> Grid:
    found = Grid(tmp_path / "grid")
    found.write_plan(Cells("quick", cells, []))
    for cell, name in zip(cells, ("OnePlusOne", "NCS"), strict=False):
        shutil.copytree(finished(name).folder, found.cell_folder(cell))
    return found


def fail(grid: Grid, cell: PlannedCell) -> None:
    failure = Failure(
        reason="memory", message="too\nmuch", traceback="", seconds=1.0, environment=environment()
    )
    write_failure(grid.cell_folder(cell), cell.config, failure)


def shown(watching: Watch) -> list[str]:
    console = Console(width=140, file=io.StringIO(), highlight=False)
    console.print(watching.look().render(NOW))
    return console.file.getvalue().splitlines()


def test_what_is_done_running_failed_and_left(grid, cells, finished):
    fail(grid, cells[3])
    folder = grid.cell_folder(cells[2])
    folder.mkdir(parents=True)
    (folder / CONFIG).write_text(cells[2].config.model_dump_json())
    # the last is being written
    (folder / EVALUATIONS).write_text('{}\n{"stage":"search"}\n{"stage":"confirm"}\n{')
    with Claim(folder):
        lines = shown(Watch(grid))
    assert lines[0] == "quick: 2 done, 1 failed, 1 running of 4 cells"
    assert lines[2].startswith("about 0.0 hours more with 1 side by side: Wed 04 Mar 12:0")
    assert lines[3].split() == [
        "model",
        "search",
        "grouping",
        "tolerance",
        "done",
        "failed",
        "smallest",
        "median",
        "test",
        "drop",
    ]
    result = finished("OnePlusOne").result
    size, drop = f"{result.remaining:.1%}", f"{result.sets['test'].drop:.2f}"
    assert lines[4].split() == ["rnnsearch", "OnePlusOne", "gate", "15", "1/3", "1", size, size, drop]
    assert lines[5].split()[:5] == ["transformer", "NCS", "layer", "15", "1/1"]
    assert lines[6] == f"running: {cells[2].name}: 2 of 6 evaluations, 1 more to confirm what was found"
    assert lines[7] == f"failed: {cells[3].name}: memory: too much"
    assert len(lines) == 8


def test_what_waits_is_counted_and_nobody_running_is_said(grid, cells):
    shutil.rmtree(grid.cell_folder(cells[1]))
    lines = shown(Watch(grid))
    assert lines[0] == "quick: 1 done, 3 planned of 4 cells"
    assert lines[2] == "nothing is running: `olmp grid` goes on where it was"
    assert lines[-1] == "1 more of 2 groupings and rules have no result yet"


def test_sparsities_and_schedules_are_rows_of_their_own(grid, cells, finished):
    rule = cells[0].config.model_copy(update={"search": "lamp"})
    settings = [{"sparsity": 0.5}, {"sparsity": 0.75}, {"sparsity": 0.75, "schedule": "retrain"}]
    given = [
        PlannedCell("rnnsearch", cells[0].checkpoint, cells[0].corpus, rule.model_copy(update=one))
        for one in settings
    ]
    grid.write_plan(Cells("given", [cells[0], *given], []))
    for cell in given:
        fail(grid, cell)
    lines = shown(Watch(grid))
    assert lines[3].split()[:7] == [
        "model",
        "search",
        "grouping",
        "tolerance",
        "sparsity",
        "schedule",
        "done",
    ]
    assert [line.split() for line in lines[5:8]] == [
        ["rnnsearch", "lamp", "gate", "15", "0.5", "0/1", "1"],
        ["rnnsearch", "lamp", "gate", "15", "0.75", "0/1", "1"],
        ["rnnsearch", "lamp", "gate", "15", "0.75", "retrain", "0/1", "1"],
    ]
    assert lines[4].split()[3:5] == ["15", "1/1"]


def test_a_result_is_read_once(grid, cells, monkeypatch):
    watching = Watch(grid)
    before = shown(watching)
    monkeypatch.setattr(module, "read", lambda *arguments: pytest.fail("it was read again"))
    assert shown(watching) == before


def test_many_failures_are_counted(grid, cells):
    more = [
        PlannedCell(
            "rnnsearch", cells[0].checkpoint, cells[0].corpus, cells[0].config.model_copy(update={"seed": n})
        )
        for n in range(10, 17)
    ]
    grid.write_plan(Cells("quick", more, []))
    for cell in more:
        fail(grid, cell)
    lines = shown(Watch(grid))
    assert lines[2] == "all cells have ended"
    assert lines[-1] == "failed: 2 more, `olmp status` names them"
    assert sum(line.startswith("failed: rnnsearch/") for line in lines) == 5


def test_watching_ends_when_all_cells_have(grid, cells):
    views = watch(grid, seconds=0.01)
    assert not next(views).ended
    assert not next(views).ended
    for cell in cells[2:]:
        fail(grid, cell)
    assert next(views).ended
    assert next(views, None) is None


def test_where_nobody_looks_it_is_printed_once(grid, capsys):
    assert cli.main(["watch", str(grid.folder)]) == 0
    assert capsys.readouterr().out.startswith("quick: 2 done, 2 planned of 4 cells\n")
    assert cli.main(["watch", str(grid.folder), "--seconds", "0"]) == 2
    assert "--seconds 0.0 is not possible: give more than 0" in capsys.readouterr().err
    assert cli.main(["watch", str(grid.folder / "none")]) == 2


def test_in_a_terminal_it_goes_on_until_ctrl_c(grid, cells):
    ours, theirs = pty.openpty()
    command = [*OLMP, "watch", str(grid.folder), "--seconds", "0.2"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    read_until(ours, "2 done, 2 planned")
    fail(grid, cells[2])
    read_until(ours, "2 done, 1 failed, 1 planned")
    process.send_signal(signal.SIGINT)
    assert "Traceback" not in read_until(ours, None)
    assert process.wait(timeout=60) == 0
    os.close(ours)


def read_until(terminal: int, text: str | None) -> str:
    """What a terminal shows, up to a text or to its end."""
    seen = ""
    while text is None or text not in seen:
        try:
            seen += os.read(terminal, 4096).decode(errors="replace")
        except OSError:  # nobody has it open any more
            assert text is None, seen
            break
    return seen
