"""What a candidate costs, when a search ends, and how a result is backed off."""

import os
import shutil
import signal
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import QUICK

from grouping.errors import StudyError
from harness import racing
from harness.configuration import CellConfig
from harness.constraint import Constraint
from harness.evaluator import BudgetSpent, Evaluator
from harness.olmp import BACK_OFF_STEP, ROUNDING, check_search, confirm, run_search, scan_rule
from harness.operators import MagnitudePruning
from harness.record import Record
from harness.records import Evaluation, Stage
from harness.search.rules import rules


@pytest.fixture(scope="module")
def study(studies):
    return studies("rnnsearch")


@pytest.fixture(scope="module")
def pruning(study):
    made = MagnitudePruning(study.model, study.groups("component"))
    assert made.groups == ["encoder", "decoder"]
    return made


@pytest.fixture
def operator(pruning):
    yield pruning
    pruning.restore()


@pytest.fixture
def sentences(study):
    return study.sentences("search", 1, 100, searching=True)


@pytest.fixture
def greedy_confirm(study):
    return study.sentences("confirm", 1, 100, searching=True)


@pytest.fixture
def start(study, operator, sentences, greedy_confirm, tmp_path):
    """An evaluator over a new or an existing record; ends the one before."""
    sets = {"search": sentences, "exact": sentences, "confirm": greedy_confirm}
    opened: list[Record] = []

    def end() -> None:
        for record in opened:
            record.close()

    def make(workers: int = 1, **settings) -> Evaluator:
        end()
        config = study.config(**QUICK | {"grouping": "component", "evaluations": 10} | settings)
        opened.append(Record(tmp_path / "cell", config))
        return Evaluator(config, operator, opened[-1], sets, workers=workers)

    yield make
    end()


def test_a_later_round_begins_at_the_edge_on_the_way_to_all_pruned(start):
    evaluator = start(evaluations=40, tolerance=30.0, search="OnePlusOne", start="class-blind")
    last = np.array([0.5, 0.25])
    run_search(evaluator, last)
    scanned = [e for e in evaluator.done if e.stage == "start"]
    assert len(scanned) == 15
    # of what is left, a tenth goes: of the encoder 0.5 + 0.05 is gone, of the decoder 0.25 + 0.075
    assert np.allclose(scanned[0].knobs, [0.55, 0.325])
    assert np.allclose(scanned[8].knobs, [0.95, 0.925])
    kept = [(1 - np.array(e.knobs)) / (1 - last) for e in scanned]
    assert all(share.max() == pytest.approx(share.min(), abs=1e-4) for share in kept)
    edge = min((e for e in scanned if e.feasible), key=lambda e: e.size)
    assert edge.size < 0.9 * evaluator.operator.size(last)
    first = next(e for e in evaluator.done if e.stage == "search")
    assert first.knobs == edge.knobs


def skip(evaluator: Evaluator, knobs: np.ndarray) -> Evaluation:
    """Have a candidate refused by its size."""
    return next(evaluator.evaluate_all([knobs], "search", [True]))


def test_a_cached_candidate_costs_tokens_and_computes_nothing(start):
    evaluator = start()
    knobs = np.array([0.25, 0.125])
    first = evaluator.evaluate(knobs, "start")
    # the same whole numbers of connections, so the same mask
    again = evaluator.evaluate(knobs + 1e-9, "search")
    assert first.how == "translated"
    assert first.tokens == first.tokens_computed > 0
    assert (again.how, again.tokens, again.tokens_computed, again.seconds) == ("cached", first.tokens, 0, 0)
    assert again.knobs == (knobs + 1e-9).tolist()
    same = ("size", "score", "feasible", "bleu", "drop", "bound", "standard_error")
    assert all(getattr(first, name) == getattr(again, name) for name in same)
    assert evaluator.progress == 0.2


def test_confirm_knows_nothing_of_the_search_set(start):
    evaluator = start()
    knobs = np.array([0.25, 0.125])
    evaluator.evaluate(knobs, "search")
    found = evaluator.evaluate(knobs, "confirm")
    assert found.how == "translated"
    assert found.tokens != evaluator.done[0].tokens
    assert evaluator.progress == 0.1  # confirming is outside the budget of the search


