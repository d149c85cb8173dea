"""Any optimiser by name, started at a given point with a given step, behind nevergrad's ask and tell."""

import difflib
import math
import random
import warnings
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import nevergrad as ng
import numpy as np
from nevergrad.optimization.base import OptCls, Optimizer
from nevergrad.optimization.differentialevolution import _DE
from nevergrad.optimization.optimizerlib import _CMA
from nevergrad.optimization.utils import Archive

from grouping.errors import StudyError
from harness.search.ncs import DEFAULT_POPULATION, ConfiguredNCS, NegativelyCorrelatedSearch
from harness.search.rules import rules

T = TypeVar("T")

SAFE = "NCS, OnePlusOne, CMA, TwoPointsDE or DE"
#: evaluations of the rehearsal that shows whether an optimiser can be used
REHEARSED = 12
#: candidates that DE asks for before the first is told: a third of its population
DE_SLICE = 10
#: nevergrad compares losses after adding 70.7 to each, which takes their last digits: this is far above those
#: and far below the size of one connection
ROUNDING = 1e-12
KNOWN_NOISE = (
    "Could not import matplotlib",  # pycma when it is first imported
    "orphanated injected solution",  # pycma: the start, told first, shifts every generation by one candidate
    "COBYLA: Invalid RHOEND",  # scipy: nevergrad asks it for a tolerance of 0
    "Conversion of an array with ndim > 0 to a scalar",  # nevergrad's MetaModel, with NumPy up to 2.3
)


def make_optimiser(
    name: str, start: np.ndarray, sigma: float, budget: int, seed: int, batch: int = 1
) -> Optimizer:
    """An optimiser over knobs in [0, 1]^G whose first candidate is `start` and whose steps begin at `sigma`.

    `name` is NCS or any name in nevergrad's registry, `start` has shape (G,), `sigma` is the standard
    deviation of the first steps in knob space, `budget` and `batch` count evaluations (in all; asked for at
    once). The random state is the optimiser's own, seeded by `seed`. Steps that leave [0, 1] bounce at the
    bounds, as in NCS.

    nevergrad's CMA and OnePlusOne scale the mutation sigma they are given, CMA by a factor that halves from
    18 knobs on (which would favour groupings on one side of it): this is undone. DE and its relatives draw
    their initial population around the start with `sigma`; composites such as NGOpt treat it as they please
    (Cobyla, NGOpt's choice for small budgets, takes steps of `sigma` along the axes).

    OnePlusOne and DE (with its relatives) forget what they were told of a point when they ask for it again.
    Otherwise nevergrad takes the second score for another measurement of something noisy and trusts that
    point so much more that it becomes the best, whatever its score, and stays so.

    Raises StudyError for an unknown name, for one whose package is not installed, for a batch that the
    optimiser cannot serve, for a start outside [0, 1], for a sigma that is not above 0 and at most 1, and for
    an optimiser that, in a short rehearsal, crashes or does not follow from the seed alone.

    Call `release` when the search is over, however it ends.
    """
    _silence_known_noise()
    start = np.asarray(start, dtype=float)
    _check(start, sigma)
    family = _family(name, sigma)
    largest = DEFAULT_POPULATION if name == "NCS" else 1 if family.no_parallelization else batch
    if batch > largest:
        raise StudyError(
            f"optimiser '{name}' takes at most {largest} candidates at once, not {batch}: reduce the batch"
        )

    def build() -> Optimizer:
        # Given a start and bounds, an array bounces at the bounds and is sampled around the start.
        knobs = ng.p.Array(init=start, lower=0.0, upper=1.0)
        knobs.set_mutation(sigma=sigma / _first_step(name, start.size))
        knobs.random_state = np.random.RandomState(seed)
        optimiser = family(knobs, budget=budget, num_workers=batch)
        if _is_one_plus_one(chosen := _chosen(optimiser)) or isinstance(chosen, _DE):
            chosen.pruning = _forget
        return optimiser

    def from_start() -> Optimizer:
        optimiser = build()
        if not begins_there:
            optimiser.suggest(start)
        return optimiser

    _check_metamodel(name, _attempt(name, build))
    # Some begin at the start by themselves: suggesting it to them as well would pay for it twice.
    first = _attempt(name, partial(_rehearse, build, 1, 1, seed=0))[0]
    begins_there = np.allclose(first, start, rtol=0, atol=1e-12)
    # Twins show whether the candidates follow from the seed and what is told, whatever else draws numbers.
    evaluations = max(1, min(REHEARSED, budget))
    one, other = (_attempt(name, partial(_rehearse, from_start, evaluations, batch, s)) for s in (0, 1))
    if not np.array_equal(one, other):
        raise StudyError(
            f"optimiser '{name}' ignores the seed with {start.size} knobs and a budget of {budget}, "
            f"so its search could not be resumed or repeated; try {SAFE}"
        )
    return _attempt(name, from_start)


