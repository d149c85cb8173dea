"""Counts of sentences against sacrebleu's own corpus score of the same files."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import MODELS
from sacrebleu.metrics import BLEU

from experiments.collect import collect, write
from experiments.grid import Grid
from experiments.plan import Cells, PlannedCell
from experiments.schema import SENTENCES
from experiments.translations import sentence_statistics
from harness.corpus.corpus import Corpus

CELLS = {"rnnsearch/gate": "OnePlusOne", "rnnsearch/lamp": "rule"}


@pytest.fixture
def grid(finished, tmp_path) -> Grid:
    """Two cells of one model, without a plan."""
    found = Grid(tmp_path / "grid")
    for name, cell in CELLS.items():
        shutil.copytree(finished(cell).folder, found.cells_folder / name)
    return found


@pytest.fixture
def corpora(finished, small) -> dict:
    return {finished("rule").config.corpus_sha256: small}


def counts(row: pd.Series) -> np.ndarray:
    return np.frombuffer(row["statistics"], "<i2").reshape(-1, 10)


def test_the_counts_are_those_of_sacrebleu_and_the_dense_model_is_there_once(grid, corpora, small):
    runs = collect(grid).runs
    table, missing = sentence_statistics(grid, runs, corpora)
    assert missing == []
    references = Corpus.open(small).references("test")
    assert table["model"].tolist() == ["dense", "pruned", "pruned"]
    assert table["checkpoint_sha256"].nunique() == table["corpus_sha256"].nunique() == 1
    assert (table["beam"] == 2).all()
    files = [("rnnsearch/gate", "dense"), ("rnnsearch/gate", "pruned"), ("rnnsearch/lamp", "pruned")]
    for (cell, model), (_, row) in zip(files, table.iterrows(), strict=True):
        lines = (grid.cells_folder / cell / f"test.{model}.txt").read_text().split("\n")[:-1]
        expected = BLEU().corpus_score(lines, [references])
        assert row["sentences"] == len(lines)
        sums = [expected.sys_len, expected.ref_len, *expected.counts, *expected.totals]
        assert counts(row).sum(axis=0).tolist() == sums


def test_without_the_text_it_is_said_and_there_is_no_table(grid, corpora, tmp_path):
    found = collect(grid)
    assert found.missing == ["4 translations: no plan says where their text is"]
    write(grid.folder, found)
    assert not (grid.folder / SENTENCES).exists()
    (other,) = corpora
    table, missing = sentence_statistics(grid, found.runs, {other: tmp_path / "gone"})
    assert table.empty
    assert missing[0].startswith(f"4 translations: {tmp_path / 'gone'} is no corpus folder")


def test_in_another_folder_it_is_said_where_to_run_it(grid, small, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(small.parent)
    text = Path(small.name)
    cell = PlannedCell("rnnsearch", MODELS / "rnnsearch.pt", text, finished("rule").config)
    grid.write_plan(Cells("quick", [cell], []))
    assert collect(grid).missing == []
    monkeypatch.chdir(tmp_path)
    assert collect(grid).missing == [
        f"4 translations: there is no {text} here: run it from the folder where the grid was started"
    ]


def test_what_was_counted_once_needs_no_text_again(grid, corpora):
    found = collect(grid)
    table, _ = sentence_statistics(grid, found.runs, corpora)
    write(grid.folder, found._replace(sentences=table))
    again = collect(grid)
    assert again.missing == []
    pd.testing.assert_frame_equal(again.sentences, table)


def test_another_text_and_a_damaged_file_are_said(grid, corpora, small):
    runs = collect(grid).runs
    damaged = grid.cells_folder / "rnnsearch/lamp/test.pruned.txt"
    damaged.write_text("Hallo\n")
    (known,) = corpora
    table, missing = sentence_statistics(grid, runs, corpora)
    assert len(table) == 2
    assert missing == [f"1 translations: {damaged} is not what it was when the cell ended"]
    _, missing = sentence_statistics(
        grid, runs.assign(**{"config.corpus_sha256": "0" * 64}), {"0" * 64: small}
    )
    assert missing == [f"4 translations: {small} is another text than the one they translate"]
