"""Word-level distillation: the loss by torch's distributions, and a student that fairseq-train makes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import MODELS, QUICK, read_evaluations
from fairseq.data.language_pair_dataset import collate
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from torch.distributions import Categorical, kl_divergence

from grouping.errors import StudyError
from harness import cli
from harness.cell import Study, run_cell
from harness.masks import read_masks
from harness.model import load_model
from harness.retraining import Schedule, retrain
from harness.training.distillation import DistilledCrossEntropy


@pytest.fixture(scope="module", params=["transformer", "rnnsearch"])
def task(request, small):
    """A shipped model's task, its checkpoint, and a batch with padding on both sides."""
    study = Study.open(MODELS / f"{request.param}.pt", small)
    corpus = study.corpus
    sides = corpus.source_tokens("train"), corpus.target_tokens("train")
    samples = [
        {"id": i, "source": torch.from_numpy(sides[0][i]), "target": torch.from_numpy(sides[1][i])}
        for i in range(4)
    ]
    pad, eos = corpus.target_dictionary.pad(), corpus.target_dictionary.eos()
    batch = collate(samples, pad, eos)
    assert (batch["target"] == pad).any()
    made = TranslationTask(TranslationConfig(), corpus.source_dictionary, corpus.target_dictionary)
    return made, MODELS / f"{request.param}.pt", batch


def student_of(task):
    """The teacher's own weights, to be trained without dropout."""
    made, checkpoint, _ = task
    student = load_model(checkpoint, made.source_dictionary, made.target_dictionary).module
    student.requires_grad_(True).train()
    for module in student.modules():
        if hasattr(module, "p"):
            module.p = 0.0
        if isinstance(module, torch.nn.LSTM):
            module.dropout = 0.0
    return student


def criterion(task, distillation: float) -> DistilledCrossEntropy:
    return DistilledCrossEntropy(task[0], False, 0.1, distillation, str(task[1])).train()


def distribution(module, batch) -> tuple[Categorical, torch.Tensor]:
    """Of each word of the references that is no padding, in evaluation mode; and the words."""
    training = module.training
    module.eval()
    with torch.no_grad():
        logits, _ = module(**batch["net_input"])
    module.train(training)
    real = batch["target"] != 1
    return Categorical(logits=logits[real].double()), batch["target"][real]


def gradient(module, loss: torch.Tensor) -> float:
    """Norm of the gradient."""
    module.zero_grad()
    loss.backward()
    return float(torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]).norm())


def test_a_student_that_is_its_teacher_has_nothing_to_learn(task):
    student, batch = student_of(task), task[2]
    loss, size, _ = criterion(task, 1.0)(student, batch)
    dense, words = distribution(student, batch)
    assert loss.item() == pytest.approx(float(dense.entropy().sum()), rel=1e-5)
    assert size == len(words) == batch["ntokens"]
    none = gradient(student, loss)
    assert none < 1e-3 * gradient(student, criterion(task, 0.0)(student, batch)[0])


def test_another_student_pays_for_how_far_it_is_from_its_teacher(task):
    student, batch = student_of(task), task[2]
    dense, words = distribution(student, batch)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    own, _ = distribution(student, batch)
    taught = float((dense.entropy() + kl_divergence(dense, own)).sum())
    # fairseq's ε of 0.1 is spread over all other words
    other = 0.1 / (own.logits.shape[-1] - 1)
    alone = float((-(0.9 - other) * own.log_prob(words) - other * own.logits.sum(dim=-1)).sum())
    assert abs(taught - alone) > 1
    for share in (0.0, 0.25, 1.0):
        loss, _, logged = criterion(task, share)(student, batch)
        assert loss.item() == pytest.approx((1 - share) * alone + share * taught, rel=1e-5)
        assert float(logged["nll_loss"]) == pytest.approx(-float(own.log_prob(words).sum()), rel=1e-5)


def test_on_valid_the_loss_is_that_without_a_teacher(task):
    student, batch = student_of(task).eval(), task[2]
    with torch.no_grad():
        losses = [criterion(task, share)(student, batch)[0].item() for share in (0.0, 0.5, 1.0)]
    assert losses[0] == losses[1] == losses[2]


def test_a_teacher_is_neither_trained_nor_saved(task):
    taught = criterion(task, 0.5)
    assert list(taught.parameters()) == []
    assert taught.state_dict() == {}
    (teacher,) = taught._teacher
    assert not teacher.training


