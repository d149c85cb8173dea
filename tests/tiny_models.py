"""Real fairseq models with a few hundred weights, and what grouping gets to know of them."""

from argparse import Namespace
from functools import cache
from typing import Any

from fairseq.data import Dictionary
from fairseq.models.lstm import LSTMModel
from fairseq.models.transformer import TransformerModel
from torch import nn

from grouping.anatomy import ModelDescription

LSTM_SETTINGS: dict[str, Any] = {
    "arch": "lstm",
    "criterion": None,
    "encoder_embed_dim": 6,
    "encoder_hidden_size": 8,
    "decoder_embed_dim": 6,
    "decoder_hidden_size": 8,
    "decoder_out_embed_dim": 6,
}
TRANSFORMER_SETTINGS: dict[str, Any] = {
    "arch": "transformer",
    "encoder_embed_dim": 8,
    "encoder_ffn_embed_dim": 16,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
}


def dictionary(words: int) -> Dictionary:
    """A vocabulary of ``words`` words after fairseq's four special symbols; padding is index 1."""
    made = Dictionary()
    for index in range(words):
        made.add_symbol(f"word{index}")
    return made


def lstm(**options: Any) -> nn.Module:
    """fairseq's ``lstm``: 10 source and 12 target symbols, embeddings of 6, states of 8, one layer."""
    return LSTMModel.build_model(Namespace(**LSTM_SETTINGS | options), task(options))


def transformer(**options: Any) -> nn.Module:
    """fairseq's ``transformer``: 10 source and 12 target symbols, width 8, 2 heads, one layer a side."""
    return TransformerModel.build_model(Namespace(**TRANSFORMER_SETTINGS | options), task(options))


def task(options: dict[str, Any]) -> Namespace:
    """The dictionaries of a model with these settings, as fairseq's tasks offer them."""
    source = dictionary(6)
    joint = options.get("share_all_embeddings", False)
    return Namespace(source_dictionary=source, target_dictionary=source if joint else dictionary(8))


def describe(model: nn.Module) -> ModelDescription:
    """Names and shapes of a model's parameters, read from the model itself."""
    named = list(model.named_parameters(remove_duplicate=False))
    first: dict[int, str] = {}
    for name, parameter in named:
        first.setdefault(id(parameter), name)
    family = "lstm" if isinstance(model, LSTMModel) else "transformer"
    heads = {}
    if family == "transformer":
        heads = {side: getattr(model, side).layers[0].self_attn.num_heads for side in ("encoder", "decoder")}
    return ModelDescription(
        family=family,
        shapes={name: tuple(parameter.shape) for name, parameter in named},
        tied={name: first[id(parameter)] for name, parameter in named if first[id(parameter)] != name},
        heads=heads,
        padding_rows={
            first[id(part.weight)]: part.padding_idx
            for part in model.modules()
            if isinstance(part, nn.Embedding) and part.padding_idx is not None
        },
    )


SHARED = {"share_all_embeddings": True}
MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "lstm": (lstm, {}),
    "lstm bidirectional": (lstm, {"encoder_bidirectional": True}),
    "lstm 3 layers": (lstm, {"encoder_layers": 3, "decoder_layers": 3, "encoder_bidirectional": True}),
    "lstm narrow encoder": (lstm, {"encoder_hidden_size": 5, "decoder_out_embed_dim": 8}),
    "lstm without attention": (lstm, {"decoder_attention": "0"}),
    "lstm tied decoder": (lstm, {"share_decoder_input_output_embed": True}),
    "lstm tied": (lstm, SHARED | {"encoder_layers": 2, "decoder_layers": 2}),
    "transformer": (transformer, {}),
    "transformer 3 layers": (transformer, {"encoder_layers": 3, "decoder_layers": 2}),
    "transformer tied decoder": (transformer, {"share_decoder_input_output_embed": True}),
    "transformer tied": (transformer, SHARED | {"encoder_layers": 2}),
    "transformer pre-norm": (
        transformer,
        {"encoder_normalize_before": True, "decoder_normalize_before": True, "layernorm_embedding": True},
    ),
    "transformer learned positions": (
        transformer,
        SHARED
        | {"encoder_learned_pos": True, "decoder_learned_pos": True}
        | {"max_source_positions": 7, "max_target_positions": 9},
    ),
    "transformer projected": (
        transformer,
        {"decoder_embed_dim": 12, "decoder_input_dim": 4, "decoder_output_dim": 6},
    ),
    "transformer without positions": (
        transformer,
        {"no_token_positional_embeddings": True, "no_scale_embedding": True, "activation_fn": "gelu"},
    ),
    "transformer without cross-attention": (transformer, {"no_cross_attention": True}),
}


def settings(model: str) -> dict[str, Any]:
    """The arguments that one of ``MODELS`` was built with, as a checkpoint holds them."""
    build, options = MODELS[model]
    return (LSTM_SETTINGS if build is lstm else TRANSFORMER_SETTINGS) | options


@cache
def description(model: str) -> ModelDescription:
    """What grouping gets to know of one of ``MODELS``."""
    build, options = MODELS[model]
    return describe(build(**options))
