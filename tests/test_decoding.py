"""Our decoder against fairseq's own SequenceGenerator, on real models of every kind."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from conftest import mostly_long
from fairseq.data.data_utils import collate_tokens
from fairseq.sequence_generator import SequenceGenerator
from tiny_checkpoints import lively, tiny
from tiny_models import MODELS, settings, task
from torch import nn
from torch.nn import functional

from grouping.errors import StudyError
from harness.decoding import Decoding, Translator, int8, kernels
from harness.decoding.linear import Linear
from harness.model import TranslationModel

SEEDS = (1, 2, 3)
BEAMS = (1, 5)
LIMIT = 20  # words
INT8 = pytest.param("int8", marks=pytest.mark.skipif(not int8.unit(), reason="no unit for int8"))
LOWER = ("bfloat16", INT8)
BUILDS = ("native", "torch")


@contextmanager
def using(build: str) -> Iterator[None]:
    """With the native kernels or without them."""
    with pytest.MonkeyPatch.context() as patch:
        if build == "torch":
            patch.setattr(kernels, "library", lambda: None)
        yield


def sources(model: str, count: int, seed: int = 0) -> list[np.ndarray]:
    """Random sentences of mixed lengths, the empty one among them, as long as the model reads."""
    words = len(task(settings(model)).source_dictionary)
    longest = settings(model).get("max_source_positions", 15)
    rng = np.random.default_rng(seed)
    return [np.append(rng.integers(4, words, size=rng.integers(0, longest)), 2) for _ in range(count)]


def fairseq_says(
    module: nn.Module, model: str, sentences: Sequence[np.ndarray], beam: int, a: float = 0, b: int = LIMIT
) -> list[list[int]]:
    """Best hypotheses of fairseq's generator, translated in one batch, without end of sentence."""
    dictionary = task(settings(model)).target_dictionary
    generator = SequenceGenerator([module], dictionary, beam_size=beam, max_len_a=a, max_len_b=b)
    # fairseq's LSTM wants the longest first; padding stands on the left, as in fairseq-generate
    order = sorted(range(len(sentences)), key=lambda i: -len(sentences[i]))
    tokens = collate_tokens([torch.from_numpy(sentences[i]) for i in order], dictionary.pad(), left_pad=True)
    lengths = torch.tensor([len(sentences[i]) for i in order])
    found = generator.generate([module], {"net_input": {"src_tokens": tokens, "src_lengths": lengths}})
    said = {i: hypotheses[0]["tokens"].tolist()[:-1] for i, hypotheses in zip(order, found, strict=True)}
    return [said[i] for i in range(len(sentences))]


def translator(model: TranslationModel) -> Translator:
    return Translator(model, pad=1, eos=2)


@cache
def fairseq_hypotheses(
    model: str, beam: int
) -> list[tuple[TranslationModel, list[np.ndarray], list[list[int]]]]:
    """Models with several random weights, random sentences, and what fairseq says to them."""
    found = []
    for seed in SEEDS:
        with TemporaryDirectory() as folder:
            module, read = tiny(model, Path(folder), seed)
        sentences = sources(model, 30, seed)
        found.append((read, sentences, fairseq_says(module, model, sentences, beam)))
    return found


@cache
def both(model: str, beam: int, build: str = "native") -> list[tuple[list[int], list[int]]]:
    """fairseq's and our hypothesis of random sentences by models with several random weights."""
    pairs: list[tuple[list[int], list[int]]] = []
    for read, sentences, theirs in fairseq_hypotheses(model, beam):
        with using(build):
            ours = translator(read).translate(sentences, Decoding(beam, max_len_b=LIMIT)).hypotheses
        pairs += zip(theirs, ours, strict=True)
    return pairs


def share(pairs: Sequence[tuple[list[int], list[int]]]) -> float:
    return sum(one == other for one, other in pairs) / len(pairs)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("beam", BEAMS)
