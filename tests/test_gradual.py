"""Gradual pruning: the law by hand, the pruner on a real small model, and in a real fairseq-train."""

import numpy as np
import pytest
import torch
from conftest import MODELS, QUICK, SENTENCES, prepare_small, wait_until
from tiny_models import describe, transformer

from grouping import connection_table, partition
from grouping.errors import StudyError
from harness.cell import Study, run_cell
from harness.gradual import CubicLaw, Gradual, Pruner
from harness.masks import read_masks
from harness.retraining import Schedule, retrain, told


def test_the_law_by_hand():
    """12 updates: two thirds are 8, in 4 steps of 2; s = 0.8 (1 - (1 - t/8)³)."""
    law = CubicLaw(0.8, updates=12, steps=4)
    expected = [0, 0, 0.4625, 0.4625, 0.7, 0.7, 0.7875, 0.7875, 0.8, 0.8, 0.8, 0.8]
    assert [law.sparsity(update) for update in range(12)] == pytest.approx(expected)
    assert [update for update in range(12) if law.due(update)] == [0, 2, 4, 6, 8]
    assert law.sparsity(8) == 0.8


@pytest.mark.parametrize("updates", [1, 2, 3, 10, 100, 1999])
def test_it_is_over_while_there_are_updates_left(updates):
    law = CubicLaw(0.9, updates, steps=30)
    reached = [law.sparsity(update) for update in range(updates)]
    assert reached == sorted(reached)
    assert reached[-1] == 0.9
    assert law.end <= 2 * updates / 3
    # nothing changes where nothing is due
    assert all(a == b or law.due(t) for t, (a, b) in enumerate(zip(reached, reached[1:], strict=False), 1))


@pytest.fixture
def tiny():
    torch.manual_seed(1)
    model = transformer(share_all_embeddings=True)
    return model, partition(connection_table(describe(model)), "matrix")


def train(model: torch.nn.Module, pruner: Pruner, epochs: int, updates: int) -> list[list[int]]:
    """Steps of Adam with random gradients; the numbers of zeros of each matrix after each update."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=0.1)
    pruner.hold(model)
    zeros = []
    for update in range(epochs * updates):
        if update % updates == 0:
            pruner.begin_epoch(updates)
        pruner.before_update(model, optimizer, update)
        optimizer.zero_grad()
        sum((p * torch.randn_like(p)).sum() for p in model.parameters()).backward()
        optimizer.step()
        zeros.append([int((p == 0).sum()) for p in model.parameters() if p.dim() > 1])
    return zeros


def test_what_goes_stays_zero_from_then_on_and_the_rest_is_trained(tiny):
    model, blocks = tiny
    before = [p.detach().clone() for p in model.parameters()]
    zeros = train(model, Pruner(Gradual(blocks, "class-uniform", 0.8, steps=4), epochs=3), 3, updates=4)
    padding = model.encoder.embed_tokens.embedding_dim  # a row of zeros that gets no gradient but drawn ones
    law = [0, 0, 0.4625, 0.4625, 0.7, 0.7, 0.7875, 0.7875, 0.8, 0.8, 0.8, 0.8]
    sizes = blocks.groupby("parameter", sort=False)["size"].sum()
    for update, counts in enumerate(zeros):
        for size, count in zip(sizes, counts, strict=True):
            assert round(law[update] * size) <= count <= round(law[update] * size) + padding
    for p, old in zip(model.parameters(), before, strict=True):
        assert (p[p != 0] != old[p != 0]).all()
        assert not torch.signbit(p[p == 0]).any()


def test_class_blind_takes_the_smallest_of_all(tiny):
    model, blocks = tiny
    masks = Gradual(blocks, "class-blind", 0.5).masks(model, 0.3)
    kept, gone = [], []
    for name, parameter in model.named_parameters():
        rows = 1 if "embed_tokens" in name else 0  # the padding row, index 1, is no connection
        weights, mask = parameter.detach().abs().numpy(), masks[name]
        if parameter.dim() == 1:
            assert mask.all()
            continue
        if rows:
            assert mask[1].all()
            weights, mask = np.delete(weights, 1, axis=0), np.delete(mask, 1, axis=0)
        kept.append(weights[mask])
        gone.append(weights[~mask])
    assert np.concatenate(gone).max() <= np.concatenate(kept).min()
    assert np.concatenate(gone).size == round(0.3 * blocks["size"].sum())


def test_it_comes_back_from_its_file(tiny, tmp_path):
    _, blocks = tiny
    gradual = Gradual(blocks, "lamp", 0.25, steps=7)
    gradual.write(tmp_path / "gradual.json")
    found = Gradual.read(tmp_path / "gradual.json")
    assert found.identity() == gradual.identity()
    assert (found.rule, found.sparsity, found.steps) == ("lamp", 0.25, 7)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Sentences enough for several updates an epoch."""
    folder = tmp_path_factory.mktemp("corpus") / "short.en-de"
    prepare_small(folder, SENTENCES | {"train": 40}, longest=24)
    return folder


