"""Negatively Correlated Search (NCS) as a nevergrad optimiser.

Source of every equation: K. Tang, P. Yang, X. Yao, "Negatively Correlated Search", IEEE JSAC 34(3):542-550,
2016 (arXiv 1504.04914). N parents are N Gaussian search processes; an offspring replaces its parent if it is
good or far from the other processes. What the published text leaves open is settled here as follows:

- N(1, s) has standard deviation s, and t / T_max is the share of the budget spent when the generation began;
- f*, the best score so far, is the best before the generation began, or the offspring's own score if that is
  better. So a decision does not depend on the other offspring of its generation, nor on the order in which
  they are told, and `refuses` can foretell it;
- one parent starts at the given point and the others are jittered around it: parents that coincide have
  distance 0;
- 0/0 keeps the parent.
"""

from dataclasses import dataclass

import nevergrad as ng
import numpy as np
from nevergrad.common.errors import TellNotAskedNotSupportedError
from nevergrad.optimization.base import ConfiguredOptimizer, Optimizer

DEFAULT_POPULATION = 10
SUCCESS_RATE = 0.2
SIGMA_FACTOR = 0.99


def reflect(x: np.ndarray, lower: np.ndarray | float, upper: np.ndarray | float) -> np.ndarray:
    """Fold points back into [lower, upper] at the bounds, as often as it takes; points inside stay exact.

    `x` has shape (..., G); the bounds are scalars or have shape (G,), and are finite.
    """
    width = upper - lower
    distance = np.mod(x - lower, 2 * width)
    folded = lower + np.minimum(distance, 2 * width - distance)
    return np.where((x >= lower) & (x <= upper), x, np.clip(folded, lower, upper))


def bhattacharyya(
    x: np.ndarray, sigma_x: float, y: np.ndarray, sigma_y: np.ndarray | float
) -> np.ndarray | np.float64:
    """Bhattacharyya distance between N(x, sigma_x² I) and N(y, sigma_y² I) (Tang et al. 2016).

    `x` has shape (G,), `y` (..., G) and `sigma_y` (...); returns shape (...). The covariances being multiples
    of I, the determinants in ⅛ Δᵀ Σ⁻¹ Δ + ½ ln(det Σ / √(det Σ_x det Σ_y)) are powers of the variances:
    ⅛ |x − y|² / v + G/2 · ln(v / (sigma_x sigma_y)) with v = (sigma_x² + sigma_y²) / 2.
    """
    variance = (sigma_x**2 + np.square(sigma_y)) / 2
    squared = np.sum(np.square(x - y), axis=-1)
    return squared / (8 * variance) + x.shape[-1] / 2 * np.log(variance / (sigma_x * sigma_y))


def accepts(
    score: float, parent_score: float, best: float, distance: float, parent_distance: float, threshold: float
) -> bool:
    """Whether an offspring replaces its parent: f̃' / D̃' < λ_t (Tang et al. 2016).

    f̃' = (f' − f*) / ((f − f*) + (f' − f*)) and D̃' = D' / (D + D'), with f' `score`, f `parent_score`, D'
    `distance`, D `parent_distance`, λ_t `threshold` and f* the smaller of `best` and `score`. 0/0 keeps the
    parent.
    """
    best = min(best, score)
    above, parent_above = score - best, parent_score - best
    if above + parent_above == 0 or distance == 0:
        return False
    # 1 / (1 + b/a) rather than a / (a + b): every rounded step is monotone in a, and `refuses` rests on that.
    relative_score = 1 / (1 + parent_above / above) if above > 0 else 0.0
    relative_distance = distance / (distance + parent_distance)
    return relative_score / relative_distance < threshold


def draw_threshold(rng: np.random.RandomState, progress: float) -> float:
    """λ_t ~ N(1, 0.1 − 0.1 t/T_max), the latter a standard deviation; `progress` is t/T_max, in [0, 1]."""
    return float(rng.normal(1.0, 0.1 - 0.1 * progress))


