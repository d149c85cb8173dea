"""The constraint and its bootstrap against sacrebleu's bootstrap and hand calculations."""

import math

import numpy as np
import pytest
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest, Result

from grouping.errors import StudyError
from harness.bleu import Bleu
from harness.constraint import Constraint, PairedBootstrap, Verdict, interval, smallest_detectable

SENTENCES = 150
WORDS = ["das", "Gerät", "ist", "nicht", "bereit", "und", "die", "Verbindung", "wurde", "getrennt", "bitte"]


def translations(seed: int, wrong: float) -> list[str]:
    """The references with a share of the words replaced."""
    rng = np.random.default_rng(seed)
    return [
        " ".join("falsch" if rng.random() < wrong else word for word in line.split()) for line in references()
    ]


def references() -> list[str]:
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, size=rng.integers(5, 15))) for _ in range(SENTENCES)]


@pytest.fixture(scope="module")
def metric():
    return Bleu(references())


def all_or_nothing(sentences: int, wrong: int) -> tuple[np.ndarray, np.ndarray]:
    """Statistics of a perfect model and of one that has no match in its first ``wrong`` sentences.

    Every sentence has ten words, so with a share q of wrong ones all four precisions are 1 - q, the
    brevity penalty is 1 and BLEU is exactly 100 (1 - q): the drop is a mean of coin tosses.
    """
    dense = np.tile(np.array([10, 10, 10, 9, 8, 7, 10, 9, 8, 7]), (sentences, 1))
    pruned = dense.copy()
    pruned[:wrong, 2:6] = 0
    return dense, pruned


def test_each_resample_is_scored_as_sacrebleu_scores_its_sentences(metric):
    dense, pruned = translations(1, 0.1), translations(2, 0.3)
    bootstrap = PairedBootstrap(SENTENCES, 20, seed=3)
    found = bootstrap.differences(metric.statistics(dense), metric.statistics(pruned))
    texts = references()
    assert bootstrap.counts.sum(axis=1).tolist() == [SENTENCES] * 20
    for counts, difference in zip(bootstrap.counts, found, strict=True):
        drawn = np.repeat(np.arange(SENTENCES), counts.astype(int))
        scores = [
            BLEU().corpus_score([hyps[i] for i in drawn], [[texts[i] for i in drawn]]).score
            for hyps in (dense, pruned)
        ]
        assert difference == pytest.approx(scores[0] - scores[1], abs=1e-9)


def test_interval_agrees_with_sacrebleus_bootstrap(metric):
    # against a model that translates nothing, BLEU 0 on every resample, the difference is BLEU itself
    system = translations(1, 0.2)
    outside = BLEU().corpus_score(system, [references()], n_bootstrap=2000)
    bootstrap = PairedBootstrap(SENTENCES, 2000, seed=5)
    low, high = interval(
        bootstrap.differences(metric.statistics(system), metric.statistics([""] * SENTENCES))
    )
    width = 2 * outside._ci
    # both ends carry the sampling error of 2000 resamples, a few percent of the width
    assert low == pytest.approx(outside._mean - outside._ci, abs=0.07 * width)
    assert high == pytest.approx(outside._mean + outside._ci, abs=0.07 * width)


def test_p_value_agrees_with_sacrebleus_paired_bootstrap(metric):
    dense, pruned = translations(1, 0.20), translations(2, 0.20)
    outside = PairedTest(
        [("dense", dense), ("pruned", pruned)],
        {"BLEU": BLEU(references=[references()])},
        references=None,
        test_type="bs",
        n_samples=2000,
    )
    result = outside()[1]["BLEU"][1]
    assert isinstance(result, Result)
    expected = result.p_value
    assert expected is not None
    bootstrap = PairedBootstrap(SENTENCES, 2000, seed=5)
    statistics = metric.statistics(dense), metric.statistics(pruned)
    verdict = Constraint(1.0).judge(*statistics, bootstrap)
    absolute = np.abs(bootstrap.differences(*statistics))
    found = np.mean(absolute - absolute.mean() > abs(verdict.drop))
    assert 0.02 < expected < 0.5
    # two estimates of one probability from 2000 draws each: four standard errors
    assert found == pytest.approx(expected, abs=4 * math.sqrt(2 * expected * (1 - expected) / 2000))


