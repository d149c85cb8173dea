"""The sentences in translation: as many as there are slots; a slot that falls free takes the next one."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from harness.decoding.linear import Place

#: new sentences are encoded together, once at least this share of the slots is free
REFILL = 0.25


@dataclass(frozen=True)
class Decoding:
    """How to translate.

    ``beam`` hypotheses; at most ``max_len_a · source length + max_len_b`` words, the source's end
    of sentence counted; ``precision`` is that of weights and activations (sums are float32), or
    "int8", that of the products alone (sums are int32) among bfloat16.
    ``rows`` is sentences × beam in translation at a time and decides memory and speed only.
    """

    beam: int = 1
    max_len_a: float = 0.0
    max_len_b: int = 200
    precision: str = "float32"
    rows: int = 256


class Memory(Protocol):
    def reorder(self, lines: torch.Tensor, origin: torch.Tensor) -> None: ...


class Stepper(Protocol):
    def refresh(self, place: Place) -> None: ...
    def open(self, slots: int, beam: int, room: int, longest: int) -> Memory: ...
    def admit(self, memory: Any, slots: torch.Tensor, sources: list[np.ndarray]) -> None: ...
    def step(
        self, memory: Any, lines: torch.Tensor, steps: torch.Tensor, previous: torch.Tensor
    ) -> torch.Tensor: ...


class Batch:
    """Slots, and what of each sentence does not depend on the kind of search.

    ``slots`` [n] are those in use, ``lines`` [n · beam] the lines of their beams. ``steps`` and
    ``limits`` [slots] count words; ``words`` [lines, room] holds what was written so far,
    ``previous`` [lines] the last word.
    """

    def __init__(
        self,
        stepper: Stepper,
        sources: Sequence[np.ndarray],
        limits: Sequence[int],
        decoding: Decoding,
        eos: int,
        device: torch.device,
    ):
        self.stepper, self.sources, self.eos, self.beam = stepper, sources, eos, decoding.beam
        self._limits = limits
        self._waiting = deque(sorted(range(len(sources)), key=lambda i: (-len(sources[i]), i)))
        count = min(len(sources), max(1, decoding.rows // decoding.beam))
        room = max(limits) + 1
        self.memory = stepper.open(count, self.beam, room, max(map(len, sources)))
        self.sentence = [-1] * count
        self._free = list(range(count))
        self.steps, self.limits = (torch.zeros(count, dtype=torch.long, device=device) for _ in range(2))
        self.words = torch.zeros(count * self.beam, room, dtype=torch.long, device=device)
        self.previous = torch.zeros(count * self.beam, dtype=torch.long, device=device)
        self.slots = torch.zeros(0, dtype=torch.long, device=device)
        self.lines = self.slots

    def fill(self) -> torch.Tensor:
        """Give free slots to waiting sentences; returns those slots, maybe none."""
        enough = len(self._free) >= REFILL * len(self.sentence)
        if not self._waiting or not (enough or len(self.slots) == 0):
            return self.slots[:0]
        taken = [self._free.pop() for _ in range(min(len(self._free), len(self._waiting)))]
        chosen = [self._waiting.popleft() for _ in taken]
        slots = torch.tensor(taken, device=self.slots.device)
        for slot, sentence in zip(taken, chosen, strict=True):
            self.sentence[slot] = sentence
        self.stepper.admit(self.memory, slots, [self.sources[i] for i in chosen])
        self.steps[slots] = 0
        self.limits[slots] = torch.tensor([self._limits[i] for i in chosen], device=slots.device)
        self.previous[self.lines_of(slots)] = self.eos
        self._use(torch.cat([self.slots, slots]).sort().values)
        return slots

    def release(self, ended: torch.Tensor) -> None:
        """Free the slots of the sentences that have ended, bool [n]."""
        self._free += self.slots[ended].tolist()
        self._use(self.slots[~ended])

    def step(self) -> torch.Tensor:
        """Logits [n · beam, vocabulary] of the next words."""
        steps = self.steps[self.slots].repeat_interleave(self.beam)
        return self.stepper.step(self.memory, self.lines, steps, self.previous[self.lines])

    def lines_of(self, slots: torch.Tensor) -> torch.Tensor:
        """The lines of the beams of these sentences [n · beam]."""
        return (slots[:, None] * self.beam + torch.arange(self.beam, device=slots.device)).flatten()

    def _use(self, slots: torch.Tensor) -> None:
        self.slots, self.lines = slots, self.lines_of(slots)
