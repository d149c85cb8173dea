"""Incremental decoding of fairseq's ``transformer``: keys and values are kept in preallocated caches."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from harness.decoding.linear import linear


class Cache:
    """Keys and values of the words so far, of every row: [rows, room, 2·C], room doubled when full.

    One block per row, so that following a surviving beam is one copy of contiguous memory.
    """

    def __init__(self, like: torch.Tensor, rows: int, width: int):
        self.store = like.new_empty(rows, 16, 2 * width)

    def write(self, step: int, keys_and_values: torch.Tensor) -> None:
        if step == self.store.shape[1]:
            self.store = torch.cat([self.store, torch.empty_like(self.store)], dim=1)
        self.store[:, step] = keys_and_values

    def read(self, steps: int, heads: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values, each [rows, heads, steps, C / heads]."""
        used = self.store[:, :steps].unflatten(2, (2, heads, -1))
        return used[:, :, 0].transpose(1, 2), used[:, :, 1].transpose(1, 2)

    def select(self, rows: torch.Tensor) -> None:
        self.store = self.store.index_select(0, rows)


@dataclass
class TransformerState:
    """What a batch carries from step to step; B sentences, k beams, H heads, S source positions."""

    cross: list[tuple[torch.Tensor, ...]]  # per layer: keys, values [B, H, S, head size], if it looks at them
    source_mask: torch.Tensor | None  # [B, 1, 1, S], True where there is a word
    caches: list[Cache]  # per layer
    beam: int
    step: int = 0

    def keep(self, sentences: torch.Tensor) -> None:
        """Drop all sentences but these (indices [B'])."""
        self.cross = [tuple(part.index_select(0, sentences) for part in layer) for layer in self.cross]
        if self.source_mask is not None:
            self.source_mask = self.source_mask.index_select(0, sentences)
        beams = torch.arange(self.beam, device=sentences.device)
        self.reorder((sentences[:, None] * self.beam + beams).flatten())

    def reorder(self, rows: torch.Tensor) -> None:
        """Let each row go on from the history of another (indices [B·k])."""
        for cache in self.caches:
            cache.select(rows)


