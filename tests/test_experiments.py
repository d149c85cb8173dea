"""Plans of cells, and cells side by side in processes of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import MODELS, ROOT, read_evaluations

from experiments import comparison, demo
from experiments.pool import Cell, run_cells, shipped
from grouping.errors import StudyError
from harness.cli import guarded
from harness.records import Result
from harness.workers import cores

SHARED = {"tolerance": 1.0, "evaluations": 150, "seed": 3}


@pytest.fixture
def models(tmp_path) -> Path:
    """A folder in which something stands under the name of each model."""
    folder = tmp_path / "models"
    folder.mkdir()
    for name in comparison.MODELS:
        (folder / f"{name}.pt").touch()
    return folder


@pytest.mark.parametrize("model", comparison.MODELS)
def test_the_comparison_holds_every_pair_once(models, model):
    found = comparison.cells(model, models, Path("corpus"), Path("out"), SHARED)
    pairs = [(cell.settings["grouping"], cell.settings["search"]) for cell in found]
    own = "attention-role" if model == "transformer" else "gate"
    assert sorted(pairs) == sorted(
        [("single", "class-blind"), ("matrix", "lamp")]
        + [
            (classes, rule)
            for rule in ("class-uniform", "class-distribution")
            for classes in ("matrix", "see2016")
        ]
        + [(grouping, "NCS") for grouping in ("single", "layer", "stage", "matrix", own, "shuffled(layer)")]
    )
    assert len(set(pairs)) == len(found) == 12
    for cell in found:
        assert {name: cell.settings[name] for name in SHARED} == SHARED
        assert cell.checkpoint == models / f"{model}.pt"
        assert cell.out == Path("out") / model
    assert found == comparison.cells(model, models, Path("corpus"), Path("out"), SHARED)


def test_an_unknown_model_is_answered_with_the_known_ones(models, tmp_path):
    with pytest.raises(
        StudyError, match="^no model 'gru' in .*; known: luong, rnnsearch, transformer; train one with `make"
    ):
        shipped("gru", models)
    with pytest.raises(StudyError, match="known: none;"):
        shipped("luong", tmp_path)
    assert shipped("luong", models) == models / "luong.pt"


def test_cores_are_those_this_process_may_use():
    assert 1 <= cores() <= os.cpu_count()


def test_less_than_one_job_is_refused():
    cell = Cell("any", Path("model.pt"), Path("corpus"), Path("out"), {})
    with pytest.raises(StudyError, match="^0 jobs are not possible: give 1 or more$"):
        list(run_cells([cell], 0))


def short_plan(model: str, models: Path, corpus: Path, out: Path, shared: dict) -> list[Cell]:
    """Two cells that take no time, in place of the twelve of the comparison."""
    quick = {"search": "OnePlusOne", "start": "dense", "final_beam": 1, "resamples": 100, **shared}
    names = ("gate", "component")
    return [
        Cell(name, shipped(model, models), corpus, out / name, {"grouping": name, **quick}) for name in names
    ]


def test_the_number_of_jobs_does_not_change_the_results(monkeypatch, capfd, small, tmp_path):
    """`make table` with a short plan."""
    monkeypatch.setattr(comparison, "cells", short_plan)
    options = ["--corpus", str(small), "--models", str(MODELS), "--only", "rnnsearch", "--evaluations", "3"]
    found = {}
    for jobs in ("1", "2"):
        out = tmp_path / jobs
        monkeypatch.setattr(sys, "argv", ["comparison", *options, "--jobs", jobs, "--out", str(out)])
        assert guarded(comparison.main) == 0
        shown, err = capfd.readouterr()
        assert err == ""  # no bars where no terminal is, and no log lines
        assert [line.split()[0] for line in shown.splitlines()] == ["[1/2]", "[2/2]"]
        for name in ("gate", "component"):
            (folder,) = (out / name).iterdir()  # named by what the cell is, hence alike
            result = Result.model_validate_json((folder / "result.json").read_text())
            test = result.sets["test"]
            said = f"{name}: {result.remaining:.1%} remaining, test {test.dense_bleu:.2f} → {test.bleu:.2f}\n"
            assert said in shown
            found[jobs, name] = (
                result.model_copy(update={"seconds": 0}),
                [e.model_copy(update={"seconds": 0}) for e in read_evaluations(folder)],
                (folder / "test.pruned.txt").read_bytes(),
                folder.name,
            )
    for name in ("gate", "component"):
        assert found["1", name] == found["2", name]


def demo_command(small: Path, out: Path, *options: str) -> list[str]:
    return ["demo", "--corpus", str(small), "--models", str(MODELS), "--out", str(out), *options]


def test_the_demo_ends_with_both_models_and_tells_about_them(capsys, monkeypatch, small, tmp_path):
    monkeypatch.setattr(sys, "argv", demo_command(small, tmp_path, "--evaluations", "1", "--jobs", "1"))
    assert guarded(demo.main) == 0
    shown = capsys.readouterr().out
    for model, grouping in (("transformer", "attention-role"), ("rnnsearch", "gate")):
        part = shown.split(f"== {model}\n")[1].split("==")[0]
        assert part.startswith(f"{grouping} / magnitude / NCS, tolerance 1 BLEU (bound), seed 1\n")
        assert "sparsity" in part
        assert [line.split()[0] for line in part.splitlines()[3:6]] == ["search", "confirm", "test"]
        assert f"every evaluation: {tmp_path / model}" in part
        assert len(list((tmp_path / model).glob("*/pruned.pt"))) == 1
    assert shown.splitlines()[-1].endswith(" s")


def test_the_demo_without_a_corpus_says_so(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", demo_command(tmp_path / "none", tmp_path / "out", "--jobs", "1"))
    assert guarded(demo.main) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"olmp: error: {tmp_path / 'none'} is no corpus folder")
    assert err.count("\n") == 1


def test_ctrl_c_ends_all_processes_with_one_line(small, tmp_path):
    """A terminal sends it to every process of the group."""
    command = [sys.executable, "-m", "experiments.demo", *demo_command(small, tmp_path, "--jobs", "1")[1:]]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while process.poll() is None and not list(tmp_path.glob("*/*/evaluations.jsonl")):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    # the error stream ends when no process of the group has it any more
    _, err = process.communicate(timeout=600)
    assert process.returncode == 2
    assert err == "olmp: interrupted; run the same command again, it resumes\n"
    assert not list(tmp_path.glob("*/*/result.json"))
