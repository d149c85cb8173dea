"""How well cheap measures foretell BLEU: candidates, resuming, and what is said about them."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import MODELS
from scipy.stats import spearmanr

from experiments import prediction
from experiments.prediction import (
    PREDICTORS,
    candidate,
    correlations,
    rank_correlations,
    read_rows,
    replay,
    summary,
)
from harness.cli import guarded
from harness.operators import operators


def run(monkeypatch, small: Path, folder: Path, *options: str) -> int:
    command = ["prediction", "--models", str(folder / "models"), "--corpus", str(small), "--jobs", "1"]
    command += ["--runs", str(folder / "runs"), "--out", str(folder / "found" / "prediction.json")]
    monkeypatch.setattr(sys, "argv", [*command, *options])
    return guarded(prediction.main)


def test_a_run_measures_what_is_missing_and_says_what_it_found(monkeypatch, capfd, small, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "transformer.pt").symlink_to(MODELS / "transformer.pt")
    assert run(monkeypatch, small, tmp_path, "--candidates", "5") == 0
    said, noise = capfd.readouterr()
    assert said.startswith("transformer: 5 candidates")
    assert noise == ""
    (rows_file,) = (tmp_path / "runs").iterdir()
    whole = rows_file.read_bytes()
    rows = read_rows(rows_file)
    assert [rows[i]["grouping"] for i in range(5)] == list(prediction.GROUPINGS["transformer"])
    # a crash has cut off the last line; the others are not measured again
    rows_file.write_bytes(whole[:-20])
    assert run(monkeypatch, small, tmp_path, "--candidates", "5") == 0
    assert rows_file.read_bytes().splitlines()[:-1] == whole.splitlines()[:-1]
    found = json.loads((tmp_path / "found" / "prediction.json").read_text())["models"]["transformer"]
    without_time = [
        [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in some]
        for some in (found["rows"], [rows[i] for i in range(5)])
    ]
    assert without_time[0] == without_time[1]
    assert found["summary"]["candidates"] == 5


def test_a_folder_without_models_is_refused(monkeypatch, capsys, small, tmp_path):
    assert run(monkeypatch, small, tmp_path) == 2
    assert "there are no models" in capsys.readouterr().err


def test_a_candidate_follows_from_its_index(studies):
    study = studies("rnnsearch")
    operator = operators.get("magnitude")(study.model, study.groups("gate"))
    knobs, strength, sigma = candidate(operator, 7)
    assert np.array_equal(knobs, candidate(operator, 7)[0])
    assert not np.array_equal(knobs, candidate(operator, 8)[0])
    assert ((knobs >= 0) & (knobs <= 1)).all()
    assert 0.15 <= strength <= 0.45
    assert sigma in (0.05, 0.1)


def rows_of(drops: np.ndarray, measured: np.ndarray) -> list[dict]:
    rest = {"standard_error": 0.3, "bleu_seconds": 2.0, "forced_seconds": 1.0}
    return [
        {"drop": drop, **dict.fromkeys(PREDICTORS, value), **rest}
        for drop, value in zip(drops, measured, strict=True)
    ]


def test_rank_correlations_are_those_of_scipy():
    x, y = np.random.default_rng(1).integers(6, size=(2, 4, 15))  # with ties
    expected = [spearmanr(*pair).statistic for pair in zip(x, y, strict=True)]
    assert rank_correlations(x, y) == pytest.approx(expected)
    assert np.isnan(rank_correlations(np.ones(4), np.arange(4)))


def test_correlations_by_hand():
    # ranks of the predictor 1 2 4 3 5: rho = 1 - 6 * 2 / (5 * 24) = 0.9
    found = correlations(rows_of(np.arange(5.0), np.array([0, 1, 3, 2, 9])))["nll_rise"]
    assert found["rho"] == pytest.approx(0.9)
    low, high = found["interval"]
    assert low < 0.9 < high == pytest.approx(1.0)


def test_a_perfect_measure_saves_the_hopeless_and_loses_nothing():
    drops = np.random.default_rng(1).uniform(0, 5, size=100)
    found = replay(rows_of(drops, drops**2), "nll_rise")
    assert found["lost"] == found["wrong"] == 0
    assert 0.4 < found["refused"] < 0.8  # 80 % are infeasible, the first 20 candidates are always translated


def test_few_candidates_have_no_correlation():
    found = summary(rows_of(np.array([0.5, 3.0, 4.0, 5.0]), np.arange(4.0)))
    assert found["all"] is not None
    assert found["near"] is None
    assert "near" not in "".join(list(prediction.summary_lines("any", found))[1:])
