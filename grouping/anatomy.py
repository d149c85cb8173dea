"""What each parameter of a translation model is for, told from its name.

An anatomy is a list of patterns over the parameter names of one fairseq architecture family, read in
fairseq 0.12 (``models/lstm.py``, ``models/transformer``, ``modules/multihead_attention.py``). A name
that no pattern matches is refused rather than guessed at.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from grouping.errors import StudyError

GATES = ("input", "forget", "cell", "output")  # the order of rows in PyTorch's LSTM parameters


@dataclass(frozen=True)
class ModelDescription:
    """A trained model as far as grouping needs to know it: names and shapes, no weights."""

    family: str
    """fairseq architecture family (base model name): ``lstm`` or ``transformer``."""
    shapes: Mapping[str, tuple[int, ...]]
    """Shape of every trained parameter, in state-dict order, tied names included."""
    tied: Mapping[str, str]
    """Name -> the first name of the same tensor; only names that are not first."""
    heads: Mapping[str, int]
    """Attention heads of each side, ``{"encoder": 4, "decoder": 4}``; empty for LSTMs."""
    padding_rows: Mapping[str, int]
    """First name of an embedding -> index of its padding row."""


@dataclass(frozen=True)
class Part:
    """The meaning of one parameter: where it belongs, what it does there and how it splits further."""

    component: str = ""
    module: str = ""
    role: str | None = None
    layer: int | None = None
    direction: str | None = None
    split: Literal["gate", "head rows", "head columns"] | None = None


@dataclass(frozen=True)
class Anatomy:
    """All parameter names of one architecture family.

    ``patterns`` are pairs of an expression and the part that a matching name is; the groups of the
    expression fill the fields of the part that have their name, in the terms of ``_TERMS``.
    ``prediction`` is the name of the output layer: a model without it predicts with the embedding of
    its decoder, which then serves two places.
    """

    patterns: tuple[tuple[str, Part], ...]
    prediction: str

    def part(self, name: str) -> Part | None:
        """The part that the parameter ``name`` is, None where the anatomy does not know the name."""
        for expression, part in self.patterns:
            if match := re.fullmatch(expression, name):
                found: dict[str, Any] = {
                    field: int(text) if field == "layer" else _TERMS.get(text, text)
                    for field, text in match.groupdict().items()
                }
                return replace(part, **found)
        return None


_TERMS = {
    "": "forward",
    "_reverse": "backward",
    "ih": "input_hidden",
    "hh": "hidden_hidden",
    "hidden": "hidden_state",
    "cell": "cell_state",
    "input": "query",
    "out": "output",
    "q": "query",
    "k": "key",
    "v": "value",
    "self_attn": "self_attention",
    "encoder_attn": "encoder_attention",
}

_SIDE = r"(?P<component>encoder|decoder)"
_LAYER = r"(?P<layer>\d+)"
_MEETS = r"(?:weight|bias)_(?P<role>ih|hh)"
_ANY = r"(?:weight|bias)"

_TARGET_EMBEDDING = "decoder.embed_tokens.weight"
_EMBEDDINGS = (
    (r"encoder\.embed_tokens\.weight", Part("encoder", "embedding", "source")),
    (re.escape(_TARGET_EMBEDDING), Part("decoder", "embedding", "target")),
)

LSTM = Anatomy(
    patterns=(
        *_EMBEDDINGS,
        (
            rf"encoder\.lstm\.{_MEETS}_l{_LAYER}(?P<direction>(?:_reverse)?)",
            Part("encoder", "lstm", split="gate"),
        ),
        # the input of layer 0 is the embedding beside the attention vector fed back (input feeding)
        (
            rf"decoder\.layers\.{_LAYER}\.{_MEETS}(?P<direction>)",
            Part("decoder", "lstm", split="gate"),
        ),
        # from the last states of the encoder to the first states of the decoder
        (rf"decoder\.encoder_(?P<role>hidden|cell)_proj\.{_ANY}", Part("decoder", "projection")),
        # Luong's general score compares the projected decoder state with the encoder's outputs
        (r"decoder\.attention\.(?P<role>input|output)_proj\.weight", Part("decoder", "attention")),
        (rf"decoder\.additional_fc\.{_ANY}", Part("decoder", "projection", "prediction")),
        (rf"decoder\.fc_out\.{_ANY}", Part("decoder", "output_projection", "prediction")),
    ),
    prediction="decoder.fc_out.weight",
)

_ATTENTION = rf"{_SIDE}\.layers\.{_LAYER}\.(?P<module>self_attn|encoder_attn)"

TRANSFORMER = Anatomy(
    patterns=(
        *_EMBEDDINGS,
        (r"encoder\.embed_positions\.weight", Part("encoder", "positions", "source")),
        (r"decoder\.embed_positions\.weight", Part("decoder", "positions", "target")),
        (rf"{_ATTENTION}\.(?P<role>[qkv])_proj\.{_ANY}", Part(split="head rows")),
        (rf"{_ATTENTION}\.(?P<role>out)_proj\.{_ANY}", Part(split="head columns")),
        (rf"{_SIDE}\.layers\.{_LAYER}\.(?P<role>fc[12])\.{_ANY}", Part(module="feed_forward")),
        (rf"{_SIDE}\.layers\.{_LAYER}\.\w+_layer_norm\.{_ANY}", Part(module="normalisation")),
        (rf"{_SIDE}\.(?:layer_norm|layernorm_embedding)\.{_ANY}", Part(module="normalisation")),
        (r"decoder\.project_in_dim\.weight", Part("decoder", "projection", "target")),
        (r"decoder\.project_out_dim\.weight", Part("decoder", "projection", "prediction")),
        (r"decoder\.output_projection\.weight", Part("decoder", "output_projection", "prediction")),
    ),
    prediction="decoder.output_projection.weight",
)

ANATOMIES: Mapping[str, Anatomy] = {"lstm": LSTM, "transformer": TRANSFORMER}


def parts_of(description: ModelDescription) -> dict[str, Part]:
    """First name of each tensor -> what it is, in state-dict order.

    A tensor that serves several places is a part of the first one, but of the component ``shared`` and
    with the roles of all places joined by ``/``. Raises StudyError for a family without an anatomy and
    for a parameter that the family's anatomy does not know.
    """
    supported = " and ".join(ANATOMIES)
    if description.family not in ANATOMIES:
        raise StudyError(
            f"architecture {description.family!r} is not supported: "
            f"supported are the encoder-decoders {supported} of fairseq; train one of these"
        )
    anatomy = ANATOMIES[description.family]
    places: dict[str, list[Part]] = {}
    for name in description.shapes:
        part = anatomy.part(name)
        if part is None:
            raise StudyError(
                f"parameter {name!r} is not supported: supported are fairseq's {supported} without adaptive "
                f"softmax, adaptive input and other extensions; train the model without them"
            )
        places.setdefault(description.tied.get(name, name), []).append(part)
    predicts = description.tied.get(_TARGET_EMBEDDING, _TARGET_EMBEDDING)
    if anatomy.prediction not in description.shapes and predicts in places:
        places[predicts].append(Part("decoder", "output_projection", "prediction"))
    return {name: _merged(parts) for name, parts in places.items()}


def _merged(parts: list[Part]) -> Part:
    if len(parts) == 1:
        return parts[0]
    roles = dict.fromkeys(part.role for part in parts if part.role)
    return replace(parts[0], component="shared", role="/".join(roles) or None)