def test_a_skipped_candidate_costs_its_evaluation_alone(start):
    evaluator = start()
    skipped = skip(evaluator, np.array([0.5, 0.0]))
    assert (skipped.how, skipped.feasible, skipped.tokens, skipped.tokens_computed) == (
        "skipped",
        False,
        0,
        0,
    )
    assert skipped.bleu is skipped.drop is skipped.bound is None
    assert skipped.score == skipped.size == float(evaluator.operator.size(np.array([0.5, 0.0])))
    assert evaluator.progress == 0.1
    assert evaluator.feasible == []


def test_a_skipped_candidate_is_translated_when_it_is_asked_for_later(start):
    evaluator = start()
    skip(evaluator, np.array([0.5, 0.0]))
    assert evaluator.evaluate(np.array([0.5, 0.0]), "search").how == "translated"


def test_the_dense_model_loses_nothing(start):
    found = start(tolerance=0.0, criterion="bound").evaluate(np.zeros(2), "search")
    assert (found.size, found.drop, found.bound, found.feasible, found.score) == (1, 0, 0, True, 1)


def test_everything_pruned_is_infeasible_by_the_drop(start):
    found = start(tolerance=2.0).evaluate(np.ones(2), "search")
    assert found.size == 0
    assert not found.feasible
    # 1 + (drop - tolerance) / tolerance
    assert found.score == pytest.approx(1 + (found.drop - 2) / 2)


def test_the_budget_of_evaluations_counts_what_was_skipped(start):
    evaluator = start(evaluations=3)
    evaluator.evaluate(np.zeros(2), "start")
    skip(evaluator, np.full(2, 0.1))
    evaluator.evaluate(np.zeros(2), "search")
    assert evaluator.progress == 1
    with pytest.raises(BudgetSpent):
        evaluator.evaluate(np.zeros(2), "search")
    assert len(evaluator.done) == 3


def test_the_budget_of_tokens_counts_what_was_delivered(start, sentences):
    tokens = sentences.dense.tokens
    evaluator = start(tokens=2 * tokens)
    evaluator.evaluate(np.zeros(2), "start")
    assert evaluator.progress == 0.5
    skip(evaluator, np.full(2, 0.1))
    assert evaluator.progress == 0.5
    evaluator.evaluate(np.zeros(2), "search")  # cached
    assert evaluator.progress == 1
    with pytest.raises(BudgetSpent):
        evaluator.evaluate(np.zeros(2), "search")


def test_a_record_of_another_search_is_refused(start):
    start().evaluate(np.array([0.1, 0.1]), "search")
    for knobs, stage in (([0.1, 0.2], "search"), ([0.1, 0.1], "start")):
        resumed = start()
        with pytest.raises(StudyError, match="evaluation 0 in .* is not the one this search asks for"):
            resumed.evaluate(np.array(knobs), stage)
    assert start().evaluate(np.array([0.1, 0.1]), "search").tokens > 0


def test_a_rule_ends_at_its_largest_feasible_strength(start):
    evaluator = start(evaluations=100)
    knobs = scan_rule("class-uniform", evaluator)
    assert len(evaluator.done) == 15
    scanned = [e.knobs for e in evaluator.done[:9]]
    np.testing.assert_allclose(scanned, np.outer(np.arange(1, 10) / 10, [1, 1]), atol=1e-6)
    smallest = evaluator.feasible[0]
    np.testing.assert_allclose(knobs, smallest.knobs)
    assert min(e.size for e in evaluator.done if e.feasible) == smallest.size


def test_a_rule_fills_its_archive_below_the_edge(start):
    """A search looks closely at the edge; a rule that does not would back off by whole grid steps."""
    evaluator = start(evaluations=100, tolerance=1000.0)
    edge = scan_rule("class-uniform", evaluator, fallbacks=3)
    below = evaluator.done[15:]
    sizes = evaluator.operator.size(edge) + 0.005 * np.arange(1, 4)
    np.testing.assert_allclose([e.size for e in below], sizes, atol=1e-6)


@pytest.mark.parametrize("name", rules.names())
def test_a_rule_searches_no_further(start, name):
    evaluator = start(search=name, evaluations=3)
    run_search(evaluator)
    assert [e.stage for e in evaluator.done] == ["start"] * 3
    assert evaluator.progress == 1


