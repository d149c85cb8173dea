"""Prune, retrain, prune again: a real search and a real fairseq-train, with budgets that take no time."""

import json

import numpy as np
import pytest
import torch
from conftest import MODELS, QUICK, Finished, one_at_a_time, read_evaluations

from grouping.errors import StudyError
from harness import retraining
from harness.cell import Study, run_cell
from harness.evaluator import Evaluator
from harness.masks import read_masks
from harness.model import load_model
from harness.records import Result
from harness.schedule import schedule_of

#: the tolerance is so wide that retraining always "brings back" what 12 sentences can tell
SETTINGS = QUICK | {
    "grouping": "component",
    "search": "OnePlusOne",
    "start": "dense",
    "sigma": 0.1,
    "evaluations": 6,
    "tolerance": 40.0,
    "learning_rate": 1e-3,
}


@pytest.fixture
def study(small) -> Study:
    return Study.open(MODELS / "rnnsearch.pt", small)


def run(study: Study, folder, **settings) -> Finished:
    config = study.config(**SETTINGS | settings)
    return Finished(study, config, folder, run_cell(study, config, folder))


def test_one_shot_and_retrained(study, tmp_path):
    dense = study.model.flat.clone()
    pruned = run(study, tmp_path / "pruned").result
    cell = run(study, tmp_path / "retrained", schedule="retrain", epochs=2, learning_rate=3e-4)
    result = cell.result
    assert torch.equal(study.model.flat, dense)  # the study serves the next cell
    # the same search, the same size, other weights
    assert (result.knobs, result.pruned, result.evaluations) == (
        pruned.knobs,
        pruned.pruned,
        pruned.evaluations,
    )
    assert [(r.round, r.retraining is not None) for r in result.rounds] == [(0, False), (1, True)]
    retraining = result.rounds[1].retraining
    assert retraining is not None
    assert retraining.updates == len(retraining.valid_loss) == 2
    assert result.rounds[0].held == pruned.held != result.held == result.rounds[1].held
    assert result.held.dense == pytest.approx(pruned.held.dense)  # always the original dense model
    assert not list(cell.folder.glob("retraining-*"))
    masks = read_masks(cell.folder / "masks.npz")
    corpus = study.corpus
    saved = load_model(cell.folder / "pruned.pt", corpus.source_dictionary, corpus.target_dictionary)
    for name, mask in masks.items():
        start = saved.offsets[name]
        weights = saved.flat[start : start + mask.size].numpy().reshape(mask.shape)
        assert not weights[~mask].any()
        before = dense[start : start + mask.size].numpy().reshape(mask.shape)
        assert (weights[mask] != before[mask]).any()
    assert sum((~mask).sum() for mask in masks.values()) == result.pruned
    rounds = [e.round for e in cell.evaluations()]
    assert rounds == sorted(rounds)
    assert rounds.count(1) == 2


@pytest.mark.parametrize(
    "rule",
    [
        "class-blind",
        pytest.param("class-uniform", marks=pytest.mark.long),
        pytest.param("class-distribution", marks=pytest.mark.long),
        "lamp",
    ],
)
def test_a_given_sparsity_is_reached_whatever_it_costs(study, tmp_path, rule):
    strict = {"tolerance": 0.0, "evaluations": 1, "racing": 0.4}
    cell = run(study, tmp_path / "cell", search=rule, sparsity=0.9, **strict)
    result, evaluations = cell.result, cell.evaluations()
    # class-uniform rounds once in each of its two groups
    assert abs(result.pruned - 0.9 * result.prunable) <= 1
    assert [(e.stage, e.how, e.feasible) for e in evaluations] == [
        ("search", "translated", False),
        ("confirm", "translated", False),
    ]
    assert [e.sentences for e in evaluations] == [20, 12]
    assert (result.evaluations, result.backed_off) == (1, 0)
    assert result.held == result.rounds[0].held
    assert result.held.drop == pytest.approx(result.sets["confirm"].drop)
    assert result.held.drop > 0
    masks = read_masks(cell.folder / "masks.npz")
    assert sum((~mask).sum() for mask in masks.values()) == result.pruned


