"""Every optimiser by name: start, step, bounds and determinism."""

import random
import threading
from collections.abc import Callable

import numpy as np
import pytest
from conftest import mostly_long
from nevergrad.optimization.base import Optimizer

from grouping.errors import StudyError
from harness.search.optimisers import generation, make_optimiser, refuses, release

pytestmark = pytest.mark.filterwarnings("error")

NAMES = ("NCS", "OnePlusOne", "CMA", "TwoPointsDE", "DE", "NGOpt")
START = np.linspace(0.2, 0.75, 6)


def score(x: np.ndarray, capacity: float = 2.0) -> float:
    """A toy of the study: relative size while feasible, above 1 otherwise."""
    excess = float(np.sum(x**2) - capacity)
    return float(1 - np.mean(x)) if excess <= 0 else 1 + excess


def run(
    optimiser: Optimizer, evaluations: int, batch: int = 1, objective: Callable[[np.ndarray], float] = score
) -> np.ndarray:
    trajectory: list[np.ndarray] = []
    try:
        while len(trajectory) < evaluations:
            candidates = [optimiser.ask() for _ in range(batch)]
            trajectory += [candidate.value for candidate in candidates]
            for candidate in candidates:
                optimiser.tell(candidate, objective(candidate.value))
    finally:
        release(optimiser)
    return np.array(trajectory)


@pytest.mark.parametrize(
    ("name", "batch"), [(name, batch) for name in NAMES for batch in (1, 5) if (name, batch) != ("NGOpt", 5)]
)
def test_starts_at_the_start_stays_inside_and_is_deterministic(name, batch):
    first, again, other = (
        run(make_optimiser(name, START, 0.2, 100, seed, batch), 100, batch) for seed in (1, 1, 2)
    )
    np.testing.assert_allclose(first[0], START, rtol=0, atol=1e-12)
    assert np.all((first >= 0) & (first <= 1))
    assert np.array_equal(first, again)
    # NGOpt chooses Cobyla here, which draws nothing at random.
    assert np.array_equal(first, other) == (name == "NGOpt")


@pytest.mark.parametrize("name", NAMES)
def test_improves_on_the_start(name):
    candidates = run(make_optimiser(name, START, 0.1, 200, seed=0), 200)
    assert min(map(score, candidates)) < score(START)


@pytest.mark.parametrize("name", ["NCS", "OnePlusOne", "CMA", "TwoPointsDE", "DE"])
@pytest.mark.parametrize("knobs", mostly_long([8, 40], quick=[40]))
def test_first_steps_have_the_standard_deviation_asked_for(name, knobs):
    steps = []
    for seed in range(400 // knobs):
        optimiser = make_optimiser(name, np.full(knobs, 0.5), 0.05, 400, seed)
        optimiser.tell(optimiser.ask(), 0.9)
        steps.append(optimiser.ask().value - 0.5)
    assert np.std(steps) == pytest.approx(0.05, rel=0.1)


@pytest.mark.parametrize("name", ["OnePlusOne", "CMA"])
def test_first_steps_with_one_knob(name):
    steps = []
    for seed in range(80):
        optimiser = make_optimiser(name, np.array([0.5]), 0.05, 400, seed)
        optimiser.tell(optimiser.ask(), 0.9)
        steps.append(optimiser.ask().value - 0.5)
    assert np.std(steps) == pytest.approx(0.05, rel=0.25)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("corner", [0.0, 1.0])
def test_a_start_in_a_corner_is_exact(name, corner):
    candidates = run(make_optimiser(name, np.full(3, corner), 0.05, 60, seed=0), 60)
    assert np.array_equal(candidates[0], np.full(3, corner))
    assert np.all((candidates >= 0) & (candidates <= 1))


@pytest.mark.parametrize("name", ["Cobyla", "NelderMead", "PSO", "RandomSearch"])
def test_other_optimisers_of_nevergrad_start_there_too(name):
    candidates = run(make_optimiser(name, START, 0.05, 40, seed=0), 40)
    np.testing.assert_allclose(candidates[0], START, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["Cobyla", "NGOpt", "ChainNaiveTBPSAPowell"])
def test_release_ends_the_threads_of_an_optimiser(name):
    before = set(threading.enumerate())
    optimiser = make_optimiser(name, START, 0.05, 40, seed=0)
    for _ in range(30):
        candidate = optimiser.ask()
        optimiser.tell(candidate, score(candidate.value))
    started = set(threading.enumerate()) - before
    assert started
    release(optimiser)
    for thread in started:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in started)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("cma", "CMA"),
        ("ncs", "NCS"),
        ("twopointde", "TwoPointsDE"),
        ("oneplusone", "OnePlusOne"),
        ("class-blnd", "class-blind"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, nearest):
    with pytest.raises(StudyError, match=rf"unknown optimiser '{name}'.*\b{nearest}\b"):
        make_optimiser(name, START, 0.05, 100, seed=0)