def test_the_command_distils_and_plain_fairseq_generate_loads_the_student(finished, small, tmp_path, capsys):
    cell, out = finished("OnePlusOne"), tmp_path / "out"
    command = ["retrain", str(MODELS / "rnnsearch.pt"), "--corpus", str(small), "--cell", str(cell.folder)]
    command += ["--epochs", "1", "--distillation", "0.5"]
    assert cli.main([*command, "--out", str(out)]) == 0
    capsys.readouterr()
    job = json.loads((out / "job.json").read_text())
    assert job["teacher_sha256"] == cell.config.checkpoint_sha256
    assert "distilled_cross_entropy" in job["arguments"]
    state = torch.load(out / "checkpoint_last.pt", weights_only=False)
    assert state["criterion"] is None
    generate = [sys.executable, "-m", "fairseq_cli.generate", str(small / "bin"), "--cpu", "--beam", "2"]
    generate += ["--path", str(out / "retrained.pt"), "--gen-subset", "confirm", "--max-len-b", "20"]
    generate += ["--required-batch-size-multiple", "1"]
    done = subprocess.run(generate, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sum(line.startswith("H-") for line in done.stdout.splitlines()) == 12


class Stopped(Exception):
    """An interruption."""


def test_interrupted_it_ends_in_the_same_student(finished, small, tmp_path):
    masks = read_masks(finished("OnePlusOne").folder / "masks.npz")

    def student(folder: Path, notify=lambda epoch, valid_loss: None) -> torch.Tensor:
        study = Study.open(MODELS / "rnnsearch.pt", small)
        schedule = Schedule(epochs=3, learning_rate=1e-3, distillation=0.5)
        dense = study.model.flat.clone()
        retrain(study.model, masks, study.corpus, folder, schedule, notify, teacher=dense)
        return study.model.flat

    def stop(epoch: int, valid_loss: float) -> None:
        if epoch == 2:
            raise Stopped

    with pytest.raises(Stopped):
        student(tmp_path / "stopped", stop)
    assert (tmp_path / "stopped" / "checkpoint_last.pt").exists()
    assert torch.equal(student(tmp_path / "stopped"), student(tmp_path / "whole"))


def test_the_teacher_of_every_round_is_the_dense_model(small, tmp_path):
    study, folder = Study.open(MODELS / "rnnsearch.pt", small), tmp_path / "cell"
    settings = QUICK | {"grouping": "component", "start": "dense", "sigma": 0.1, "tolerance": 20.0}
    settings |= {"search": "OnePlusOne", "evaluations": 6, "seed": 3}
    schedule = {"schedule": "iterative", "epochs": 2, "round_epochs": 1, "learning_rate": 1e-4}
    config = study.config(**settings, **schedule, distillation=1.0)

    def stop(evaluation) -> None:
        if evaluation.round == 2:
            raise Stopped

    with pytest.raises(Stopped):
        run_cell(study, config, folder, stop)
    assert {e.round for e in read_evaluations(folder)} == {0, 1, 2}
    jobs = [json.loads((folder / f"retraining-{n}" / "job.json").read_text()) for n in (1, 2)]
    assert [job["teacher_sha256"] for job in jobs] == 2 * [config.checkpoint_sha256]
    assert jobs[0]["pruned_sha256"] != jobs[1]["pruned_sha256"]


def test_where_distillation_or_a_dropout_makes_no_sense(small, tmp_path):
    study = Study.open(MODELS / "rnnsearch.pt", small)
    with pytest.raises(StudyError, match="^schedule one-shot trains nothing: leave out distillation"):
        study.config(distillation=0.5)
    with pytest.raises(StudyError, match="^schedule one-shot trains nothing: leave out dropout"):
        study.config(dropout=0.0)
    with pytest.raises(StudyError, match="^schedule one-shot trains nothing: leave out batch_tokens"):
        study.config(batch_tokens=500)
    with pytest.raises(StudyError, match=r"^distillation 1\.5 is not possible: "):
        study.config(distillation=1.5, schedule="retrain")
    with pytest.raises(StudyError, match=r"^distillation -0\.5 is not possible: give a fraction"):
        Schedule(distillation=-0.5)
    with pytest.raises(ValueError, match="without a teacher"):
        retrain(study.model, {}, study.corpus, tmp_path / "r", Schedule(distillation=0.5))
