"""Every strategy on every anatomy, and strategies that must not pass."""

import itertools

import pytest
from conformance import check_partition_of, check_strategy
from conftest import mostly_long
from tiny_models import MODELS, description

from grouping.errors import StudyError
from grouping.groups import partition
from grouping.strategies import NotApplicable, groupings
from grouping.table import check_partition, connection_table

SPECS = [
    *groupings.names(),
    "gate+layer",
    "attention-role+layer",
    "component+stage+embedding",
    "shuffled(layer)",
    "shuffled(matrix)",
    "shuffled(component+stage)",
]

# strategies that apply to models of one family alone
FAMILY = {"gate": "lstm", "head": "transformer", "attention-role": "transformer"}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("vectors", [False, True])
def test_blocks_hold_every_trained_connection_once(model, vectors):
    check_partition(connection_table(description(model), vectors=vectors), description(model))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", groupings.names())
def test_strategy_conforms(name, model):
    check_strategy(groupings.get(name), connection_table(description(model)))
    check_strategy(groupings.get(name), connection_table(description(model), vectors=True))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("vectors", mostly_long([False, True], quick=[True]))
def test_groups_are_an_exact_partition(spec, model, vectors):
    table = connection_table(description(model), vectors=vectors)
    family = description(model).family
    if any(name in spec and family != only for name, only in FAMILY.items()):
        with pytest.raises(NotApplicable, match="which this model does not have"):
            partition(table, spec)
    else:
        check_partition_of(table, spec)


def drops_rows(table):
    return table[table["module"] != "embedding"]["component"]


def says_too_much(table):
    return ["all"] * (len(table) + 1)


def says_numbers(table):
    return [1] * len(table)


def sorts(table):
    return table.sort_values("size")["component"]


def mutates(table):
    table["role"] = "all"
    return table["role"]


def mutates_and_gives_up(table):
    del table["gate"]
    raise NotApplicable("this model is not for me")


def gives_up_without_a_reason(table):
    raise NotApplicable("")


class ChangesItsMind:
    def __init__(self):
        self.calls = itertools.count()

    def __call__(self, table):
        return [f"group {next(self.calls)}"] * len(table)


@pytest.mark.parametrize(
    ("strategy", "complaint"),
    [
        (drops_rows, "in another order"),
        (says_too_much, "returned 25 labels for 24 blocks"),
        (says_numbers, "returned the label 1"),
        (sorts, "in another order"),
        (mutates, "DataFrame.* are different"),
        (mutates_and_gives_up, "DataFrame are different"),
        (gives_up_without_a_reason, "says why"),
        (ChangesItsMind(), "does not say the same twice"),
    ],
)
def test_broken_strategy_fails(strategy, complaint):
    with pytest.raises((AssertionError, StudyError), match=complaint):
        check_strategy(strategy, connection_table(description("lstm")))


def test_overlapping_and_missing_blocks_are_found():
    table = connection_table(description("lstm"))
    with pytest.raises(ValueError, match=r"8 connections of decoder.layers.0.bias_hh are in no block"):
        check_partition(
            table.drop(index=table.index[table["parameter"] == "decoder.layers.0.bias_hh"][-1]),
            description("lstm"),
        )
    moved = table.copy()
    moved.loc[1, "row"] = 1  # the lower half of the source embedding now begins in the padding row
    with pytest.raises(ValueError, match=r"12 connections of encoder.embed_tokens.weight"):
        check_partition(moved, description("lstm"))