class TransformerStepper:
    """Runs encoder and decoder from the module's own parameters, whatever they hold at the moment."""

    def __init__(self, module: Any):
        self.encoder, self.decoder = module.encoder, module.decoder
        self.refresh()

    def refresh(self) -> None:
        """Read again what is kept in another layout than the module's; call after weights changed."""
        self.layers = [_Layer(layer) for layer in (*self.encoder.layers, *self.decoder.layers)]
        self.positions = [_position_table(side) for side in (self.encoder, self.decoder)]

    def start(self, source: torch.Tensor, lengths: torch.Tensor, beam: int) -> TransformerState:
        """Encode ``source`` [B, S] (right-padded, with end of sentence)."""
        batch, width = source.shape
        mask = None
        if int(lengths.min()) < width:
            mask = (torch.arange(width, device=source.device) < lengths[:, None])[:, None, None, :]
        x = self._embed(self.encoder, self.positions[0][:width], source)
        encoder_layers = self.layers[: len(self.encoder.layers)]
        for layer in encoder_layers:
            x = layer.self_attention(x, mask)
            x = layer.feed_forward(x)
        if self.encoder.layer_norm is not None:
            x = self.encoder.layer_norm(x)
        decoder_layers = self.layers[len(encoder_layers) :]
        caches = [Cache(x, batch * beam, layer.width) for layer in decoder_layers]
        return TransformerState([layer.source_keys(x) for layer in decoder_layers], mask, caches, beam)

    def step(self, state: TransformerState, previous: torch.Tensor) -> torch.Tensor:
        """Logits [B·k, vocabulary] of the next word, given the previous one of each row [B·k]."""
        x = self._embed(self.decoder, self.positions[1][state.step], previous)
        layers = self.layers[len(self.encoder.layers) :]
        for layer, cross, cache in zip(layers, state.cross, state.caches, strict=True):
            x = layer.cached_self_attention(x, cache, state.step)
            x = layer.source_attention(x, cross, state.source_mask, state.beam)
            x = layer.feed_forward(x)
        state.step += 1
        if self.decoder.layer_norm is not None:
            x = self.decoder.layer_norm(x)
        if self.decoder.project_out_dim is not None:
            x = self.decoder.project_out_dim(x)
        return linear(x, self.decoder.output_projection.weight)

    def _embed(self, side: Any, positions: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        x = functional.embedding(words, side.embed_tokens.weight) * side.embed_scale
        if getattr(side, "project_in_dim", None) is not None:
            x = side.project_in_dim(x)
        x = x + positions
        return x if side.layernorm_embedding is None else side.layernorm_embedding(x)


def _position_table(side: Any) -> torch.Tensor:
    """Vectors [positions, width] of all positions of one side; zeros where the model has none."""
    weight = side.embed_tokens.weight
    if side.embed_positions is None:
        return torch.zeros(side.max_positions(), 1, device=weight.device)
    words = torch.full((1, side.max_positions()), side.padding_idx + 1, device=weight.device)
    return side.embed_positions(words)[0]


class _Layer:
    """One layer with its query, key and value products joined into one."""

    def __init__(self, layer: Any):
        attention = layer.self_attn
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        self.module = layer
        self.heads = attention.num_heads
        self.width = attention.embed_dim
        self.pre_norm = layer.normalize_before
        self.joined_weight = torch.cat([part.weight for part in parts])
        self.joined_bias = torch.cat([part.bias for part in parts])
        # encoders look at no source, nor do decoders trained with --no-cross-attention
        self.has_source = getattr(layer, "encoder_attn", None) is not None
        if self.has_source:
            keys = layer.encoder_attn
            self.source_weight = torch.cat([keys.k_proj.weight, keys.v_proj.weight])
            self.source_bias = torch.cat([keys.k_proj.bias, keys.v_proj.bias])

    def _split(self, x: torch.Tensor, parts: int) -> list[torch.Tensor]:
        """[B, S, parts·C] → parts × [B, H, S, C/H]."""
        batch, width, _ = x.shape
        return list(x.view(batch, width, parts, self.heads, -1).permute(2, 0, 3, 1, 4))

    def _residual(self, x: torch.Tensor, norm: Any, branch) -> torch.Tensor:
        return x + branch(norm(x)) if self.pre_norm else norm(x + branch(x))

    def self_attention(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Over a whole sentence: x [B, S, C]."""

        def branch(x: torch.Tensor) -> torch.Tensor:
            query, key, value = self._split(linear(x, self.joined_weight, self.joined_bias), 3)
            y = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            return _project(self.module.self_attn.out_proj, y.transpose(1, 2).reshape(x.shape))

        return self._residual(x, self.module.self_attn_layer_norm, branch)

    def cached_self_attention(self, x: torch.Tensor, cache: Cache, step: int) -> torch.Tensor:
        """Over the words so far: x [rows, C]."""

        def branch(x: torch.Tensor) -> torch.Tensor:
            joined = linear(x, self.joined_weight, self.joined_bias)
            cache.write(step, joined[:, self.width :])
            query = joined[:, : self.width].view(len(x), self.heads, 1, -1)
            y = functional.scaled_dot_product_attention(query, *cache.read(step + 1, self.heads))
            return _project(self.module.self_attn.out_proj, y.reshape(len(x), -1))

        return self._residual(x, self.module.self_attn_layer_norm, branch)

    def source_keys(self, encoded: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Keys and values [B, H, S, C/H] of the encoded source [B, S, C]; nothing if it is not looked at."""
        if not self.has_source:
            return ()
        keys, values = self._split(linear(encoded, self.source_weight, self.source_bias), 2)
        return keys.contiguous(), values.contiguous()

    def source_attention(
        self,
        x: torch.Tensor,
        cross: tuple[torch.Tensor, ...],
        mask: torch.Tensor | None,
        beam: int,
    ) -> torch.Tensor:
        """Over the source: x [B·k, C]. The beams of a sentence are its k queries, so it is stored once."""
        if not self.has_source:
            return x

        def branch(x: torch.Tensor) -> torch.Tensor:
            query = _project(self.module.encoder_attn.q_proj, x)
            query = query.view(len(x) // beam, beam, self.heads, -1).transpose(1, 2)
            keys, values = cross
            y = functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
            return _project(self.module.encoder_attn.out_proj, y.transpose(1, 2).reshape(len(x), -1))

        return self._residual(x, self.module.encoder_attn_layer_norm, branch)

    def feed_forward(self, x: torch.Tensor) -> torch.Tensor:
        def branch(x: torch.Tensor) -> torch.Tensor:
            return _project(self.module.fc2, self.module.activation_fn(_project(self.module.fc1, x)))

        return self._residual(x, self.module.final_layer_norm, branch)


def _project(layer: Any, x: torch.Tensor) -> torch.Tensor:
    return linear(x, layer.weight, layer.bias)