def test_threads_of_an_optimiser_end_with_the_search(start):
    """NGOpt runs Cobyla in a thread, which would keep the program from ending."""
    evaluator = start(search="NGOpt", start="dense", evaluations=5)
    before = set(threading.enumerate())
    check_search(evaluator.config, knobs=2)
    run_search(evaluator)
    assert len(evaluator.done) == 5
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=30)
    assert set(threading.enumerate()) <= before


def archive(evaluator: Evaluator, fractions: list[float], stage: Stage = "search") -> None:
    """Make a record in which the search set found these uniformly pruned models feasible."""
    for index, fraction in enumerate(fractions):
        knobs = np.full(2, fraction)
        entry = Evaluation(
            index=index,
            stage=stage,
            knobs=knobs.tolist(),
            size=float(evaluator.operator.size(knobs)),
            how="translated",
            score=1 - fraction,
            feasible=True,
            bleu=30.0,
            drop=0.0,
            bound=0.0,
            standard_error=0.0,
            sentences=20,
            tokens=100,
            tokens_computed=100,
            seconds=0.0,
        )
        evaluator.record.append(entry)


def confirmed(
    start, sentences, fractions: list[float], **settings
) -> tuple[np.ndarray, int, list[Evaluation]]:
    archive(start(**settings), fractions)
    evaluator = start(**settings)
    for fraction in fractions:
        evaluator.evaluate(np.full(2, fraction), "search")  # replayed, not translated
    knobs, translated, failed = confirm(evaluator)
    evaluator.operator.apply(knobs)
    assert translated.hypotheses == sentences.translate().hypotheses
    return knobs, failed, evaluator.done[len(fractions) :]


#: prunes a handful of the four million connections, all of them next to zero
HARMLESS = 1e-6


def test_back_off_goes_by_size_in_steps_to_the_first_that_holds(start, greedy_confirm):
    """At 92 % and more nothing is translated; what is less than a step larger is not worth a look."""
    found = [0.92, 0.99, HARMLESS, 0.987, 0.95, 0.9475, HARMLESS + 0.02]
    knobs, failed, looked_at = confirmed(start, greedy_confirm, found, tolerance=0.5)
    assert [e.stage for e in looked_at] == ["confirm"] * len(looked_at)
    tried = [round(e.knobs[0], 6) for e in looked_at]
    # 0.987 and 0.9475 are within BACK_OFF_STEP of their predecessors
    assert tried[:3] == [0.99, 0.95, 0.92]
    assert all(not e.feasible for e in looked_at[:-1])
    assert looked_at[-1].feasible
    assert looked_at[-1].knobs == knobs.tolist()
    assert failed == len(looked_at) - 1
    sizes = [e.size for e in looked_at]
    assert all(b - a >= BACK_OFF_STEP - ROUNDING for a, b in zip(sizes, sizes[1:], strict=False))
    assert knobs[0] <= HARMLESS + 0.02


def test_every_fallback_of_a_rule_is_worth_a_look(start, monkeypatch):
    """They are one step apart, up to the rounding to whole connections."""
    evaluator = start(evaluations=100, tolerance=1000.0)
    scan_rule("class-uniform", evaluator, fallbacks=6)
    monkeypatch.setattr(evaluator, "constraint", Constraint(0.0))
    evaluate, enough = evaluator.evaluate, len(evaluator.done) + 20

    def some(knobs, stage):
        """Not all the way up to the dense model, which takes hundreds."""
        if len(evaluator.done) == enough:
            raise StopIteration
        return evaluate(knobs, stage)

    monkeypatch.setattr(evaluator, "evaluate", some)
    with pytest.raises(StopIteration):
        confirm(evaluator)
    below = [e.size for e in evaluator.done if e.stage == "start"][-6:]
    tried = [e.size for e in evaluator.done if e.stage == "confirm"]
    assert set(below) <= set(tried)


def test_the_smallest_is_taken_when_it_holds(start, greedy_confirm):
    knobs, failed, looked_at = confirmed(start, greedy_confirm, [HARMLESS, 0.99], tolerance=1000.0)
    assert knobs.tolist() == [0.99, 0.99]
    assert (failed, len(looked_at)) == (0, 1)


