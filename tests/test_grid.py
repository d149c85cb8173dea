"""Grids on this machine: run, resumed, limited, collected and verified, with real cells that take no time."""

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
import numpy as np
import pandas as pd
import pytest
from conftest import MODELS, ROOT, wait_until
from grids import OLMP, session, write_plan

from experiments import inputs as inputs_module
from experiments.collect import collect
from experiments.cost import TRAINING_RATE, estimate
from experiments.executors import Options, executors, local, run_debug, run_local
from experiments.grid import Grid, cell_folders
from experiments.inputs import Inputs
from experiments.plan import Cells, Plan, PlannedCell, cells_of
from experiments.schema import EVALUATIONS, RUNS, columns
from experiments.verify import verify
from grouping.errors import StudyError
from harness import cli
from harness.claim import Claim
from harness.record import read
from harness.records import Failure
from harness.workers import cores

#: what differs between two runs of the same cells
TIMES = ["seconds", "other_seconds", "files"]
QUICK = {
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


@pytest.fixture
def planned(small, shared):
    """A plan of quick cells on the small corpus."""

    def made(*tables: dict) -> list[PlannedCell]:
        plan = Plan(title="quick", corpus=small, models=MODELS, defaults=QUICK, cells=list(tables))
        return cells_of(plan, Inputs(shared / "checkpoints-grid.json")).cells

    return made


@pytest.fixture
def toml(small, tmp_path):
    """The same as a file for the command line."""

    def made(*tables: str) -> Path:
        path = tmp_path / "quick.toml"
        head = [f"{key} = {json.dumps(value)}" for key, value in QUICK.items()]
        text = f'title = "quick"\ncorpus = "{small}"\nmodels = "{MODELS}"\n[defaults]\n' + "\n".join(head)
        path.write_text(text + "".join(f"\n[[cells]]\n{table}" for table in tables))
        return path

    return made


def start(folder: Path, cells: list[PlannedCell], **options) -> Grid:
    """Run cells as `olmp grid` does."""
    grid = Grid(folder)
    grid.write_plan(Cells("quick", cells, []))
    run_local(grid, cells, Options(**{"jobs": 1} | options))
    return grid


def outcome(grid: Grid) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All that was found, without what differs between two runs."""
    found = collect(grid)
    assert found.unreadable == {}
    runs = found.runs[[c for c in found.runs if c not in TIMES and not c.startswith("environment.")]]
    return runs, found.evaluations.drop(columns="seconds")


def same(one: Grid, other: Grid) -> None:
    for mine, theirs in zip(outcome(one), outcome(other), strict=True):
        pd.testing.assert_frame_equal(mine, theirs)


def test_the_number_of_jobs_and_the_executor_do_not_change_the_results(planned, tmp_path):
    cells = planned({"grouping": ["component", "layer"], "model": ["rnnsearch", "transformer"]})
    one, two = (start(tmp_path / str(jobs), cells, jobs=jobs) for jobs in (1, 2))
    same(one, two)
    here = Grid(tmp_path / "debug")
    here.write_plan(Cells("quick", cells, []))
    run_debug(here, cells, Options())
    same(one, here)
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


@pytest.fixture
def done(planned, tmp_path) -> tuple[Grid, list[PlannedCell]]:
    cells = planned({"grouping": ["component", "layer"]})
    return start(tmp_path / "grid", cells), cells


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


def test_a_sound_grid_verifies(done, capsys):
    grid, cells = done
    assert verify(grid, cells, sample=1, seed=1) == ({}, {})
    assert cli.main(["verify", str(grid.folder), "--sample", "2"]) == 0
    assert capsys.readouterr().out == "2 finished cells are complete; 2 evaluated again: the same outcome\n"


@pytest.mark.parametrize("name", ["masks.npz", "test.pruned.txt", "evaluations.jsonl", "confirm.dense.txt"])
def test_a_changed_or_missing_file_is_found(done, name):
    grid, cells = done
    path = grid.cell_folder(cells[0]) / name
    path.write_bytes(path.read_bytes() + b"\n")
    problems, _ = verify(grid, cells, sample=0, seed=1)
    assert f"{name} is not what it was when the cell ended" in problems[cells[0].name]
    path.unlink()
    assert f"{name} is missing" in verify(grid, cells, 0, 1)[0][cells[0].name]
    assert list(problems) == [cells[0].name]


def test_a_result_that_cannot_be_had_again_is_found(done, capsys):
    """A result that was written by hand, with checksums that fit."""
    grid, cells = done
    path = grid.cell_folder(cells[1]) / "result.json"
    result = json.loads(path.read_text())
    result["sets"]["test"]["bleu"] += 0.01
    result["knobs"] = (np.array(result["knobs"]) / 2).tolist()
    path.write_text(json.dumps(result))
    damaged, problems = verify(grid, cells, sample=2, seed=1)
    assert damaged == {}
    assert list(problems) == [cells[1].name]
    said = " ".join(problems[cells[1].name])
    assert "test: bleu was" in said
    assert "the mask of" in said
    assert cli.main(["verify", str(grid.folder), "--sample", "2"]) == 2
    assert "1 cells come out otherwise than before" in capsys.readouterr().err


def test_the_cost_is_that_of_finished_cells(done, planned):
    grid, cells = done
    more = cells + planned({"grouping": "single", "evaluations": 40})
    results = [json.loads((grid.cell_folder(c) / "result.json").read_text()) for c in cells]
    each = sum(result["seconds"] / 4 for result in results) / 2
    other = sum(result["other_seconds"] for result in results) / 2
    found = estimate(grid, more)
    assert found.measured == 2
    assert found.hours == found.longest == pytest.approx((40 * each + other) / 3600)
    assert found.elapsed(100) == found.hours
    given = {"grouping": "single", "search": "class-blind", "sparsity": 0.5}
    assert estimate(grid, planned(given)).hours == pytest.approx((each + other) / 3600)
    words = cells[0].corpus / "bin" / "train.en-de.de.bin"
    epoch = words.stat().st_size / 2 / TRAINING_RATE  # 2 bytes a word
    retrained = planned(given | {"schedule": "retrain", "epochs": 3})
    assert estimate(grid, retrained).hours == pytest.approx((each + other + 3 * epoch) / 3600)
    again = planned({"schedule": "iterative", "epochs": 3, "round_epochs": 2, "evaluations": 4})
    assert estimate(grid, again).hours == pytest.approx((2 * 4 * each + other + 3 * epoch) / 3600)
    assert estimate(Grid(grid.folder / "none"), more).measured == 0
    assert estimate(grid, cells).hours == 0


def test_a_corpus_that_was_never_for_training_has_a_cost(planned, small, tmp_path):
    """One made of a data-bin has the sets that are asked for alone."""
    corpus = tmp_path / "corpus"
    shutil.copytree(small, corpus)
    for path in (corpus / "bin").glob("train.*"):
        path.unlink()
    cells = [replace(cell, corpus=corpus) for cell in planned({"grouping": "component"})]
    assert estimate(Grid(tmp_path / "grid"), cells).hours > 0


def test_the_cost_of_training_is_apart_from_that_of_evaluations(done, planned):
    grid, cells = done
    before = [json.loads((grid.cell_folder(c) / "result.json").read_text()) for c in cells]
    each = sum(result["seconds"] / 4 for result in before) / 2
    other = sum(result["other_seconds"] for result in before) / 2
    trained = {"updates": 2, "words": 9, "seconds": 100.0, "valid_loss": [3.0, 2.0]}
    for cell, result in zip(cells, before, strict=True):
        again = result["rounds"][0] | {"round": 1, "retraining": trained}
        result |= {"rounds": [*result["rounds"], again], "seconds": result["seconds"] + 100.0}
        (grid.cell_folder(cell) / "result.json").write_text(json.dumps(result))
    # rounds of 2 and 3 epochs
    more = planned({"schedule": "iterative", "epochs": 5, "round_epochs": 2, "evaluations": 4, "seed": 9})
    assert estimate(grid, more).hours == pytest.approx((3 * 4 * each + other + 5 * 50) / 3600)
    # and, where BLEU does not come back, a search more
    loose = planned(
        {"schedule": "retrain", "epochs": 5, "round_tolerance": 50.0, "evaluations": 4, "seed": 9}
    )
    assert estimate(grid, loose).hours == pytest.approx((2 * 4 * each + other + 5 * 50) / 3600)
    dense = planned({"search": "dense", "schedule": "iterative", "epochs": 5, "round_epochs": 2})
    assert estimate(grid, dense).hours == pytest.approx((each + other + 5 * 50) / 3600)
    # one of a given size, whose single evaluation stands for all that was judged, says nothing of a search
    folder = grid.cell_folder(dense[0])
    folder.mkdir()
    (folder / "config.json").write_text(dense[0].config.model_dump_json())
    (folder / "result.json").write_text(
        json.dumps(result | {"seconds": 9100.0, "evaluations": 1, "tokens": 9})
    )
    assert estimate(grid, more).hours == pytest.approx((3 * 4 * each + other + 5 * 50) / 3600)


def test_the_commands_lead_from_plan_to_table(toml, tmp_path, capsys):
    path, out = str(toml('grouping = ["component", "layer"]')), tmp_path / "grid"
    assert cli.main(["plan", path, "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("  planned\n") == 2
    assert f"quick: 2 cells, 0 skipped, in {out}\n2 planned\nabout 0.00 cell-hours left (a guess" in shown
    assert not out.exists()
    (tmp_path / "mine").write_text("")
    assert cli.main(["grid", path, "--out", str(tmp_path / "mine"), "--jobs", "1"]) == 2
    assert capsys.readouterr().err.endswith("mine is a file, where a folder is wanted: name another\n")
    assert cli.main(["grid", path, "--out", str(out), "--jobs", "1"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("remaining, test") == 2
    end = f"all 2 cells of {path} are done in {out}: `olmp collect {out}`\n"
    assert shown.endswith(end)
    assert cli.main(["grid", path, "--out", str(out), "--jobs", "1"]) == 0
    assert capsys.readouterr().out == end
    assert cli.main(["plan", path, "--out", str(out)]) == 0
    assert capsys.readouterr().out.endswith("2 done\n")
    assert cli.main(["status", str(out), "--cells"]) == 0
    assert capsys.readouterr().out.count("done: rnnsearch/") == 2
    next((out / "cells").glob("*/layer-*/result.json")).unlink()
    assert cli.main(["plan", path, "--out", str(out)]) == 0
    assert "cell-hours left (as the finished one took)" in capsys.readouterr().out
    other = toml('grouping = ["component", "layer"]', 'model = "luong"\ngrouping = "layer"')
    assert cli.main(["plan", str(other), "--out", str(out)]) == 0
    said = "(as the finished one took, and a guess for 1 cells of which none is like these); a cell takes"
    assert said in capsys.readouterr().out


def test_a_part_of_a_plan_leaves_it_whole(toml, tmp_path, capsys):
    path, out = str(toml('grouping = ["component", "layer", "stage"]')), tmp_path / "grid"
    where = [path, "--out", str(out)]
    part = ["--only", "*/layer-*", "--only", "*/stage-*-seed1-*"]
    assert cli.main(["plan", *where, *part]) == 0
    shown = capsys.readouterr().out
    assert [line.partition("-")[0] for line in shown.splitlines()[:2]] == [
        "rnnsearch/layer",
        "rnnsearch/stage",
    ]
    assert f"quick: 2 of 3 cells, 0 skipped, in {out}\n2 planned\n" in shown
    for verb in ("plan", "grid"):
        assert cli.main([verb, *where, "--only", "layer*"]) == 2
        said = "--only layer*: no cell of the plan has such a name; names are like rnnsearch/component-"
        assert said in capsys.readouterr().err
    assert not out.exists()
    assert cli.main(["grid", *where, "--jobs", "1", *part[:2]]) == 0
    end = f"all 1 cells of {path} that --only names are done in {out}: `olmp collect {out}`\n"
    assert capsys.readouterr().out.endswith(end)
    assert cli.main(["status", str(out)]) == 0
    assert "1 done, 2 planned" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["plan", "grid"])
@pytest.mark.parametrize("name", ["notes.txt", "plan.json"])
def test_a_folder_with_something_else_is_left_alone(toml, tmp_path, capsys, verb, name):
    out = tmp_path / "docs"
    out.mkdir()
    (out / name).write_text('{"resources": []}')  # another program's plan
    assert cli.main([verb, str(toml('grouping = "layer"')), "--out", str(out)]) == 2
    remedy = "remove plan.json, or choose another --out" if name == "plan.json" else "choose another --out"
    said = f"{out} is no folder of a grid, and not empty (it has {name}): {remedy}"
    assert capsys.readouterr().err == f"olmp: error: {said}\n"
    assert [path.name for path in out.iterdir()] == [name]


def test_another_plan_in_a_folder_is_said_and_its_cells_stay(done, toml, capsys):
    grid, cells = done
    assert cli.main(["status", str(grid.folder)]) == 0
    assert "not in this plan" not in capsys.readouterr().out
    again = toml('grouping = ["component", "layer"]')
    assert cli.main(["grid", str(again), "--out", str(grid.folder), "--jobs", "1"]) == 0
    assert capsys.readouterr().err == ""
    other = toml('grouping = "component"')
    other.write_text(other.read_text().replace('"quick"', '"part"'))
    assert cli.main(["grid", str(other), "--out", str(grid.folder), "--jobs", "1"]) == 0
    said = "had the plan 'quick', now it has 'part'; finished cells that are not in it and stay: 1"
    assert capsys.readouterr().err == f"{grid.folder} {said}\n"
    assert [grid.state(cell) for cell in cells] == ["done", "done"]
    assert cli.main(["status", str(grid.folder)]) == 0
    assert "part: 1 done\n1 finished cells in the folder are not in this plan\n" in capsys.readouterr().out


def test_checkpoints_are_remembered_in_the_folders_of_grids(toml, tmp_path, capsys, monkeypatch):
    plan, out = str(toml('grouping = "layer"')), tmp_path / "runs" / "one"
    out.mkdir(parents=True)
    (out / ".plan.json.0.part").touch()  # of one that was cut off
    assert cli.main(["plan", plan, "--out", str(out)]) == 0
    assert [path.name for path in out.iterdir()] == [".plan.json.0.part"]
    assert cli.main(["grid", plan, "--out", str(out), "--jobs", "1"]) == 0
    assert (out / ".checkpoints.json").is_file()
    # and known to those beside
    monkeypatch.setattr(inputs_module, "_load", lambda *arguments: pytest.fail("read again"))
    for folder in (out, tmp_path / "runs" / "two"):
        assert cli.main(["plan", plan, "--out", str(folder)]) == 0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["one"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--jobs", "0"], "--jobs 0 is not possible: give more than 0"),
        (["--cell-seconds", "-1"], "--cell-seconds -1.0 is not possible"),
        (["--cell-memory", "nan"], "--cell-memory nan is not possible"),
        (["--executor", "slrum"], "unknown executor 'slrum', did you mean 'slurm'"),
        (["--tracker", "tensorbord"], "unknown tracker 'tensorbord', did you mean 'tensorboard'"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_written(toml, tmp_path, capsys, options, said):
    out = tmp_path / "grid"
    assert cli.main(["grid", str(toml('grouping = "layer"')), "--out", str(out), *options]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_a_search_that_does_not_exist_is_told_before_anything_runs(toml, tmp_path, capsys):
    out = tmp_path / "grid"
    assert cli.main(["grid", str(toml('search = "NSC"')), "--out", str(out)]) == 2
    assert "'NSC'" in capsys.readouterr().err
    assert not out.exists()


TRAINED = {"schedule": "retrain", "training_device": "cuda"}


@pytest.mark.parametrize(
    ("cell", "asked", "jobs", "gpus"),
    [
        ({"device": "cuda"}, None, 2, ["0", "1"]),
        ({"device": ["cuda", "cpu"]}, None, cores(), ["0", "1"]),  # not a cell at a time for each GPU
        ({"device": "cuda"}, 5, 5, ["0", "1"]),
        ({"device": "cpu"}, None, cores(), []),
        (TRAINED | {"search": ["DE", "NCS"]}, None, 2, ["0", "1"]),  # what trains there alone
    ],
)
def test_how_many_cells_run_beside_gpus(planned, tmp_path, monkeypatch, cell, asked, jobs, gpus):
    """What is started, on a machine that has two of them."""
    started = []
    monkeypatch.setattr(local, "visible_gpus", lambda: ["0", "1"])
    monkeypatch.setattr(local.LocalRun, "__call__", lambda run, cells: started.append((run.jobs, run.gpus)))
    cells = planned({"grouping": "gate"} | cell)
    run_local(Grid(tmp_path / "grid"), cells, Options(jobs=asked))
    assert started == [(jobs, gpus)]


@pytest.mark.parametrize("cell", ['device = "cuda"', 'schedule = "retrain"\ntraining_device = "cuda"'])
def test_a_gpu_that_is_not_there_is_missed_clearly(toml, tmp_path, capsys, monkeypatch, cell):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert cli.main(["grid", str(toml(cell)), "--out", str(tmp_path / "grid")]) == 2
    assert "there is none here: run it where one is, or say cpu" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["status", "watch", "verify", "cancel"])
def test_a_plan_that_is_missing_or_damaged_is_said_without_internals(verb, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folder := tmp_path / "runs" / "mine").mkdir(parents=True)
    for name, reason in (("none", "there is no such folder"), ("mine", "it has no plan.json")):
        path = "none" if name == "none" else "runs/mine"  # by its name alone, too
        assert cli.main([verb, name]) == 2
        said = f"{path} is no folder of a grid ({reason}): make one with `olmp grid`"
        assert capsys.readouterr().err == f"olmp: error: {said}\n"
    for text in ("", "{", "[]"):
        (folder / "plan.json").write_text(text)
        assert cli.main([verb, "mine"]) == 2
        err = capsys.readouterr().err
        assert err.startswith("olmp: error: runs/mine/plan.json is damaged")
        assert err.endswith(
            ": remove it, `olmp grid` with the same plan and --out writes it anew, and finished cells stay\n"
        )


@pytest.mark.parametrize("verb", ["status", "watch", "collect", "verify", "clean-failed"])
def test_a_folder_that_is_no_grid_is_refused(verb, tmp_path, capsys):
    assert cli.main([verb, str(tmp_path / "none")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "none" in err


def test_a_damaged_plan_of_a_grid_is_refused(done, capsys):
    grid, _ = done
    (grid.folder / "plan.json").write_text('{"title": "t", "cells": [{}]}')
    assert cli.main(["status", str(grid.folder)]) == 2
    assert "plan.json is damaged or of another version" in capsys.readouterr().err


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
