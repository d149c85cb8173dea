"""Every registered operator on every kind of model, and operators that must not pass."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import mostly_long
from tiny_checkpoints import tiny
from tiny_models import MODELS

from grouping.groups import partition
from grouping.table import connection_table, coverage
from harness.model import TranslationModel
from harness.operators import MagnitudePruning, Operator, operators

GROUPINGS = {"lstm": ("single", "gate+layer"), "transformer": ("single", "head+attention-role")}

#: each family with something tied, and with sizes that differ
QUICK = ("lstm tied", "lstm narrow encoder", "transformer tied", "transformer projected")

Build = Callable[[TranslationModel, pd.DataFrame], Operator]


def tiny_model(name: str, folder: Path) -> TranslationModel:
    """With magnitudes that are equal, zeros, and zeros with a sign."""
    _, model = tiny(name, folder)
    model.flat.mul_(20).round_().div_(20)
    model.flat[::7] = 0
    model.flat[::11] = -0.0
    return model


def bits(model: TranslationModel) -> np.ndarray:
    """The weights as bit patterns: 0 and -0 differ."""
    return model.flat.numpy().view(np.int32).copy()


def candidates(groups: int, count: int) -> np.ndarray:
    """Knobs [count, G]: random ones, and knobs at both ends."""
    rng = np.random.default_rng(groups)
    knobs = rng.uniform(size=(count, groups))
    knobs[::3] = rng.choice([0, 0.001, 0.5, 1], size=knobs[::3].shape)
    return knobs


def belongs(model: TranslationModel, blocks: pd.DataFrame) -> np.ndarray:
    """Which parameters the blocks hold: bool [parameters]."""
    counts = coverage(blocks, {name: model.description.shapes[name] for name in model.offsets})
    return np.concatenate([counts[name].ravel() for name in model.offsets]) == 1


def check_operator(build: Build, model: TranslationModel, blocks: pd.DataFrame) -> None:
    """AssertionError unless ``build`` makes an operator that keeps the protocol."""
    dense = bits(model)
    operator = build(model, blocks)
    assert list(operator.groups) == blocks["group"].unique().tolist()
    for group, magnitudes in zip(operator.groups, operator.magnitudes(), strict=True):
        inside = belongs(model, blocks[blocks["group"] == group])
        assert np.array_equal(magnitudes, np.sort(np.abs(model.flat.numpy()[inside])))
    check_sizes(operator)
    check_counts(operator)
    assert np.array_equal(bits(model), dense), "weights change before knobs are applied"
    check_weights(build, model, blocks)


def check_sizes(operator: Operator) -> None:
    groups = len(operator.groups)
    knobs = candidates(groups, 12)
    before = knobs.copy()
    sizes = operator.size(knobs.reshape(3, 4, groups))
    assert np.array_equal(knobs, before), "size changes its knobs"
    assert np.shape(sizes) == (3, 4), "sizes of many candidates have another shape"
    assert np.array_equal(sizes.ravel(), [operator.size(row) for row in knobs]), "sizes are not repeatable"
    assert ((sizes >= 0) & (sizes <= 1)).all()
    assert operator.size(np.zeros(groups)) == 1, "knobs 0 are not the dense size"
    assert operator.size(np.ones(groups)) < 1, "knobs 1 remove nothing"
    for group in range(groups):
        line = np.tile(knobs[1], (41, 1))
        line[:, group] = np.linspace(0, 1, 41)
        assert (np.diff(operator.size(line)) <= 0).all(), "size rises with a knob"


def check_counts(operator: Operator) -> None:
    groups = len(operator.groups)
    totals = [len(magnitudes) for magnitudes in operator.magnitudes()]
    knobs = candidates(groups, 40)
    counts = operator.counts(knobs)
    assert counts.shape == knobs.shape
    assert np.issubdtype(counts.dtype, np.integer)
    assert ((counts >= 0) & (counts <= totals)).all()
    for count in counts:
        again = operator.knobs(count)
        assert ((again >= 0) & (again <= 1)).all()
        assert np.array_equal(operator.counts(again), count), "knobs of counts have other counts"


def check_weights(build: Build, model: TranslationModel, blocks: pd.DataFrame) -> None:
    dense, outside = bits(model), ~belongs(model, blocks)
    knobs = candidates(blocks["group"].nunique(), 8)
    alone = []  # what each candidate's weights are when nothing else was applied before
    for row in knobs:
        operator = build(model, blocks)
        operator.apply(row)
        alone.append((bits(model), operator.kept()))
        assert np.array_equal(bits(model)[outside], dense[outside]), "other weights change"
        assert operator.kept()[outside].all(), "other weights are said to be removed"
        operator.restore()
        assert np.array_equal(bits(model), dense), "the dense weights do not come back"
    operator = build(model, blocks)
    for index in np.random.default_rng(1).integers(0, len(knobs), 40):
        operator.apply(knobs[index])
        assert np.array_equal(bits(model), alone[index][0]), "weights depend on what was applied before"
        assert np.array_equal(operator.kept(), alone[index][1])
    operator.apply(np.zeros(len(operator.groups)))
    assert np.array_equal(bits(model), dense), "knobs 0 are not the dense model"
    assert operator.kept().all()
    operator.apply(knobs[1])
    operator.restore()
    operator.restore()
    assert np.array_equal(bits(model), dense)


@pytest.mark.parametrize("model", mostly_long(MODELS, QUICK))
@pytest.mark.parametrize("name", operators.names())
def test_operator_conforms(name, model, tmp_path):
    read = tiny_model(model, tmp_path)
    for grouping, vectors in zip(GROUPINGS[read.family], (False, True), strict=True):
        table = connection_table(read.description, vectors=vectors)
        check_operator(operators.get(name), read, partition(table, grouping))


@pytest.mark.parametrize("name", operators.names())
def test_operator_conforms_on_rows_dealt_at_random(name, tmp_path):
    read = tiny_model("lstm 3 layers", tmp_path)
    blocks = partition(connection_table(read.description), "shuffled(layer)", seed=2)
    check_operator(operators.get(name), read, blocks)


class Hysteresis(MagnitudePruning):
    """What is pruned once comes back late, as in the released code of OLMP."""

    def apply(self, knobs):
        counts = self.counts(knobs)
        self._prune(np.where((counts < self.pruned) & (counts > 0.8 * self.pruned), self.pruned, counts))


class Rounding(MagnitudePruning):
    def restore(self):
        super().restore()
        self.flat[:] = np.float16(self.flat)


class LosesSigns(MagnitudePruning):
    def _prune(self, counts):
        super()._prune(counts)
        self.flat += 0.0  # turns -0 into 0


class PrunesAtRest(MagnitudePruning):
    def counts(self, knobs):
        return np.maximum(super().counts(knobs), 1)


class Rises(MagnitudePruning):
    def size(self, knobs):
        return 1 - np.sin(4 * np.asarray(knobs)[..., 0]) ** 2


class OneAtATime(MagnitudePruning):
    def size(self, knobs):
        return super().size(np.asarray(knobs).reshape(-1, len(self.groups)))[0]


class WritesIntoKnobs(MagnitudePruning):
    def size(self, knobs):
        found = super().size(knobs)
        knobs[...] = 0
        return found


class Coarse(MagnitudePruning):
    def knobs(self, counts):
        return np.round(super().knobs(counts), 2)


class ReachesOut(MagnitudePruning):
    def apply(self, knobs):
        super().apply(knobs)
        self.flat[:] = np.where(np.abs(self.flat) < 0.3, 0, self.flat)


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (Hysteresis, "depend on what was applied before"),
        (Rounding, "do not come back"),
        (LosesSigns, "other weights change"),
        (PrunesAtRest, "knobs 0 are not the dense size"),
        (Rises, "size rises with a knob"),
        (OneAtATime, "have another shape"),
        (WritesIntoKnobs, "size changes its knobs"),
        (Coarse, "knobs of counts have other counts"),
        (ReachesOut, "other weights change"),
    ],
)
def test_broken_operator_fails(broken, complaint, tmp_path):
    _, read = tiny("lstm", tmp_path)
    read.flat[::11] = -0.0
    blocks = partition(connection_table(read.description), "gate+layer")
    with pytest.raises(AssertionError, match=complaint):
        check_operator(broken, read, blocks)
