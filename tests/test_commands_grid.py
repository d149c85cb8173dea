"""The commands of a grid, from a plan to its tables, and what they refuse."""

import pytest

from experiments import inputs as inputs_module
from experiments.executors import Options, local, run_local
from experiments.grid import Grid
from harness import cli
from harness.workers import cores


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