def test_the_dense_model_is_the_last_resort(start, greedy_confirm):
    knobs, failed, looked_at = confirmed(start, greedy_confirm, [0.95, 0.99], tolerance=0.0)
    assert knobs.tolist() == [0, 0]
    assert failed == 2
    assert [e.size for e in looked_at] == pytest.approx([0.01, 0.05, 1.0], abs=1e-6)


def test_without_an_archive_the_dense_model_is_the_result(start, greedy_confirm):
    knobs, failed, looked_at = confirmed(start, greedy_confirm, [])
    assert knobs.tolist() == [0, 0]
    assert (failed, len(looked_at)) == (0, 1)


@pytest.mark.parametrize("search", ["NCS", "class-blind"])
@pytest.mark.parametrize("found", [[], [HARMLESS]])
def test_a_search_backs_off_along_class_blind_too(start, search, found):
    """Before what it found that is larger; a rule has its own archive. The record claims that half may go."""
    settings = {"search": search, "tolerance": 0.5, "start": "class-blind"}
    archive(start(**settings), [0.5, *found], "start")
    evaluator = start(**settings)
    for fraction in (0.5, *found):
        evaluator.evaluate(np.full(2, fraction), "start")  # replayed, not translated
    knobs, _, failed = confirm(evaluator)
    if search == "class-blind":
        assert knobs.tolist() == 2 * (found or [0])
        return
    operator = evaluator.operator
    size = float(operator.size(knobs))
    assert 0.5 < size < 1
    expected = rules.get("class-blind")(operator.magnitudes(), 1 - size)
    assert np.abs(operator.counts(knobs) - expected).max() <= 1
    tried = [e for e in evaluator.done if e.stage == "exact"]
    np.testing.assert_allclose(np.diff([e.size for e in tried]), BACK_OFF_STEP, atol=1e-6)
    assert [e.knobs for e in tried if e.feasible] == [
        e.knobs for e in evaluator.done if e.stage == "confirm"
    ][1:]
    assert evaluator.done[-1].feasible
    assert failed == sum(e.stage == "confirm" for e in evaluator.done) - 1


@pytest.mark.parametrize("redraw", [False, True])
@pytest.mark.parametrize("holding", ["found", "class-blind"])
def test_neither_series_of_the_back_off_hides_the_other(start, monkeypatch, holding, redraw):
    """What one of them has that holds is judged, however densely the refused ones of the other lie around it.

    Judgements are given here: all of one series hold from 60 % on, none of the other does.
    """
    # three quarters of a step apart, from the edge on
    fractions = [0.5 - 0.75 * BACK_OFF_STEP * step for step in range(60)]
    settings = {"start": "class-blind", "evaluations": 100, "redraw": redraw}
    settings["search_sentences"] = 10 if redraw else None
    archive(start(**settings), fractions, "start")
    evaluator = start(**settings)
    for fraction in fractions:
        evaluator.evaluate(np.full(2, fraction), "start")  # replayed, not translated
    found = {evaluator.operator.counts(np.full(2, fraction)).tobytes() for fraction in fractions}

    def judged(knobs, stage):
        own = "found" if evaluator.operator.counts(knobs).tobytes() in found else "class-blind"
        holds = own == holding and evaluator.operator.size(knobs) > 0.6
        return SimpleNamespace(feasible=bool(holds or not knobs.any()))

    monkeypatch.setattr(evaluator, "evaluate", judged)
    monkeypatch.setattr(evaluator, "translations", lambda knobs, stage: None)
    knobs, _, _ = confirm(evaluator)
    assert 0.6 < evaluator.operator.size(knobs) < 0.6 + 2 * BACK_OFF_STEP


def test_the_archive_is_sorted_by_size(start):
    archive(start(), [0.1, 0.3, 0.2])
    evaluator = start()
    for fraction in (0.1, 0.3, 0.2):
        evaluator.evaluate(np.full(2, fraction), "search")
    assert [e.knobs[0] for e in evaluator.feasible] == [0.3, 0.2, 0.1]