@pytest.mark.parametrize("operator", ["magnitude", "magnitude-threshold"])
def test_a_given_sparsity_is_retrained_once_and_kept(study, tmp_path, operator):
    given = {"search": "class-blind", "sparsity": 0.4, "tolerance": 0.0, "operator": operator}
    pruned = run(study, tmp_path / "pruned", **given).result
    cell = run(study, tmp_path / "cell", schedule="retrain", epochs=2, **given)
    result = cell.result
    assert [(r.round, r.retraining is not None) for r in result.rounds] == [(0, False), (1, True)]
    assert result.rounds[0].held == pruned.held
    assert result.held == result.rounds[1].held != pruned.held
    assert [g.pruned for g in result.groups] == [g.pruned for g in pruned.groups]
    assert [(e.round, e.stage) for e in cell.evaluations()] == [(0, "search"), (0, "confirm"), (1, "confirm")]
    masks = [read_masks(tmp_path / name / "masks.npz") for name in ("pruned", "cell")]
    assert all(np.array_equal(mask, masks[1][name]) for name, mask in masks[0].items())


@pytest.mark.parametrize("schedule", ["one-shot", "retrain"])
def test_the_dense_model_alone_and_trained_on(study, tmp_path, schedule):
    dense = study.model.flat.clone()
    cell = run(study, tmp_path / "cell", search="dense", schedule=schedule, epochs=2, tolerance=0.0)
    result = cell.result
    assert (result.pruned, result.remaining, result.knobs) == (0, 1, [0, 0])
    assert all(mask.all() for mask in read_masks(cell.folder / "masks.npz").values())
    saved = load_model(
        cell.folder / "pruned.pt", study.corpus.source_dictionary, study.corpus.target_dictionary
    )
    first = result.rounds[0].held
    assert (first.drop, first.bound) == (0, 0)
    if schedule == "one-shot":
        assert torch.equal(saved.flat, dense)
        assert [result.sets[name].drop for name in ("search", "confirm", "test")] == [0, 0, 0]
        assert len(result.rounds) == 1
    else:
        assert (saved.flat != dense).float().mean() > 0.5
        assert result.rounds[1].retraining is not None
        assert len(result.rounds[1].retraining.valid_loss) == 2
        # still against the original
        assert result.sets["confirm"].dense_bleu == first.dense
        assert result.held == result.rounds[1].held != first


def test_what_gives_the_size_does_not_go_with_a_search(study, tmp_path):
    with pytest.raises(StudyError, match="^schedule iterative looks for the smallest size, and sparsity"):
        study.config(search="lamp", sparsity=0.5, schedule="iterative")
    with pytest.raises(StudyError, match="^search dense prunes nothing: leave out sparsity"):
        study.config(search="dense", sparsity=0.5)
    config = study.config(search="CMA", sparsity=0.5)
    with pytest.raises(StudyError, match="^search 'CMA' finds its own sparsity: leave out sparsity 0.5, or"):
        run_cell(study, config, tmp_path / "cell")
    assert not (tmp_path / "cell").exists()


def test_iterative_prunes_on_from_where_it_was(study, tmp_path):
    # so few evaluations that something is left for the next round
    few = {
        "evaluations": 6,
        "tolerance": 20.0,
        "learning_rate": 1e-4,
    }
    cell = run(study, tmp_path / "cell", schedule="iterative", epochs=2, round_epochs=1, seed=3, **few)
    result, evaluations = cell.result, cell.evaluations()
    assert len(result.rounds) >= 3
    sizes = [r.remaining for r in result.rounds]
    assert all(later <= earlier for earlier, later in zip(sizes, sizes[1:], strict=False))
    assert sizes[-1] == pytest.approx(result.remaining)
    assert sum(r.retraining is not None for r in result.rounds) <= 2
    assert all(r.counts and r.held.drop <= 20 for r in result.rounds)
    assert len({r.held.dense for r in result.rounds}) == 1
    # a round begins with what the one before ended with
    last = {r.round: r for r in result.rounds}
    for number in range(1, max(last) + 1):
        own = [e for e in evaluations if e.round == number]
        assert [(e.stage, e.index) for e in own[:2]] == [("exact", 0), ("confirm", 1)]
        before = [r for r in result.rounds if r.round == number - 1][-1]
        assert own[0].size == pytest.approx(before.remaining)
        assert own[0].knobs == own[1].knobs == own[2].knobs
    assert result.evaluations == sum(e.stage in ("start", "search") for e in evaluations)


