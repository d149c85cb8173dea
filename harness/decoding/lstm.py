"""Incremental decoding of fairseq's ``lstm``: any depth and direction, input feeding, attention."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from harness.decoding.linear import linear


@dataclass
class LSTMState:
    """What a batch carries from step to step; B sentences, k beams, S source positions."""

    source: torch.Tensor  # encoder outputs [B, S, C]
    source_mask: torch.Tensor  # [B, 1, S], True at padding
    hidden: list[torch.Tensor]  # per layer [B·k, hidden]
    cell: list[torch.Tensor]  # per layer [B·k, hidden]
    feed: torch.Tensor  # attention vector of the step before [B·k, hidden]
    beam: int

    def keep(self, sentences: torch.Tensor) -> None:
        """Drop all sentences but these (indices [B'])."""
        self.source = self.source.index_select(0, sentences)
        self.source_mask = self.source_mask.index_select(0, sentences)
        beams = torch.arange(self.beam, device=sentences.device)
        self.reorder((sentences[:, None] * self.beam + beams).flatten())

    def reorder(self, rows: torch.Tensor) -> None:
        """Let each row go on from the history of another (indices [B·k])."""
        self.hidden = [h.index_select(0, rows) for h in self.hidden]
        self.cell = [c.index_select(0, rows) for c in self.cell]
        self.feed = self.feed.index_select(0, rows)


class LSTMStepper:
    """Runs encoder and decoder from the module's own parameters, whatever they hold at the moment."""

    def __init__(self, module: Any):
        self.encoder, self.decoder = module.encoder, module.decoder
        self.refresh()

    def refresh(self) -> None:
        """Read again what is kept in another layout than the module's; call after weights changed."""
        cells = self.decoder.layers
        self.weights = [torch.cat([cell.weight_ih, cell.weight_hh], dim=1) for cell in cells]
        self.biases = [cell.bias_ih + cell.bias_hh for cell in cells]

    def start(self, source: torch.Tensor, lengths: torch.Tensor, beam: int) -> LSTMState:
        """Encode ``source`` [B, S] (right-padded, with end of sentence)."""
        # the true lengths keep padding out of the recurrence
        outputs, hidden, cell, padding = self.encoder(source, lengths, enforce_sorted=False)
        decoder = self.decoder
        layers = range(decoder.num_layers)
        states = [[final[i] for i in layers] for final in (hidden, cell)]
        if decoder.encoder_hidden_proj is not None:
            projections = (decoder.encoder_hidden_proj, decoder.encoder_cell_proj)
            states = [
                [linear(h, p.weight, p.bias) for h in final]
                for final, p in zip(states, projections, strict=True)
            ]
        states = [[h.repeat_interleave(beam, dim=0) for h in final] for final in states]
        feed = states[0][0].new_zeros(len(source) * beam, decoder.hidden_size)
        hidden, cell = states
        return LSTMState(outputs.transpose(0, 1).contiguous(), padding.t()[:, None], hidden, cell, feed, beam)

    def step(self, state: LSTMState, previous: torch.Tensor) -> torch.Tensor:
        """Logits [B·k, vocabulary] of the next word, given the previous one of each row [B·k]."""
        decoder = self.decoder
        x = torch.cat([functional.embedding(previous, decoder.embed_tokens.weight), state.feed], dim=1)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            gates = linear(torch.cat([x, state.hidden[i]], dim=1), weight, bias)
            into, forget, new, out = gates.chunk(4, dim=1)
            state.cell[i] = forget.sigmoid() * state.cell[i] + into.sigmoid() * new.tanh()
            x = state.hidden[i] = out.sigmoid() * state.cell[i].tanh()
        if decoder.attention is not None:
            x = self._attend(x, state)
        state.feed = x
        if hasattr(decoder, "additional_fc"):
            x = linear(x, decoder.additional_fc.weight, decoder.additional_fc.bias)
        if decoder.share_input_output_embed:
            return linear(x, decoder.embed_tokens.weight)
        return linear(x, decoder.fc_out.weight, decoder.fc_out.bias)

    def _attend(self, x: torch.Tensor, state: LSTMState) -> torch.Tensor:
        """Luong's general attention; the beams of a sentence are its k queries."""
        attention = self.decoder.attention
        batch = len(state.source)
        query = linear(x, attention.input_proj.weight, attention.input_proj.bias)
        scores = query.view(batch, state.beam, -1) @ state.source.transpose(1, 2)
        shares = scores.masked_fill(state.source_mask, float("-inf")).softmax(dim=2)
        context = (shares @ state.source).flatten(0, 1)
        joined = torch.cat([context, x], dim=1)
        return linear(joined, attention.output_proj.weight, attention.output_proj.bias).tanh()