@pytest.mark.parametrize("model", MODELS)
def test_hypotheses_are_fairseqs(model, beam, build):
    # not all: sums in another order can let two close candidates change places
    assert share(both(model, beam, build)) >= 0.95


@pytest.mark.parametrize("precision", LOWER)
@pytest.mark.parametrize("beam", BEAMS)
# without a source to look at, all hypotheses hang on one close call
@pytest.mark.parametrize("model", [model for model in MODELS if "without cross-attention" not in model])
def test_lower_precisions_say_much_the_same(model, beam, precision, tmp_path):
    _, read = tiny(model, tmp_path)
    sentences = sources(model, 30)
    said = [
        translator(read).translate(sentences, Decoding(beam, max_len_b=LIMIT, precision=precision)).hypotheses
        for precision in ("float32", precision)
    ]
    assert said[0] != [[] for _ in sentences]
    # random weights leave many close calls; sentences that agree word for word cannot be chance
    assert share(list(zip(*said, strict=True))) > 0.3


@pytest.mark.long
def test_hypotheses_are_fairseqs_over_all_models():
    found = {key: both(*key) for key in ((model, beam) for model in MODELS for beam in BEAMS)}
    assert share([pair for pairs in found.values() for pair in pairs]) >= 0.99
    assert np.median([share(pairs) for pairs in found.values()]) == 1
    for (model, _), pairs in found.items():
        distinct = {tuple(theirs) for theirs, _ in pairs}
        # what is compared depends on the source wherever the model reads it
        assert len(distinct) > (1 if "without cross-attention" in model else 10), model
    lengths = [len(theirs) for pairs in found.values() for theirs, _ in pairs]
    assert min(lengths) == 1
    assert max(lengths) == LIMIT
    assert np.mean(np.array(lengths) == LIMIT) < 0.8