def test_bound_and_interval_against_the_normal_approximation_by_hand():
    dense, pruned = all_or_nothing(400, wrong=40)
    bootstrap = PairedBootstrap(400, 4000, seed=1)
    verdict = Constraint(12.0).judge(dense, pruned, bootstrap)
    # 10 % wrong: drop 10, standard error 100 sqrt(0.1 * 0.9 / 400) = 1.5
    assert verdict.dense_bleu == pytest.approx(100)
    assert verdict.bleu == pytest.approx(90)
    assert verdict.drop == pytest.approx(10)
    assert verdict.standard_error == pytest.approx(1.5, rel=0.05)
    assert verdict.bound == pytest.approx(10 + 1.645 * 1.5, abs=0.3)
    low, high = interval(bootstrap.differences(dense, pruned))
    assert low == pytest.approx(10 - 1.960 * 1.5, abs=0.3)
    assert high == pytest.approx(10 + 1.960 * 1.5, abs=0.3)


def test_criterion_decides_what_is_held_against_the_tolerance():
    dense, pruned = all_or_nothing(400, wrong=40)
    bootstrap = PairedBootstrap(400, 500, seed=1)
    bound = Constraint(11.0, "bound").judge(dense, pruned, bootstrap)
    point = Constraint(11.0, "point").judge(dense, pruned, bootstrap)
    assert not bound.feasible
    assert bound.excess == bound.bound
    assert point.feasible
    assert point.excess == point.drop
    assert (bound.drop, bound.bound) == (point.drop, point.bound)
    # a bound that is asked to hold more surely is higher
    assert Constraint(11.0, confidence=0.99).judge(dense, pruned, bootstrap).bound > bound.bound


@pytest.mark.parametrize("criterion", ["bound", "point"])
def test_identical_hypotheses_are_feasible_at_tolerance_zero(metric, criterion):
    statistics = metric.statistics(translations(1, 0.3))
    bootstrap = PairedBootstrap(SENTENCES, 100, seed=1)
    verdict = Constraint(0.0, criterion).judge(statistics, statistics.copy(), bootstrap)
    assert (verdict.drop, verdict.bound, verdict.standard_error) == (0, 0, 0)
    assert verdict.feasible
    assert Constraint(0.0, criterion).score(1.0, verdict) == 1.0


def verdict_of(excess: float, feasible: bool) -> Verdict:
    return Verdict(30 - excess, 30, excess, excess, 0.2, feasible, excess)


def test_score_by_hand():
    assert Constraint(1.0).score(0.7, verdict_of(0.9, True)) == 0.7
    # 1 + (3 - 1) / 1 and, with the unit of 0.1, 1 + (0.05 - 0) / 0.1
    assert Constraint(1.0).score(0.7, verdict_of(3.0, False)) == pytest.approx(3.0)
    assert Constraint(0.0).score(0.7, verdict_of(0.05, False)) == pytest.approx(1.5)


def test_score_of_an_infeasible_candidate_is_above_one():
    assert Constraint(2.0).score(0.1, verdict_of(math.nextafter(2.0, 3.0), False)) > 1
    # 1 + 1e-17 / 0.1 alone would round to 1
    assert Constraint(0.0).score(0.1, verdict_of(1e-17, False)) > 1


def test_resamples_follow_the_seed():
    first, again, other = (PairedBootstrap(50, 10, seed=s).counts for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_smallest_detectable_by_hand():
    # z(0.95) = 1.6449, z(0.975) = 1.9600
    assert smallest_detectable(0.4) == pytest.approx(0.65794, abs=1e-4)
    assert smallest_detectable(0.4, 0.975) == pytest.approx(0.78399, abs=1e-4)


@pytest.mark.parametrize("tolerance", [-0.1, math.nan, math.inf])
def test_impossible_tolerance_is_refused(tolerance):
    with pytest.raises(StudyError, match="tolerance"):
        Constraint(tolerance)


@pytest.mark.parametrize("confidence", [0.5, 1.0, 95, math.nan])
def test_impossible_confidence_is_refused(confidence):
    with pytest.raises(StudyError, match="confidence"):
        Constraint(1.0, confidence=confidence)
    with pytest.raises(StudyError, match="confidence"):
        smallest_detectable(0.4, confidence)
    with pytest.raises(StudyError, match="confidence"):
        interval(np.arange(3.0), confidence)


def test_unknown_criterion_is_refused():
    with pytest.raises(StudyError, match="give bound or point"):
        Constraint(1.0, "mean")  # type: ignore[arg-type]


def test_bootstrap_refuses_what_does_not_fit():
    dense, pruned = all_or_nothing(5, wrong=1)
    with pytest.raises(ValueError, match="expected"):
        PairedBootstrap(6, 10, seed=1).differences(dense, pruned)
    with pytest.raises(StudyError, match="at least 1 sentence"):
        PairedBootstrap(0, seed=1)
