"""Collected tables as frames: read, put together, counted, and refused with a reason."""

import json

import numpy as np
import pandas as pd
import pytest
from miniature import evaluation, failure, run, written

from analysis.frame import (
    DERIVED,
    NotCollected,
    Results,
    failed,
    finished,
    groups,
    require,
    setting_columns,
    translation,
)

pytestmark = pytest.mark.no_cover


def test_derived_columns_are_documented_and_right(tmp_path):
    runs = written(tmp_path / "grid", [run(remaining=0.75), failure()]).runs
    assert set(DERIVED) <= set(runs)
    first = runs.iloc[0]
    assert first["grid"] == "grid"
    assert first["sparsity"] == 0.25
    assert first["connections_left"] == 300  # 400 without 60 and 40
    assert (first["sets.test.low"], first["sets.test.high"]) == (
        0.0,
        1.0,
    )  # a drop of 0.5, half a point each side
    assert runs["sets.test.low"].isna().tolist() == [False, True]


def test_folders_of_folders_are_found_and_put_together(tmp_path):
    written(tmp_path / "b", [run(seed=1)], [evaluation("x", 0, (0.1, 0.2), 0.5)])
    written(tmp_path / "a", [run(seed=2)], [evaluation("y", 0, (0.1, 0.2), 0.5)] * 2)
    (tmp_path / "c").mkdir()
    found = Results.of([tmp_path, tmp_path / "a"])
    assert [folder.name for folder in found.folders] == ["a", "b"]
    assert found.runs["grid"].tolist() == ["a", "b"]
    assert found.evaluations["grid"].tolist() == ["a", "a", "b"]
    assert found.evaluations["knobs"].iloc[0].tolist() == [0.1, 0.2]


def test_a_cell_of_two_grids_is_one(tmp_path):
    broken = failure(run()["cell"])
    written(tmp_path / "a", [broken, run(seed=2)])
    written(tmp_path / "b", [run(), run(seed=2), failure()])
    runs = Results.of([tmp_path]).runs
    assert len(runs) == 5
    assert finished(runs)["config.seed"].tolist() == [2, 1]
    assert failed(runs)["cell"].tolist() == ["luong/gate-NCS-seed9"]  # the other one is finished elsewhere


def test_a_setting_that_older_tables_lack_is_what_it_was_then(tmp_path):
    written(tmp_path / "a", [run(seed=1)])
    written(tmp_path / "b", [run(seed=2, config__batch_tokens=2000), run(seed=3, config__batch_tokens=500)])
    runs = Results.of([tmp_path]).runs
    assert runs.set_index("config.seed")["config.batch_tokens"].to_dict() == {1: 2000, 2: 2000, 3: 500}
    assert "config.batch_tokens" not in Results.of([tmp_path / "a"]).runs


def test_older_tables_lack_columns_and_say_so(tmp_path):
    written(tmp_path / "a", [run(seed=1)])
    older = run(seed=2)
    del older["config.sparsity"], older["groups"]
    written(tmp_path / "b", [older])
    runs = Results.of([tmp_path]).runs
    assert runs["groups"].isna().tolist() == [False, True]
    with pytest.raises(
        NotCollected, match="the table lacks nonsense, more: it was collected by another version"
    ):
        require(runs, ["cell", "nonsense", "more"], "the table")


def test_newer_tables_are_refused(tmp_path):
    results = written(tmp_path, [run()])
    (tmp_path / "schema.json").write_text(json.dumps({"tables": {"version": 2}}))
    with pytest.raises(NotCollected, match="has version 2, this program reads up to 1"):
        _ = results.runs


def test_the_schema_is_read_where_there_is_one(tmp_path):
    results = written(tmp_path, [run()])
    assert results.schema() == {}
    tables = {"version": 1, "runs.parquet": {"cell": {"type": "string"}}}
    (tmp_path / "schema.json").write_text(json.dumps({"tables": tables}))
    assert results.schema() == tables


@pytest.mark.parametrize("content", ["", "[1", "[1]"])
def test_a_damaged_schema_is_said(tmp_path, content):
    results = written(tmp_path, [run()])
    (tmp_path / "schema.json").write_text(content)
    with pytest.raises(NotCollected, match="schema.json cannot be read as JSON .*: take it from a copy"):
        _ = results.runs


@pytest.mark.parametrize("content", [None, b"", b"no parquet"])
def test_what_cannot_be_read_is_said_in_one_line(tmp_path, content):
    if content is None:
        with pytest.raises(NotCollected, match="there is no runs.parquet in .*: `olmp collect .*` makes it"):
            Results.of([tmp_path])
    else:
        (tmp_path / "runs.parquet").write_bytes(content)
        with pytest.raises(NotCollected, match="runs.parquet cannot be read .*: `olmp collect"):
            _ = Results.of([tmp_path]).runs


def test_a_foreign_table_is_refused(tmp_path):
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "runs.parquet")
    with pytest.raises(NotCollected, match="the table of runs lacks cell, model, status"):
        _ = Results.of([tmp_path]).runs


def test_statistics_are_known_by_the_files_of_a_cell(tmp_path):
    counts = np.arange(20, dtype="<i2")
    rows = [{"file_sha256": "luong-pruned", "statistics": counts.tobytes()}]
    results = written(tmp_path, [run()], sentences=rows)
    assert list(results.statistics) == [translation(results.runs.iloc[0])]
    assert results.statistics["luong-pruned"].tolist() == [list(range(10)), list(range(10, 20))]
    assert translation(results.runs.iloc[0], "dense") == "luong-dense"
    assert written(tmp_path / "none", [run()]).statistics == {}


def test_groups_of_a_cell():
    table = groups(run(pruned=(60, 40)))
    assert table["group"].tolist() == ["large", "small"]
    assert table["sparsity"].tolist() == [0.2, 0.4]  # 60 of 300, 40 of 100


def test_what_a_setting_is():
    columns = setting_columns(pd.DataFrame([run()]))
    assert "config.search" in columns
    assert "config.tolerance" in columns
    assert not {"config.grouping", "config.seed", "config.checkpoint_sha256"} & set(columns)


def test_what_is_feasible_keeps_the_tolerance_of_its_cell(tmp_path):
    """Whatever that of its round is."""
    loose = {"config__round_tolerance": 5.0, "config__criterion": "bound"}
    rows = [run(seed=1), run(seed=2, **loose), run(seed=3, **loose | {"config__criterion": "point"})]
    tried = [
        evaluation(row["cell"], index, (0.1, 0.2), drop, bound=drop + 0.5, feasible=drop < 5)
        for row in rows
        for index, drop in enumerate([0.4, 0.9, 4.0, 6.0])
    ]
    found = written(tmp_path, rows, tried).evaluations.groupby("cell", sort=False)["feasible"].apply(list)
    assert found.tolist() == [
        [True, True, True, False],
        [True, False, False, False],
        [True, True, False, False],
    ]