@pytest.mark.parametrize("model", ["lstm bidirectional", "transformer pre-norm"])
@pytest.mark.parametrize("beam", BEAMS)
def test_limit_follows_each_source(model, beam, tmp_path):
    """fairseq takes the padded length of a batch: alone, a sentence has its own."""
    module, read = tiny(model, tmp_path)
    sentences = sources(model, 25)
    ours = translator(read).translate(sentences, Decoding(beam, max_len_a=0.5, max_len_b=2)).hypotheses
    theirs = [fairseq_says(module, model, [sentence], beam, a=0.5, b=2)[0] for sentence in sentences]
    assert ours == theirs
    limits = [len(sentence) // 2 + 2 for sentence in sentences]
    assert all(len(words) <= limit for words, limit in zip(ours, limits, strict=True))
    assert any(len(words) == limit for words, limit in zip(ours, limits, strict=True))


def test_a_limit_cuts_a_greedy_hypothesis_and_changes_nothing_before(tmp_path):
    _, read = tiny("lstm bidirectional", tmp_path)
    sentences = sources("lstm bidirectional", 40)
    whole = translator(read).translate(sentences, Decoding(1, max_len_b=LIMIT)).hypotheses
    cut = translator(read).translate(sentences, Decoding(1, max_len_b=3)).hypotheses
    assert cut == [words[:3] for words in whole]
    assert {len(words) for words in whole} > {1, 2, 3}


def test_positions_of_the_target_limit_the_hypothesis(tmp_path):
    """9 positions: the beginning, and 8 words of which each but the last is read."""
    _, read = tiny("transformer learned positions", tmp_path)
    found = translator(read).translate(sources("transformer learned positions", 40), Decoding(5))
    assert max(map(len, found.hypotheses)) == 8


def test_a_source_longer_than_the_model_reads_is_refused(tmp_path):
    _, read = tiny("transformer learned positions", tmp_path)
    long = np.array([4, 5, 6, 7, 4, 5, 6, 2])
    assert len(translator(read).translate([long[1:]], Decoding()).hypotheses) == 1
    with pytest.raises(StudyError, match="a sentence has 8 tokens, the model reads at most 7"):
        translator(read).translate([long[1:], long], Decoding())


@pytest.mark.parametrize("precision", ["float32", INT8])
@pytest.mark.parametrize("beam", BEAMS)
@pytest.mark.parametrize(
    "model",
    mostly_long(
        ["lstm tied", "transformer pre-norm", "transformer projected"],
        quick=["lstm tied", "transformer projected"],
    ),
)
def test_order_and_batch_size_change_nothing(model, beam, precision, tmp_path):
    _, read = tiny(model, tmp_path)
    sentences = sources(model, 40)
    decoding = Decoding(beam, max_len_b=LIMIT, precision=precision)
    found = translator(read).translate(sentences, decoding).hypotheses
    assert len({tuple(words) for words in found}) > 5
    order = np.random.default_rng(4).permutation(len(sentences))
    dealt = [sentences[i] for i in order]
    for rows in (1, 7, 30, 10**6):
        said = translator(read).translate(dealt, dataclasses.replace(decoding, rows=rows))
        assert said.hypotheses == [found[i] for i in order]
        # end of sentence counted
        assert said.tokens == sum(map(len, found)) + len(found)


@pytest.mark.parametrize("beam", BEAMS)
def test_what_was_translated_before_changes_nothing(beam, tmp_path):
    """Memory is used again, larger or smaller, also in another precision."""
    _, read = tiny("transformer", tmp_path)
    sentences, again = sources("transformer", 40), translator(read)
    for chosen in (slice(3), slice(40), slice(20, 30)):
        for precision in ("float32", "bfloat16"):
            decoding = Decoding(beam, max_len_b=LIMIT, precision=precision)
            found = again.translate(sentences[chosen], decoding)
            assert found == translator(read).translate(sentences[chosen], decoding)


@pytest.mark.parametrize("model", MODELS)
def test_weights_changed_in_place_are_seen(model, tmp_path):
    _, read = tiny(model, tmp_path, seed=1)
    decoder, sentences = translator(read), sources(model, 20)
    settings_of = Decoding(5, max_len_b=LIMIT)
    before = decoder.translate(sentences, settings_of).hypotheses
    other = lively(model, seed=2)
    for name, parameter in other.named_parameters():
        start = read.offsets[name]
        read.flat[start : start + parameter.numel()] = parameter.detach().flatten()
    after = decoder.translate(sentences, settings_of).hypotheses
    assert after == fairseq_says(other, model, sentences, beam=5)
    assert after != before


@pytest.mark.parametrize("model", ["lstm", "transformer"])
@pytest.mark.parametrize("beam", BEAMS)
def test_a_model_without_any_weight_left_still_ends(model, beam, tmp_path):
    _, read = tiny(model, tmp_path)
    read.flat.zero_()
    found = translator(read).translate(sources(model, 10), Decoding(beam, max_len_b=6)).hypotheses
    assert all(1 <= len(words) <= 6 for words in found)
    assert not {1, 2} & {word for words in found for word in words}


def test_nothing_to_translate(tmp_path):
    _, read = tiny("lstm", tmp_path)
    assert translator(read).translate([], Decoding()) == ([], 0)


@pytest.mark.parametrize("after", [None, functional.relu, torch.tanh])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 7])
def test_linear_is_a_matrix_product(rows, bias, after):
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(rows, 11, generator=generator), torch.randn(6, 11, generator=generator)
    added = torch.randn(6, generator=generator) if bias else None
    expected = x.double() @ weight.double().T + (0 if added is None else added.double())
    expected = expected if after is None else after(expected)
    torch.testing.assert_close(Linear(weight, added, after)(x).double(), expected, rtol=1e-5, atol=1e-5)
    elsewhere = Linear(*(None if part is None else part.to("meta") for part in (weight, added)), after)
    assert elsewhere(x.to("meta")).shape == (rows, 6)
