"""Incremental decoding of fairseq's ``lstm``: any depth and direction, input feeding, attention."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from harness.decoding.kernels import attend, lstm_cell
from harness.decoding.linear import Place, Product


@dataclass
class LSTMMemory:
    """States of the sentences in translation: a slot each, a line for each of its beams."""

    source: torch.Tensor  # encoder outputs [slots · longest, C]
    source_lengths: torch.Tensor  # [slots]
    longest: int
    hidden: list[torch.Tensor]  # per layer [lines, hidden]
    cell: list[torch.Tensor]  # per layer [lines, hidden], float32
    feed: torch.Tensor  # attention vector of the step before [lines, hidden]
    beam: int

    def reorder(self, lines: torch.Tensor, origin: torch.Tensor) -> None:
        """Let each line go on from the history of another."""
        for state in (*self.hidden, *self.cell, self.feed):
            state[lines] = state[origin]


class LSTMStepper:
    """Runs encoder and decoder with copies or views of the module's weights, taken by ``refresh``."""

    def __init__(self, module: Any):
        self.module = module

    def refresh(self, place: Place) -> None:
        """Take the weights as they are now, at a device and in a precision."""
        encoder, decoder = self.module.encoder, self.module.decoder
        self.source_words, self.words = (place(side.embed_tokens.weight) for side in (encoder, decoder))
        self.encoder = _Encoder(encoder.lstm, place)
        self.cells = [_joined(cell, place) for cell in decoder.layers]
        projections = (decoder.encoder_hidden_proj, decoder.encoder_cell_proj)
        self.hidden_projection, self.cell_projection = (place.product_of(p) for p in projections)
        self.attends = decoder.attention is not None
        if self.attends:
            parts = (decoder.attention.input_proj, decoder.attention.output_proj)
            self.attention_query, self.attention_out = (place.product_of(part) for part in parts)
        self.additional = place.product_of(getattr(decoder, "additional_fc", None))
        tied = decoder.share_input_output_embed
        self.output = place.product_of(decoder.embed_tokens if tied else decoder.fc_out)
        self.hidden_size = decoder.hidden_size

    def open(self, slots: int, beam: int, room: int, longest: int) -> LSTMMemory:
        """Memory for so many sentences of at most ``longest`` words; ``room`` does not matter here."""
        lines, like = slots * beam, self.words

        def states(dtype: torch.dtype) -> list[torch.Tensor]:
            return [like.new_zeros(lines, self.hidden_size, dtype=dtype) for _ in self.cells]

        return LSTMMemory(
            source=like.new_empty(slots * longest, self.encoder.width),
            source_lengths=torch.zeros(slots, dtype=torch.long, device=like.device),
            longest=longest,
            hidden=states(like.dtype),
            cell=states(torch.float32),
            feed=like.new_zeros(lines, self.hidden_size),
            beam=beam,
        )

    def admit(self, memory: LSTMMemory, slots: torch.Tensor, sources: list[np.ndarray]) -> None:
        """Encode ``sources``, each with end of sentence, into these slots."""
        device = self.words.device
        order = sorted(range(len(sources)), key=lambda i: -len(sources[i]))
        lengths = torch.tensor([len(sources[i]) for i in order], device=device)
        words = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(sources[i]) for i in order]).to(device)
        present = torch.arange(len(words), device=device)[:, None] < lengths  # [steps, sentences]
        outputs, hidden, cell = self.encoder(self.source_words, words, present)
        slots = slots[torch.tensor(order, device=device)]
        steps, sentences = present.nonzero().unbind(1)
        memory.source[slots[sentences] * memory.longest + steps] = outputs
        memory.source_lengths[slots] = lengths
        lines = (slots[:, None] * memory.beam + torch.arange(memory.beam, device=device)).flatten()
        for i in range(len(self.cells)):
            h, c = hidden[i], cell[i]
            if self.hidden_projection is not None:
                h, c = self.hidden_projection(h), self.cell_projection(c.to(h.dtype)).float()
            memory.hidden[i][lines] = h.repeat_interleave(memory.beam, dim=0)
            memory.cell[i][lines] = c.repeat_interleave(memory.beam, dim=0)
        memory.feed[lines] = 0

    def step(
        self, memory: LSTMMemory, lines: torch.Tensor, steps: torch.Tensor, previous: torch.Tensor
    ) -> torch.Tensor:
        """Logits [R, vocabulary] of the next word of each line [R]."""
        x = torch.cat([functional.embedding(previous, self.words), memory.feed[lines]], dim=1)
        for joined, hidden, cell in zip(self.cells, memory.hidden, memory.cell, strict=True):
            gates = joined(torch.cat([x, hidden[lines]], dim=1))
            content = cell[lines]
            x = lstm_cell(gates, content)
            hidden[lines], cell[lines] = x, content
        if self.attends:
            x = self._attend(x, memory, lines)
        memory.feed[lines] = x
        return self.output(x if self.additional is None else self.additional(x))

    def _attend(self, x: torch.Tensor, memory: LSTMMemory, lines: torch.Tensor) -> torch.Tensor:
        """Luong's general attention; the encoder's outputs are keys and values alike."""
        slots = lines // memory.beam
        first, lengths = slots * memory.longest, memory.source_lengths[slots]
        context = attend(
            self.attention_query(x), memory.source, memory.source, first, lengths, heads=1, scale=1.0
        )
        return self.attention_out(torch.cat([context, x], dim=1)).tanh()