def generation(optimiser: Optimizer) -> int:
    """How many candidates to ask for before the first of them is told, from the first ask on.

    The search alone decides, never the machine: its outcome depends on how old the scores are that an ask can
    use. The start counts as a candidate; tells come in the order of the asks.

    - NCS: its population. A generation is judged by the state at its beginning, so the trajectory is that of
      one candidate at a time.
    - CMA: its population size λ. pycma draws λ candidates at once and is told λ together. The start, told
      first, takes a place in the first λ, so the last candidate of each draw is told with the next one. A
      generation here is what is told together, and the next draw comes after it: the same trajectory again.
    - DE and its relatives: `DE_SLICE`, and never more than the population. Each candidate of a slice has
      another parent, which none of the others can replace; only the best point and the two points whose
      difference is added may be as old as the slice. In the original DE (Storn & Price 1997) they are as old
      as the whole population. On toy problems of 6 and 20 knobs with 200 and 600 evaluations, slices of up
      to 15 ended where single candidates do (within noise); 30, the population, ended behind at 200.
    - OnePlusOne: 1, each candidate starts from the best of all before. Everything else: 1, unexamined.
    """
    chosen = _chosen(optimiser)
    if isinstance(chosen, NegativelyCorrelatedSearch):
        return len(chosen.parents)
    if isinstance(chosen, _CMA):
        return int(chosen._popsize)
    if isinstance(chosen, _DE):
        return min(DE_SLICE, int(chosen.llambda))
    return 1


def refuses(optimiser: Optimizer, candidate: ng.p.Parameter, size: float) -> bool:
    """Whether the search goes on the same for every score of at least `size` that the candidate may get.

    Then it needs no translation and is told `size` as its score: a score is the size of a feasible candidate
    and above 1 for others, so the size bounds it from below. Ask this of a candidate asked for and not told.

    - NCS: its acceptance ratio rises with the score, and λ is drawn when the candidate is asked for; see
      `NegativelyCorrelatedSearch.refuses`.
    - OnePlusOne: what is worse than the best so far leaves the best as it is and multiplies the step by 0.84,
      however much worse it is.
    - DE and its relatives: what is worse than its parent does not replace it and, since the parent is no
      better than the best, does not become that either. Nothing else of a score is kept. The parent cannot
      change before the candidate is told. Members of the initial population have no parent: they are never
      refused.
    - CMA: never, its update ranks all candidates of a generation. (Over one knob it is OnePlusOne.)
      Everything else: never, unexamined.
    """
    chosen = _chosen(optimiser)
    if isinstance(chosen, NegativelyCorrelatedSearch):
        return chosen.refuses(candidate, size)
    to_beat = math.inf
    if _is_one_plus_one(chosen):
        to_beat = chosen.current_bests["pessimistic"].mean
    elif isinstance(chosen, _DE):
        parent = chosen.population.get(candidate.heritage["lineage"])
        if parent is not None and parent.loss is not None:
            to_beat = parent.loss
    return size > to_beat + ROUNDING


def release(optimiser: Optimizer) -> None:
    """Stop the threads in which nevergrad runs some optimisers, such as Cobyla, which NGOpt may choose.

    Left waiting for the next tell, such a thread keeps the process from exiting after an error or Ctrl-C.
    """
    thread = getattr(optimiser, "_messaging_thread", None)
    if thread is not None:
        thread.stop()
    for name in ("_optim", "_optimizer", "optims", "optimizers"):
        parts = getattr(optimiser, name, None) or []
        for part in parts if isinstance(parts, list) else [parts]:
            release(part)


