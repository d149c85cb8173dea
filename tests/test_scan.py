"""The scan and the bisection that follows it."""

import pytest

from harness.search.scan import scan_then_bisect


class Recorder:
    """Feasibility with a record of what was asked."""

    def __init__(self, feasible, limit=1000):
        self.feasible, self.limit, self.asked = feasible, limit, []

    def __call__(self, strengths: list[float]) -> list[bool]:
        verdicts = []
        for strength in strengths:
            if len(self.asked) == self.limit:
                raise TimeoutError("budget spent")
            self.asked.append(strength)
            verdicts.append(self.feasible(strength))
        return verdicts


def test_monotone_feasibility_is_found_to_the_grid_step_over_two_to_the_bisections():
    evaluate = Recorder(lambda strength: strength <= 0.437)
    found = scan_then_bisect(evaluate)
    assert 0.437 - 0.1 / 2**6 <= found <= 0.437
    assert evaluate.asked[:9] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    # By hand: 0.4 and 0.5 enclose the edge; 0.45 no, 0.425 yes, 0.4375 no, 0.43125 yes, 0.434375 yes,
    # 0.4359375 yes.
    assert evaluate.asked[9:] == pytest.approx([0.45, 0.425, 0.4375, 0.43125, 0.434375, 0.4359375])
    assert found == pytest.approx(0.4359375)


def test_a_gap_does_not_hide_the_largest_feasible_point():
    evaluate = Recorder(lambda strength: strength < 0.25 or 0.55 < strength < 0.64)
    assert scan_then_bisect(evaluate, bisections=2) == pytest.approx(0.625)  # 0.65 no, 0.625 yes
    assert len(evaluate.asked) == 11


def test_bisection_keeps_what_was_feasible_when_the_middle_is_not():
    assert scan_then_bisect(Recorder(lambda strength: strength == 0.4), bisections=3) == 0.4


def test_nothing_feasible_on_the_grid_is_sought_below_it():
    assert scan_then_bisect(Recorder(lambda strength: strength <= 0.03), bisections=4) == pytest.approx(0.025)
    assert scan_then_bisect(Recorder(lambda strength: False)) == 0.0


def test_above_the_grid_the_search_goes_on_to_one():
    assert scan_then_bisect(Recorder(lambda strength: strength <= 0.96), bisections=2) == pytest.approx(0.95)
    assert scan_then_bisect(Recorder(lambda strength: True), grid=(0.5, 1.0)) == 1.0


def test_own_grid_in_any_order():
    evaluate = Recorder(lambda strength: strength <= 0.6)
    assert scan_then_bisect(evaluate, grid=(0.8, 0.2, 0.5), bisections=1) == 0.5
    assert evaluate.asked == [0.2, 0.5, 0.8, 0.65]


@pytest.mark.parametrize("limit", [3, 11])
def test_the_end_of_the_budget_passes_through(limit):
    evaluate = Recorder(lambda strength: strength < 0.4, limit)
    with pytest.raises(TimeoutError, match="budget spent"):
        scan_then_bisect(evaluate)
    assert len(evaluate.asked) == limit
