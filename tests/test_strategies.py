"""Strategies against groups counted by hand on two tiny models (sizes in tiny_models.py)."""

import pytest
from tiny_models import description

from grouping.groups import partition
from grouping.strategies import NotApplicable, groupings
from grouping.table import connection_table

# lstm: source 9 x 6, encoder 32 x 6 and 32 x 8; target 11 x 6, decoder 32 x (6 + 8) and 32 x 8,
# attention 8 x 8 and 8 x 16, additional_fc 6 x 8, fc_out 12 x 6; embeddings without their padding rows
LSTM = {
    "single": {"all": 1584},
    "component": {"encoder": 502, "decoder": 1082},
    "layer": {
        "encoder embedding": 54,
        "encoder layer 0": 448,
        "decoder embedding": 66,
        "decoder layer 0": 704,
        "attention": 192,
        "prediction": 120,
    },
    "stage": {"embeddings": 240, "input to hidden": 640, "hidden to hidden": 512, "attention": 192},
    "gate": {"rest": 432, "input": 288, "forget": 288, "cell": 288, "output": 288},
    "embedding": {"source": 54, "target": 66, "prediction": 72, "rest": 1392},
    "see2016": {
        "source embedding": 54,
        "source layer 0": 448,
        "target embedding": 66,
        "target layer 0": 704,
        "attention": 192,
        "softmax": 120,
    },
}
# transformer: width 8, feed-forward 16, 2 heads; source 9 x 8, target 11 x 8, prediction 12 x 8
TRANSFORMER = {
    "component": {"encoder": 584, "decoder": 952},
    "layer": {
        "encoder embedding": 72,
        "encoder layer 0": 512,
        "decoder embedding": 88,
        "decoder layer 0": 768,
        "prediction": 96,
    },
    "stage": {"embeddings": 256, "self-attention": 512, "cross-attention": 256, "feed-forward": 512},
    "embedding": {"source": 72, "target": 88, "prediction": 96, "rest": 1280},
    "attention-role": {
        "query": 192,
        "key": 192,
        "value": 192,
        "output": 192,
        "fc1": 256,
        "fc2": 256,
        "rest": 256,
    },
    "head": {
        "rest": 768,
        "encoder layer 0 self_attention head 0": 128,
        "encoder layer 0 self_attention head 1": 128,
        "decoder layer 0 self_attention head 0": 128,
        "decoder layer 0 self_attention head 1": 128,
        "decoder layer 0 encoder_attention head 0": 128,
        "decoder layer 0 encoder_attention head 1": 128,
    },
    "see2016": {
        "source embedding": 72,
        "source layer 0": 512,
        "target embedding": 88,
        "target layer 0": 512,
        "attention": 256,
        "softmax": 96,
    },
}


def sizes(model, spec, vectors=False):
    groups = partition(connection_table(description(model), vectors=vectors), spec)
    return groups.groupby("group")["size"].sum().to_dict()


@pytest.mark.parametrize("name", LSTM)
def test_lstm(name):
    assert sizes("lstm", name) == LSTM[name]


@pytest.mark.parametrize("name", TRANSFORMER)
def test_transformer(name):
    assert sizes("transformer", name) == TRANSFORMER[name]


def test_matrix_is_one_group_per_parameter():
    table = connection_table(description("transformer"))
    groups = partition(table, "matrix")
    assert groups["group"].equals(groups["parameter"])
    assert groups["group"].nunique() == 4 + 2 + 8 + 2 + 3


@pytest.mark.parametrize(
    ("name", "model"), [("gate", "transformer"), ("head", "lstm"), ("attention-role", "lstm")]
)
def test_not_applicable(name, model):
    with pytest.raises(NotApplicable, match=f"'{name}' needs .*, which this model does not have"):
        partition(connection_table(description(model)), name)


def test_layer_follows_sipo_on_stacked_layers():
    assert list(sizes("lstm 3 layers", "layer")) == sorted(
        [
            "encoder embedding",
            *(f"encoder layer {index}" for index in range(3)),
            "decoder embedding",
            *(f"decoder layer {index}" for index in range(3)),
            "decoder projection",
            "attention",
            "prediction",
        ]
    )


def test_state_projections_lead_from_hidden_to_hidden():
    # two 8 x 16 projections beside the recurrent 32 x 8 of two encoder directions and the decoder
    assert sizes("lstm bidirectional", "stage")["hidden to hidden"] == 2 * 128 + 3 * 256
    assert sizes("lstm bidirectional", "see2016")["rest"] == 2 * 128


def test_tied_embeddings_are_shared():
    assert sizes("transformer tied", "embedding") == {"shared": 72, "rest": 1792}
    assert sizes("transformer tied", "layer")["shared embedding"] == 72
    assert sizes("transformer tied", "see2016")["shared embedding"] == 72
    assert sizes("transformer tied", "stage")["embeddings"] == 72
    assert sizes("lstm tied decoder", "embedding")["shared"] == 66
    assert sizes("lstm tied decoder", "embedding")["source"] == 54


def test_learned_positions_go_with_the_embeddings():
    # 7 and 9 positions and the row for index 0, which fairseq never uses; the padding row is out
    assert sizes("transformer learned positions", "stage")["embeddings"] == 72 + 8 * 8 + 10 * 8
    assert sizes("transformer learned positions", "layer")["decoder positions"] == 80
    assert sizes("transformer learned positions", "see2016")["source embedding"] == 64


def test_biases_join_their_gate():
    # 2 x (input and recurrent bias) x 8 states a gate
    assert sizes("lstm", "gate", vectors=True)["forget"] == 288 + 32


def test_normalisation_has_no_stage():
    # 2 encoder and 3 decoder normalisations of 2 x 8
    assert sizes("transformer", "stage", vectors=True)["rest"] == 5 * 16


def test_names():
    assert set(groupings.names()) >= {*LSTM, *TRANSFORMER, "matrix"}
