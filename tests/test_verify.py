"""A finished grid is checked: files by their checksums, and cells by running them again."""

import json

import numpy as np
import pytest

from experiments.verify import verify
from harness import cli


def test_a_sound_grid_verifies(done, capsys):
    grid, cells = done
    assert verify(grid, cells, sample=1, seed=1) == ({}, {})
    assert cli.main(["verify", str(grid.folder), "--sample", "2"]) == 0
    assert capsys.readouterr().out == "2 finished cells are complete; 2 evaluated again: the same outcome\n"


@pytest.mark.parametrize("name", ["masks.npz", "test.pruned.txt", "evaluations.jsonl", "confirm.dense.txt"])
def test_a_changed_or_missing_file_is_found(done, name):
    grid, cells = done
    path = grid.cell_folder(cells[0]) / name
    path.write_bytes(path.read_bytes() + b"\n")
    problems, _ = verify(grid, cells, sample=0, seed=1)
    assert f"{name} is not what it was when the cell ended" in problems[cells[0].name]
    path.unlink()
    assert f"{name} is missing" in verify(grid, cells, 0, 1)[0][cells[0].name]
    assert list(problems) == [cells[0].name]


def test_a_result_that_cannot_be_had_again_is_found(done, capsys):
    """A result that was written by hand, with checksums that fit."""
    grid, cells = done
    path = grid.cell_folder(cells[1]) / "result.json"
    result = json.loads(path.read_text())
    result["sets"]["test"]["bleu"] += 0.01
    result["knobs"] = (np.array(result["knobs"]) / 2).tolist()
    path.write_text(json.dumps(result))
    damaged, problems = verify(grid, cells, sample=2, seed=1)
    assert damaged == {}
    assert list(problems) == [cells[1].name]
    said = " ".join(problems[cells[1].name])
    assert "test: bleu was" in said
    assert "the mask of" in said
    assert cli.main(["verify", str(grid.folder), "--sample", "2"]) == 2
    assert "1 cells come out otherwise than before" in capsys.readouterr().err