def test_ncs_skips_only_what_it_would_refuse_anyway(study, start):
    """With a tolerance that all keep, scores are sizes; what is skipped is larger than the best so far."""
    evaluator = start(search="NCS", start="dense", evaluations=30, tolerance=1000.0)
    run_search(evaluator)
    assert len(evaluator.done) == 30
    skipped = [e for e in evaluator.done if e.how == "skipped"]
    assert skipped
    for e in skipped:
        assert e.size > min(other.size for other in evaluator.done[: e.index])
    assert all(e.tokens > 0 for e in evaluator.done if e.how != "skipped")
    assert evaluator.feasible[0].size < 1


@pytest.fixture
def short_blocks(monkeypatch):
    """Looks at a race of 20 sentences after 5 and after 10."""
    monkeypatch.setattr(racing, "LOOKS", (1 / 4, 1 / 2))
    monkeypatch.setattr(racing, "SMALLEST_BLOCK", 5)


def test_a_hopeless_candidate_is_not_translated_to_its_end(start, short_blocks, tmp_path):
    whole = start(tolerance=1.0, racing=0).evaluate(np.full(2, 0.99), "search")
    assert (whole.how, whole.sentences, whole.feasible) == ("translated", 20, False)
    shutil.rmtree(tmp_path / "cell")
    raced = start(tolerance=1.0).evaluate(np.full(2, 0.98), "search")
    assert (raced.how, raced.sentences, raced.feasible) == ("raced", 5, False)
    assert 0 < raced.tokens == raced.tokens_computed < whole.tokens / 2
    assert raced.score > 1


def test_a_race_that_is_run_to_its_end_is_the_whole_set(start, short_blocks, tmp_path):
    whole = start(racing=0).evaluate(np.full(2, 0.1), "search")
    shutil.rmtree(tmp_path / "cell")
    raced = start(racing=0.01).evaluate(np.full(2, 0.1), "search")
    assert raced.how == whole.how == "translated"
    assert raced.model_dump(exclude={"seconds"}) == whole.model_dump(exclude={"seconds"})


@pytest.mark.parametrize(
    "search",
    ["NCS", pytest.param("CMA", marks=pytest.mark.long), pytest.param("OnePlusOne", marks=pytest.mark.long)],
)
def test_workers_decide_the_time_only(start, search, short_blocks, tmp_path):
    def run(workers: int) -> list[dict]:
        shutil.rmtree(tmp_path / "cell", ignore_errors=True)
        with start(workers=workers, search=search, start="dense", evaluations=14) as evaluator:
            run_search(evaluator)
            confirm(evaluator)
            return [e.model_dump(exclude={"seconds"}) for e in evaluator.done]

    assert run(1) == run(2) == run(3)


def test_a_killed_worker_is_replaced_and_its_candidate_judged_again(start, monkeypatch, tmp_path):
    judge, parent, mark = Evaluator._judge, os.getpid(), tmp_path / "killed"

    def run(workers: int) -> list[dict]:
        shutil.rmtree(tmp_path / "cell", ignore_errors=True)
        with start(workers=workers, start="dense", evaluations=14) as evaluator:
            run_search(evaluator)
            return [e.model_dump(exclude={"seconds"}) for e in evaluator.done]

    def dying(evaluator, task):
        if os.getpid() != parent and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return judge(evaluator, task)

    monkeypatch.setattr(Evaluator, "_judge", dying)
    killed = run(2)
    assert mark.exists()
    assert killed == run(1)


def test_a_search_in_low_precision_must_hold_in_float32_first(
    study, operator, sentences, greedy_confirm, tmp_path
):
    config = study.config(**QUICK | {"grouping": "component", "evaluations": 3, "precision": "bfloat16"})
    low = study.sentences("search", 1, 100, True, "bfloat16")
    sets = {"search": low, "exact": sentences, "confirm": greedy_confirm}
    with Record(tmp_path / "low", config) as record, Evaluator(config, operator, record, sets) as evaluator:
        found = evaluator.evaluate(np.full(2, 0.1), "search")
        assert found.feasible
        _, _, failed = confirm(evaluator)
    assert [e.stage for e in evaluator.done] == ["search", "exact", "confirm"]
    assert failed == 0
    assert evaluator.progress == 1 / 3


def test_a_configuration_has_no_unknown_fields():
    with pytest.raises(ValueError, match="toleranz"):
        CellConfig(checkpoint_sha256="", corpus_sha256="", toleranz=1)
