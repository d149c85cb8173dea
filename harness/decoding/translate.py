"""Greedy and beam search over a stepper, with the results of ``fairseq-generate``.

The rules that decide a hypothesis are fairseq's: padding is never chosen, a hypothesis has at
least one word, 2·k candidates are looked at for k beams, an ending counts among the best k of
them, a sentence is finished when k hypotheses have ended, scores are divided by the length.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from grouping.errors import StudyError
from harness.decoding.batch import Batch, Decoding, Stepper
from harness.decoding.kernels import ANY, FIRST, LAST, best
from harness.decoding.linear import Place, find_device
from harness.decoding.lstm import LSTMStepper
from harness.decoding.transformer import TransformerStepper
from harness.model import TranslationModel

STEPPERS: dict[str, Callable[[Any], Stepper]] = {"lstm": LSTMStepper, "transformer": TransformerStepper}


class Translations(NamedTuple):
    """Hypotheses in the order of the sources (dictionary indices, without end of sentence).

    ``tokens`` counts the tokens of the hypotheses, end of sentence included.
    """

    hypotheses: list[list[int]]
    tokens: int


class Translator:
    """Translates with whatever weights the model holds at the time of the call."""

    def __init__(self, model: TranslationModel, pad: int, eos: int, device: str = "cpu"):
        self.stepper: Stepper = STEPPERS[model.family](model.module)
        self.pad, self.eos, self.device = pad, eos, find_device(device)
        self.longest_source = int(model.module.encoder.max_positions())
        self.longest = int(model.module.max_decoder_positions()) - 1

    def translate(self, sources: Sequence[np.ndarray], decoding: Decoding) -> Translations:
        """Translate ``sources`` (dictionary indices, each with end of sentence).

        Raises StudyError for a source that is longer than the model can read.
        """
        longest = max(map(len, sources), default=0)
        if longest > self.longest_source:
            raise StudyError(
                f"a sentence has {longest} tokens, the model reads at most {self.longest_source}: "
                "leave it out, or use a model trained with a larger --max-source-positions"
            )
        if not sources:
            return Translations([], 0)
        a, b = decoding.max_len_a, decoding.max_len_b
        limits = [min(int(len(source) * a + b), self.longest) for source in sources]
        with torch.inference_mode():
            self.stepper.refresh(Place.of(self.device, decoding.precision))
            batch = Batch(self.stepper, sources, limits, decoding, self.eos, self.device)
            hypotheses = (_greedy if decoding.beam == 1 else _beam)(batch, self.pad)
        return Translations(hypotheses, sum(len(h) + 1 for h in hypotheses))


def _state(steps: torch.Tensor, limits: torch.Tensor) -> torch.Tensor:
    """What may come next, by the words written so far."""
    return torch.where(steps >= limits, LAST, torch.where(steps == 0, FIRST, ANY))


def _greedy(batch: Batch, pad: int) -> list[list[int]]:
    hypotheses: list[list[int]] = [[] for _ in batch.sources]
    while True:
        batch.fill()
        slots = batch.slots
        if not len(slots):
            return hypotheses
        steps = batch.steps[slots]
        found, _ = best(batch.step(), _state(steps, batch.limits[slots]), pad, batch.eos, 1, scored=False)
        word = found[:, 0]
        batch.words[slots, steps] = word
        batch.previous[slots] = word
        batch.steps[slots] = steps + 1
        ended = word == batch.eos
        if bool(ended.any()):
            for slot, length in zip(slots[ended].tolist(), steps[ended].tolist(), strict=True):
                hypotheses[batch.sentence[slot]] = batch.words[slot, :length].tolist()
            batch.release(ended)


def _beam(batch: Batch, pad: int) -> list[list[int]]:
    """The best hypothesis of each sentence by score per token (end of sentence counted)."""
    beam, eos, device = batch.beam, batch.eos, batch.slots.device
    ended: list[list[tuple[float, list[int]]]] = [[] for _ in batch.sources]
    totals = torch.zeros(len(batch.sentence), beam, device=device)
    ranks = torch.arange(2 * beam, device=device)
    while True:
        # all beams are alike at first: only one may go on
        totals[batch.fill()] = torch.tensor([0.0] + [-torch.inf] * (beam - 1), device=device)
        slots, lines = batch.slots, batch.lines
        if not len(slots):
            break
        steps, limits = batch.steps[slots], batch.limits[slots]
        state = _state(steps, limits).repeat_interleave(beam)
        found, scores = best(batch.step(), state, pad, eos, 2 * beam, scored=True)
        sums = (scores.view(len(slots), beam, -1) + totals[slots][:, :, None]).flatten(1)
        top, index = sums.topk(2 * beam)
        word = found.view(len(slots), -1).gather(1, index)
        origin = lines.view(-1, beam).gather(1, index // (2 * beam))
        ends = (word == eos) & (top != -torch.inf)
        for i, rank in ends[:, :beam].nonzero().tolist():
            hypotheses, step = ended[batch.sentence[int(slots[i])]], int(steps[i])
            if len(hypotheses) < beam:
                written = batch.words[origin[i, rank], :step].tolist()
                hypotheses.append((float(top[i, rank]) / (step + 1), written))
        # the best k that do not end go on, in the order of their scores
        chosen = (ends * 2 * beam + ranks).topk(beam, dim=1, largest=False).indices
        origin, word, totals[slots] = (t.gather(1, chosen) for t in (origin, word, top))
        origin, word = origin.flatten(), word.flatten()
        batch.words[lines] = batch.words[origin]
        batch.words[lines, steps.repeat_interleave(beam)] = word
        batch.memory.reorder(lines, origin)
        batch.previous[lines] = word
        batch.steps[slots] = steps + 1
        complete = [len(ended[batch.sentence[slot]]) >= beam for slot in slots.tolist()]
        batch.release(torch.tensor(complete, device=device) | (steps >= limits))
    return [max(hypotheses, key=lambda hypothesis: hypothesis[0])[1] for hypotheses in ended]
