"""Specs, the shuffled control and the checks on what a strategy returns."""

import numpy as np
import pandas as pd
import pytest
from tiny_models import description

from grouping.errors import StudyError
from grouping.groups import deal, labels, partition, summary
from grouping.table import connection_table


@pytest.fixture(scope="module")
def table():
    return connection_table(description("lstm"))


def test_table_order_and_columns_are_kept(table):
    groups = partition(table, "layer")
    pd.testing.assert_frame_equal(
        groups.drop(columns="group"), table[table["prunable"]].reset_index(drop=True)
    )


def test_summary(table):
    summed = summary(partition(table, "stage"))
    assert summed.to_dict("list") == {
        "group": ["embeddings", "input to hidden", "hidden to hidden", "attention"],
        "blocks": [6, 8, 8, 2],
        "connections": [240, 640, 512, 192],
        "share": [240 / 1584, 640 / 1584, 512 / 1584, 192 / 1584],
    }


def test_product(table):
    sizes = summary(partition(table, " gate + component ")).set_index("group")["connections"].to_dict()
    encoder = {f"{gate}+encoder": 112 for gate in ("input", "forget", "cell", "output")}
    decoder = {f"{gate}+decoder": 176 for gate in ("input", "forget", "cell", "output")}
    assert sizes == {"rest+encoder": 54, "rest+decoder": 66 + 192 + 48 + 72} | encoder | decoder


def test_product_of_silent_strategies_is_rest(table):
    sizes = summary(partition(table, "gate+embedding")).set_index("group")["connections"].to_dict()
    assert sizes["rest"] == 192 + 48
    assert sizes["rest+source"] == 54
    assert sizes["forget+rest"] == 288


def test_order_of_a_product_changes_only_names(table):
    one, other = partition(table, "gate+layer"), partition(table, "layer+gate")
    assert one.groupby("group").ngroup().nunique() == other["group"].nunique() == 12
    assert pd.concat([one["group"], other["group"]], axis=1).drop_duplicates().shape[0] == 12


@pytest.mark.parametrize("spec", ["layer", "matrix", "gate+layer", "single"])
def test_shuffled_has_groups_of_the_same_sizes(table, spec):
    expected = summary(partition(table, spec))["connections"].tolist()
    dealt = partition(table, f"shuffled({spec})", seed=5)
    found = dealt.groupby("group")["size"].sum()
    assert set(found.index) == {f"shuffled{index}" for index in range(len(expected))}
    for index, size in enumerate(expected):
        assert abs(found[f"shuffled{index}"] - size) <= dealt["size"].max()


def test_shuffled_deals_whole_rows():
    table = connection_table(description("transformer"))
    dealt = partition(table, "shuffled(head)")
    output = dealt[dealt["parameter"] == "encoder.layers.0.self_attn.out_proj.weight"]
    assert output["row"].tolist() == list(range(8))
    assert output["cols"].tolist() == [8] * 8, "a row runs through the columns of all heads"
    assert output["head"].isna().all()
    query = dealt[dealt["parameter"] == "encoder.layers.0.self_attn.q_proj.weight"]
    assert query["head"].tolist() == [0] * 4 + [1] * 4
    embedding = dealt[dealt["parameter"] == "encoder.embed_tokens.weight"]
    assert embedding["row"].tolist() == [0, 2, 3, 4, 5, 6, 7, 8, 9], "the padding row is not dealt"
    assert dealt["rows"].eq(1).all()


def test_shuffled_depends_on_the_seed_alone(table):
    once, again, other = (partition(table, "shuffled(layer)", seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(once, again)
    assert not once["group"].equals(other["group"])
    pd.testing.assert_frame_equal(once.drop(columns="group"), other.drop(columns="group"))


def test_deal_meets_sizes_exactly_where_rows_allow():
    group = deal(np.ones(10, dtype=int), np.array([7, 2, 1]), np.random.default_rng(0))
    assert np.bincount(group).tolist() == [7, 2, 1]


def test_deal_gives_a_row_on_the_border_to_the_group_that_holds_its_middle():
    # borders at 5 of 12, rows end at 4, 8, 12: the middle of the second, 6, is beyond the border
    group = deal(np.array([4, 4, 4]), np.array([5, 7]), np.random.default_rng(0))
    assert np.bincount(group).tolist() == [1, 2]


def test_deal_is_fair():
    # each row is in the first group with probability 0.3: standard error 0.0065 over 5,000 deals
    generator = np.random.default_rng(7)
    deals = [deal(np.ones(10, dtype=int), np.array([3, 7]), generator) == 0 for _ in range(5000)]
    assert np.abs(np.mean(deals, axis=0) - 0.3).max() < 0.03


@pytest.mark.parametrize(
    "spec",
    [
        "shuffled",
        "shuffled(layer",
        "shuffled(layer)+gate",
        "gate+shuffled(layer)",
        "shuffled(shuffled(layer))",
    ],
)
def test_shuffled_stands_around_everything(table, spec):
    with pytest.raises(StudyError, match=r"write it around all, as shuffled\(gate\+layer\)"):
        partition(table, spec)


@pytest.mark.parametrize("spec", ["", "layer+", "+gate", "shuffled(layer+)"])
def test_an_empty_name(table, spec):
    with pytest.raises(StudyError, match=r"lacks a name: write one, as layer, or a product, as gate\+layer"):
        partition(table, spec)


@pytest.mark.parametrize("spec", ["lauer", "gate+lauer", "shuffled(lauer)"])
def test_unknown_name(table, spec):
    with pytest.raises(StudyError, match="unknown grouping 'lauer', did you mean 'layer'"):
        partition(table, spec)


def test_strategy_on_the_import_path(table, tmp_path, monkeypatch):
    (tmp_path / "my_groupings.py").write_text(
        "def wide(table):\n    return ['wide' if cols > 8 else None for cols in table['cols']]\n"
        "constant = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    sizes = summary(partition(table, "my_groupings:wide")).set_index("group")["connections"].to_dict()
    assert sizes == {"wide": 448 + 128, "rest": 1584 - 448 - 128}
    with pytest.raises(StudyError, match="'my_groupings:constant' is no function"):
        partition(table, "my_groupings:constant")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["a", "b"], "returned 2 labels for 3 blocks"),
        ("abc", "returned a value of type str: it must"),
        (None, "returned a value of type NoneType: it must"),
        (5, "returned a value of type int: it must"),
        ([], "returned 0 labels for 3 blocks"),
        (["a", 1, "c"], "returned the label 1"),
        (["a", "", "c"], "returned the label ''"),
        (["a", ["b"], "c"], r"returned the label \['b'\]"),
        (pd.Series(["a", "b", "c"], index=[2, 1, 0]), "returned a Series in another order"),
    ],
)
def test_what_a_strategy_returns_is_checked(table, said, message):
    with pytest.raises(StudyError, match=f"grouping 'mine' {message}"):
        labels(table.head(3), lambda given: said, "mine")


def test_a_strategy_that_fails_hears_which_columns_there_are(table):
    with pytest.raises(
        StudyError, match=r"failed \(KeyError: 'nosuch'\); its table has the columns param.* head"
    ):
        labels(table, lambda given: given["nosuch"], "mine")


@pytest.mark.parametrize(
    "said", [["a", None, "c"], ("a", np.nan, "c"), pd.Series(["a", pd.NA, "c"]), np.array(["a", None, "c"])]
)
def test_missing_labels_are_rest(table, said):
    assert labels(table.head(3), lambda given: said, "mine").tolist() == ["a", "rest", "c"]
