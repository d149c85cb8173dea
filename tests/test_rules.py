"""The search-free rules against hand calculations, brute force and torch."""

import numpy as np
import pytest
import torch
from torch.nn.utils import prune

from harness.operators.ascending import Magnitudes
from harness.search.rules import BLOCK, lamp, rules, smallest_per_class, sum_of_squares

RULES = ("class-blind", "class-distribution", "class-uniform", "lamp")
STRENGTHS = np.linspace(0, 1, 21)


def classes(*values: list[float]) -> list[np.ndarray]:
    return [np.array(value, dtype=np.float32) for value in values]


def gaussian_classes(seed: int = 0) -> list[np.ndarray]:
    """Four classes of different sizes and spreads, one of them full of ties."""
    rng = np.random.default_rng(seed)
    drawn = [scale * rng.normal(size=size) for size, scale in ((500, 1.0), (90, 0.1), (7, 3.0))]
    drawn.append(np.round(rng.normal(size=200), 1))
    return [np.sort(np.abs(values)).astype(np.float32) for values in drawn]


def test_the_four_rules_are_registered():
    assert set(RULES) <= set(rules.names())


def test_class_blind_by_hand():
    magnitudes = classes([0.1, 0.4, 0.5], [0.2, 0.3, 0.6, 0.7], [0.05])
    class_blind = rules.get("class-blind")
    assert class_blind(magnitudes, 0.5).tolist() == [1, 2, 1]  # 0.05, 0.1, 0.2, 0.3
    assert class_blind(magnitudes, 0.75).tolist() == [3, 2, 1]
    assert class_blind(magnitudes, 1.0).tolist() == [3, 4, 1]


