"""NCS: each equation against a hand calculation, then the behaviour of the whole."""

from collections.abc import Callable

import nevergrad as ng
import numpy as np
import pytest
from nevergrad.common.errors import TellNotAskedNotSupportedError

from harness.search.ncs import (
    ConfiguredNCS,
    NegativelyCorrelatedSearch,
    accepts,
    bhattacharyya,
    draw_threshold,
    reflect,
)

pytestmark = pytest.mark.filterwarnings("error")

Objective = Callable[[np.ndarray], float]


def sphere(x: np.ndarray) -> float:
    return float(np.sum((x - 0.3) ** 2))


def rastrigin(x: np.ndarray) -> float:
    z = 10.24 * (x - 0.45)
    return float(10 * z.size + np.sum(z**2 - 10 * np.cos(2 * np.pi * z)))


def search(
    seed: int = 0, budget: int = 400, knobs: int = 10, start: float = 0.7, **settings
) -> NegativelyCorrelatedSearch:
    space = ng.p.Array(init=np.full(knobs, start), lower=0.0, upper=1.0)
    space.random_state = np.random.RandomState(seed)
    return ConfiguredNCS(**settings)(space, budget=budget)


def run(optimiser: NegativelyCorrelatedSearch, objective: Objective, batch: int = 1) -> np.ndarray:
    """Spend the budget in batches, telling in reverse order; the candidates, shape (budget, G)."""
    trajectory: list[np.ndarray] = []
    while len(trajectory) < optimiser.budget:
        candidates = [optimiser.ask() for _ in range(batch)]
        trajectory += [candidate.value for candidate in candidates]
        for candidate in reversed(candidates):
            optimiser.tell(candidate, objective(candidate.value))
    return np.array(trajectory)


def test_reflect_folds_at_the_bounds_and_keeps_points_inside_exactly():
    points = np.array([-0.3, 1.2, 2.3, -1.6, 0.1, 0.0, 1.0])
    np.testing.assert_allclose(reflect(points, 0.0, 1.0), [0.3, 0.8, 0.3, 0.4, 0.1, 0.0, 1.0], atol=1e-12)
    inside = np.random.default_rng(0).uniform(0.2, 0.9, 1000)
    assert np.array_equal(reflect(inside, 0.2, 0.9), inside)
    lower, upper = np.array([0.0, 2.0]), np.array([4.0, 5.0])
    np.testing.assert_allclose(reflect(np.array([-1.0, 5.5]), lower, upper), [1.0, 4.5])


def test_bhattacharyya_by_hand():
    origin, point = np.zeros(2), np.array([3.0, 4.0])
    assert bhattacharyya(origin, 1.0, point, 1.0) == pytest.approx(25 / 8)
    # v = 2.5, so the determinant of the mean covariance is 6.25.
    assert bhattacharyya(origin, 1.0, origin, 2.0) == pytest.approx(np.log(6.25 / 4) / 2)
    assert bhattacharyya(origin, 1.0, point, 2.0) == pytest.approx(25 / 20 + np.log(6.25 / 4) / 2)
    both = bhattacharyya(origin, 1.0, np.array([origin, point]), np.array([2.0, 1.0]))
    np.testing.assert_allclose(both, [np.log(6.25 / 4) / 2, 25 / 8])


def test_bhattacharyya_equals_the_matrix_formula():
    rng = np.random.default_rng(1)
    for _ in range(20):
        x, y, (a, b) = rng.normal(size=6), rng.normal(size=6), rng.uniform(0.05, 2, 2)
        first, second = a**2 * np.eye(6), b**2 * np.eye(6)
        mean = (first + second) / 2
        determinants = np.linalg.det(mean) / np.sqrt(np.linalg.det(first) * np.linalg.det(second))
        expected = (x - y) @ np.linalg.inv(mean) @ (x - y) / 8 + np.log(determinants) / 2
        assert bhattacharyya(x, a, y, b) == pytest.approx(expected)


def test_accepts_by_hand():
    # f̃' = 0.2 / (0.1 + 0.2) = 2/3, D̃' = 3 / (1 + 3) = 3/4, ratio 8/9.
    by_hand = {"score": 0.6, "parent_score": 0.5, "best": 0.4, "distance": 3.0, "parent_distance": 1.0}
    assert accepts(**by_hand, threshold=0.889)
    assert not accepts(**by_hand, threshold=0.888)
    # Closer to the others than its parent: D̃' = 1/4, ratio 8/3.
    assert not accepts(0.6, 0.5, 0.4, distance=1.0, parent_distance=3.0, threshold=2.66)
    assert accepts(0.6, 0.5, 0.4, distance=1.0, parent_distance=3.0, threshold=2.67)


def test_accepts_a_new_best_and_any_offspring_of_an_unscored_parent():
    assert accepts(0.3, 0.5, 0.4, distance=0.1, parent_distance=9.0, threshold=0.7)
    assert accepts(0.6, np.inf, 0.4, distance=0.1, parent_distance=9.0, threshold=0.7)


