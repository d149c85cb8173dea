"""Greedy and beam search over a stepper, with the results of ``fairseq-generate``.

The rules that decide a hypothesis are fairseq's: padding is never chosen, a hypothesis has at
least one word, 2·k candidates are looked at for k beams, an ending counts among the best k of
them, a sentence is finished when k hypotheses have ended, scores are divided by the length.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from grouping.errors import StudyError
from harness.decoding.lstm import LSTMStepper
from harness.decoding.transformer import TransformerStepper
from harness.model import TranslationModel

STEPPERS: dict[str, Callable[[Any], "Stepper"]] = {"lstm": LSTMStepper, "transformer": TransformerStepper}


@dataclass(frozen=True)
class Decoding:
    """How to translate.

    ``beam`` hypotheses; at most ``max_len_a · source length + max_len_b`` words, the source's end
    of sentence counted; ``batch_tokens`` is source tokens × beam in one batch and decides memory
    and speed only.
    """

    beam: int = 1
    max_len_a: float = 0.0
    max_len_b: int = 200
    batch_tokens: int = 6000


class Translations(NamedTuple):
    """Hypotheses in the order of the sources (dictionary indices, without end of sentence).

    ``tokens`` counts the tokens of the hypotheses, end of sentence included.
    """

    hypotheses: list[list[int]]
    tokens: int


class State(Protocol):
    def keep(self, sentences: torch.Tensor) -> None: ...
    def reorder(self, rows: torch.Tensor) -> None: ...


class Stepper(Protocol):
    def refresh(self) -> None: ...
    def start(self, source: torch.Tensor, lengths: torch.Tensor, beam: int) -> State: ...
    def step(self, state: Any, previous: torch.Tensor) -> torch.Tensor: ...


class Translator:
    """Translates with whatever weights the model holds at the time of the call."""

    def __init__(self, model: TranslationModel, pad: int, eos: int):
        self.stepper: Stepper = STEPPERS[model.family](model.module)
        self.pad, self.eos = pad, eos
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
        hypotheses: list[list[int]] = [[] for _ in sources]
        with torch.inference_mode():
            self.stepper.refresh()
            for batch in batches([len(s) for s in sources], decoding.batch_tokens // decoding.beam):
                found = self._translate_batch([sources[i] for i in batch], decoding)
                for i, hypothesis in zip(batch, found, strict=True):
                    hypotheses[i] = hypothesis
        return Translations(hypotheses, sum(len(h) + 1 for h in hypotheses))

    def _translate_batch(self, sources: Sequence[np.ndarray], decoding: Decoding) -> list[list[int]]:
        lengths = torch.tensor([len(s) for s in sources])
        padded = torch.full((len(sources), int(lengths.max())), self.pad)
        for row, source in zip(padded, sources, strict=True):
            row[: len(source)] = torch.from_numpy(source)
        limits = (lengths * decoding.max_len_a + decoding.max_len_b).long().clamp(max=self.longest)
        search = _greedy if decoding.beam == 1 else _beam
        state = self.stepper.start(padded, lengths, decoding.beam)
        return search(self, state, limits, decoding.beam)

    def forbid(self, scores: torch.Tensor, step: int) -> None:
        """Set what may not be chosen to −∞ in place: padding, and an ending at the first word."""
        scores[:, self.pad] = -torch.inf
        if step == 0:
            scores[:, self.eos] = -torch.inf


def batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, longest first, at most ``tokens`` with padding."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batch and lengths[batch[0]] * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _greedy(translator: Translator, state: State, limits: torch.Tensor, beam: int) -> list[list[int]]:
    count, longest = len(limits), int(limits.max()) + 1
    words = torch.full((count, longest), translator.eos, device=limits.device)
    rows = torch.arange(count, device=limits.device)  # sentence of each row still in the batch
    previous = torch.full((count,), translator.eos, device=limits.device)
    active = torch.ones(count, dtype=torch.bool, device=limits.device)
    for step in range(longest):
        scores = translator.stepper.step(state, previous)
        translator.forbid(scores, step)
        previous = scores.argmax(dim=1)
        previous[step >= limits] = translator.eos
        words[rows, step] = torch.where(active, previous, translator.eos)
        active &= previous != translator.eos
        left = int(active.sum())
        if left == 0:
            break
        if left < 0.8 * len(active):
            going = active.nonzero().flatten()
            state.keep(going)
            rows, limits, previous, active = rows[going], limits[going], previous[going], active[going]
    return [row[: row.index(translator.eos)] if translator.eos in row else row for row in words.tolist()]


def _beam(translator: Translator, state: State, limits: torch.Tensor, beam: int) -> list[list[int]]:
    """The best hypothesis of each sentence by score per token (end of sentence counted)."""
    count, device = len(limits), limits.device
    ended: list[list[tuple[float, list[int]]]] = [[] for _ in range(count)]
    sentences = torch.arange(count, device=device)
    words = torch.empty(count, beam, 0, dtype=torch.long, device=device)
    totals = torch.zeros(count, beam, device=device)
    previous = torch.full((count * beam,), translator.eos, device=device)
    for step in range(int(limits.max()) + 1):
        scores = translator.stepper.step(state, previous).log_softmax(dim=1)
        translator.forbid(scores, step)
        if bool((full := step >= limits).any()):
            rows = full.repeat_interleave(beam)
            ending = scores[rows, translator.eos]
            scores[rows] = -torch.inf
            scores[rows, translator.eos] = ending
        vocabulary = scores.shape[1]
        sums = scores.view(len(limits), beam, vocabulary)
        # all beams are alike at first: look at one
        sums = sums[:, :1] if step == 0 else sums + totals[:, :, None]
        best, index = sums.flatten(1).topk(min(2 * beam, sums[0].numel() - 1))
        origin, word = index // vocabulary, index % vocabulary
        ends = (word == translator.eos) & (best != -torch.inf)
        for i, rank in ends[:, :beam].nonzero().tolist():
            found = ended[int(sentences[i])]
            if len(found) < beam:
                found.append((float(best[i, rank]) / (step + 1), words[i, origin[i, rank]].tolist()))
        going = torch.tensor(
            [len(ended[s]) < beam for s in sentences.tolist()], dtype=torch.bool, device=device
        )
        going &= step < limits
        if not bool(going.any()):
            break
        # the best k that do not end go on, in the order of their scores
        ranks = torch.arange(best.shape[1], device=device)
        chosen = (ends * best.shape[1] + ranks).topk(beam, dim=1, largest=False).indices
        origin, word, totals = (t.gather(1, chosen) for t in (origin, word, best))
        words = torch.cat([words.gather(1, origin[:, :, None].expand(-1, -1, step)), word[:, :, None]], dim=2)
        state.reorder((origin + torch.arange(len(limits), device=device)[:, None] * beam).flatten())
        if not bool(going.all()):
            kept = going.nonzero().flatten()
            state.keep(kept)
            sentences, limits, words, totals, word = (
                t[kept] for t in (sentences, limits, words, totals, word)
            )
        previous = word.flatten()
    return [max(found, key=lambda hypothesis: hypothesis[0])[1] for found in ended]
