"""Collected tables to printed table, with numbers that were worked out by hand."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis import comparison
from analysis.frame import NotCollected, read_runs


def measured(name: str, dense: float, bleu: float, half: float) -> dict:
    drop = dense - bleu
    fields = {"bleu": bleu, "drop": drop, "interval": json.dumps([drop - half, drop + half])}
    return {f"sets.{name}.{key}": value for key, value in fields.items()}


def row(model: str, grouping: str, search: str, remaining: float, test: float, backed_off: int) -> dict:
    """A finished cell in miniature: the fields that the table shows."""
    return {
        "cell": f"{model}/{grouping}",
        "model": model,
        "status": "done",
        "config.grouping": grouping,
        "config.search": search,
        "config.seed": 1,
        "remaining": remaining,
        "backed_off": backed_off,
        "evaluations": 150,
        "skipped": 12,
        "tokens": 1234,
        **measured("search", 30, 29.75, 0.5),
        **measured("confirm", 32, 31, 1),
        **measured("test", 34, test, 0.5),
    }


@pytest.fixture
def runs(tmp_path) -> Path:
    rows = [
        row("transformer", "layer", "NCS", 0.6255, 33.5, 2),
        row("transformer", "single", "class-blind", 0.75, 33.25, 0),
        row("luong", "gate", "NCS", 0.8, 34.5, 1),
        {"cell": "luong/x", "model": "luong", "status": "failed", "config.grouping": "x"},
    ]
    pd.DataFrame(rows).astype({"config.seed": "Int64"}).to_parquet(tmp_path / "runs.parquet")
    return tmp_path


TABLE = """\
| model | search | grouping | seed | remaining % | search drop | confirm BLEU | confirm drop | test BLEU | test drop [95 %] | backed off | evaluations (skipped) | tokens |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| luong | NCS | gate | 1 | 80.0 | 0.25 | 31.00 | 1.00 | 34.50 | -0.50 [-1.00, 0.00] | 1 | 150 (12) | 1,234 |
| transformer | NCS | layer | 1 | 62.5 | 0.25 | 31.00 | 1.00 | 33.50 | 0.50 [0.00, 1.00] | 2 | 150 (12) | 1,234 |
| transformer | class-blind | single | 1 | 75.0 | 0.25 | 31.00 | 1.00 | 33.25 | 0.75 [0.25, 1.25] | 0 | 150 (12) | 1,234 |
"""  # noqa: E501


def test_the_table_has_models_apart_and_the_smallest_first(runs):
    assert comparison.markdown(comparison.comparison(read_runs(runs))) + "\n" == TABLE


def test_the_command_prints_the_table_and_counts_failures(capsys, monkeypatch, runs):
    monkeypatch.setattr(sys, "argv", ["comparison", str(runs)])
    assert comparison.main() == 0
    assert capsys.readouterr().out == f"{TABLE}\n1 cells failed: `olmp status {runs}` says why\n"


@pytest.mark.parametrize("content", [None, b"", b"no parquet"])
def test_the_command_without_tables_says_how_to_make_them(capsys, monkeypatch, tmp_path, content):
    if content is not None:
        (tmp_path / "runs.parquet").write_bytes(content)
    with pytest.raises(NotCollected):
        read_runs(tmp_path)
    monkeypatch.setattr(sys, "argv", ["comparison", str(tmp_path)])
    assert comparison.main() == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{tmp_path / 'runs.parquet'} cannot be read (")
    assert err.endswith(f": `olmp collect {tmp_path}` makes it\n")