@dataclass(frozen=True)
class _Generation:
    """The state when a generation began: the processes from which its offspring keep away, f* and t/T_max."""

    parents: np.ndarray  # (N, G)
    sigmas: np.ndarray  # (N,)
    best: float
    progress: float


@dataclass(frozen=True)
class _Asked:
    """A candidate asked for and not yet told; one without a generation is an initial parent."""

    process: int
    generation: _Generation | None = None
    threshold: float = 1.0


class NegativelyCorrelatedSearch(Optimizer):
    """NCS over one `ng.p.Array`, by ask and tell.

    The first N asks are the initial parents, the given point first. After that candidates may be asked and
    told one at a time or a whole generation at once, in any order of tells, with the same trajectory. A
    smaller batch may straddle two generations: the later one then begins from the parents as they stand. Each
    process waits for its own last candidate to be told, so at most N can be out at once; asking for more
    raises RuntimeError.

    `parametrization` is bounded on both sides, or on none: then nothing is reflected. `population` is N, at
    least 2. `sigma` is σ_0 in the units of the array (knobs); None means (ub − lb)/N, or the mutation sigma
    of an unbounded array. The attribute `progress` is the share of the budget spent, in [0, 1], set by the
    driver before each ask; None means num_tell / budget.

    Raises ValueError for another parametrisation, a population below 2 or a sigma that is not positive.
    """

    def __init__(
        self,
        parametrization: int | ng.p.Array,
        budget: int | None = None,
        num_workers: int = 1,
        *,
        population: int = DEFAULT_POPULATION,
        sigma: float | None = None,
    ) -> None:
        super().__init__(parametrization, budget=budget, num_workers=num_workers)
        if not isinstance(self.parametrization, ng.p.Array):
            raise ValueError("NCS searches over one array; give it an ng.p.Array")
        if population < 2:
            raise ValueError(f"NCS needs at least 2 parents to tell apart, not {population}")
        lower, upper = self.parametrization.bounds
        self._bounds = None if lower is None or upper is None else (lower, upper)
        if sigma is None:
            mutation = float(np.max(self.parametrization.sigma.value))
            sigma = mutation if self._bounds is None else float(np.min(upper - lower)) / population
        if not sigma > 0:
            raise ValueError(f"NCS needs a positive sigma, not {sigma}")
        self.progress: float | None = None
        self._parents = np.tile(self.parametrization.value.ravel(), (population, 1))
        self._sigmas = np.full(population, float(sigma))
        self._scores = np.full(population, np.inf)
        self._best = np.inf
        self._tried = np.zeros(population, dtype=int)
        self._succeeded = np.zeros(population, dtype=int)
        self._drawn = 0
        self._generation: _Generation | None = None
        self._pending: dict[str, _Asked] = {}

    @property
    def parents(self) -> np.ndarray:
        """The current parents, shape (N, G)."""
        return self._parents.copy()

    @property
    def scores(self) -> np.ndarray:
        """The scores of the current parents, shape (N,); infinite until the initial parent is told."""
        return self._scores.copy()

    @property
    def sigmas(self) -> np.ndarray:
        """The current step size of each process, shape (N,), in the units of the array."""
        return self._sigmas.copy()

    def refuses(self, candidate: ng.p.Parameter, lower_bound: float) -> bool:
        """Whether the parent will stay whatever score of at least `lower_bound` the candidate gets.

        Then the candidate needs no evaluation and may be told with `lower_bound` as its score: the parent
        stays and the best so far is untouched, since only a bound above the best is ever refused. Never True
        of an initial parent or of a candidate that was not asked for. The acceptance ratio rises with the
        score, so the bound decides.
        """
        asked = self._pending.get(candidate.uid)
        if asked is None or asked.generation is None or lower_bound <= asked.generation.best:
            return False
        return not self._accepts(candidate, asked, asked.generation, float(lower_bound))

    def _internal_ask_candidate(self) -> ng.p.Parameter:
        population, process = len(self._parents), self._drawn % len(self._parents)
        if any(asked.process == process for asked in self._pending.values()):
            raise RuntimeError(f"NCS process {process} has a candidate out: tell it before the next ask")
        if self._drawn < population:
            asked = _Asked(process)
            if process > 0:
                self._parents[process] = self._step(self._parents[process], self._sigmas[process])
            point = self._parents[process].copy()
        else:
            if process == 0 or self._generation is None:
                self._generation = self._begin_generation()
            asked = _Asked(process, self._generation, draw_threshold(self._rng, self._generation.progress))
            point = self._step(self._parents[process], self._sigmas[process])
        self._drawn += 1
        shape = self.parametrization.value.shape
        candidate = self.parametrization.spawn_child(new_value=point.reshape(shape))
        self._pending[candidate.uid] = asked
        return candidate

    def _internal_tell_candidate(self, candidate: ng.p.Parameter, loss: float) -> None:
        asked = self._pending.pop(candidate.uid)
        process = asked.process
        if asked.generation is None:
            success = loss < self._scores[process]
        else:
            success = self._accepts(candidate, asked, asked.generation, loss)
            self._adapt(process, success)
        if success:
            self._parents[process] = candidate.value.ravel()
            self._scores[process] = loss
        self._best = min(self._best, loss)

    def _internal_tell_not_asked(self, candidate: ng.p.Parameter, loss: float) -> None:
        raise TellNotAskedNotSupportedError("NCS judges offspring against parents: tell only what was asked")

    def _begin_generation(self) -> _Generation:
        progress = self.progress
        if progress is None:
            progress = self.num_tell / self.budget if self.budget else 0.0
        progress = min(max(progress, 0.0), 1.0)
        return _Generation(self.parents, self.sigmas, self._best, progress)

    def _step(self, parent: np.ndarray, sigma: float) -> np.ndarray:
        """x' = x + σ N(0, I), reflected at the bounds; shape (G,)."""
        point = parent + sigma * self._rng.normal(size=parent.size)
        return point if self._bounds is None else reflect(point, *(bound.ravel() for bound in self._bounds))

    def _accepts(
        self, candidate: ng.p.Parameter, asked: _Asked, generation: _Generation, score: float
    ) -> bool:
        process = asked.process
        sigma = self._sigmas[process]
        others = np.delete(generation.parents, process, axis=0)
        other_sigmas = np.delete(generation.sigmas, process)
        distance, parent_distance = (
            float(np.min(bhattacharyya(x, sigma, others, other_sigmas)))
            for x in (candidate.value.ravel(), self._parents[process])
        )
        parent_score = float(self._scores[process])
        return accepts(score, parent_score, generation.best, distance, parent_distance, asked.threshold)

    def _adapt(self, process: int, success: bool) -> None:
        """The 1/5 rule: after every N offspring of a process, σ grows if more than a fifth succeeded."""
        self._tried[process] += 1
        self._succeeded[process] += success
        if self._tried[process] < len(self._parents):
            return
        rate = self._succeeded[process] / self._tried[process]
        if rate > SUCCESS_RATE:
            self._sigmas[process] /= SIGMA_FACTOR
        elif rate < SUCCESS_RATE:
            self._sigmas[process] *= SIGMA_FACTOR
        self._tried[process] = self._succeeded[process] = 0


class ConfiguredNCS(ConfiguredOptimizer):
    """NCS with its settings, for nevergrad's registry; see `NegativelyCorrelatedSearch` for their meaning."""

    def __init__(self, *, population: int = DEFAULT_POPULATION, sigma: float | None = None) -> None:
        super().__init__(NegativelyCorrelatedSearch, locals())


NCS = ConfiguredNCS().set_name("NCS", register=True)
