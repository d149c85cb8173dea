"""Grouping strategies: which blocks of a connection table share one knob.

A strategy is a pure function from a table of prunable blocks to one label per block; None is for blocks
it has nothing to say about. ``grouping.groups`` turns labels into a partition.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from grouping.errors import StudyError
from grouping.registry import Registry

Strategy = Callable[[pd.DataFrame], Sequence[str | None] | pd.Series]

groupings: Registry[Strategy] = Registry(
    "grouping", "olmp.groupings", also="products such as gate+layer, shuffled(NAME), the null control, "
)


class NotApplicable(StudyError):
    """A grouping says nothing about this model; the message is the reason."""


def _say(table: pd.DataFrame, label: Callable[[Any], str | None]) -> Sequence[str | None]:
    return [label(block) for block in table.itertuples()]


@groupings.register("single")
def single(table: pd.DataFrame) -> Sequence[str | None]:
    """All connections in one group: class-blind."""
    return ["all"] * len(table)


@groupings.register("component")
def component(table: pd.DataFrame) -> pd.Series:
    """Encoder, decoder, and what serves both."""
    return table["component"]


@groupings.register("matrix")
def matrix(table: pd.DataFrame) -> pd.Series:
    """Every parameter by itself."""
    return table["parameter"]


@groupings.register("layer")
def layer(table: pd.DataFrame) -> Sequence[str | None]:
    """Li et al. (SiPO, 2022): each embedding, each layer of each side, attention of an LSTM, prediction."""
    return _say(table, _layer_of)


def _layer_of(block: Any) -> str:
    if not pd.isna(block.layer):
        return f"{block.component} layer {block.layer}"
    if block.role == "prediction":
        return "prediction"
    if block.module == "attention":
        return "attention"
    return f"{block.component} {block.module}"


_STAGES = {
    "embedding": "embeddings",
    "positions": "embeddings",
    "projection": "embeddings",
    "output_projection": "embeddings",
    "input_hidden": "input to hidden",
    "hidden_hidden": "hidden to hidden",
    "hidden_state": "hidden to hidden",
    "cell_state": "hidden to hidden",
    "attention": "attention",
    "self_attention": "self-attention",
    "encoder_attention": "cross-attention",
    "feed_forward": "feed-forward",
}


@groupings.register("stage")
def stage(table: pd.DataFrame) -> Sequence[str | None]:
    """Li et al. (SiPO, 2022): how connections meet the recurrent neurons; a Transformer's by sublayer.

    Embeddings go with the prediction. The projections of the encoder's last states to the decoder's
    first ones lead from state to state, so they go with the hidden-to-hidden connections.
    """
    return _say(table, lambda block: _STAGES.get(block.role) or _STAGES.get(block.module))


@groupings.register("gate")
def gate(table: pd.DataFrame) -> pd.Series:
    """Input, forget, cell and output gate, each over all LSTM layers."""
    if table["gate"].isna().all():
        raise NotApplicable("grouping 'gate' needs LSTM layers, which this model does not have")
    return table["gate"]


@groupings.register("embedding")
def embedding(table: pd.DataFrame) -> Sequence[str | None]:
    """Source and target embedding and prediction, or the tensor they share, apart from the rest."""
    return _say(table, _embedding_of)


def _embedding_of(block: Any) -> str | None:
    if block.module not in ("embedding", "output_projection"):
        return None
    return "shared" if block.component == "shared" else block.role


@groupings.register("attention-role")
def attention_role(table: pd.DataFrame) -> pd.Series:
    """Query, key, value and output projections and both matrices of the feed-forward, over all layers."""
    inside = table["module"].isin(["self_attention", "encoder_attention", "feed_forward"])
    if not inside.any():
        raise NotApplicable(
            "grouping 'attention-role' needs Transformer layers, which this model does not have"
        )
    return table["role"].where(inside)


@groupings.register("head")
def head(table: pd.DataFrame) -> Sequence[str | None]:
    """Every attention head of every layer by itself."""
    if table["head"].isna().all():
        raise NotApplicable("grouping 'head' needs attention heads, which this model does not have")
    return _say(table, _head_of)


def _head_of(block: Any) -> str | None:
    if pd.isna(block.head):
        return None
    return f"{block.component} layer {block.layer} {block.module} head {block.head}"


@groupings.register("see2016")
def see2016(table: pd.DataFrame) -> Sequence[str | None]:
    """The classes of See, Luong and Manning (2016): embeddings, layers of each side, attention, softmax.

    Attention of a Transformer is what leads from its decoder to its encoder.
    """
    return _say(table, _see2016_class)


def _see2016_class(block: Any) -> str | None:
    side = {"encoder": "source", "decoder": "target"}.get(block.component, block.component)
    if block.module in ("attention", "encoder_attention"):
        return "attention"
    if not pd.isna(block.layer):
        return f"{side} layer {block.layer}"
    if block.role == "prediction":
        return "softmax"
    if block.component == "shared" or block.role in ("source", "target"):
        return f"{side} embedding"
    return None
