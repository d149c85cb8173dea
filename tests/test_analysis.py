"""Result folders to frame to table, with numbers that were worked out by hand."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis import comparison
from analysis.frame import read_cells


def measured(dense: float, bleu: float, half: float) -> dict:
    drop = dense - bleu
    return {
        "sentences": 500,
        "beam": 5,
        "dense_bleu": dense,
        "bleu": bleu,
        "drop": drop,
        "bound": drop + half,
        "interval": [drop - half, drop + half],
        "standard_error": half / 2,
    }


def write_cell(
    folder: Path, grouping: str, search: str, remaining: float, test: float, backed_off: int
) -> None:
    """A finished cell in miniature: the fields that the analysis reads, and one that it does not."""
    folder.mkdir(parents=True)
    config = {"schema_version": 3, "grouping": grouping, "search": search, "tolerance": 1.0, "tokens": None}
    sets = {
        "search": measured(30, 29.75, 0.5),
        "confirm": measured(32, 31, 1),
        "test": measured(34, test, 0.5),
    }
    result = {
        "schema_version": 3,
        "family": "lstm",
        "knobs": [0.5],
        "remaining": remaining,
        "backed_off": backed_off,
        "evaluations": 150,
        "skipped": 12,
        "tokens": 1234,
        "seconds": 60.0,
        "sets": sets,
        "environment": {"torch": "2"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "result.json").write_text(json.dumps(result))


@pytest.fixture
def runs(tmp_path) -> Path:
    write_cell(tmp_path / "transformer" / "b", "layer", "NCS", 0.6255, 33.5, 2)
    write_cell(tmp_path / "transformer" / "a", "single", "class-blind", 0.75, 33.25, 0)
    write_cell(tmp_path / "luong" / "c", "gate", "NCS", 0.8, 34.5, 1)
    return tmp_path


TABLE = """\
| model | search | grouping | remaining % | search drop | confirm BLEU | confirm drop | test BLEU | test drop [95 %] | backed off | evaluations (skipped) | tokens |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| luong | NCS | gate | 80.0 | 0.25 | 31.00 | 1.00 | 34.50 | -0.50 [-1.00, 0.00] | 1 | 150 (12) | 1,234 |
| transformer | NCS | layer | 62.5 | 0.25 | 31.00 | 1.00 | 33.50 | 0.50 [0.00, 1.00] | 2 | 150 (12) | 1,234 |
| transformer | class-blind | single | 75.0 | 0.25 | 31.00 | 1.00 | 33.25 | 0.75 [0.25, 1.25] | 0 | 150 (12) | 1,234 |
"""  # noqa: E501


def test_a_row_per_finished_cell(runs):
    frame = read_cells(runs).set_index("cell")
    assert list(frame.index) == ["luong/c", "transformer/a", "transformer/b"]
    row = frame.loc["transformer/b"]
    assert (row["grouping"], row["search"], row["tolerance"], row["family"]) == ("layer", "NCS", 1.0, "lstm")
    assert (row["remaining"], row["backed_off"], row["tokens"], row["seconds"]) == (0.6255, 2, 1234, 60.0)
    assert [row[f"test_{name}"] for name in ("dense", "bleu", "drop", "low", "high")] == [34, 33.5, 0.5, 0, 1]
    assert [row[f"confirm_{name}"] for name in ("dense", "bleu", "drop", "low", "high")] == [32, 31, 1, 0, 2]
    assert row["search_standard_error"] == 0.25
    assert not {"knobs", "sets", "environment"} & set(frame.columns)


def test_half_written_and_foreign_folders_are_left_out(runs):
    expected = read_cells(runs)
    running = runs / "transformer" / "running"
    running.mkdir()
    (running / "config.json").write_text((runs / "luong" / "c" / "config.json").read_text())
    (running / "evaluations.jsonl").write_text("{}\n")
    contents = {
        "torn": '{"schema_version": 3, "sets"',
        "list": "[1]",
        "foreign": '{"accuracy": 0.9}',
        "empty": "",
    }
    for name, content in contents.items():
        folder = runs / "luong" / name
        folder.mkdir()
        (folder / "config.json").write_text((runs / "luong" / "c" / "config.json").read_text())
        (folder / "result.json").write_text(content)
    alone = runs / "alone"
    alone.mkdir()
    (alone / "result.json").write_text((runs / "luong" / "c" / "result.json").read_text())
    pd.testing.assert_frame_equal(read_cells(runs), expected)


def test_nothing_gives_an_empty_frame(tmp_path):
    assert read_cells(tmp_path).empty
    assert read_cells(tmp_path / "none").empty


def test_the_table_has_models_apart_and_the_smallest_first(runs):
    assert comparison.markdown(comparison.comparison(read_cells(runs))) + "\n" == TABLE


def test_the_command_prints_the_table(capsys, monkeypatch, runs):
    monkeypatch.setattr(sys, "argv", ["comparison", str(runs)])
    assert comparison.main() == 0
    assert capsys.readouterr().out == TABLE


def test_the_command_without_results_says_how_to_make_them(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["comparison", str(tmp_path)])
    assert comparison.main() == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"no finished cell in {tmp_path}: `make table` makes them\n"


def test_results_of_real_cells_are_read(finished):
    """The miniature folders above have the form that cells write."""
    cells = [finished(name) for name in ("OnePlusOne", "rule")]
    frame = read_cells(cells[0].folder.parent).set_index("cell")
    for cell in cells:
        row, test = frame.loc[cell.folder.name], cell.result.sets["test"]
        assert row["remaining"] == cell.result.remaining
        assert (row["test_bleu"], row["test_dense"], row["test_drop"]) == (
            test.bleu,
            test.dense_bleu,
            test.drop,
        )
        assert (row["test_low"], row["test_high"]) == test.interval
        assert row["search"] == cell.config.search
    table = comparison.comparison(frame.reset_index())
    assert set(table["grouping"]) >= {"gate", "matrix"}
