"""What the cells that are left will take."""

import json
import shutil
from dataclasses import replace

import pytest

from experiments.cost import TRAINING_RATE, estimate
from experiments.grid import Grid


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