def test_class_blind_ties_go_in_class_order():
    magnitudes = classes([0.5, 0.5], [0.1, 0.5, 0.5, 0.9], [0.5, 0.5])
    assert [rules.get("class-blind")(magnitudes, count / 8).tolist() for count in range(9)] == [
        [0, 0, 0], [0, 1, 0], [1, 1, 0], [2, 1, 0], [2, 2, 0], [2, 3, 0], [2, 3, 1], [2, 3, 2], [2, 4, 2],
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_smallest_per_class_equals_a_stable_sort(dtype):
    magnitudes = [values.astype(dtype) for values in gaussian_classes()]
    magnitudes[1][:5] = 0  # zeros and subnormals
    magnitudes[1][5] = np.finfo(dtype).smallest_subnormal
    owner = np.repeat(np.arange(4), [values.size for values in magnitudes])
    order = owner[np.argsort(np.concatenate(magnitudes), kind="stable")]
    for count in range(order.size + 1):
        expected = np.bincount(order[:count], minlength=4)
        assert smallest_per_class(magnitudes, count).tolist() == expected.tolist()


@pytest.mark.parametrize("strength", [0.0, 0.137, 0.5, 0.9, 1.0])
def test_class_blind_removes_what_torch_removes(strength):
    torch.manual_seed(0)
    layers = [torch.nn.Linear(13, 17), torch.nn.Linear(17, 5), torch.nn.Linear(5, 31)]
    magnitudes = [np.sort(layer.weight.detach().abs().numpy().ravel()) for layer in layers]
    prune.global_unstructured(
        [(layer, "weight") for layer in layers], pruning_method=prune.L1Unstructured, amount=strength
    )
    removed = [int((layer.weight_mask == 0).sum()) for layer in layers]
    assert rules.get("class-blind")(magnitudes, strength).tolist() == removed


def test_class_uniform_by_hand():
    magnitudes = classes([0.1] * 10, [0.2] * 7, [9.0])
    assert rules.get("class-uniform")(magnitudes, 0.3).tolist() == [3, 2, 0]
    assert rules.get("class-uniform")(magnitudes, 1.0).tolist() == [10, 7, 1]


def test_class_distribution_by_hand():
    # σ of the first class is √((1 + 1 + 49 + 49) / 4) = 5, of the second 1: in units of σ the classes are
    # 0.2, 0.2, 1.4, 1.4 and 1, 1.
    magnitudes = classes([1, 1, 7, 7], [1, 1])
    assert [rules.get("class-distribution")(magnitudes, count / 6).tolist() for count in range(7)] == [
        [0, 0], [1, 0], [2, 0], [2, 1], [2, 2], [3, 2], [4, 2],
    ]  # fmt: skip


def test_class_distribution_with_a_class_of_zeros():
    magnitudes = classes([0, 0, 0], [0, 3, 4])
    assert rules.get("class-distribution")(magnitudes, 0.0).tolist() == [0, 0]
    assert rules.get("class-distribution")(magnitudes, 0.5).tolist() == [3, 0]
    assert rules.get("class-distribution")(magnitudes, 1.0).tolist() == [3, 3]


def test_lamp_by_hand():
    # Scores: 1/14, 4/13, 9/9 in the first class; 1/2, 1/1 in the second (equal magnitudes, in order).
    magnitudes = classes([1, 2, 3], [10, 10])
    assert [lamp(magnitudes, count / 5).tolist() for count in range(6)] == [
        [0, 0], [1, 0], [2, 0], [2, 1], [2, 1], [2, 1],
    ]  # fmt: skip


def test_lamp_equals_brute_force():
    magnitudes = gaussian_classes(3)
    scored = []
    for index, values in enumerate(magnitudes):
        squares = values.astype(float) ** 2
        for position in range(values.size - 1):  # the largest of each class is never pruned
            scored.append((squares[position] / sum(squares[position:]), index))
    scored.sort()
    total = sum(values.size for values in magnitudes)
    for strength in (0.1, 0.33, 0.5, 0.8, 0.97):
        expected = np.bincount([index for _, index in scored[: round(strength * total)]], minlength=4)
        assert lamp(magnitudes, strength).tolist() == expected.tolist()


def test_lamp_keeps_the_largest_of_every_class_even_among_zeros():
    assert lamp(classes([0, 0, 0], [0, 1], [5]), 1.0).tolist() == [2, 1, 0]
    assert lamp(classes([0, 0, 0], [0, 1], [5]), 0.5).tolist() == [2, 1, 0]


@pytest.mark.parametrize("name", RULES)
def test_counts_are_monotone_from_nothing_to_the_most(name):
    magnitudes = gaussian_classes(1)
    sizes = np.array([values.size for values in magnitudes])
    counts = np.array([rules.get(name)(magnitudes, strength) for strength in STRENGTHS])
    assert counts.dtype == np.int64
    assert counts[0].tolist() == [0, 0, 0, 0]
    assert np.all(np.diff(counts, axis=0) >= 0)
    assert np.array_equal(counts[-1], sizes - 1 if name == "lamp" else sizes)


@pytest.mark.parametrize("name", ["class-blind", "lamp"])
def test_global_rules_prune_the_fraction_asked_for(name):
    magnitudes = gaussian_classes(2)
    total = sum(values.size for values in magnitudes)
    for strength in STRENGTHS[:-1]:
        assert rules.get(name)(magnitudes, strength).sum() == round(strength * total)


def long_classes() -> list[np.ndarray]:
    """Classes around the number of weights that are looked at together; zeros and equal ones among them."""
    rng = np.random.default_rng(8)
    sizes = [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, BLOCK + 2, 2 * BLOCK + 1, 3 * BLOCK - 5]
    made = [scale * rng.normal(size=size) for size, scale in zip(sizes, rng.uniform(0.1, 9, 8), strict=True)]
    made[4][: BLOCK // 2] = 0
    made[5] = np.round(made[5], 1)
    made.append(np.zeros(BLOCK + 3))
    return [np.sort(np.abs(values).astype(np.float32)) for values in made]


def test_sum_of_squares_is_numpys():
    for values in long_classes():
        assert sum_of_squares(values) == np.sum(np.square(values, dtype=np.float64))


def brute_force(scores: list[np.ndarray], count: int) -> list[int]:
    owner = np.repeat(np.arange(len(scores)), [len(s) for s in scores])
    order = np.argsort(np.concatenate(scores), kind="stable")
    return np.bincount(owner[order[:count]], minlength=len(scores)).tolist()


def distribution_scores(values: np.ndarray) -> np.ndarray:
    exact = values.astype(np.float64)
    return exact / (np.sqrt(np.mean(exact**2)) or 1)


def lamp_scores(values: np.ndarray) -> np.ndarray:
    """All but the largest: Lee et al.'s formula, 0 where a class is zero to its end."""
    squares = values.astype(np.float64) ** 2
    not_smaller = np.cumsum(squares[::-1])[::-1]
    return (squares / np.where(not_smaller > 0, not_smaller, 1))[:-1]


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize(
    ("name", "formula"), [("class-distribution", distribution_scores), ("lamp", lamp_scores)]
)
def test_scores_computed_in_blocks_equal_scores_computed_whole(name, formula, compact):
    values = long_classes()
    total, scores = sum(v.size for v in values), [formula(v) for v in values]
    given = [Magnitudes(v.copy(), np.empty(v.size, np.uint16)) for v in values] if compact else values
    for strength in (0, 0.001, 0.15, 0.5, 0.77, 0.99, 1):
        wanted = min(round(strength * total), sum(s.size for s in scores))
        assert rules.get(name)(given, strength).tolist() == brute_force(scores, wanted)


@pytest.mark.parametrize("name", RULES)
def test_magnitudes_in_half_the_memory_give_the_same_counts(name):
    vectors = gaussian_classes(5)
    compact = [Magnitudes(values.copy(), np.empty(values.size, np.uint16)) for values in vectors]
    for strength in STRENGTHS:
        counts = rules.get(name)(vectors, strength)
        assert rules.get(name)(compact, strength).tolist() == counts.tolist()
