"""Retraining with masks held: what was pruned stays pruned, in weights and in the optimizer."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CELLS, MODELS, SENTENCES, Finished, is_alive, prepare_small, wait_until
from conftest import QUICK as QUICK_CELL

from grouping.errors import StudyError
from harness import cli
from harness.cell import Study, run_cell
from harness.decoding.linear import multiplies
from harness.masks import read_masks, write_masks
from harness.retraining import LOG, Epoch, Schedule, out_of_patience, retrain, told

QUICK = Schedule(epochs=2, learning_rate=1e-3)
#: an update for every few sentences, so that an epoch takes its time
SLOW = Schedule(epochs=3, learning_rate=1e-3, batch_tokens=30)
RETRAIN = f"""
import sys
from pathlib import Path
from harness.cell import Study
from harness.masks import read_masks
from harness.retraining import Schedule, retrain
checkpoint, corpus, cell, folder = map(Path, sys.argv[1:])
study = Study.open(checkpoint, corpus)
retrain(study.model, read_masks(cell / "masks.npz"), study.corpus, folder, {SLOW!r})
"""


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


@pytest.mark.parametrize("autocast", ["", "bfloat16"])
@pytest.mark.parametrize("name", ["NCS", "OnePlusOne"])
def test_what_was_pruned_stays_zero_and_the_rest_learns(finished, study, tmp_path, name, autocast):
    cell = finished(name)  # a Transformer, tied embeddings and all, and an LSTM
    masks, own = masks_of(cell), study(CELLS[name][0])
    where = pruned(own, masks)
    assert where.any()
    heard = []
    schedule = replace(QUICK, autocast=autocast)
    found = retrain(
        own.model, masks, own.corpus, tmp_path / "r", schedule, lambda *epoch: heard.append(epoch)
    )
    # a processor without bfloat16 trains as well
    able = autocast and multiplies(torch.bfloat16)
    assert found.precision == ("bfloat16" if able else "float32")
    assert not own.model.flat[where].any()
    dense = cell.study.model.flat
    changed = own.model.flat[~where] != dense[~where]
    assert changed.float().mean() > 0.5
    assert found.epochs == 2
    assert found.updates == 2  # the small corpus is one batch
    words = sum(len(ids) for ids in own.corpus.target_tokens("train"))
    assert found.words == 2 * words
    rates = [float(rate) for rate in re.findall(r'"train_lr": "([^"]+)"', (tmp_path / "r" / LOG).read_text())]
    assert rates == [QUICK.learning_rate, QUICK.learning_rate / 2]
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
    (folder / ".retrained.pt.0123.part").touch()  # of a write that was cut off
    found = retrain(study("rnnsearch").model, masks, own.corpus, folder, QUICK)
    assert found.epochs == 2
    assert not (folder / ".retrained.pt.0123.part").exists()
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
    (folder / "retraining.json").unlink()
    (folder / LOG).unlink()
    with pytest.raises(
        StudyError, match=r"train.log tells of 0 of the 2 epochs that checkpoint_last.pt has seen: put"
    ):
        retrain(study("rnnsearch").model, masks, own.corpus, folder, QUICK)


def test_one_that_came_to_nothing_makes_way_for_other_settings(finished, study, tmp_path):
    masks, folder, own = masks_of(finished("OnePlusOne")), tmp_path / "r", study("rnnsearch")
    with pytest.raises(StudyError, match="fairseq-train failed"):
        retrain(own.model, masks, own.corpus, folder, replace(QUICK, batch_tokens=2))
    (folder / LOG).unlink()  # as if killed while it made way
    found = retrain(study("rnnsearch").model, masks, own.corpus, folder, QUICK)
    assert found.epochs == 2
    assert (folder / LOG).read_text().count("begin training epoch 1\n") == 1


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Path:
    """A corpus in which many sentences are as long as others, so that batches could be dealt otherwise."""
    folder = tmp_path_factory.mktemp("corpus") / "short.en-de"
    prepare_small(folder, SENTENCES | {"train": 40}, longest=24)
    return folder


@pytest.fixture(scope="module")
def whole(finished, short, tmp_path_factory):
    """A retraining of several updates an epoch that nothing has disturbed, and its weights."""
    own = Study.open(MODELS / "rnnsearch.pt", short)
    folder = tmp_path_factory.mktemp("whole") / "r"
    found = retrain(own.model, masks_of(finished("OnePlusOne")), own.corpus, folder, SLOW)
    assert found.epochs == SLOW.epochs
    assert found.updates > 5 * SLOW.epochs
    return found, own.model.flat


def child_of(process: int) -> int:
    """Its only one."""
    return int(Path(f"/proc/{process}/task/{process}/children").read_text())


@pytest.mark.parametrize(
    "victim",
    [
        "fairseq-train",
        pytest.param("what it is forked from", marks=pytest.mark.long),
        pytest.param("who started it", marks=pytest.mark.long),
    ],
)
def test_killed_in_the_middle_of_an_epoch_it_ends_the_same(finished, short, whole, tmp_path, victim):
    cell, folder = finished("OnePlusOne"), tmp_path / "r"
    own, log = Study.open(MODELS / "rnnsearch.pt", short), folder / "train.log"
    places = [str(path) for path in (MODELS / "rnnsearch.pt", own.corpus.folder, cell.folder, folder)]
    process = subprocess.Popen([sys.executable, "-c", RETRAIN, *places], stderr=subprocess.DEVNULL)
    wait_until(lambda: log.exists() and "begin training epoch 2" in log.read_text(), 120, 0.01)
    time.sleep(0.1)
    trainer = child_of(process.pid)
    training = child_of(trainer)
    victims = {"fairseq-train": training, "what it is forked from": trainer, "who started it": process.pid}
    os.kill(victims[victim], signal.SIGKILL)
    assert process.wait() != 0
    wait_until(lambda: not is_alive(training) and not is_alive(trainer))
    assert [epoch.number for epoch in told(log)] == [1]
    state = torch.load(folder / "checkpoint_last.pt", weights_only=False)
    first = state["extra_state"]["previous_training_time"]
    found = retrain(own.model, masks_of(cell), own.corpus, folder, SLOW)
    assert log.read_text().count("begin training epoch 2") == 2
    assert found.seconds > first > 0  # those of both processes
    assert replace(found, seconds=whole[0].seconds) == whole[0]
    assert torch.equal(own.model.flat, whole[1])


def test_a_retraining_goes_on_wherever_its_files_are_by_then(finished, short, whole, tmp_path):
    own, masks = Study.open(MODELS / "rnnsearch.pt", short), masks_of(finished("OnePlusOne"))

    def stop(epoch: int, valid_loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retrain(own.model, masks, own.corpus, tmp_path / "there", SLOW, stop)
    wait_until(lambda: not (tmp_path / "there" / "claim-000001").exists())
    shutil.copytree(short, tmp_path / "corpus")
    (tmp_path / "there").rename(tmp_path / "here")
    own = Study.open(MODELS / "rnnsearch.pt", tmp_path / "corpus")
    found = retrain(own.model, masks, own.corpus, tmp_path / "here", SLOW)
    assert replace(found, seconds=whole[0].seconds) == whole[0]
    assert torch.equal(own.model.flat, whole[1])
    assert not (tmp_path / "there").exists()


def test_other_training_text_is_another_retraining(finished, short, tmp_path):
    own, masks = Study.open(MODELS / "rnnsearch.pt", short), masks_of(finished("OnePlusOne"))
    retrain(own.model, masks, own.corpus, tmp_path / "r", replace(SLOW, epochs=1))
    config = own.config(**QUICK_CELL, schedule="retrain")
    assert config.training_sha256 == own.corpus.training_hash() != ""
    assert own.config(**QUICK_CELL).training_sha256 == ""
    shutil.copytree(short, tmp_path / "corpus")
    for suffix in ("bin", "idx"):
        valid, train = (
            tmp_path / "corpus" / "bin" / f"{name}.en-de.de.{suffix}" for name in ("valid", "train")
        )
        shutil.copy(valid, train)
    other = Study.open(MODELS / "rnnsearch.pt", tmp_path / "corpus")
    assert other.corpus_hash == own.corpus_hash
    with pytest.raises(StudyError, match="holds another retraining"):
        retrain(other.model, masks, other.corpus, tmp_path / "r", replace(SLOW, epochs=1))
    with pytest.raises(StudyError, match="the training text in .* has changed since the cell was planned"):
        run_cell(other, config, tmp_path / "cell")
    (tmp_path / "corpus" / "bin" / "valid.en-de.en.idx").unlink()
    with pytest.raises(StudyError, match="valid.en-de.en.idx is missing"):
        other.config(**QUICK_CELL, schedule="retrain")


@pytest.mark.parametrize(
    "which", ["checkpoint_last.pt", pytest.param("checkpoint_best.pt", marks=pytest.mark.long)]
)
def test_a_checkpoint_cut_off_by_a_kill_is_made_again(finished, short, whole, tmp_path, which):
    own, masks, folder = (
        Study.open(MODELS / "rnnsearch.pt", short),
        masks_of(finished("OnePlusOne")),
        tmp_path / "r",
    )
    retrain(own.model, masks, own.corpus, folder, SLOW)
    (folder / "retraining.json").unlink()
    torn = folder / which
    torn.write_bytes(torn.read_bytes()[:-1000])
    again = Study.open(MODELS / "rnnsearch.pt", short)
    found = retrain(again.model, masks, again.corpus, folder, SLOW)
    assert replace(found, seconds=whole[0].seconds) == whole[0]
    assert torch.equal(again.model.flat, whole[1])
    begun = (folder / LOG).read_text().count("begin training epoch 1\n")
    assert begun == (1 if which == "checkpoint_last.pt" else 2)  # a copy of the best one is made again


def test_one_that_ended_early_and_was_killed_then_does_not_go_on(finished, study, tmp_path):
    masks, folder = masks_of(finished("OnePlusOne")), tmp_path / "r"
    ruinous = Schedule(epochs=9, learning_rate=1.5, patience=1)
    own, again = study("rnnsearch"), study("rnnsearch")
    found = retrain(own.model, masks, own.corpus, folder, ruinous)
    assert found.epochs < 9
    assert found.valid_loss[-1] >= min(found.valid_loss[:-1])
    (folder / "retraining.json").unlink()
    before = (folder / "train.log").read_bytes()
    resumed = retrain(again.model, masks, again.corpus, folder, ruinous)
    assert (folder / "train.log").read_bytes() == before
    assert replace(resumed, seconds=found.seconds) == found
    assert torch.equal(again.model.flat, own.model.flat)


def test_patience_is_counted_from_the_lowest_loss():
    def lost(losses: list[float], patience: int) -> bool:
        return out_of_patience([Epoch(n, loss, n) for n, loss in enumerate(losses, start=1)], patience)

    assert not lost([], 1)
    assert not lost([5.0], 1)
    assert lost([5.0, 5.0], 1)  # as low is not lower
    assert not lost([5.0, 5.1], 2)
    assert lost([5.0, 5.1, 5.05], 2)
    assert not lost([5.0, 5.1, 4.9, 5.0], 2)
    assert not lost([1.0, 2.0, 3.0], 0)


def test_of_an_epoch_that_was_done_again_the_log_has_the_last_word(tmp_path):
    def line(epoch: int, loss: str) -> str:
        row = {"epoch": epoch, "valid_loss": loss, "valid_num_updates": str(10 * epoch)}
        return f"2026-01-01 00:00:00 | INFO | valid | {json.dumps(row)}\n"

    log = tmp_path / "train.log"
    assert told(log) == []
    log.write_text("nothing yet\n" + line(1, "5.5") + line(2, "5.25") + line(2, "5.0"))
    assert told(log) == [Epoch(1, 5.5, 10), Epoch(2, 5.0, 20)]
    log.write_text(log.read_text() + line(1, "5.5"))  # begun anew
    assert told(log) == [Epoch(1, 5.5, 10)]


@pytest.mark.parametrize("name", ["transformer", "rnnsearch", "luong"])
def test_what_was_pruned_is_zero_in_the_exported_checkpoint(study, tmp_path, name):
    own, folder = study(name), tmp_path / "cell"
    settings = {"search": "class-blind", "grouping": "matrix", "sparsity": 0.6, "tolerance": 0.0}
    config = own.config(**QUICK_CELL | settings, schedule="retrain", epochs=1, learning_rate=1e-3)
    result = run_cell(own, config, folder)
    state = torch.load(folder / "pruned.pt", weights_only=True)["model"]
    shipped = torch.load(MODELS / f"{name}.pt", weights_only=True)["model"]
    gone = moved = 0
    for parameter, mask in read_masks(folder / "masks.npz").items():
        weights = state[parameter].numpy()
        assert not weights[~mask].any()
        assert not np.signbit(weights[~mask]).any()
        gone += (~mask).sum()
        moved += (weights[mask] != shipped[parameter].float().numpy()[mask]).sum()
    assert gone == result.pruned == round(0.6 * result.prunable)
    assert moved > 0.2 * result.parameters
    # names that are one tensor in the shipped checkpoint are one in the exported checkpoint
    for names in product(state, repeat=2):
        ours, theirs = (len({weights[n].data_ptr() for n in names}) for weights in (state, shipped))
        assert ours == theirs


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
        retrain(own.model, masks_of(finished("OnePlusOne")), own.corpus, folder, Schedule(batch_tokens=2))
    assert not (folder / "retraining.json").exists()


@pytest.mark.parametrize("model", ["rnnsearch", "transformer"])
def test_a_dropout_of_its_own_is_that_of_embeddings_and_layers(study, model):
    own = study(model).model.state["cfg"]["model"]
    assert Schedule().settings(own) == own
    given = Schedule(dropout=0.0).settings(own)
    recurrent = {f"{side}_dropout_{end}" for side in ("encoder", "decoder") for end in ("in", "out")}
    changed = {name for name in given if given[name] != own.get(name)}
    # a Transformer knows nothing of those
    assert changed == {"dropout"} | recurrent
    assert {given[name] for name in changed} == {0.0}


def test_fairseq_trains_with_that_dropout_and_such_batches(finished, study, tmp_path):
    """Its own word for it: what it logs of the model, and how many updates it made."""
    updates = {}
    for tokens in (2000, 200):
        own, folder = study("rnnsearch"), tmp_path / str(tokens)
        schedule = replace(QUICK, epochs=1, dropout=0.05, batch_tokens=tokens)
        updates[tokens] = retrain(
            own.model, masks_of(finished("OnePlusOne")), own.corpus, folder, schedule
        ).updates
        log = (folder / LOG).read_text()
        assert set(re.findall(r"(?:en|de)coder_dropout_(?:in|out)'?[=:] ?([0-9.]+)", log)) == {"0.05"}
    assert updates[200] > updates[2000]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epochs": 0}, "epochs 0 is"),
        ({"batch_tokens": 0}, "batch-tokens 0 is"),
        ({"dropout": 1.0}, "dropout 1.0 is"),
        ({"learning_rate": 0}, "learning-rate 0 is"),
        ({"autocast": "x"}, "autocast"),
        ({"seed": -1}, "seed -1 is"),
        ({"seed": 2**32}, "seed 4294967296 is"),
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
    took = r"1 epochs, 1 updates, \d+ words, \d+ s in float32"
    assert re.match(took + r"\nloss on valid: \d\.\d+\nwritten to", shown)
    assert json.loads((out / "retraining.json").read_text())["updates"] == 1
    assert (
        cli.main(["evaluate", str(out / "retrained.pt"), "--corpus", str(small), "--split", "confirm"]) == 0
    )
    assert "are not zero" in capsys.readouterr().out
    other = ["retrain", str(MODELS / "luong.pt"), *command[2:], "--out", str(tmp_path / "other")]
    assert cli.main(other) == 2
    assert "is of another model than" in capsys.readouterr().err
    assert not Path(tmp_path / "other").exists()
    nowhere = [*command[:4], "--cell", str(tmp_path / "none"), "--out", str(tmp_path / "other")]
    assert cli.main(nowhere) == 2
    assert f"there is no cell in {tmp_path / 'none'}: name a folder" in capsys.readouterr().err