def test_zero_over_zero_keeps_the_parent():
    assert not accepts(0.4, 0.4, 0.4, distance=3.0, parent_distance=1.0, threshold=1.0)  # both are the best
    assert not accepts(0.4, 0.5, 0.4, distance=0.0, parent_distance=1.0, threshold=1.0)  # f̃' = D̃' = 0
    assert not accepts(0.6, 0.5, 0.4, distance=0.0, parent_distance=0.0, threshold=1.0)  # D̃' itself


def test_zero_over_zero_keeps_every_parent_on_a_plateau():
    optimiser = search(budget=60)
    run(optimiser, lambda x: 0.5)
    initial = search(budget=60)
    for _ in range(10):
        initial.ask()
    assert np.array_equal(optimiser.parents, initial.parents)


@pytest.mark.parametrize(("progress", "deviation"), [(0.0, 0.1), (0.5, 0.05), (1.0, 0.0)])
def test_threshold_is_normal_around_one_with_a_shrinking_standard_deviation(progress, deviation):
    rng = np.random.RandomState(0)
    draws = [draw_threshold(rng, progress) for _ in range(20_000)]
    assert np.mean(draws) == pytest.approx(1.0, abs=0.003)
    assert np.std(draws) == pytest.approx(deviation, rel=0.02, abs=1e-12)


def test_starts_at_the_point_with_jittered_others():
    optimiser = search(knobs=2000, start=0.5)
    first = optimiser.ask()
    assert np.array_equal(first.value, np.full(2000, 0.5))
    others = np.array([optimiser.ask().value for _ in range(9)])
    np.testing.assert_allclose(np.std(others - 0.5, axis=1), 0.1, rtol=0.05)  # σ_0 = (1 − 0) / 10
    np.testing.assert_allclose(search(sigma=0.02).sigmas, 0.02)
    np.testing.assert_allclose(search(population=5).sigmas, 0.2)


@pytest.mark.parametrize(("scores", "factor"), [((2.0, -0.01), 1 / 0.99), ((1.0, 1.0), 0.99)])
def test_one_fifth_rule_after_population_many_generations(scores, factor):
    first, change = scores
    optimiser = search(budget=110, sigma=0.1)
    # λ = 1, so an offspring that is worse than a parent with the best score is always refused.
    optimiser.progress = 1.0
    for number in range(109):
        # Either every candidate is a new best, or every offspring is worse than its parent.
        score = first + change * number if change < 0 else first + change * (number >= 10)
        optimiser.tell(optimiser.ask(), score)
    np.testing.assert_allclose(optimiser.sigmas[:9], 0.1 * factor)
    assert optimiser.sigmas[9] == 0.1  # its tenth offspring is still to come


def test_success_rate_of_exactly_a_fifth_leaves_sigma():
    optimiser = search(budget=110, sigma=0.1)
    optimiser.progress = 1.0
    for number in range(110):
        improves = number in range(10, 30)  # two generations of ten
        optimiser.tell(optimiser.ask(), 1.0 - 0.01 * number if improves else 1.0 + (number >= 10))
    assert np.array_equal(optimiser.sigmas, np.full(10, 0.1))


@pytest.mark.parametrize("objective", [sphere, rastrigin])
def test_better_than_random_search_and_the_population_moves(objective):
    budget, found, at_random = 1000, [], []
    for seed in range(3):
        optimiser = search(seed, budget)
        candidates = run(optimiser, objective)
        found.append(min(map(objective, candidates)))
        uniform = np.random.default_rng(seed).uniform(size=(budget, 10))
        at_random.append(min(map(objective, uniform)))
        assert np.all(np.any(optimiser.parents != candidates[:10], axis=1))
        assert np.all((candidates >= 0) & (candidates <= 1))
    assert np.median(found) < np.median(at_random)


def test_deterministic_under_a_seed():
    first, again, other = (run(search(seed), rastrigin) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first[1:], other[1:])


def test_one_at_a_time_equals_whole_generations():
    singly, at_once = search(), search()
    assert np.array_equal(run(singly, rastrigin), run(at_once, rastrigin, batch=10))
    assert np.array_equal(singly.parents, at_once.parents)
    assert np.array_equal(singly.sigmas, at_once.sigmas)


def test_batches_may_straddle_generations_but_not_outrun_a_process():
    candidates = run(search(budget=400), sphere, batch=4)
    assert min(map(sphere, candidates)) < sphere(candidates[0])
    optimiser = search()
    for _ in range(10):
        optimiser.ask()
    with pytest.raises(RuntimeError, match="process 0"):
        optimiser.ask()