def test_two_rounds_without_shrinking_end_a_schedule(study, tmp_path):
    # a budget that pays for the start alone
    idle = {"evaluations": 1, "epochs": 4, "round_epochs": 1, "learning_rate": 1e-4}
    result = run(study, tmp_path / "cell", schedule="iterative", **idle).result
    assert [(r.round, r.retraining is not None, r.remaining) for r in result.rounds] == [
        (0, False, 1.0),
        (1, True, 1.0),
        (2, True, 1.0),
    ]
    once, again = (r.retraining for r in result.rounds[1:])
    assert once is not None
    assert again is not None
    assert once.valid_loss != again.valid_loss


def test_what_retraining_breaks_does_not_count(study, tmp_path):
    """A learning rate that ruins the model: the pruned model stays the result, and what it took is told."""
    pruned = run(study, tmp_path / "pruned", tolerance=15.0).result
    ruinous = {"schedule": "iterative", "epochs": 6, "round_epochs": 1, "learning_rate": 10.0}
    cell = run(study, tmp_path / "ruined", tolerance=15.0, **ruinous)
    result = cell.result
    assert [(r.round, r.counts) for r in result.rounds] == [(0, True), (1, False), (2, False)]
    assert [len(r.retraining.valid_loss) for r in result.rounds if r.retraining] == [1, 1]
    assert result.held == pruned.held
    assert result.sets == pruned.sets
    # nothing is searched for over a model that does not hold
    assert [e.stage for e in cell.evaluations() if e.round] == ["exact", "confirm"] * 2
    told = sum(e.seconds for e in cell.evaluations())
    assert result.seconds == pytest.approx(told + sum(r.retraining.seconds for r in result.rounds[1:]))


def test_a_retrained_model_has_to_hold_on_search_and_on_confirm(study, tmp_path):
    # a budget that pays for the start alone, so the dense model is what is retrained at any tolerance
    settings = {"evaluations": 1, "schedule": "retrain", "epochs": 1, "learning_rate": 0.02}
    drops = {e.stage: e.drop for e in run(study, tmp_path / "0", **settings).evaluations() if e.round == 1}
    assert set(drops) == {"exact", "confirm"}
    low, high = sorted(drops.values())
    assert 0 < low < high
    for tolerance in (low / 2, (low + high) / 2, high + 0.1):
        cell = run(study, tmp_path / f"{tolerance}", **settings | {"tolerance": tolerance})
        again = {e.stage: e.feasible for e in cell.evaluations() if e.round == 1}
        assert again == {stage: drop <= tolerance for stage, drop in drops.items()}
        assert [r.counts for r in cell.result.rounds] == [True, all(again.values())]


def test_what_is_found_under_the_tolerance_of_a_round_has_to_come_back(study, tmp_path):
    few = {"evaluations": 14, "search": "CMA", "start": "class-blind", "seed": 3, "learning_rate": 2e-3}
    own = {"schedule": "iterative", "epochs": 2, "round_epochs": 1, "tolerance": 4.0, "round_tolerance": 12.0}
    cell = run(study, tmp_path / "cell", **few | own)
    result, evaluations = cell.result, cell.evaluations()
    loose, *retrained = result.rounds
    assert loose.remaining < 1
    assert not loose.counts
    assert retrained[0].remaining == loose.remaining
    for one in result.rounds:
        judged = [e for e in evaluations if e.round == one.round and e.size == one.remaining]
        drops = [e.drop for e in judged if e.stage in ("exact", "confirm")]
        assert one.counts == all(drop <= 4 for drop in drops)
    # in the last round, which no retraining follows, and in a closing one the tolerance is that of the result
    allowed = {0: 12, 1: 12, 2: 4, 3: 4}
    judged = [e for e in evaluations if e.how == "translated"]
    assert {e.round for e in judged} == set(allowed)
    assert all(e.feasible == (e.drop <= allowed[e.round]) for e in judged)
    assert result.remaining == min(r.remaining for r in result.rounds if r.counts)


