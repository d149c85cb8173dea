"""OLMP over arbitrary groups: the smallest size whose BLEU stays within the tolerance.

The walk of one candidate: the search *asks* for knobs → the operator turns them into a size and,
only if the size can still matter, into weights → the decoder translates the search sentences →
BLEU statistics → the constraint *judges* → the archive and the record take note → the search is
*told*. A generation of candidates is asked for at once and judged side by side.
"""

import heapq
import itertools
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from grouping.errors import StudyError
from harness.configuration import DENSE, CellConfig
from harness.evaluator import BudgetSpent, Evaluator
from harness.search.rules import rules
from harness.search.scan import scan_then_bisect
from harness.sentences import Translated

#: along the archive, the next candidate to confirm is larger by at least this fraction of the dense size
BACK_OFF_STEP = 0.005
#: sizes are whole connections, so steps of just that length may come out a little shorter
ROUNDING = 1e-4
#: steps of a search-free rule below its edge: down to the grid point below it
RULE_FALLBACKS = 20


def check_search(config: CellConfig, knobs: int) -> None:
    """Raise StudyError for a search that cannot run over this many knobs, before anything is written."""
    if config.search == DENSE:
        return
    known = rules.names()
    if config.sparsity is not None and config.search not in known:
        raise StudyError(
            f"search {config.search!r} finds its own sparsity: leave out sparsity {config.sparsity:g}, "
            f"or name a search-free rule ({', '.join(known)})"
        )
    if config.search not in known:
        from harness.search.optimisers import make_optimiser, release  # nevergrad takes seconds to import

        release(make_optimiser(config.search, np.zeros(knobs), config.sigma, config.evaluations, config.seed))


def run_search(evaluator: Evaluator, last: NDArray | None = None) -> None:
    """Spend the budget: a search-free rule, or an optimiser from the edge of the constraint.

    That is where class-blind pruning ends, or, in later rounds, pruning on in proportion from the ``last``
    knobs. With the start "dense" the optimiser begins at the dense model, or at the last knobs themselves.
    """
    config = evaluator.config
    try:
        if config.search in rules.names():
            scan_rule(config.search, evaluator, fallbacks=RULE_FALLBACKS)
            return
        start = np.zeros(len(evaluator.operator.groups)) if last is None else last
        if config.start == "class-blind":
            start = scan_rule("class-blind", evaluator) if last is None else scan_on(last, evaluator)
        _optimise(start, evaluator)
    except BudgetSpent:
        return


def at_given_size(evaluator: Evaluator) -> NDArray:
    """Knobs at which a rule removes the given fraction, or nothing; judged once on search and on confirm."""
    operator, sparsity = evaluator.operator, evaluator.config.sparsity
    knobs = np.zeros(len(operator.groups))
    if sparsity is not None:
        knobs = operator.knobs(rules.get(evaluator.config.search)(operator.magnitudes(), sparsity))
    evaluator.evaluate(knobs, "search")
    evaluator.evaluate(knobs, "confirm")
    return knobs


def scan_rule(name: str, evaluator: Evaluator, fallbacks: int = 0) -> NDArray:
    """Knobs at the edge of the constraint along a one-parameter rule.

    The bisection leaves the archive empty for some way below the edge; ``fallbacks`` more
    evaluations, ``BACK_OFF_STEP`` apart, fill it, so that a rule can back off by steps as small as
    a search can.
    """
    rule, operator = rules.get(name), evaluator.operator
    magnitudes = operator.magnitudes()

    def knobs_at(strength: float) -> NDArray:
        return operator.knobs(rule(magnitudes, strength))

    def feasible(strengths: list[float]) -> list[bool]:
        return _feasible(map(knobs_at, strengths), evaluator)

    edge = scan_then_bisect(feasible)
    below = [edge - step * BACK_OFF_STEP for step in range(1, fallbacks + 1)]
    feasible([strength for strength in below if strength > 0])
    return knobs_at(edge)