def _chosen(optimiser: Optimizer) -> Optimizer:
    """The optimiser itself, or the one on which a choice such as CMA or NGOpt has settled."""
    return _chosen(optimiser.optim) if hasattr(optimiser, "optim") else optimiser


def _is_one_plus_one(optimiser: Optimizer) -> bool:
    """Whether it is the plain one: its relatives may look back at their archive or accept what is worse."""
    return optimiser.name == "OnePlusOne"


def _forget(archive: Archive) -> Archive:
    """What is left of an archive after a tell; neither OnePlusOne nor DE proposes anything from it."""
    return Archive()


def _check_metamodel(name: str, optimiser: Optimizer) -> None:
    """Refuse at once what would crash far into the search: nevergrad 1.0.12 calls float() on an array."""
    chosen = _chosen(optimiser)
    if "MetaModel" in chosen.name and np.lib.NumpyVersion(np.__version__) >= "2.4.0":
        raise StudyError(
            f"optimiser '{name}' chooses {chosen.name} here, which nevergrad can run only up to NumPy 2.3, "
            f"not {np.__version__}: install 'numpy<2.4', or try {SAFE}"
        )


def _attempt(name: str, action: Callable[[], T]) -> T:
    """What `action` returns. Raises StudyError for whatever nevergrad, or a package behind it, raises."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an optimiser whose thread has died warns before it says why
            return action()
    except Exception as error:
        cause = error.__cause__ or error
        reason = str(cause) or type(cause).__name__
        raise StudyError(f"optimiser '{name}' cannot run here: {reason}; try {SAFE}") from error


def _rehearse(build: Callable[[], Optimizer], evaluations: int, batch: int, seed: int) -> np.ndarray:
    """Candidates of a short search on a paraboloid: shape (`evaluations` or a few more, G).

    Meanwhile the global random states of Python and NumPy are set by `seed`; they are restored.
    """
    before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        optimiser = build()
        try:
            asked: list[np.ndarray] = []
            while len(asked) < evaluations:
                candidates = [optimiser.ask() for _ in range(batch)]
                for candidate in candidates:
                    asked.append(np.array(candidate.value))
                    optimiser.tell(candidate, float(np.sum(np.square(candidate.value - 0.4))))
            return np.array(asked)
        finally:
            release(optimiser)
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def _silence_known_noise() -> None:
    """Hide warnings that ordinary use provokes, in the whole process: any thread may warn, at any time."""
    for message in KNOWN_NOISE:
        warnings.filterwarnings("ignore", message)


def _check(start: np.ndarray, sigma: float) -> None:
    if start.ndim != 1 or not start.size or not np.all((start >= 0) & (start <= 1)):
        raise StudyError("a search must start at one knob in [0, 1] per group: check the starting point")
    if not 0 < sigma <= 1:
        raise StudyError(f"sigma is {sigma}, but steps in knob space are above 0 and at most 1: try 0.05")


def _family(name: str, sigma: float) -> OptCls:
    if name == "NCS":
        return ConfiguredNCS(sigma=sigma)
    known = ng.optimizers.registry
    if name not in known:
        by_lower = {candidate.lower(): candidate for candidate in [*sorted(known), *rules.names()]}
        nearest = [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower)]
        advice = f"did you mean {', '.join(nearest)}?" if nearest else f"try {SAFE}"
        raise StudyError(
            f"unknown optimiser '{name}'; NCS, nevergrad's optimisers and the rules are known: {advice}"
        )
    return known[name]


def _first_step(name: str, knobs: int) -> float:
    """Standard deviation of nevergrad's first steps around a told start, in units of the mutation sigma.

    The factors are those of nevergrad 1.0.12 on a bounded array: OnePlusOne doubles its step when the start
    is told; CMA is CMAbounded (scale 1.5884) times 0.3, or 0.15 from 18 dimensions on, and OnePlusOne in one
    dimension.
    """
    if name == "OnePlusOne" or (name == "CMA" and knobs == 1):
        return 2.0
    if name == "CMA":
        return 1.5884 * (0.3 if knobs < 18 else 0.15)
    return 1.0