@pytest.mark.parametrize(
    ("rule", "grouping"),
    [("class-blind", "single"), pytest.param("class-uniform", "matrix", marks=pytest.mark.long)],
)
def test_a_cell_is_pruned_while_it_is_trained(short, tmp_path, rule, grouping):
    study, folder = Study.open(MODELS / "rnnsearch.pt", short), tmp_path / "cell"
    settings = QUICK | {"search": rule, "grouping": grouping, "sparsity": 0.7, "tolerance": 0.0}
    dense = study.model.flat.clone()
    config = study.config(**settings, schedule="gradual", epochs=2, learning_rate=1e-3)
    result = run_cell(study, config, folder)
    assert torch.equal(study.model.flat, dense)
    assert abs(result.pruned - 0.7 * result.prunable) <= len(result.groups) / 2
    assert [(r.round, r.retraining is not None) for r in result.rounds] == [(1, True)]
    assert result.evaluations == 1
    state = torch.load(folder / "pruned.pt", weights_only=True)["model"]
    shipped = torch.load(MODELS / "rnnsearch.pt", weights_only=True)["model"]
    share, moved = {}, 0
    for name, mask in read_masks(folder / "masks.npz").items():
        weights = state[name].numpy()
        assert not weights[~mask].any()
        moved += (weights[mask] != shipped[name].float().numpy()[mask]).sum()
        if mask.ndim > 1:
            share[name] = 1 - mask.mean()
    assert moved > 0.3 * (result.parameters - result.pruned)
    if rule == "class-uniform":
        # the padding row of an embedding of 4,000 is no connection
        assert list(share.values()) == pytest.approx([0.7] * len(share), abs=1e-3)
    else:
        assert max(share.values()) - min(share.values()) > 0.1
    assert {group.threshold for group in result.groups} == {0}


class Stopped(Exception):
    """An interruption."""


def test_an_interrupted_one_ends_the_same(short, tmp_path):
    """Stopped in the second epoch, which has begun between two steps of the law."""
    schedule = Schedule.gradual(3, 1e-3, batch_tokens=30)

    def prune(folder, notify=lambda epoch, loss: None):
        study = Study.open(MODELS / "rnnsearch.pt", short)
        gradual = Gradual(study.groups("component"), "class-uniform", 0.6, steps=3)
        found = retrain(study.model, {}, study.corpus, tmp_path / folder, schedule, notify, gradual)
        return found, study.model.flat

    log = tmp_path / "stopped" / "train.log"

    def stop(epoch: int, loss: float) -> None:
        wait_until(lambda: "begin training epoch 2" in log.read_text(), between=0.01)
        raise Stopped

    whole, weights = prune("whole")
    each = whole.updates // 3
    law = CubicLaw(0.6, whole.updates, steps=3)
    assert not law.due(each)
    with pytest.raises(Stopped):
        prune("stopped", stop)
    assert len(told(log)) < 3
    found, resumed = prune("stopped")
    assert torch.equal(resumed, weights)
    assert found.valid_loss == whole.valid_loss
    assert log.read_text().count("begin training epoch 1") == 1
    assert log.read_text().count("begin training epoch 2") == 2


def test_moments_of_what_has_gone_are_zero(short, tmp_path):
    study = Study.open(MODELS / "rnnsearch.pt", short)
    gradual = Gradual(study.groups("single"), "class-blind", 0.6, steps=3)
    retrain(
        *(study.model, {}, study.corpus, tmp_path / "r", Schedule.gradual(1, 1e-3, batch_tokens=30)),
        gradual=gradual,
    )
    state = torch.load(tmp_path / "r" / "checkpoint_last.pt", weights_only=False)
    moments = state["last_optimizer_state"]["state"]
    gone = 0
    for (name, parameter), moment in zip(
        study.model.module.named_parameters(), moments.values(), strict=True
    ):
        zero = parameter == 0
        gone += int(zero.sum())
        assert not state["model"][name][zero].any()
        assert not moment["exp_avg"][zero].any()
        assert not moment["exp_avg_sq"][zero].any()
    assert gone >= round(0.6 * gradual.blocks["size"].sum())


def test_what_gradual_needs(short, tmp_path):
    study = Study.open(MODELS / "rnnsearch.pt", short)
    with pytest.raises(StudyError, match="^schedule gradual wants a sparsity"):
        study.config(search="class-blind", schedule="gradual")
    with pytest.raises(StudyError, match="^schedule gradual has the operator magnitude only"):
        study.config(search="lamp", schedule="gradual", sparsity=0.5, operator="magnitude-threshold")
    config = study.config(schedule="gradual", sparsity=0.5)
    with pytest.raises(StudyError, match="^search 'NCS' finds its own sparsity"):
        run_cell(study, config, tmp_path / "cell")
