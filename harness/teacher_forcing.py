"""Teacher forcing: how well a model foretells the references, a cheap stand-in for BLEU.

The model reads a source and its reference up to some word, and is asked for that word. Nothing is
generated, so a whole batch is one parallel pass. Two measures come of it: token accuracy, which is
SiPO's constraint with a tolerance of 1 percentage point (Li et al., TNNLS 2022), and likelihood in
nats per token. Both are ratios of sums over sentences, so they are resampled and judged as BLEU is.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from grouping.errors import StudyError
from harness.constraint import Constraint, PairedBootstrap, Verdict
from harness.model import TranslationModel, quiet_fairseq
from harness.sentences import Translated

#: likelihoods of sentences are rounded to this many nats, finer than their float32 error: their sums are
#: exact, as those of counts are, and a candidate equal to the dense model has bound 0 exactly
GRID = 2.0**-20
CHUNK = 2048  # target positions whose scores over the vocabulary are held at once


@dataclass(frozen=True)
class Forced:
    """What teacher forcing finds in each of N sentences; all of it adds up over sentences."""

    tokens: NDArray[np.int64]  # [N], words of the reference, end of sentence included
    correct: NDArray[np.int64]  # [N], how many of them the model ranks first
    nll: NDArray[np.float64]  # [N], sum of -ln p(word) in nats, without label smoothing

    @property
    def statistics(self) -> NDArray[np.float64]:
        """[N, 3]: tokens, correct, nll."""
        return np.stack([self.tokens, self.correct, self.nll], axis=-1)


class _Batch(NamedTuple):
    """B sentences padded on the right, longest source first, as fairseq's LSTM wants them."""

    inputs: tuple[torch.Tensor, ...]  # sources [B, S], their lengths [B], references one word late [B, T]
    real: torch.Tensor  # bool [B, T], false on padding
    words: torch.Tensor  # int64 [W], the words to foretell
    sentences: torch.Tensor  # int64 [W], where each of them belongs


class TeacherForcing:
    """Scores references under whatever weights the model holds at the time of the call."""

    def __init__(
        self,
        model: TranslationModel,
        sources: Sequence[NDArray[np.int64]],
        references: Sequence[NDArray[np.int64]],
        pad: int,
        eos: int,
        batch_tokens: int = 4000,
    ):
        """Both sides are dictionary indices, each sentence with its end of sentence.

        ``batch_tokens`` of source and target in one batch decide memory and speed only. Raises
        StudyError for a sentence that is longer than the model can read.
        """
        limits = int(model.module.encoder.max_positions()), int(model.module.max_decoder_positions())
        for side, sentences, limit in zip(("source", "target"), (sources, references), limits, strict=True):
            if (longest := max(map(len, sentences), default=0)) > limit:
                raise StudyError(
                    f"a {side} sentence has {longest} tokens, the model reads at most {limit}: "
                    f"leave it out, or use a model trained with a larger --max-{side}-positions"
                )
        self._module: Any = model.module
        self._tokens = np.array([len(r) for r in references], dtype=np.int64)
        lengths = [len(s) + len(r) for s, r in zip(sources, references, strict=True)]
        self._batches = [
            _padded(sorted(batch, key=lambda i: -len(sources[i])), sources, references, pad, eos)
            for batch in _batches(lengths, batch_tokens)
        ]

    def score(self) -> Forced:
        """Score every reference, in the order given."""
        correct, nll = torch.zeros(2, len(self._tokens), dtype=torch.float64)
        with torch.inference_mode(), quiet_fairseq():
            for batch in self._batches:
                features, _ = self._module.extract_features(*batch.inputs)
                parts = (t.split(CHUNK) for t in (features[batch.real], batch.words, batch.sentences))
                for part, words, sentences in zip(*parts, strict=True):
                    scores = self._module.decoder.output_layer(part)
                    correct.index_add_(0, sentences, (scores.argmax(dim=1) == words).double())
                    surprise = scores.logsumexp(dim=1) - scores.gather(1, words[:, None])[:, 0]
                    nll.index_add_(0, sentences, surprise.double())
        return Forced(self._tokens, correct.long().numpy(), np.rint(nll.numpy() / GRID) * GRID)


def _batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, longest first, about ``tokens`` in each."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    while order:
        count = max(1, tokens // lengths[order[0]])
        yield order[:count]
        del order[:count]


def _padded(batch: Sequence[int], sources: Sequence, references: Sequence, pad: int, eos: int) -> _Batch:
    def matrix(sentences: Sequence[NDArray]) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence([torch.from_numpy(s) for s in sentences], True, pad)

    targets = [references[i] for i in batch]
    lengths = torch.tensor([len(target) for target in targets])
    real = torch.arange(int(lengths.max())) < lengths[:, None]
    inputs = (
        matrix([sources[i] for i in batch]),
        torch.tensor([len(sources[i]) for i in batch]),
        matrix([np.concatenate([[eos], target[:-1]]) for target in targets]),
    )
    return _Batch(inputs, real, matrix(targets)[real], torch.tensor(batch).repeat_interleave(lengths))


@dataclass(frozen=True)
class Measure:
    """A quality of a set of sentences, higher is better: summed statistics [..., k] to values [...]."""

    unit: str
    of_sums: Callable[[NDArray], NDArray[np.float64]]

    def judge(
        self, constraint: Constraint, dense: NDArray, pruned: NDArray, bootstrap: PairedBootstrap
    ) -> Verdict:
        """Judge a candidate by both models' statistics ``[sentences, k]``; the verdict holds the measure."""
        drops = self.of_sums(bootstrap.counts @ dense) - self.of_sums(bootstrap.counts @ pruned)
        before, after = (float(self.of_sums(side.sum(axis=0))) for side in (dense, pruned))
        return constraint.verdict(before, after, drops)


ACCURACY = Measure("percentage points", lambda sums: 100 * sums[..., 1] / sums[..., 0])
#: its drop is the rise of the negative log-likelihood
LIKELIHOOD = Measure("nats per token", lambda sums: -sums[..., 2] / sums[..., 0])


#: by the constraint's name
MEASURES = {"accuracy": ACCURACY, "likelihood": LIKELIHOOD}


@dataclass(frozen=True)
class ForcedSet:
    """One split of a corpus under teacher forcing, to the search what a set of translations is.

    Made while the model is dense. ``tokens`` of what it returns are those of the references: each is
    computed once.
    """

    forcing: TeacherForcing
    measure: Measure
    bootstrap: PairedBootstrap
    dense: Translated

    @classmethod
    def made(cls, forcing: TeacherForcing, measure: Measure, bootstrap: PairedBootstrap) -> "ForcedSet":
        return cls(forcing, measure, bootstrap, _scored(forcing))

    @property
    def dense_statistics(self) -> NDArray[Any]:
        """What the dense model itself scores, [sentences, k]."""
        return self.dense.statistics

    def part(self, places: NDArray[np.int64]) -> "ForcedSet":
        raise AssertionError("all references are scored in one pass: there is no part")

    def translate(self) -> Translated:
        """Score all references with the weights as they are now; there are no hypotheses."""
        return _scored(self.forcing)

    def stream(self, blocks: Sequence[NDArray[np.int64]]) -> Iterator[Translated]:
        raise AssertionError("all references are scored in one pass: nothing to race")

    def judge(self, found: Translated, constraint: Constraint) -> Verdict:
        return self.measure.judge(constraint, self.dense.statistics, found.statistics, self.bootstrap)


def _scored(forcing: TeacherForcing) -> Translated:
    found = forcing.score()
    return Translated([], found.statistics, int(found.tokens.sum()))
