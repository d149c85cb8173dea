"""What candidates cost as models grow: the rows, on models that take no time, and the figure."""

import json
import sys

import numpy as np
import pytest
from conftest import MODELS, SENTENCES

from analysis import growth as figure
from experiments import growth


@pytest.fixture
def rows(small, tmp_path, monkeypatch) -> list[dict]:
    architecture, words = "lstm_luong_wmt_en_de", 100
    monkeypatch.setattr(growth, "WORDS", {architecture: words})
    monkeypatch.setattr(growth, "STEPS", 3)
    growth.write_fresh(architecture, words, tmp_path / "fresh.pt", **growth.TINY)
    found = [growth.measure(architecture, grouping, tmp_path / "fresh.pt") for grouping in ("single", "gate")]
    return found + growth.measure_evaluations(MODELS / "rnnsearch.pt", small)


def test_rows_say_what_was_measured(rows):
    single, gate, *evaluations = rows
    assert (single["groups"], gate["groups"]) == (1, 5)
    assert single["prunable"] == gate["prunable"] < single["parameters"] == gate["parameters"]
    assert all(0 < row["apply_passes"] < np.inf for row in (single, gate))
    assert growth.table([single, gate]).count("\n") == 2
    whole = SENTENCES["search"]
    assert [row["sentences"] for row in evaluations] == [whole // part for part in growth.PARTS]
    assert all(np.isfinite(row["seconds"]) for row in evaluations)


def test_the_figure_has_a_panel_for_each_dimension(rows, tmp_path, monkeypatch, capsys):
    (tmp_path / "growth.json").write_text(json.dumps(rows))
    out = tmp_path / "growth.svg"
    monkeypatch.setattr(sys, "argv", ["growth", str(tmp_path / "growth.json"), "--out", str(out)])
    assert figure.main() == 0
    drawn = out.read_text()
    for title in ("parameters", "groups", "sentences", "memory passes", "lstm_luong_wmt_en_de", "rnnsearch"):
        assert title in drawn
    monkeypatch.setattr(sys, "argv", ["growth", str(tmp_path / "none.json"), "--out", str(out)])
    assert figure.main() == 2
    assert "python -m experiments.growth makes it" in capsys.readouterr().err
    assert out.read_text() == drawn