def _joined(cell: Any, place: Place) -> Product:
    """A cell's gates as one product of its input and hidden state side by side."""
    weight = torch.cat([cell.weight_ih, cell.weight_hh], dim=1)
    return place.product(weight, cell.bias_ih + cell.bias_hh)


class _Encoder:
    """torch's LSTM, layer by layer and step by step over sentences sorted by length, longest first."""

    def __init__(self, lstm: Any, place: Place):
        self.directions = ("", "_reverse") if lstm.bidirectional else ("",)
        self.hidden_size = lstm.hidden_size
        self.width = lstm.hidden_size * len(self.directions)
        self.layers = []
        for i in range(lstm.num_layers):
            layer = []
            for suffix in self.directions:
                names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                input_hidden, hidden_hidden, bias, other = (
                    getattr(lstm, f"{name}_l{i}{suffix}") for name in names
                )
                layer.append((place.product(input_hidden, bias + other), place.product(hidden_hidden)))
            self.layers.append(layer)

    def __call__(
        self, embedding: torch.Tensor, words: torch.Tensor, present: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
        """Words [T, B] → outputs [words, C] step by step, last hidden and cell states per layer [B, C].

        ``present`` [T, B] is where there are words; the directions stand side by side in C.
        """
        running = present.sum(dim=1).tolist()  # sentences that are still running at each step
        x = functional.embedding(words[present], embedding)
        hidden, cell = [], []
        for layer in self.layers:
            outputs, finals, contents = [], [], []
            for backwards, (into, again) in enumerate(layer):
                output, final, content = self._run(into(x), again, running, bool(backwards))
                outputs.append(output)
                finals.append(final)
                contents.append(content)
            x = torch.cat(outputs, dim=1)
            hidden.append(torch.cat(finals, dim=1))
            cell.append(torch.cat(contents, dim=1))
        return x, hidden, cell

    def _run(
        self, gates: torch.Tensor, again: Product, running: list[int], backwards: bool
    ) -> tuple[torch.Tensor, ...]:
        state = gates.new_zeros(running[0], self.hidden_size)
        content = torch.zeros(running[0], self.hidden_size, device=gates.device)
        outputs = gates.new_empty(len(gates), self.hidden_size)
        starts = np.cumsum(running) - running
        steps = range(len(running))
        for t in reversed(steps) if backwards else steps:
            count, start = running[t], int(starts[t])
            now = slice(start, start + count)
            state[:count] = lstm_cell(gates[now] + again(state[:count]), content[:count])
            outputs[now] = state[:count]
        return outputs, state, content
