"""The connection table of small descriptions against tables written by hand."""

import pandas as pd
import pytest
from tiny_models import MODELS, describe, description, transformer

from grouping.anatomy import ModelDescription
from grouping.errors import StudyError
from grouping.table import connection_table

PLACE = ["row", "rows", "col", "cols"]


def described(family, shapes, heads=None, padding_rows=None, tied=None):
    return ModelDescription(family, shapes, tied or {}, heads or {}, padding_rows or {})


def places(table):
    return [tuple(place) for place in table[PLACE].to_numpy().tolist()]


def test_columns():
    table = connection_table(description("transformer"))
    roles = ["component", "layer", "module", "role", "gate", "direction", "head"]
    assert list(table.columns) == ["parameter", *PLACE, "size", *roles, "prunable"]
    assert table["layer"].dtype == table["head"].dtype == pd.Int64Dtype()
    assert table["gate"].isna().all()
    assert table["prunable"].dtype == bool


@pytest.mark.parametrize(
    ("padding", "expected"),
    [
        (1, [(0, 1, 0, 4), (2, 8, 0, 4)]),
        (0, [(1, 9, 0, 4)]),
        (9, [(0, 9, 0, 4)]),
        (None, [(0, 10, 0, 4)]),
    ],
)
def test_padding_row_is_in_no_block(padding, expected):
    name = "encoder.embed_tokens.weight"
    rows = {} if padding is None else {name: padding}
    table = connection_table(described("lstm", {name: (10, 4)}, padding_rows=rows))
    assert places(table) == expected
    assert table["role"].unique().tolist() == ["source"]


def test_lstm_rows_are_gates_in_the_order_of_pytorch():
    names = {"encoder.lstm.weight_ih_l1_reverse": (12, 5), "encoder.lstm.bias_hh_l1_reverse": (12,)}
    table = connection_table(described("lstm", names))
    assert places(table)[:4] == [(0, 3, 0, 5), (3, 3, 0, 5), (6, 3, 0, 5), (9, 3, 0, 5)]
    assert places(table)[4:] == [(0, 3, 0, 1), (3, 3, 0, 1), (6, 3, 0, 1), (9, 3, 0, 1)]
    assert table["gate"].tolist() == ["input", "forget", "cell", "output"] * 2
    assert table["size"].tolist() == [15] * 4 + [3] * 4
    assert table["layer"].tolist() == [1] * 8
    assert table["direction"].unique().tolist() == ["backward"]
    assert table["role"].tolist() == ["input_hidden"] * 4 + ["hidden_hidden"] * 4
    assert table["prunable"].tolist() == [True] * 4 + [False] * 4


def test_attention_is_cut_into_heads():
    attention = "decoder.layers.0.encoder_attn"
    shapes = {
        f"{attention}.k_proj.weight": (6, 10),
        f"{attention}.k_proj.bias": (6,),
        f"{attention}.out_proj.weight": (6, 6),
        f"{attention}.out_proj.bias": (6,),
    }
    table = connection_table(described("transformer", shapes, heads={"encoder": 5, "decoder": 2}))
    assert places(table) == [
        (0, 3, 0, 10),
        (3, 3, 0, 10),
        (0, 3, 0, 1),
        (3, 3, 0, 1),
        (0, 6, 0, 3),
        (0, 6, 3, 3),
        (0, 6, 0, 1),
    ]
    assert table["head"].tolist()[:6] == [0, 1, 0, 1, 0, 1]
    assert table["head"].isna().tolist() == [False] * 6 + [True]
    assert table["role"].tolist() == ["key"] * 4 + ["output"] * 3
    assert table["module"].unique().tolist() == ["encoder_attention"]


def test_heads_that_do_not_divide_the_rows_are_refused():
    shapes = {"encoder.layers.0.self_attn.q_proj.weight": (6, 8)}
    with pytest.raises(StudyError, match=r"q_proj.weight' has 6 rows or columns for 4 attention heads"):
        connection_table(described("transformer", shapes, heads={"encoder": 4}))


def test_vectors_are_listed_and_prunable_on_request():
    shapes = {"encoder.layer_norm.weight": (8,), "encoder.layers.0.fc1.weight": (16, 8)}
    model = described("transformer", shapes)
    assert connection_table(model)["prunable"].tolist() == [False, True]
    assert connection_table(model, vectors=True)["prunable"].tolist() == [True, True]
    assert connection_table(model)["role"].isna().tolist() == [True, False]


def test_tied_tensor_is_one_parameter():
    table = connection_table(description("transformer tied"))
    embedding = table[table["module"] == "embedding"]
    assert embedding["parameter"].tolist() == ["encoder.embed_tokens.weight"] * 2
    assert places(embedding) == [(0, 1, 0, 8), (2, 8, 0, 8)]
    assert embedding["component"].tolist() == ["shared"] * 2
    assert "output_projection" not in set(table["module"])


@pytest.mark.parametrize("model", MODELS)
def test_sizes_add_up_to_the_parameters_of_the_model(model):
    build, options = MODELS[model]
    module = build(**options)
    padding = sum(description(model).shapes[name][1] for name in description(model).padding_rows)
    trained = sum(parameter.numel() for parameter in module.parameters())
    table = connection_table(describe(module))
    assert table["size"].sum() == trained - padding
    assert table["size"].eq(table["rows"] * table["cols"]).all()
    matrices = sum(parameter.numel() for parameter in module.parameters() if parameter.dim() == 2)
    assert table.loc[table["prunable"], "size"].sum() == matrices - padding


def test_order_is_that_of_the_state():
    state = transformer(encoder_layers=3, decoder_layers=2).state_dict()
    table = connection_table(description("transformer 3 layers"))
    trained = [name for name in state if not name.endswith("version")]
    assert table["parameter"].drop_duplicates().tolist() == trained