def scan_on(last: NDArray, evaluator: Evaluator) -> NDArray:
    """Knobs at the edge of the constraint on the way from ``last`` to all pruned.

    At strength s, the fraction s goes of what is left of each group.
    """
    operator = evaluator.operator
    gone = operator.counts(last)
    left = np.array([len(group) for group in operator.magnitudes()]) - gone

    def knobs_at(strength: float) -> NDArray:
        return operator.knobs(gone + np.rint(strength * left).astype(np.int64))

    return knobs_at(scan_then_bisect(lambda strengths: _feasible(map(knobs_at, strengths), evaluator)))


def _feasible(candidates: Iterable[NDArray], evaluator: Evaluator) -> list[bool]:
    return [evaluation.feasible for evaluation in evaluator.evaluate_all(list(candidates), "start")]


def _optimise(start: NDArray, evaluator: Evaluator) -> None:
    # nevergrad, as above
    from harness.search.optimisers import generation, make_optimiser, refuses, release

    config, operator = evaluator.config, evaluator.operator
    left = max(1, config.evaluations - len(evaluator.done))
    optimiser = make_optimiser(config.search, start, config.sigma, budget=left, seed=config.seed)
    try:
        while evaluator.progress < 1:
            optimiser.progress = evaluator.progress
            candidates = [optimiser.ask() for _ in range(generation(optimiser))]
            knobs = [np.clip(np.asarray(candidate.value, dtype=float), 0, 1) for candidate in candidates]
            settled = [
                config.skipping and refuses(optimiser, candidate, float(operator.size(own)))
                for candidate, own in zip(candidates, knobs, strict=True)
            ]
            evaluations = evaluator.evaluate_all(knobs, "search", settled)
            for candidate, evaluation in zip(candidates, evaluations, strict=True):
                optimiser.tell(candidate, evaluation.score)
    finally:
        release(optimiser)


def confirm(evaluator: Evaluator, last: NDArray | None = None) -> tuple[NDArray, Translated, int]:
    """Back off along the archive until a candidate also holds on confirm.

    The same rule for every search: smallest first, each next one larger by at least
    ``BACK_OFF_STEP``, ``last`` or else the dense model last. A search in a lower precision is judged again in
    float32 on its own sentences first, one that draws its sentences anew on all of them; there a candidate
    that fails is a step, too, because many do. Where a search began at the edge of class-blind pruning, its
    models above the edge are judged as well, in their place by size and without a say in the steps of the
    archive: what comes of a search is larger by at most a step than a class-blind model that holds. Returns
    knobs, translations and how many failed on confirm.
    """
    config = evaluator.config
    resort = np.zeros(len(evaluator.operator.groups)) if last is None else last
    archive = ((e.size, np.array(e.knobs), True) for e in evaluator.feasible)
    class_blind = ((size, knobs, False) for size, knobs in _below_start(evaluator, last))
    by_size = heapq.merge(archive, class_blind, key=lambda candidate: candidate[0])
    last_size, failed = -np.inf, 0
    for size, knobs, found in itertools.chain(by_size, [(np.inf, resort, False)]):
        if found and size < last_size + BACK_OFF_STEP - ROUNDING:
            continue
        unsure = config.judged_again if found else knobs is not resort
        holds = not unsure or evaluator.evaluate(knobs, "exact").feasible
        if found and (holds or config.redraw):
            last_size = size
        if not holds:
            continue
        if evaluator.evaluate(knobs, "confirm").feasible:
            return knobs, evaluator.translations(knobs, "confirm"), failed
        failed += 1
    raise AssertionError("the dense model, or one that held before, is within the tolerance")


def _below_start(evaluator: Evaluator, last: NDArray | None) -> Iterator[tuple[float, NDArray]]:
    """Sizes and knobs of class-blind pruning, in steps from the edge where a search of the dense model began.

    A rule has filled its own archive there, and gets none.
    """
    held = [e.size for e in evaluator.feasible if e.stage == "start"]
    if last is not None or not held or evaluator.config.search in rules.names():
        return
    operator, magnitudes = evaluator.operator, evaluator.operator.magnitudes()
    edge = 1 - min(held)
    for strength in edge - BACK_OFF_STEP * np.arange(1, int(edge / BACK_OFF_STEP) + 1):
        knobs = operator.knobs(rules.get("class-blind")(magnitudes, strength))
        yield float(operator.size(knobs)), knobs
