"""Racing against hand calculations, and its error level on simulated candidates."""

import math

import numpy as np
import pytest

from grouping.errors import StudyError
from harness.constraint import Constraint, PairedBootstrap
from harness.racing import Race, blocks

#: ten words, all n-grams matched
PERFECT = [10, 10, 10, 9, 8, 7, 10, 9, 8, 7]
#: ten words, no match
WRONG = [10, 10, 0, 0, 0, 0, 10, 9, 8, 7]
#: no words
EMPTY = [0, 10, 0, 0, 0, 0, 0, 0, 0, 0]


def mixture(wrong: np.ndarray) -> np.ndarray:
    """Statistics of sentences that are perfect or wrong: with a share q of wrong ones BLEU is 100 (1 - q)."""
    return np.where(wrong[:, None], WRONG, PERFECT)


def race_of(dense: np.ndarray, constraint: Constraint | None = None, **settings) -> Race:
    return Race(dense, constraint or Constraint(1.0), **{"seed": 1, **settings})


def in_order(statistics: np.ndarray) -> np.ndarray:
    """The set of which the race with seed 1 sees ``statistics`` from top to bottom."""
    found = np.empty_like(statistics)
    found[np.concatenate(blocks(len(statistics), seed=1))] = statistics
    return found


@pytest.mark.parametrize("sentences", [1, 29, 30, 59, 60, 119, 120, 200, 479, 480, 1203])
def test_blocks_are_a_permutation_and_never_small(sentences):
    found = blocks(sentences, seed=3)
    assert sorted(np.concatenate(found).tolist()) == list(range(sentences))
    assert len(found) == 1 or min(map(len, found)) >= 30


def test_blocks_grow_and_depend_on_nothing_but_their_arguments():
    # of 1,203: a sixteenth, a quarter and a half are 75, 301 and 602
    assert [len(block) for block in blocks(1203, seed=3)] == [75, 226, 301, 601]
    assert [len(block) for block in blocks(120, seed=3)] == [30, 30, 60]
    assert [len(block) for block in blocks(59, seed=3)] == [59]
    first, again, other = (np.concatenate(blocks(1203, seed)) for seed in (3, 3, 4))
    assert (first == again).all()
    assert (first != other).any()
    assert (first != np.arange(1203)).any()


@pytest.mark.parametrize("criterion", ["bound", "point"])
@pytest.mark.parametrize("tolerance", [0.0, 1.0])
@pytest.mark.parametrize("wrong", [0.0, 0.3, 1.0])
def test_a_candidate_equal_to_dense_goes_on(criterion, tolerance, wrong):
    dense = mixture(np.random.default_rng(1).random(480) < wrong)
    race = race_of(dense, Constraint(tolerance, criterion))
    order = np.concatenate(race.blocks)
    assert race.looks == [30, 120, 240]
    assert [race.refuses(dense[order[:n]]) for n in race.looks] == [None] * 3


@pytest.mark.parametrize("words", [WRONG, EMPTY])
def test_a_hopeless_candidate_is_refused_at_the_first_look(words):
    dense = mixture(np.random.default_rng(1).random(480) < 0.7)
    constraint = Constraint(1.0)
    verdict = race_of(dense, constraint).refuses(np.tile(words, (30, 1)))
    assert verdict is not None
    assert not verdict.feasible
    assert verdict.excess == pytest.approx(verdict.dense_bleu, abs=0.1)
    assert constraint.score(0.3, verdict) == 1 + (verdict.excess - 1)


def test_estimates_by_hand():
    dense = np.tile(PERFECT, (480, 1))
    pruned = mixture(np.arange(120) < 30)
    race = race_of(dense, Constraint(1.0), level=0.015)
    verdict = race.refuses(pruned)
    assert verdict is not None
    # a quarter is wrong: drop 25, a mean of coins of 100 points, of which the jackknife's deviation is
    # that of the sample, 100 sqrt(0.25 * 0.75 * 120 / 119)
    deviation = 100 * math.sqrt(0.25 * 0.75 * 120 / 119)
    assert verdict.dense_bleu == pytest.approx(100)
    assert verdict.bleu == pytest.approx(75)
    assert verdict.drop == pytest.approx(25)
    assert verdict.standard_error == pytest.approx(deviation / math.sqrt(480))
    assert verdict.bound == verdict.excess == pytest.approx(25 + 1.64485 * deviation / math.sqrt(480))

    # three looks share 1.5 %: z(0.995) = 2.57583 standard errors of what the other 360 can still change
    lowest = verdict.drop - 2.57583 * deviation * math.sqrt(1 / 120 - 1 / 480)
    below, above = Constraint(lowest - 0.01, "point"), Constraint(lowest + 0.01, "point")
    refused = race_of(dense, below, level=0.015).refuses(pruned)
    assert refused is not None
    assert refused.excess == refused.drop
    assert race_of(dense, above, level=0.015).refuses(pruned) is None
    # a stricter level asks for more
    assert race_of(dense, below, level=0.0075).refuses(pruned) is None


def test_what_the_dense_model_does_with_the_unseen_takes_part():
    # dense: half of the 120 seen is wrong and nothing of the rest, BLEU 100 * 420 / 480 = 87.5
    race = race_of(in_order(mixture(np.arange(480) < 60)))
    # pruned: 54 of 60 are left, so a tenth is lost: 5 points of what was seen, 8.75 of the whole set
    verdict = race.refuses(mixture(np.arange(120) < 66))
    assert verdict is not None
    assert verdict.dense_bleu == pytest.approx(87.5)
    assert verdict.drop == pytest.approx(8.75)


