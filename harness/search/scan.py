"""Bring a search-free rule to the edge of the constraint."""

from collections.abc import Callable, Sequence

DEFAULT_GRID = tuple(step / 10 for step in range(1, 10))
DEFAULT_BISECTIONS = 6


def scan_then_bisect(
    evaluate: Callable[[list[float]], list[bool]],
    grid: Sequence[float] = DEFAULT_GRID,
    bisections: int = DEFAULT_BISECTIONS,
) -> float:
    """The largest feasible strength found by a fixed scan and a bisection above it; 0.0 if none is feasible.

    `evaluate` says of each of some strengths in [0, 1] whether it is feasible; whatever it raises, such as
    the end of the budget, passes through. Every grid point is evaluated, in ascending order, because BLEU is
    not monotone in the strength and a gap must not hide what lies beyond it. Then `bisections` evaluations
    halve the interval between the largest feasible grid point (0.0, the dense model, if there is none) and
    the next grid point (1.0, all pruned, if there is none).
    """
    points = sorted(grid)
    verdicts = zip(points, evaluate(points), strict=True)
    feasible = max([strength for strength, holds in verdicts if holds], default=0.0)
    infeasible = min([strength for strength in points if strength > feasible], default=1.0)
    if feasible >= infeasible:
        return feasible
    for _ in range(bisections):
        middle = (feasible + infeasible) / 2
        if all(evaluate([middle])):
            feasible = middle
        else:
            infeasible = middle
    return feasible