@pytest.mark.parametrize("schedule", [pytest.param("retrain", marks=pytest.mark.long), "iterative"])
def test_where_nothing_comes_back_the_model_without_retraining_is_the_result(study, tmp_path, schedule):
    few = {"evaluations": 14, "start": "class-blind", "tolerance": 4.0}
    pruned = run(study, tmp_path / "pruned", **few).result
    ruinous = {"schedule": schedule, "epochs": 2, "round_epochs": 1, "learning_rate": 10.0}
    cell = run(study, tmp_path / "ruined", round_tolerance=10.0, **few | ruinous)
    result = cell.result
    *lost, last = result.rounds
    assert not any(one.counts for one in lost)
    assert last.counts
    assert last.remaining == result.remaining == pruned.remaining
    assert result.sets == pruned.sets
    assert {e.round for e in cell.evaluations()} == set(range(len(lost) + 1))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"schedule": "one-shot"}, "^round_tolerance is for searches that retraining follows"),
        ({"schedule": "iterative", "search": "dense"}, "^round_tolerance is for searches"),
        ({"schedule": "retrain", "search": "lamp", "sparsity": 0.5}, "^round_tolerance is for searches"),
        (
            {"schedule": "retrain", "tolerance": 9.5},
            "does not exceed the tolerance: give more than 9.5, or leave it out$",
        ),
        ({"schedule": "retrain", "round_tolerance": 0.0}, "^round-tolerance 0.0 is not possible"),
    ],
)
def test_a_tolerance_of_rounds_that_says_nothing_is_refused(study, settings, said):
    with pytest.raises(StudyError, match=said):
        study.config(**SETTINGS | {"round_tolerance": 9.0} | settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_tokens": 9}, "^batch-tokens 9 is not possible: a sentence of valid has "),
        ({"training_device": "cuda"}, "^no GPU that torch can use was found"),
    ],
)
@pytest.mark.parametrize("schedule", ["retrain", "gradual"])
def test_a_training_that_cannot_be_is_refused_before_anything_is_translated(
    study, tmp_path, monkeypatch, schedule, settings, said
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    given = {"search": "class-blind", "sparsity": 0.5, "schedule": schedule}
    with pytest.raises(StudyError, match=said):
        run(study, tmp_path / "cell", **given | settings)
    assert not study._sets
    assert not (tmp_path / "cell").exists()  # which would stand in the way of other settings


@pytest.mark.parametrize(
    ("device", "training", "trains_on", "recorded"),
    [
        ("cpu", None, "cpu", None),
        ("cpu", "cpu", "cpu", None),
        ("cpu", "cuda", "cuda", "cuda"),
        ("cuda", None, "cuda", None),
        ("cuda", "cpu", "cpu", "cpu"),
    ],
)
def test_a_cell_trains_on_what_it_says(study, monkeypatch, device, training, trains_on, recorded):
    monkeypatch.setattr(retraining, "find_device", torch.device)
    config = study.config(schedule="retrain", device=device, training_device=training)
    assert schedule_of(config, 1).device == config.trains_on == trains_on
    assert config.training_device == recorded  # a cell has one name
    assert config.uses_gpu == ("cuda" in (device, trains_on))
    assert study.config(device=device, training_device=training).training_device is None  # one-shot


@pytest.mark.parametrize("rate", [1e-4, 0.02])
def test_of_two_models_as_small_the_one_that_loses_less_is_the_result(study, tmp_path, rate):
    # a budget that pays for the start alone, so the dense model is what is retrained
    settings = {"evaluations": 1, "schedule": "retrain", "epochs": 1, "tolerance": 50.0}
    result = run(study, tmp_path / "cell", learning_rate=rate, **settings).result
    before, after = result.rounds
    assert before.counts
    assert after.counts
    assert before.remaining == after.remaining
    assert before.held.drop != after.held.drop
    assert (after.held.drop < before.held.drop) == (rate < 0.01)
    assert result.held == min(before.held, after.held, key=lambda held: held.drop)
    assert result.sets["confirm"].drop == pytest.approx(result.held.drop)


@pytest.mark.parametrize(("refused", "counts"), [(None, True), ("exact", False), ("confirm", False)])
def test_either_set_may_refuse_a_retrained_model(study, tmp_path, monkeypatch, refused, counts):
    evaluate = Evaluator.evaluate

    def verdict(evaluator, knobs, stage):
        found = evaluate(evaluator, knobs, stage)
        if evaluator.number and stage == refused:
            found = evaluator.done[-1] = found.model_copy(update={"drop": 99.0, "bound": 99.0})
        return found

    monkeypatch.setattr(Evaluator, "evaluate", verdict)
    settings = {"evaluations": 1, "schedule": "retrain", "epochs": 1, "learning_rate": 1e-4}
    result = run(study, tmp_path / "cell", **settings).result
    assert [r.counts for r in result.rounds] == [True, counts]


def test_a_round_that_ends_early_leaves_no_short_one_behind(study, tmp_path):
    """Patience ends the last round after the third of four epochs; the fourth is not a round of its own."""
    ruinous = {"schedule": "iterative", "epochs": 4, "round_epochs": 3, "learning_rate": 10.0}
    result = run(study, tmp_path / "cell", search="dense", **ruinous).result
    assert [len(r.retraining.valid_loss) for r in result.rounds if r.retraining] == [3]


def test_no_round_is_too_short_for_the_learning_rate_to_shrink(study, tmp_path):
    settings = {"schedule": "iterative", "epochs": 5, "round_epochs": 2, "learning_rate": 1e-5}
    result = run(study, tmp_path / "cell", search="dense", **settings).result
    assert [len(r.retraining.valid_loss) for r in result.rounds if r.retraining] == [2, 3]
    assert [r.remaining for r in result.rounds] == [1.0] * 3
    assert result.held == result.rounds[-1].held


class Stopped(Exception):
    """An interruption in the middle of a cell."""


@pytest.fixture(scope="session")
def whole(small, shared) -> Finished:
    """An iterative cell that nothing interrupted, once for all."""
    settings = {"schedule": "iterative", "epochs": 1, "round_epochs": 1}
    with one_at_a_time(shared / "iterative"):
        return run(Study.open(MODELS / "rnnsearch.pt", small), shared / "iterative", **settings)


@pytest.mark.parametrize(
    "when",
    [pytest.param((0, 3), marks=pytest.mark.long), (1, 0), pytest.param((1, 3), marks=pytest.mark.long)],
)
def test_an_interrupted_schedule_ends_the_same(study, whole, tmp_path, when):
    config = whole.config

    def stop(evaluation) -> None:
        if (evaluation.round, evaluation.index) == when:
            raise Stopped

    folder = tmp_path / "stopped"
    with pytest.raises(Stopped):
        run_cell(study, config, folder, stop)
    run_cell(study, config, folder)
    found = Result.model_validate_json((folder / "result.json").read_text())
    left_out = {"seconds", "other_seconds", "files", "rounds"}
    assert found.model_dump(exclude=left_out) == whole.result.model_dump(exclude=left_out)
    for one, other in zip(found.rounds, whole.result.rounds, strict=True):
        assert one.held == other.held
    assert [e.knobs for e in read_evaluations(folder)] == [e.knobs for e in whole.evaluations()]
    with np.load(folder / "masks.npz") as mine, np.load(whole.folder / "masks.npz") as theirs:
        assert all(np.array_equal(mine[name], theirs[name]) for name in theirs.files)
    assert json.loads((folder / "config.json").read_text())["schedule"] == "iterative"