def test_ngopt_in_batches_runs_or_says_which_numpy_it_needs():
    """It chooses MetaModel, whose first fit (after 28 evaluations of 6 knobs) fails from NumPy 2.4 on."""
    if np.lib.NumpyVersion(np.__version__) >= "2.4.0":
        with pytest.raises(StudyError, match="'NGOpt' chooses MetaModel here.*install 'numpy<2.4'"):
            make_optimiser("NGOpt", START, 0.05, 100, seed=0, batch=5)
        return
    first, again = (run(make_optimiser("NGOpt", START, 0.05, 100, seed=0, batch=5), 100, 5) for _ in range(2))
    assert np.array_equal(first[0], START)
    assert np.array_equal(first, again)
    assert np.all((first >= 0) & (first <= 1))


def test_an_optimiser_that_ignores_the_seed_is_refused():
    with pytest.raises(StudyError, match="'CmaFmin2' ignores the seed"):
        make_optimiser("CmaFmin2", START, 0.05, 100, seed=0)


def test_an_optimiser_whose_package_is_missing_is_refused():
    with pytest.raises(StudyError, match="'BOBYQA' cannot run here: No module named 'pybobyqa'; try NCS"):
        make_optimiser("BOBYQA", START, 0.05, 100, seed=0)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("SPSA", "ignores the seed"),  # draws from NumPy's global generator
        ("EDA", "cannot run here"),  # is told the suggested start, which it did not ask for
        ("PCABO", "cannot run here: No module named 'bayes_optim'"),  # as soon as it is built
    ],
)
def test_what_cannot_be_resumed_or_crashes_is_refused_at_once(name, reason):
    before = np.random.get_state()[1].copy(), random.getstate()
    with pytest.raises(StudyError, match=rf"'{name}' {reason}.*try NCS, OnePlusOne"):
        make_optimiser(name, START, 0.05, 100, seed=0)
    assert np.array_equal(np.random.get_state()[1], before[0])
    assert random.getstate() == before[1]


def test_a_name_without_neighbours_is_answered_with_examples():
    with pytest.raises(StudyError, match="try NCS"):
        make_optimiser("???", START, 0.05, 100, seed=0)


@pytest.mark.parametrize(("name", "largest"), [("Cobyla", 1), ("NCS", 10)])
def test_a_batch_that_cannot_be_served_is_refused(name, largest):
    with pytest.raises(StudyError, match=f"at most {largest} candidates"):
        make_optimiser(name, START, 0.05, 100, seed=0, batch=11)


@pytest.mark.parametrize("start", [[0.5, 1.1], [-0.1], [np.nan], [], [[0.5]]])
def test_a_start_outside_the_knobs_is_refused(start):
    with pytest.raises(StudyError, match="start"):
        make_optimiser("CMA", np.array(start), 0.05, 100, seed=0)


@pytest.mark.parametrize("sigma", [0.0, -0.1, 1.5, float("nan")])
def test_an_impossible_sigma_is_refused(sigma):
    with pytest.raises(StudyError, match="sigma"):
        make_optimiser("CMA", START, sigma, 100, seed=0)


@pytest.mark.parametrize(
    ("name", "knobs", "expected"),
    [
        ("NCS", 6, 10),
        ("CMA", 6, 5),  # 4 + ⌊ln 6⌋
        ("CMA", 21, 7),
        ("CMA", 1, 1),  # it is OnePlusOne then
        ("DE", 6, 10),
        ("TwoPointsDE", 21, 10),
        ("OnePlusOne", 6, 1),
        ("NGOpt", 6, 1),
        ("PSO", 6, 1),
    ],
)
def test_the_search_decides_how_many_are_out_at_once(name, knobs, expected):
    optimiser = make_optimiser(name, np.full(knobs, 0.5), 0.1, 300, seed=0)
    assert generation(optimiser) == expected
    release(optimiser)


def rounded(x: np.ndarray) -> float:
    """Plateaus, on which CMA stops and starts anew."""
    return round(score(x), 1)


