"""Every optimiser by name: start, step, bounds and determinism."""

import random
import threading

import numpy as np
import pytest
from nevergrad.optimization.base import Optimizer

from grouping.errors import StudyError
from harness.search.optimisers import make_optimiser, release

pytestmark = pytest.mark.filterwarnings("error")

NAMES = ("NCS", "OnePlusOne", "CMA", "TwoPointsDE", "DE", "NGOpt")
START = np.linspace(0.2, 0.75, 6)


def score(x: np.ndarray) -> float:
    """A toy of the study: relative size while feasible, above 1 otherwise."""
    excess = float(np.sum(x**2) - 2.0)
    return float(1 - np.mean(x)) if excess <= 0 else 1 + excess


def run(optimiser: Optimizer, evaluations: int, batch: int = 1) -> np.ndarray:
    trajectory: list[np.ndarray] = []
    try:
        while len(trajectory) < evaluations:
            candidates = [optimiser.ask() for _ in range(batch)]
            trajectory += [candidate.value for candidate in candidates]
            for candidate in candidates:
                optimiser.tell(candidate, score(candidate.value))
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
@pytest.mark.parametrize("knobs", [8, 40])
def test_first_steps_have_the_standard_deviation_asked_for(name, knobs):
    steps = []
    for seed in range(40):
        optimiser = make_optimiser(name, np.full(knobs, 0.5), 0.05, 400, seed)
        optimiser.tell(optimiser.ask(), 0.9)
        steps.append(optimiser.ask().value - 0.5)
    assert np.std(steps) == pytest.approx(0.05, rel=0.1)


@pytest.mark.parametrize("name", ["OnePlusOne", "CMA"])
def test_first_steps_with_one_knob(name):
    steps = []
    for seed in range(400):
        optimiser = make_optimiser(name, np.array([0.5]), 0.05, 400, seed)
        optimiser.tell(optimiser.ask(), 0.9)
        steps.append(optimiser.ask().value - 0.5)
    assert np.std(steps) == pytest.approx(0.05, rel=0.1)


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
