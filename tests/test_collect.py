"""Results that outlive the folders of their cells: added to, and not run again."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from grids import write_plan

from experiments.collect import collect, finished_in
from experiments.grid import Grid
from experiments.schema import EVALUATIONS, RUNS, SENTENCES
from grouping.errors import StudyError
from harness import cli

CELLS = """
[[cells]]
model = "rnnsearch"
grouping = {}
evaluations = 3
"""


def tables(folder: Path) -> list[pd.DataFrame]:
    names = {RUNS: "cell", EVALUATIONS: ["cell", "index"], SENTENCES: "file_sha256"}
    return [pd.read_parquet(folder / name).set_index(key).sort_index() for name, key in names.items()]


def test_another_machine_goes_on_from_collected_results(small, tmp_path, capsys):
    results = tmp_path / "results"
    first = write_plan(tmp_path / "quick.toml", small, CELLS.format('["component", "layer"]'))
    here, there = Grid(tmp_path / "here"), Grid(tmp_path / "there")
    cli.main(["grid", str(first), "--out", str(here.folder), "--jobs", "1"])
    assert cli.main(["collect", str(here.folder), "--into", str(results)]) == 0
    assert "2 cells in" in capsys.readouterr().out
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "plan.json").write_text("mine")
    assert cli.main(["collect", str(here.folder), "--into", str(tmp_path / "docs")]) == 2
    assert "holds no results, and is not empty (it has plan.json)" in capsys.readouterr().err
    assert (tmp_path / "docs" / "plan.json").read_text() == "mine"
    capsys.readouterr()
    assert cli.main(["status", str(results)]) == 2
    assert (
        f"{results} holds results without their cells: give --done-in {results}, too"
        in capsys.readouterr().err
    )
    before = tables(results)
    pd.testing.assert_frame_equal(before[0], collect(here).runs.set_index("cell").sort_index())
    assert not (here.folder / RUNS).exists()
    shutil.rmtree(here.folder)

    # one of the two is no longer in the plan, another one is new
    second = write_plan(tmp_path / "quick.toml", small, CELLS.format('["gate", "layer"]'))
    for verb in ("plan", "grid"):
        arguments = [verb, str(second), "--out", str(there.folder), "--done-in", str(results)]
        assert cli.main(arguments) == 0
    said = capsys.readouterr().out
    assert "1 done, 1 planned" in said
    assert f"are done in {there.folder}, 1 of them in {results}: `olmp collect" in said
    (new,) = there.cells_folder.glob("*/*")
    assert new.name.startswith("gate-")
    for known, expected in ([], "1 done, 1 planned"), (["--done-in", str(results)], "2 done"):
        cli.main(["status", str(there.folder), *known])
        assert expected in capsys.readouterr().out
    assert cli.main(["collect", str(there.folder), "--into", str(results)]) == 0
    said = capsys.readouterr()
    assert f"3 cells in {results / RUNS}, 2 of them were there" in said.out
    assert said.err.startswith(
        f"1 cells of {results} are no longer planned: the plan that {there.folder} was"
    )
    after = tables(results)
    name = f"rnnsearch/{new.name}"
    for old, now in zip(before, after, strict=True):
        pd.testing.assert_frame_equal(
            now.loc[old.index].drop(columns="planned", errors="ignore"),
            old.drop(columns="planned", errors="ignore"),
        )
    assert set(after[0].index) - set(before[0].index) == {name}
    assert after[0]["planned"].to_dict() == {cell: "component" not in cell for cell in after[0].index}
    assert len(after[1].loc[name]) >= 3
    assert (results / "plan.json").read_text() == (there.folder / "plan.json").read_text()
    # collected once more, nothing is there twice
    assert cli.main(["collect", str(there.folder), "--into", str(results)]) == 0
    assert capsys.readouterr().err == ""
    for once, twice in zip(after, tables(results), strict=True):
        pd.testing.assert_frame_equal(once, twice)


def test_a_younger_setting_is_what_it_was_by_default(small, tmp_path):
    """Tables of a version that did not know a setting say nothing of it."""
    results, grid = tmp_path / "results", Grid(tmp_path / "grid")
    for grouping in ("component", "layer"):
        plan = write_plan(tmp_path / "quick.toml", small, CELLS.format(f'"{grouping}"'))
        cli.main(["grid", str(plan), "--out", str(grid.folder), "--jobs", "1"])
        cli.main(["collect", str(grid.folder), "--into", str(results)])
        if grouping == "component":
            runs = pd.read_parquet(results / RUNS)
            runs.drop(columns=["config.batch_tokens", "config.dropout"]).to_parquet(results / RUNS)
            shutil.rmtree(grid.folder)
    runs = pd.read_parquet(results / RUNS)
    assert runs["config.batch_tokens"].tolist() == [2000, 2000]
    assert runs["config.dropout"].isna().all()


@pytest.mark.parametrize("torn", [False, True])
def test_what_is_no_results_is_refused(tmp_path, torn, capsys):
    if torn:
        (tmp_path / RUNS).write_text("no table")
    said = f"{tmp_path / RUNS} cannot be read" if torn else f"there is no {RUNS} in {tmp_path}"
    with pytest.raises(StudyError, match=said):
        finished_in(tmp_path)
    assert cli.main(["plan", "smoke", "--done-in", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err
