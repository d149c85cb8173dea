"""Grids on this machine: run, resumed, limited and collected, with real cells that take no time."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jsonschema
import pandas as pd
import pytest
from conftest import ROOT, start, wait_until
from grids import OLMP, assert_same, outcome, session, write_plan

from experiments.collect import collect
from experiments.executors import Options, executors, run_debug
from experiments.grid import Grid, cell_folders
from experiments.plan import Cells
from experiments.schema import EVALUATIONS, RUNS, columns
from grouping.errors import StudyError
from harness import cli
from harness.claim import Claim
from harness.record import read
from harness.records import Failure


def test_the_number_of_jobs_and_the_executor_do_not_change_the_results(planned, tmp_path):
    cells = planned({"grouping": ["component", "layer"], "model": ["rnnsearch", "transformer"]})
    one, two = (start(tmp_path / str(jobs), cells, jobs=jobs) for jobs in (1, 2))
    assert_same(outcome(one.folder), outcome(two.folder))
    here = Grid(tmp_path / "debug")
    here.write_plan(Cells("quick", cells, []))
    run_debug(here, cells, Options())
    assert_same(outcome(one.folder), outcome(here.folder))
    assert [one.state(cell) for cell in cells] == ["done"] * 4
    folder = one.cell_folder(cells[0])
    assert not (folder / "pruned.pt").exists()
    assert not [path for path in folder.iterdir() if path.name.startswith((".", "claim"))]


def test_a_finished_cell_is_never_run_again(planned, tmp_path, capsys):
    cells = planned({"grouping": ["component", "layer"]})
    grid = start(tmp_path, cells[:1])
    before = {path: path.stat().st_mtime_ns for path in grid.cell_folder(cells[0]).iterdir()}
    capsys.readouterr()
    start(tmp_path, cells)
    assert capsys.readouterr().out.startswith(f"[2/2] {cells[1].name}: ")
    assert {path: path.stat().st_mtime_ns for path in grid.cell_folder(cells[0]).iterdir()} == before


def test_cells_share_the_dense_translations(planned, tmp_path):
    cells = planned({"grouping": ["component", "layer"]})
    grid = start(tmp_path, cells)
    assert len(list(grid.dense_folder.iterdir())) == 3  # search, confirm and test, each once
    (found,) = (path for path in grid.dense_folder.iterdir() if path.name.startswith("test"))
    dense = json.loads(found.read_text())["hypotheses"]
    for cell in cells:
        lines = (grid.cell_folder(cell) / "test.dense.txt").read_text().splitlines()
        assert lines == dense


def test_a_failed_cell_is_recorded_and_does_not_stop_the_others(planned, tmp_path, capsys):
    """The small corpus has 20 search sentences, which only the cell itself finds out."""
    cells = planned({"grouping": ["component", "layer"], "search_sentences": [10, 99]})
    with pytest.raises(StudyError, match="2 of 4 cells failed: `olmp status .* --retry-failed tries them"):
        start(tmp_path, cells)
    assert capsys.readouterr().out.count("FAILED: search-sentences 99 is not possible") == 2
    grid = Grid(tmp_path)
    assert [grid.state(cell) for cell in cells] == ["done", "failed", "done", "failed"]
    failure = read(grid.cell_folder(cells[1]) / "failure.json", Failure)
    assert failure.reason == "error"
    assert failure.traceback.startswith("Traceback (most recent call last):")
    runs = collect(grid).runs.set_index("cell")
    assert list(runs["status"].value_counts()[["done", "failed"]]) == [2, 2]
    assert runs.loc[cells[1].name, "failure.message"] == failure.message
    assert {c for c in runs if c.startswith("failure.")} <= set(columns()[RUNS])
    assert runs.loc[cells[1].name, "config.search_sentences"] == 99
    written = (grid.cell_folder(cells[1]) / "failure.json").stat().st_mtime_ns
    with pytest.raises(StudyError, match="2 of 4 cells failed"):
        start(tmp_path, cells)
    # not tried again by themselves
    assert (grid.cell_folder(cells[1]) / "failure.json").stat().st_mtime_ns == written
    assert cli.main(["status", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert f"failed: {cells[1].name}: error: search-sentences 99 is not possible" in shown
    assert "quick: 2 done, 2 failed\n" in shown
    with pytest.raises(StudyError, match="2 of 4 cells failed"):
        start(tmp_path, cells, retry_failed=True)
    assert cli.main(["clean-failed", str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith("2 failures forgotten: `olmp grid` runs these cells again\n")
    assert [grid.state(cell) for cell in cells] == ["done", "planned", "done", "planned"]
    (grid.cell_folder(cells[1]) / "evaluations.jsonl").touch()
    (grid.cell_folder(cells[3]) / "retraining-1").mkdir()  # gradual trains before its first evaluation
    assert {grid.state(cells[1]), grid.state(cells[3])} == {"interrupted"}


def test_a_cell_beyond_a_limit_has_failed_and_can_be_tried_again(planned, tmp_path):
    cells = planned({"grouping": "component"})
    grid = Grid(tmp_path)
    limits = {"time": {"seconds": 0.001}, "memory": {"memory_gb": 0.001}}
    for reason, limit in limits.items():
        with pytest.raises(StudyError, match="1 of 1 cells failed"):
            start(tmp_path, cells, retry_failed=True, **limit)
        failure = read(grid.cell_folder(cells[0]) / "failure.json", Failure)
        assert failure.reason == reason
        assert "limit of 0.001" in failure.message
    start(tmp_path, cells, retry_failed=True)
    assert grid.state(cells[0]) == "done"
    assert not (grid.cell_folder(cells[0]) / "failure.json").exists()


def deadly(table):
    """A grouping whose cells kill their process; planning is not hurt."""
    if multiprocessing.parent_process() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return ["one"] * len(table)


def test_a_cell_that_kills_its_process_is_given_up_the_third_time(planned, tmp_path):
    cells = planned({"grouping": ["test_grid:deadly", "component"]})
    with pytest.raises(StudyError, match="1 of 2 cells failed"):
        start(tmp_path, cells)
    grid = Grid(tmp_path)
    assert [grid.state(cell) for cell in cells] == ["failed", "done"]
    failure = read(grid.cell_folder(cells[0]) / "failure.json", Failure)
    assert failure.reason == "killed"
    assert "died 3 times, at last with exit code -9" in failure.message


def endless(table):
    """A grouping whose cells say that they have begun, and then say nothing for long."""
    if multiprocessing.parent_process() is not None:
        Path(os.environ["BEGUN"]).touch()
        time.sleep(300)
    return ["one"] * len(table)


def test_workers_end_with_a_killed_runner_in_the_middle_of_anything(small, tmp_path):
    tables = '[[cells]]\nmodel = "rnnsearch"\ngrouping = "test_grid:endless"\nevaluations = 2\n'
    plan, begun = write_plan(tmp_path / "plan.toml", small, tables), tmp_path / "begun"
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "BEGUN": str(begun)}
    command = [*OLMP, "grid", str(plan), "--out", str(tmp_path / "grid"), "--jobs", "1"]
    runner = subprocess.Popen(command, start_new_session=True, env=os.environ | paths)
    wait_until(begun.exists)
    assert len(session(runner.pid)) >= 3
    runner.kill()
    runner.wait()
    wait_until(lambda: not session(runner.pid))


def test_a_cell_that_another_process_holds_is_waited_for(planned, tmp_path, capfd, monkeypatch):
    from threading import Timer

    monkeypatch.setattr("experiments.executors.local.LOOK_AT_HELD", 0.1)
    cells = planned({"grouping": ["component", "layer"]})
    folder = Grid(tmp_path).cell_folder(cells[0])
    folder.mkdir(parents=True)
    held = Claim(folder)
    Timer(3, held.release).start()
    grid = start(tmp_path, cells)
    assert [grid.state(cell) for cell in cells] == ["done", "done"]
    out, err = capfd.readouterr()
    assert f"waiting for {cells[0].name}: another process runs it\n" in err
    assert out.startswith(f"[1/2] {cells[1].name}")


def test_changed_inputs_are_noticed(planned, small, tmp_path):
    corpus = tmp_path / "corpus"
    shutil.copytree(small, corpus)
    cells = [replace(cell, corpus=corpus) for cell in planned({"grouping": "component"})]
    text = corpus / "text" / "test.de"
    text.write_text(text.read_text().replace("e", "E", 1))
    with pytest.raises(StudyError, match="1 of 1 cells failed"):
        start(tmp_path / "grid", cells)
    failure = read(Grid(tmp_path / "grid").cell_folder(cells[0]) / "failure.json", Failure)
    assert failure.message == f"{corpus} has changed since the cell was planned: put it back, or plan anew"


def test_collected_tables_hold_what_the_records_say(done, capsys):
    grid, cells = done
    assert cli.main(["collect", str(grid.folder)]) == 0
    runs, evaluations = (pd.read_parquet(grid.folder / name) for name in (RUNS, EVALUATIONS))
    assert list(runs["cell"]) == sorted(cell.name for cell in cells)
    assert len(evaluations) == sum(runs["evaluations"]) + sum(evaluations["stage"] == "confirm")
    for cell in cells:
        row = runs.set_index("cell").loc[cell.name]
        result = json.loads((grid.cell_folder(cell) / "result.json").read_text())
        assert row["remaining"] == result["remaining"]
        assert json.loads(row["sets.test.interval"]) == result["sets"]["test"]["interval"]
        assert row["sets.confirm.bleu_signature"] == result["sets"]["confirm"]["bleu_signature"]
        assert json.loads(row["environment.packages"])["torch"]
        assert row["config.grouping"] == cell.config.grouping
        lines = (grid.cell_folder(cell) / "evaluations.jsonl").read_text().splitlines()
        mine = evaluations[evaluations["cell"] == cell.name]
        assert [knobs.tolist() for knobs in mine["knobs"]] == [json.loads(x)["knobs"] for x in lines]
    schema = json.loads((grid.folder / "schema.json").read_text())
    for name in ("config.json", "result.json"):
        jsonschema.validate(json.loads((grid.cell_folder(cells[0]) / name).read_text()), schema[name])
    assert set(runs) == {c for c in schema["tables"][RUNS] if not c.startswith("failure.")}
    assert list(evaluations) == list(schema["tables"][EVALUATIONS])


def test_foreign_and_half_written_folders_are_left_out_and_said(done, capsys):
    grid, cells = done
    before = collect(grid)
    (grid.cells_folder / "notes").mkdir()
    torn = grid.cells_folder / "torn"
    torn.mkdir()
    (torn / "config.json").write_text((grid.cell_folder(cells[0]) / "config.json").read_text())
    (torn / "result.json").write_text('{"schema_version": 3')
    running = grid.cells_folder / "running"
    running.mkdir()
    (running / "config.json").write_text("{}")
    after = collect(grid)
    pd.testing.assert_frame_equal(after.runs, before.runs)
    assert list(after.unreadable) == ["torn"]
    assert cli.main(["collect", str(grid.folder)]) == 0
    assert "left out: torn: " in capsys.readouterr().err


def test_known_executors():
    assert executors.names() == ["debug", "local", "slurm"]
    assert cell_folders(Path("/nonexistent")) == []


def test_ctrl_c_while_workers_are_prepared_is_the_runners_to_answer():
    command = [sys.executable, "-c", "import experiments.preload"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        wait_until(lambda: "libtorch" in maps.read_text())  # in the middle of the imports
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 0
    assert "KeyboardInterrupt" not in said
