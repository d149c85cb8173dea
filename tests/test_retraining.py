"""Retraining with masks held: what was pruned stays pruned, in weights and in the optimizer."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CELLS, MODELS, Finished

from grouping.errors import StudyError
from harness import cli
from harness.cell import Study
from harness.masks import read_masks, write_masks
from harness.retraining import Schedule, retrain

QUICK = Schedule(epochs=2, learning_rate=1e-3)


def masks_of(cell: Finished) -> dict[str, np.ndarray]:
    return read_masks(cell.folder / "masks.npz")


def pruned(study: Study, masks: dict[str, np.ndarray]) -> torch.Tensor:
    """Where the flat weights are pruned."""
    where = torch.zeros(study.model.flat.numel(), dtype=torch.bool)
    for name, mask in masks.items():
        start = study.model.offsets[name]
        where[start : start + mask.size] = torch.from_numpy(~mask.ravel())
    return where


@pytest.fixture
def study(small):
    """A study whose weights a test may change."""
    return lambda model: Study.open(MODELS / f"{model}.pt", small)


@pytest.mark.parametrize("name", ["NCS", "OnePlusOne"])
def test_what_was_pruned_stays_zero_and_the_rest_learns(finished, study, tmp_path, name):
    cell = finished(name)  # a Transformer, tied embeddings and all, and an LSTM
    masks, own = masks_of(cell), study(CELLS[name][0])
    where = pruned(own, masks)
    assert where.any()
    heard = []
    found = retrain(own.model, masks, own.corpus, tmp_path / "r", QUICK, lambda *epoch: heard.append(epoch))
    assert not own.model.flat[where].any()
    dense = cell.study.model.flat
    changed = own.model.flat[~where] != dense[~where]
    assert changed.float().mean() > 0.5
    assert found.epochs == 2
    assert found.updates == 2  # the small corpus is one batch
    words = sum(len(ids) for ids in own.corpus.target_tokens("train"))
    assert found.words == 2 * words
    assert found.seconds > 0
    assert [loss for _, loss in heard] == found.valid_loss
    state = torch.load(tmp_path / "r" / "checkpoint_last.pt", weights_only=False)
    moments = state["last_optimizer_state"]["state"]
    names = [name for name, _ in own.model.module.named_parameters()]
    assert len(moments) == len(names)
    for name, moment in zip(names, moments.values(), strict=True):
        gone = torch.from_numpy(~masks[name])
        assert not moment["exp_avg"][gone].any()
        assert not moment["exp_avg_sq"][gone].any()
    assert any(moment["exp_avg"].any() for moment in moments.values())


def test_an_interrupted_retraining_goes_on_and_a_finished_one_returns(finished, study, tmp_path):
    masks, folder = masks_of(finished("OnePlusOne")), tmp_path / "r"
    own = study("rnnsearch")

    def stop(epoch: int, valid_loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retrain(own.model, masks, own.corpus, folder, QUICK, stop)
    assert not (folder / "retraining.json").exists()
    last = folder / "checkpoint_last.pt"
    if last.exists():  # cut off by a kill
        last.write_bytes(last.read_bytes()[:-1000])
    found = retrain(study("rnnsearch").model, masks, own.corpus, folder, QUICK)
    assert found.epochs == 2
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = study("rnnsearch")
    assert retrain(again.model, masks, own.corpus, folder, QUICK) == found
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    with pytest.raises(StudyError, match="holds another retraining: choose another --out"):
        retrain(study("rnnsearch").model, masks, own.corpus, folder, Schedule(epochs=3))
    fewer = {name: np.ones_like(mask) for name, mask in masks.items()}
    for others, schedule in ((fewer, QUICK), (masks, replace(QUICK, autocast="bfloat16"))):
        with pytest.raises(StudyError, match="holds another retraining"):
            retrain(study("rnnsearch").model, others, own.corpus, folder, schedule)


def test_masks_of_another_model_and_foreign_folders_are_refused(finished, study, tmp_path):
    own = study("rnnsearch")
    with pytest.raises(StudyError, match="the masks are of another model"):
        retrain(own.model, masks_of(finished("NCS")), own.corpus, tmp_path / "r", QUICK)
    assert not (tmp_path / "r").exists()
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(StudyError, match="exists and holds no retraining"):
        retrain(own.model, masks_of(finished("OnePlusOne")), own.corpus, tmp_path, QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_training_that_fails_says_why(finished, study, tmp_path):
    own, folder = study("rnnsearch"), tmp_path / "r"
    with pytest.raises(StudyError, match=r"fairseq-train failed, see .*train.log: .*dataset is empty"):
        retrain(own.model, masks_of(finished("OnePlusOne")), own.corpus, folder, Schedule(max_tokens=2))
    assert not (folder / "retraining.json").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epochs": 0}, "epochs 0 is"),
        ({"learning_rate": 0}, "learning-rate 0 is"),
        ({"autocast": "x"}, "autocast"),
    ],
)
def test_impossible_schedules_are_refused(settings, said):
    with pytest.raises(StudyError, match=said):
        Schedule(**settings)


def test_masks_come_back_as_they_were(tmp_path):
    masks = {"a.weight": np.array([[True, False, True]]), "b": np.zeros(9, dtype=bool)}
    write_masks(tmp_path / "masks.npz", masks)
    found = read_masks(tmp_path / "masks.npz")
    assert set(found) == set(masks)
    assert all(np.array_equal(found[name], mask) for name, mask in masks.items())
    for content in (b"", b"no zip"):
        (tmp_path / "masks.npz").write_bytes(content)
        with pytest.raises(StudyError, match="holds no masks"):
            read_masks(tmp_path / "masks.npz")


def test_the_command_retrains_a_cell(finished, small, tmp_path, capsys):
    cell, out = finished("OnePlusOne"), tmp_path / "out"
    command = ["retrain", str(MODELS / "rnnsearch.pt"), "--corpus", str(small), "--cell", str(cell.folder)]
    assert cli.main([*command, "--out", str(out), "--epochs", "1"]) == 0
    shown = capsys.readouterr().out
    assert re.match(r"1 epochs, 1 updates, \d+ words, \d+ s\nloss on valid: \d\.\d+\nwritten to", shown)
    assert json.loads((out / "retraining.json").read_text())["updates"] == 1
    assert (
        cli.main(["evaluate", str(out / "retrained.pt"), "--corpus", str(small), "--split", "confirm"]) == 0
    )
    assert "are not zero" in capsys.readouterr().out
    other = ["retrain", str(MODELS / "luong.pt"), *command[2:], "--out", str(tmp_path / "other")]
    assert cli.main(other) == 2
    assert "is of another model than" in capsys.readouterr().err
    assert not Path(tmp_path / "other").exists()
