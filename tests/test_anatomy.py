"""Parameter names of real fairseq models, and what they are taken for."""

import pytest
from tiny_models import MODELS, describe, description, lstm, transformer

from grouping.anatomy import LSTM, TRANSFORMER, ModelDescription, Part, parts_of
from grouping.errors import StudyError


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("encoder.embed_tokens.weight", Part("encoder", "embedding", "source")),
        (
            "encoder.lstm.weight_ih_l0",
            Part("encoder", "lstm", "input_hidden", 0, "forward", "gate"),
        ),
        (
            "encoder.lstm.bias_hh_l12_reverse",
            Part("encoder", "lstm", "hidden_hidden", 12, "backward", "gate"),
        ),
        ("decoder.layers.1.weight_hh", Part("decoder", "lstm", "hidden_hidden", 1, "forward", "gate")),
        ("decoder.encoder_hidden_proj.bias", Part("decoder", "projection", "hidden_state")),
        ("decoder.encoder_cell_proj.weight", Part("decoder", "projection", "cell_state")),
        ("decoder.attention.input_proj.weight", Part("decoder", "attention", "query")),
        ("decoder.attention.output_proj.weight", Part("decoder", "attention", "output")),
        ("decoder.additional_fc.weight", Part("decoder", "projection", "prediction")),
        ("decoder.fc_out.bias", Part("decoder", "output_projection", "prediction")),
        ("decoder.adaptive_softmax.head.weight", None),
        ("decoder.layers.1.weight_hh.more", None),
    ],
)
def test_lstm_names(name, part):
    assert LSTM.part(name) == part


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("decoder.embed_tokens.weight", Part("decoder", "embedding", "target")),
        ("encoder.embed_positions.weight", Part("encoder", "positions", "source")),
        (
            "encoder.layers.0.self_attn.q_proj.weight",
            Part("encoder", "self_attention", "query", 0, split="head rows"),
        ),
        (
            "decoder.layers.11.encoder_attn.v_proj.bias",
            Part("decoder", "encoder_attention", "value", 11, split="head rows"),
        ),
        (
            "decoder.layers.2.self_attn.out_proj.weight",
            Part("decoder", "self_attention", "output", 2, split="head columns"),
        ),
        ("encoder.layers.3.fc2.bias", Part("encoder", "feed_forward", "fc2", 3)),
        ("decoder.layers.3.encoder_attn_layer_norm.bias", Part("decoder", "normalisation", None, 3)),
        ("encoder.layernorm_embedding.weight", Part("encoder", "normalisation")),
        ("decoder.layer_norm.weight", Part("decoder", "normalisation")),
        ("decoder.project_in_dim.weight", Part("decoder", "projection", "target")),
        ("decoder.project_out_dim.weight", Part("decoder", "projection", "prediction")),
        ("decoder.output_projection.weight", Part("decoder", "output_projection", "prediction")),
        ("encoder.embed_tokens.embeddings.0.0.weight", None),
    ],
)
def test_transformer_names(name, part):
    assert TRANSFORMER.part(name) == part


@pytest.mark.parametrize("model", MODELS)
def test_every_parameter_of_a_real_model_is_known(model):
    described = description(model)
    assert list(parts_of(described)) == [name for name in described.shapes if name not in described.tied]


@pytest.mark.parametrize(
    ("model", "name", "role"),
    [
        ("lstm tied", "encoder.embed_tokens.weight", "source/target/prediction"),
        ("lstm tied decoder", "decoder.embed_tokens.weight", "target/prediction"),
        ("transformer tied", "encoder.embed_tokens.weight", "source/target/prediction"),
        ("transformer tied decoder", "decoder.embed_tokens.weight", "target/prediction"),
    ],
)
def test_tied_embedding_is_shared(model, name, role):
    parts = parts_of(description(model))
    assert parts[name] == Part("shared", "embedding", role)
    assert sum(part.component == "shared" for part in parts.values()) == 1


@pytest.mark.parametrize("model", ["lstm", "transformer", "transformer projected"])
def test_untied_models_share_nothing(model):
    assert {part.component for part in parts_of(description(model)).values()} == {"encoder", "decoder"}


def test_other_architectures_are_refused():
    fconv = ModelDescription("fconv", {"encoder.fc1.weight": (4, 4)}, {}, {}, {})
    with pytest.raises(StudyError, match="architecture 'fconv' is not supported.*lstm and transformer"):
        parts_of(fconv)


def test_adaptive_softmax_is_refused():
    factor = {"adaptive_softmax_dropout": 0.0, "adaptive_softmax_factor": 2}
    tying = {"tie_adaptive_weights": False, "tie_adaptive_proj": False}
    for model in (
        lstm(adaptive_softmax_cutoff="4,8", criterion="adaptive_loss"),
        transformer(adaptive_softmax_cutoff="4,8", **factor, **tying),
    ):
        with pytest.raises(StudyError, match=r"'decoder\.adaptive_softmax\..*without adaptive softmax"):
            parts_of(describe(model))


def test_extensions_are_refused():
    with pytest.raises(StudyError, match=r"'decoder\.layers\.0\.c_attn' is not supported"):
        parts_of(describe(transformer(scale_heads=True)))