def test_the_least_drop_by_hand():
    race = race_of(np.tile(PERFECT, (480, 1)))
    # half of the set is wrong, the rest can be perfect
    assert race.least_drop(np.tile(WRONG, (240, 1))) == pytest.approx(50)
    # nothing was written: perfect translations of the rest would have precisions of 1 and a brevity
    # penalty of exp(1 - 2), but longer ones could have none
    assert race.least_drop(np.tile(EMPTY, (240, 1))) == pytest.approx(0)


def test_the_least_drop_where_the_rest_is_too_short_for_some_orders():
    # the other 450 sentences have two words: two unigrams and one bigram each, all matched
    dense = np.tile([2, 2, 2, 1, 0, 0, 2, 1, 0, 0], (480, 1))
    dense[:30] = PERFECT
    precisions = (900 / (300 + 900), 450 / (270 + 450), 0.5 / 240, 0.5 / 210)
    found = race_of(in_order(dense)).least_drop(np.tile(WRONG, (30, 1)))
    assert found == pytest.approx(100 - 100 * math.prod(precisions) ** 0.25)


def test_what_is_certain_refuses_at_any_level():
    dense = np.tile(PERFECT, (480, 1))
    pruned = mixture(np.arange(240) % 2 == 0)
    # a quarter of the whole set is lost for sure, half of it by the estimate, give or take 2.3
    settings = {"level": 1e-300}
    assert race_of(dense, Constraint(25.1, "point"), **settings).refuses(pruned) is None
    verdict = race_of(dense, Constraint(24.9, "point"), **settings).refuses(pruned)
    assert verdict is not None
    assert verdict.excess == pytest.approx(50)


def test_what_is_certain_is_told_where_the_estimate_knows_nothing():
    # the dense model wrote nothing for the 30 sentences seen, so what the pruned one kept is unknown:
    # the estimate is no drop; but its 1,000 wrong words a sentence will stay
    dense = np.tile(PERFECT, (480, 1))
    dense[:30] = EMPTY
    runaway = np.tile([1000, 10, 0, 0, 0, 0, 1000, 999, 998, 997], (30, 1))
    verdict = race_of(in_order(dense)).refuses(runaway)
    assert verdict is not None
    assert verdict.drop == 0
    precisions = [450 * n / (450 * n + 30 * (990 + n)) for n in (10, 9, 8, 7)]
    best = 100 * math.prod(precisions) ** 0.25
    assert verdict.dense_bleu == pytest.approx(100 * math.exp(1 - 4800 / 4500))
    assert verdict.excess == pytest.approx(verdict.dense_bleu - best)


def test_wrong_use_is_an_error():
    dense = np.tile(PERFECT, (480, 1))
    dense[:, 1] = np.arange(480)
    race = race_of(dense)
    seen = dense[np.concatenate(race.blocks)]
    assert race.refuses(seen[:120]) is None
    for wrong in (seen, seen[:100], seen[:0], seen[:120, :9]):
        with pytest.raises(ValueError, match="looks after"):
            race.refuses(wrong)
    with pytest.raises(ValueError, match="order of the race"):
        race.refuses(dense[:120])
    with pytest.raises(ValueError, match="expected"):
        race_of(dense[:, :9])
    with pytest.raises(StudyError, match="no sentences"):
        race_of(dense[:0])
    for level in (0, 0.5):
        with pytest.raises(StudyError, match="error level"):
            race_of(dense, level=level)


def simulated(rng: np.random.Generator, sentences: int) -> tuple[np.ndarray, np.ndarray]:
    """Statistics of a dense and a pruned model that write sentences of the references' lengths.

    Of the pruned model's sentences 60 % are the dense one's, 25 % others of the same quality and
    15 % have no match at all. The dense model's BLEU is about 25, the drop about 4.
    """
    length = rng.integers(4, 20, size=(sentences, 1))
    ngrams = np.maximum(length - np.arange(4), 0)
    quality = rng.beta(1, 1.5, size=(sentences, 1)) ** [0.8, 1.6, 2.4, 3.2]
    dense, other = rng.binomial(ngrams, quality), rng.binomial(ngrams, quality)
    kind = rng.random((sentences, 1))
    pruned = np.where(kind < 0.6, dense, np.where(kind < 0.85, other, 0))
    return np.hstack([length, length, dense, ngrams]), np.hstack([length, length, pruned, ngrams])


@pytest.mark.parametrize("criterion", ["bound", "point"])
def test_false_refusals_keep_the_error_level(criterion):
    rng = np.random.default_rng(1)
    level, pairs, orders = 0.05, 40, 25
    bootstrap = PairedBootstrap(480, 500, seed=1)
    refused = {"edge": 0, "far": 0}
    for pair in range(pairs):
        dense, pruned = simulated(rng, 480)
        excess = Constraint(1.0, criterion).judge(dense, pruned, bootstrap).excess
        # the whole set just calls the candidate feasible, or not at all
        for name, tolerance in (("edge", excess), ("far", 0.0)):
            constraint = Constraint(tolerance, criterion)
            for seed in range(orders):
                race = Race(dense, constraint, seed=1000 * pair + seed, level=level)
                seen = pruned[np.concatenate(race.blocks)]
                refused[name] += any(race.refuses(seen[:n]) for n in race.looks)
    races = pairs * orders
    # the level and three standard errors of 1,000 races; the other two say that the test is not idle
    assert refused["edge"] / races <= level + 3 * math.sqrt(level * (1 - level) / races)
    assert refused["edge"] / races >= level / 10
    assert refused["far"] / races > 0.9