@pytest.mark.parametrize("name", ["NCS", "CMA"])
@pytest.mark.parametrize("knobs", mostly_long([1, 6, 21], quick=[6]))
@pytest.mark.parametrize("objective", [score, rounded])
def test_whole_generations_equal_one_candidate_at_a_time(name, knobs, objective):
    start = np.linspace(0.2, 0.75, knobs)
    singly, at_once = (make_optimiser(name, start, 0.1, 420, seed=3) for _ in range(2))
    size = generation(at_once)
    trajectories = [run(singly, 420, 1, objective), run(at_once, 420, size, objective)]
    assert np.array_equal(trajectories[0], trajectories[1][:420])


@pytest.mark.parametrize("name", ["DE", "TwoPointsDE"])
def test_no_two_of_a_slice_of_differential_evolution_have_the_same_parent(name):
    optimiser = make_optimiser(name, START, 0.1, 300, seed=0)
    for number in range(30):
        candidates = [optimiser.ask() for _ in range(generation(optimiser))]
        if number >= 3:  # what comes before is the initial population
            assert len({candidate.heritage["lineage"] for candidate in candidates}) == len(candidates)
        for candidate in candidates:
            optimiser.tell(candidate, score(candidate.value))


REFUSING = ("NCS", "OnePlusOne", "DE", "TwoPointsDE")


@pytest.mark.parametrize(
    ("name", "knobs"),
    [(name, 6) for name in REFUSING]
    + [("CMA", 1)]
    + [pytest.param(name, knobs, marks=pytest.mark.long) for name in REFUSING for knobs in (1, 2)],
)
def test_telling_the_size_of_what_is_refused_does_not_change_the_trajectory(name, knobs):
    skipped = 0
    for seed in range(2):
        start = np.full(knobs, 0.5)
        honest, saving = (make_optimiser(name, start, 0.1, 400, seed) for _ in range(2))
        size = generation(honest)
        for _ in range(400 // size):
            true, cheap = ([optimiser.ask() for _ in range(size)] for optimiser in (honest, saving))
            assert np.array_equal([c.value for c in true], [c.value for c in cheap])
            for mine, other in zip(true, cheap, strict=True):
                bound, truth = float(1 - np.mean(mine.value)), score(mine.value, capacity=knobs / 3)
                refused = refuses(saving, other, bound)
                skipped += refused
                honest.tell(mine, truth)
                saving.tell(other, bound if refused else truth)
    assert skipped > 40


@pytest.mark.parametrize("name", [*NAMES, "PSO"])
def test_what_is_better_than_all_before_is_never_refused(name):
    optimiser = make_optimiser(name, START, 0.1, 100, seed=0)
    best = np.inf
    try:
        for _ in range(100):
            candidate = optimiser.ask()
            assert not refuses(optimiser, candidate, min(best, 1.0))
            optimiser.tell(candidate, score(candidate.value))
            best = min(best, score(candidate.value))
    finally:
        release(optimiser)


@pytest.mark.parametrize("name", ["CMA", "NGOpt", "PSO"])
def test_searches_that_use_every_score_refuse_nothing(name):
    optimiser = make_optimiser(name, START, 0.1, 40, seed=0)
    try:
        for _ in range(40):
            candidate = optimiser.ask()
            assert not refuses(optimiser, candidate, 1e9)
            optimiser.tell(candidate, score(candidate.value))
    finally:
        release(optimiser)


@pytest.mark.parametrize("name", ["DE", "TwoPointsDE"])
def test_the_initial_population_is_never_refused(name):
    optimiser = make_optimiser(name, START, 0.1, 100, seed=0)
    for _ in range(30):
        candidate = optimiser.ask()
        assert not refuses(optimiser, candidate, 1e9)
        optimiser.tell(candidate, score(candidate.value))
    assert refuses(optimiser, optimiser.ask(), 1e9)


@pytest.mark.parametrize("name", ["OnePlusOne", "DE"])
def test_a_point_that_comes_again_is_not_the_best_for_that(name):
    """nevergrad would prefer it: a second measurement makes its pessimistic estimate 70.7 smaller."""
    optimiser = make_optimiser(name, START, 0.1, 100, seed=0)
    optimiser.tell(optimiser.ask(), 0.5)
    worse = optimiser.ask()
    optimiser.tell(worse, 0.9)
    optimiser.tell(optimiser.parametrization.spawn_child(new_value=worse.value), 0.9)
    assert np.array_equal(optimiser.current_bests["pessimistic"].parameter.value, START)
