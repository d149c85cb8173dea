"""Incremental decoding of fairseq's ``transformer``: no padding, keys and values stay where they are."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from harness.decoding.kernels import attend, norm, store
from harness.decoding.linear import Place


@dataclass
class TransformerMemory:
    """Keys and values of the sentences in translation; C is the decoder's width.

    A sentence has a slot, each of its beams a line. Entry ``line · room + step`` of a layer's
    ``written`` [lines · room, 2·C] holds what that beam wrote at that step. ``table`` [lines, room]
    says which entries are the history of a line; without beams that is simply its own.
    """

    source: list[torch.Tensor]  # per layer [slots · longest, 2·C]
    source_lengths: torch.Tensor  # [slots]
    longest: int
    written: list[torch.Tensor]
    room: int
    beam: int
    table: torch.Tensor | None

    def reorder(self, lines: torch.Tensor, origin: torch.Tensor) -> None:
        """Let each line go on from the history of another."""
        if self.table is not None:
            self.table[lines] = self.table[origin]


class TransformerStepper:
    """Runs encoder and decoder with copies or views of the module's weights, taken by ``refresh``."""

    def __init__(self, module: Any):
        self.module = module
        self._kept: list[torch.Tensor] = []

    def refresh(self, place: Place) -> None:
        """Take the weights as they are now, at a device and in a precision."""
        sides = (self.module.encoder, self.module.decoder)
        self.encoder, self.decoder = (_Side(side, place) for side in sides)
        self.place = place
        self.output = place.product(self.module.decoder.output_projection.weight)

    def open(self, slots: int, beam: int, room: int, longest: int) -> TransformerMemory:
        """Memory for so many sentences of at most ``longest`` words, and ``room`` steps."""
        lines, device = slots * beam, self.place.device
        widths = [2 * layer.width for layer in self.decoder.layers]
        shapes = [(entries, width) for entries in (slots * longest, lines * room) for width in widths]
        space = self._space(shapes)
        return TransformerMemory(
            source=space[: len(widths)],
            source_lengths=torch.zeros(slots, dtype=torch.long, device=device),
            longest=longest,
            written=space[len(widths) :],
            room=room,
            beam=beam,
            table=torch.zeros(lines, room, dtype=torch.long, device=device) if beam > 1 else None,
        )

    def _space(self, shapes: list[tuple[int, int]]) -> list[torch.Tensor]:
        """Tensors of these shapes, where those of the translation before were if they were as large.

        The system clears memory that a program has not used yet, which took a twentieth of the time.
        """
        place, sizes = self.place, [math.prod(shape) for shape in shapes]
        kept = self._kept
        if not (
            [(part.dtype, part.device) for part in kept] == [(place.dtype, place.device)] * len(sizes)
            and all(part.numel() >= size for part, size in zip(kept, sizes, strict=True))
        ):
            self._kept = kept = []  # let go of them first
            self._kept = kept = [torch.empty(size, dtype=place.dtype, device=place.device) for size in sizes]
        return [part[:size].view(shape) for part, size, shape in zip(kept, sizes, shapes, strict=True)]

    def admit(self, memory: TransformerMemory, slots: torch.Tensor, sources: list[np.ndarray]) -> None:
        """Encode ``sources``, each with end of sentence, into these slots."""
        device = self.place.device
        words = torch.from_numpy(np.concatenate(sources)).to(device)
        lengths = torch.tensor([len(source) for source in sources], device=device)
        starts = lengths.cumsum(0) - lengths
        first, of_word = starts.repeat_interleave(lengths), lengths.repeat_interleave(lengths)
        positions = torch.arange(len(words), device=device) - first
        x = self.encoder.embed(words, positions)
        for layer in self.encoder.layers:
            x = layer.self_attention(x, first, of_word)
            x = layer.feed_forward(x)
        x = self.encoder.finish(x)
        memory.source_lengths[slots] = lengths
        entries = (slots * memory.longest).repeat_interleave(lengths) + positions
        for layer, source in zip(self.decoder.layers, memory.source, strict=True):
            if layer.source_keys is not None:
                store(layer.source_keys(x), source, entries)

    def step(
        self, memory: TransformerMemory, lines: torch.Tensor, steps: torch.Tensor, previous: torch.Tensor
    ) -> torch.Tensor:
        """Logits [R, vocabulary] of the next word of each line [R], ``steps`` words after its start."""
        slots = lines // memory.beam
        source_first, source_lengths = slots * memory.longest, memory.source_lengths[slots]
        first, lengths = lines * memory.room, steps + 1
        entries, table = first + steps, None
        if memory.table is not None:
            memory.table[lines, steps] = entries
            table = memory.table[lines]
        x = self.decoder.embed(previous, steps)
        for layer, source, written in zip(self.decoder.layers, memory.source, memory.written, strict=True):
            x = layer.cached_self_attention(x, written, entries, first, lengths, table)
            x = layer.source_attention(x, source, source_first, source_lengths)
            x = layer.feed_forward(x)
        return self.output(self.decoder.finish(x))