def test_offspring_are_compared_with_the_parents_of_the_generation_start():
    """Process 1 comes to lie on the first offspring of process 0, yet keeps its distance to the old parent
    0."""
    optimiser = search(knobs=1, population=2, sigma=0.1, start=0.5)
    optimiser.progress = 1.0
    for score in (1.0, 2.0):
        optimiser.tell(optimiser.ask(), score)
    old = optimiser.parents
    optimiser.tell(optimiser.ask(), 0.5)  # a new best: parent 0 moves
    assert optimiser.parents[0, 0] != old[0, 0]
    candidate = optimiser.ask()
    distance = bhattacharyya(candidate.value, 0.1, old[0], 0.1)
    parent_distance = bhattacharyya(old[1], 0.1, old[0], 0.1)
    relative = distance / (distance + parent_distance)
    # f* = 1 and f = 2 give f̃' = a / (1 + a) with a = f' − 1; the edge of acceptance at λ = 1 is f̃' = D̃'.
    edge = 1 + relative / (1 - relative)
    assert not optimiser.refuses(candidate, edge - 1e-6)
    assert optimiser.refuses(candidate, edge + 1e-6)


def size_and_score(x: np.ndarray) -> tuple[float, float]:
    """A toy of the study: the size is free; beyond an edge that depends on the knobs the score jumps above
    1."""
    size = float(1 - np.mean(x))
    excess = float(np.sum(np.arange(1, x.size + 1) * x**2) / x.size - 1.0)
    return size, size if excess <= 0 else 1 + excess


def test_refuses_is_sound():
    """Whatever at least the bound a refused candidate is told, its parent and the best so far stay."""
    rng, refused = np.random.default_rng(0), 0
    for seed in range(5):
        optimiser = search(seed, budget=150, start=0.3, sigma=0.05)
        for _ in range(150):
            candidate = optimiser.ask()
            size, score = size_and_score(candidate.value)
            if not optimiser.refuses(candidate, size):
                optimiser.tell(candidate, score)
                continue
            refused += 1
            parents, scores, best = optimiser.parents, optimiser.scores, optimiser.recommend().value
            optimiser.tell(candidate, size + rng.choice([0.0, 1e-16, 1e-6, 1.0, 1e6]) * rng.uniform())
            assert np.array_equal(optimiser.parents, parents)
            assert np.array_equal(optimiser.scores, scores)
            assert np.array_equal(optimiser.recommend().value, best)
    assert refused > 50


def test_skipping_what_is_refused_does_not_change_the_trajectory():
    honest, saving = search(start=0.3), search(start=0.3)
    skipped = 0

    def tell_cheaply(candidate: ng.p.Parameter) -> None:
        nonlocal skipped
        size, score = size_and_score(candidate.value)
        refused = saving.refuses(candidate, size)
        skipped += refused
        saving.tell(candidate, size if refused else score)

    for _ in range(400):
        mine, other = honest.ask(), saving.ask()
        assert np.array_equal(mine.value, other.value)
        honest.tell(mine, size_and_score(mine.value)[1])
        tell_cheaply(other)
    assert skipped > 0


def test_initial_parents_and_strangers_are_never_refused():
    optimiser = search()
    for _ in range(10):
        candidate = optimiser.ask()
        assert not optimiser.refuses(candidate, 1e9)
        optimiser.tell(candidate, 0.5)
    assert not optimiser.refuses(optimiser.parametrization.spawn_child(), 1e9)


def test_progress_defaults_to_the_share_of_evaluations_told():
    """With all the budget told, λ is exactly 1; the driver's own measure of progress overrides that."""
    follows, driven = search(budget=100), search(budget=10_000)
    for number in range(150):
        driven.progress = min(number // 10 * 10 / 100, 1.0)
        for optimiser in (follows, driven):
            candidate = optimiser.ask()
            optimiser.tell(candidate, rastrigin(candidate.value))
    assert np.array_equal(follows.parents, driven.parents)


def test_registered_with_nevergrad_and_unbounded_arrays_work():
    optimiser = ng.optimizers.registry["NCS"](4, budget=200)
    assert isinstance(optimiser, NegativelyCorrelatedSearch)
    optimiser.parametrization.random_state.seed(0)
    assert np.array_equal(optimiser.sigmas, np.ones(10))  # the mutation sigma of an array without bounds
    candidates = run(optimiser, sphere)
    assert np.array_equal(candidates[0], np.zeros(4))
    assert min(map(sphere, candidates)) < sphere(candidates[0])
    assert np.any(np.abs(candidates) > 1)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="at least 2"):
        search(population=1)
    with pytest.raises(ValueError, match="positive sigma"):
        search(sigma=0.0)
    with pytest.raises(ValueError, match=r"ng\.p\.Array"):
        NegativelyCorrelatedSearch(ng.p.Instrumentation(ng.p.Array(shape=(2,))), budget=10)
    optimiser = search()
    with pytest.raises(TellNotAskedNotSupportedError):
        optimiser.tell(optimiser.parametrization.spawn_child(), 0.5)
