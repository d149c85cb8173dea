"""Magnitudes at two bytes each against numpy vectors of the same numbers."""

import numpy as np
import pytest

from harness.operators.ascending import Magnitudes


def numbers(kind: str) -> np.ndarray:
    """Ascending float32 numbers of several spreads; some with many that are equal."""
    rng = np.random.default_rng(3)
    drawn = {
        "one": [0.25],
        "zeros": np.zeros(5),
        "normal": 0.02 * rng.normal(size=70_000),
        "uniform": rng.uniform(-0.1, 0.1, size=3_000),
        "half precision": rng.normal(size=5_000).astype(np.float16),
        "all sizes": [0, 0, 1e-45, 1.2e-38, 1e-20, 1, 1 + 2**-23, 1 + 2**-22, 2, 3e38, 3.4e38],
        "halves full": np.array([0x3F7FFFFF, 0x3F800000, 0x3F80FFFF, 0x3F810000], "u4").view("f4"),
    }
    return np.sort(np.abs(np.array(drawn[kind], dtype=np.float32)))


KINDS = ["one", "zeros", "normal", "uniform", "half precision", "all sizes", "halves full"]


def compact(ascending: np.ndarray) -> Magnitudes:
    scratch = ascending.copy()
    made = Magnitudes(scratch, np.empty(ascending.size, dtype=np.uint16))
    scratch[:] = np.nan  # the caller's again
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_is_there(kind):
    expected = numbers(kind)
    magnitudes = compact(expected)
    assert len(magnitudes) == magnitudes.size == expected.size
    assert magnitudes.dtype == np.float32
    assert np.array_equal(np.asarray(magnitudes).view(np.uint32), expected.view(np.uint32))
    assert np.asarray(magnitudes, dtype=np.float64).dtype == np.float64
    assert np.array_equal(np.square(magnitudes, dtype=np.float64), np.square(expected, dtype=np.float64))
    with pytest.raises(ValueError, match="without a copy"):
        np.array(magnitudes, copy=False)


@pytest.mark.parametrize("kind", KINDS)
def test_indices_and_slices_are_those_of_a_vector(kind):
    expected = numbers(kind)
    magnitudes = compact(expected)
    size = expected.size
    for index in {0, size - 1, size // 2, size // 3, -1, -size}:
        assert magnitudes[index] == expected[index]
        assert isinstance(magnitudes[index], np.float32)
    for index in (size, -size - 1):
        with pytest.raises(IndexError):
            magnitudes[index]
    for some in (slice(None), slice(1, -1), slice(2, 900), slice(5, 2), slice(None, None, 7), slice(9, None)):
        assert np.array_equal(magnitudes[some], expected[some])
    assert np.array_equal(magnitudes[::-1], expected[::-1])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", KINDS)
def test_searches_end_where_numpy_ends(kind, side):
    expected = numbers(kind)
    magnitudes = compact(expected)
    rng = np.random.default_rng(0)
    near = rng.choice(expected, 300)
    wanted = [near, np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(np.inf))]
    wanted += [rng.uniform(0, expected[-1], 300), [0, 1e-45, np.inf]]
    values = np.concatenate([np.asarray(part, dtype=np.float32) for part in wanted])
    found = np.searchsorted(expected, values, side=side)
    assert np.array_equal(magnitudes.searchsorted(values, side=side), found)
    assert np.array_equal(magnitudes.searchsorted(values.reshape(3, -1), side=side), found.reshape(3, -1))
    assert [magnitudes.searchsorted(value, side=side) for value in values] == found.tolist()
    assert np.array_equal(np.searchsorted(magnitudes, values, side=side), found)


def test_searches_for_other_numbers_end_where_numpy_ends():
    """Between two float32, below zero, minus zero."""
    expected = numbers("half precision")
    magnitudes = compact(expected)
    for values in (expected[::9].astype(np.float64) + 1e-12, np.array([-1, -0.0, 0.0]), 0.37, 2):
        for side in ("left", "right"):
            found = np.searchsorted(expected, values, side=side)
            assert np.array_equal(magnitudes.searchsorted(values, side=side), found)
            as_float32 = np.float32(values)
            found = np.searchsorted(expected, as_float32, side=side)
            assert np.array_equal(magnitudes.searchsorted(as_float32, side=side), found)


def test_memory_is_half_of_a_vector():
    magnitudes = compact(numbers("normal"))
    taken = magnitudes.lower.nbytes + magnitudes.upper.nbytes + magnitudes.starts.nbytes
    assert taken < 0.6 * numbers("normal").nbytes