class _Side:
    """Encoder or decoder: embedding, layers, and what comes after them."""

    def __init__(self, side: Any, place: Place):
        self.layers = [_Layer(layer, place) for layer in side.layers]
        self.words, self.scale = place(side.embed_tokens.weight), side.embed_scale
        self.positions = _position_table(side, place)
        self.project_in = place.product_of(getattr(side, "project_in_dim", None))
        self.project_out = place.product_of(getattr(side, "project_out_dim", None))
        self.first_norm = _Norm.of(side.layernorm_embedding, place)
        self.last_norm = _Norm.of(side.layer_norm, place)

    def embed(self, words: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Words and their positions, both [R] → [R, C]."""
        x = functional.embedding(words, self.words) * self.scale
        if self.project_in is not None:
            x = self.project_in(x)
        if self.positions is not None:
            x = x + self.positions[positions]
        return x if self.first_norm is None else self.first_norm(x)

    def finish(self, x: torch.Tensor) -> torch.Tensor:
        if self.last_norm is not None:
            x = self.last_norm(x)
        return x if self.project_out is None else self.project_out(x)


def _position_table(side: Any, place: Place) -> torch.Tensor | None:
    """Vectors [positions, width] of all positions of one side; None where the model has none."""
    if side.embed_positions is None:
        return None
    words = torch.full((1, side.max_positions()), side.padding_idx + 1)
    return place(side.embed_positions(words)[0])


class _Norm:
    """Layer normalisation."""

    def __init__(self, module: Any, place: Place):
        self.weight, self.bias, self.eps = place(module.weight), place(module.bias), module.eps

    @classmethod
    def of(cls, module: Any, place: Place) -> "_Norm | None":
        return None if module is None else cls(module, place)

    def __call__(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """Of ``x``, or of ``x + added``."""
        return norm(x, added, self.weight, self.bias, self.eps)


class _Layer:
    """One layer with its query, key and value products joined into one; activations are [R, C]."""

    def __init__(self, layer: Any, place: Place):
        attention = layer.self_attn
        self.heads, self.width = attention.num_heads, attention.embed_dim
        self.scale = (self.width // self.heads) ** -0.5
        self.pre_norm = layer.normalize_before
        self.joined = place.joined((attention.q_proj, attention.k_proj, attention.v_proj))
        self.out = place.product_of(attention.out_proj)
        self.norm = _Norm(layer.self_attn_layer_norm, place)
        # encoders look at no source, nor do decoders trained with --no-cross-attention
        looks = getattr(layer, "encoder_attn", None)
        self.source_keys = None if looks is None else place.joined((looks.k_proj, looks.v_proj))
        if looks is not None:
            self.source_query, self.source_out = (place.product_of(p) for p in (looks.q_proj, looks.out_proj))
            self.source_norm = _Norm(layer.encoder_attn_layer_norm, place)
        self.fc1 = place.product_of(layer.fc1, layer.activation_fn)
        self.fc2 = place.product_of(layer.fc2)
        self.last_norm = _Norm(layer.final_layer_norm, place)

    def _residual(self, x: torch.Tensor, norm: _Norm, branch) -> torch.Tensor:
        return x + branch(norm(x)) if self.pre_norm else norm(x, branch(x))

    def self_attention(self, x: torch.Tensor, first: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Over whole sentences, word after word; row r's begins at ``first[r]``."""

        def branch(x: torch.Tensor) -> torch.Tensor:
            query, keys, values = self.joined(x).split(self.width, dim=1)
            return self.out(attend(query, keys, values, first, lengths, self.heads, self.scale))

        return self._residual(x, self.norm, branch)

    def cached_self_attention(
        self,
        x: torch.Tensor,
        written: torch.Tensor,
        entries: torch.Tensor,
        first: torch.Tensor,
        lengths: torch.Tensor,
        table: torch.Tensor | None,
    ) -> torch.Tensor:
        """Over the words so far, this one written to ``entries`` before."""

        def branch(x: torch.Tensor) -> torch.Tensor:
            joined = self.joined(x)
            store(joined[:, self.width :], written, entries)
            keys, values = written.split(self.width, dim=1)
            query = joined[:, : self.width]
            return self.out(attend(query, keys, values, first, lengths, self.heads, self.scale, table))

        return self._residual(x, self.norm, branch)

    def source_attention(
        self, x: torch.Tensor, source: torch.Tensor, first: torch.Tensor, lengths: torch.Tensor
    ) -> torch.Tensor:
        """Over the source, stored once for all beams of a sentence."""
        if self.source_keys is None:
            return x

        def branch(x: torch.Tensor) -> torch.Tensor:
            keys, values = source.split(self.width, dim=1)
            query = self.source_query(x)
            return self.source_out(attend(query, keys, values, first, lengths, self.heads, self.scale))

        return self._residual(x, self.source_norm, branch)

    def feed_forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._residual(x, self.last_norm, lambda x: self.fc2(self.fc1(x)))
