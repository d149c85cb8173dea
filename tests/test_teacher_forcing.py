"""Teacher forcing against fairseq's criterion and hand calculations, the pre-filter on made-up searches."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.data.language_pair_dataset import collate
from sklearn.isotonic import IsotonicRegression

from experiments.prefilter import Prefilter, isotonic
from grouping.errors import StudyError
from harness.cell import Study
from harness.constraint import Constraint, PairedBootstrap
from harness.operators import operators
from harness.teacher_forcing import (
    ACCURACY,
    LIKELIHOOD,
    Forced,
    TeacherForcing,
)

#: a sentence's nll sums up to a hundred float32 terms of a few nats
ROUNDING = 1e-3


def sides(study: Study) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return study.corpus.source_tokens("search"), study.corpus.target_tokens("search")


def forcing(study: Study, sentences: list[int] | None = None, **options) -> TeacherForcing:
    """Of some of the search sentences, all without a choice."""
    dictionary = study.corpus.target_dictionary
    chosen = [[side[i] for i in sentences] if sentences else side for side in sides(study)]
    return TeacherForcing(study.model, *chosen, dictionary.pad(), dictionary.eos(), **options)


@pytest.mark.parametrize("name", ["transformer", "rnnsearch"])
def test_every_sentence_is_scored_as_fairseqs_criterion_scores_it(studies, name):
    study = studies(name)
    found = forcing(study).score()
    dictionary = study.corpus.target_dictionary
    task = SimpleNamespace(target_dictionary=dictionary)
    criterion = LabelSmoothedCrossEntropyCriterion(task, False, label_smoothing=0.1, report_accuracy=True)
    for i, (source, reference) in enumerate(zip(*sides(study), strict=True)):
        pair = {"id": i, "source": torch.from_numpy(source), "target": torch.from_numpy(reference)}
        sample = collate([pair], dictionary.pad(), dictionary.eos())
        with torch.no_grad():
            _, _, said = criterion(study.model.module, sample)
        assert found.nll[i] == pytest.approx(float(said["nll_loss"]), abs=ROUNDING)
        assert found.correct[i] == int(said["n_correct"])
        assert found.tokens[i] == int(said["total"])


@pytest.mark.parametrize("name", ["transformer", "rnnsearch"])
def test_neither_batches_nor_order_nor_padding_matter(studies, name):
    study = studies(name)
    whole = forcing(study).score()
    alone = forcing(study, batch_tokens=1).score()
    order = np.random.default_rng(0).permutation(len(whole.tokens)).tolist()
    shuffled = forcing(study, order, batch_tokens=150).score()
    for other, rows in ((alone, slice(None)), (shuffled, order)):
        assert np.array_equal(other.tokens, whole.tokens[rows])
        assert np.array_equal(other.correct, whole.correct[rows])
        assert other.nll == pytest.approx(whole.nll[rows], abs=ROUNDING)


@pytest.mark.parametrize("name", ["transformer", "rnnsearch"])
def test_the_weights_of_the_moment_decide(studies, name):
    study = studies(name)
    scorer = forcing(study)
    dense = scorer.score()
    operator = operators.get("magnitude")(study.model, study.groups("single"))
    operator.apply(np.array([0.8]))
    pruned = scorer.score()
    operator.restore()
    assert pruned.nll.sum() > dense.nll.sum()
    assert pruned.correct.sum() < dense.correct.sum()
    assert np.array_equal(scorer.score().statistics, dense.statistics)


PAD, EOS, A, B = 1, 2, 3, 4
#: probability of each word (row by row: the word before it) of a model that looks at nothing else
BIGRAMS = torch.tensor(
    [
        [0.2, 0.2, 0.2, 0.2, 0.2],
        [0.2, 0.2, 0.2, 0.2, 0.2],
        [0.0, 0.0, 0.1, 0.6, 0.3],  # after the beginning, which is an end of sentence: A
        [0.0, 0.0, 0.5, 0.25, 0.25],  # after A: the end
        [0.0, 0.0, 0.125, 0.75, 0.125],  # after B: A
    ]
)


def bigrams(longest: int = 10) -> SimpleNamespace:
    """In the shape of a fairseq model; the features are the words themselves."""
    module = SimpleNamespace(
        encoder=SimpleNamespace(max_positions=lambda: longest),
        max_decoder_positions=lambda: longest + 1,
        extract_features=lambda source, lengths, previous: (previous, None),
        decoder=SimpleNamespace(output_layer=lambda words: 7 + BIGRAMS.log()[words]),
    )
    return SimpleNamespace(module=module)


def test_accuracy_and_likelihood_by_hand():
    sources = [np.array([A, EOS]), np.array([A, B, B, EOS])]
    references = [np.array([A, B, EOS]), np.array([B, A, A, EOS])]
    found = TeacherForcing(bigrams(), sources, references, PAD, EOS).score()
    assert found.tokens.tolist() == [3, 4]
    # A after the beginning, not B after A, not the end after B; A after B, the end after A
    assert found.correct.tolist() == [1, 2]
    expected = [-np.log(0.6 * 0.25 * 0.125), -np.log(0.3 * 0.75 * 0.25 * 0.5)]
    assert found.nll == pytest.approx(expected, abs=1e-5)
    sums = found.statistics.sum(axis=0)
    assert ACCURACY.of_sums(sums) == pytest.approx(100 * 3 / 7)
    assert LIKELIHOOD.of_sums(sums) == pytest.approx(-sum(expected) / 7, abs=1e-5)


def test_a_sentence_that_is_too_long_is_refused():
    short, long = np.array([A, EOS]), np.array([A, A, A, EOS])
    with pytest.raises(StudyError, match="source sentence has 4 tokens, the model reads at most 2"):
        TeacherForcing(bigrams(longest=2), [long], [short], PAD, EOS)
    with pytest.raises(StudyError, match="larger --max-target-positions"):
        TeacherForcing(bigrams(longest=2), [short], [long], PAD, EOS)


def one_word_sentences(sentences: int, wrong: int) -> np.ndarray:
    """Statistics in which every word is right and sure, but for the wrong ones with 2 nats each."""
    bad = np.arange(sentences) < wrong
    return Forced(np.ones(sentences, dtype=np.int64), (~bad).astype(np.int64), 2.0 * bad).statistics


@pytest.mark.parametrize(("measure", "unit"), [(ACCURACY, 100.0), (LIKELIHOOD, 2.0)])
def test_a_drop_and_its_bound_against_the_normal_approximation_by_hand(measure, unit):
    dense, pruned = one_word_sentences(400, wrong=0), one_word_sentences(400, wrong=40)
    bootstrap = PairedBootstrap(400, 4000, seed=1)
    verdict = measure.judge(Constraint(0.11 * unit), dense, pruned, bootstrap)
    # 10 % wrong: standard error sqrt(0.1 * 0.9 / 400) = 0.015
    assert verdict.drop == pytest.approx(0.1 * unit)
    assert verdict.standard_error == pytest.approx(0.015 * unit, rel=0.05)
    assert verdict.bound == pytest.approx((0.1 + 1.645 * 0.015) * unit, rel=0.03)
    assert not verdict.feasible
    assert measure.judge(Constraint(0.11 * unit, "point"), dense, pruned, bootstrap).feasible


@pytest.mark.parametrize("measure", [ACCURACY, LIKELIHOOD])
def test_the_dense_model_is_feasible_at_tolerance_zero(studies, measure):
    scorer = forcing(studies("transformer"))
    dense, again = scorer.score().statistics, scorer.score().statistics
    bootstrap = PairedBootstrap(len(dense), 100, seed=1)
    # in another place of memory, where another order of additions may be chosen
    moved = np.asfortranarray(np.vstack([again[:1], again]))[1:]
    for pruned in (again, moved):
        verdict = measure.judge(Constraint(0.0), dense, pruned, bootstrap)
        assert (verdict.drop, verdict.bound, verdict.feasible) == (0, 0, True)


def test_isotonic_regression_is_that_of_scikit_learn():
    rng = np.random.default_rng(3)
    x = rng.permutation(60).astype(float)
    y = x / 20 + rng.normal(size=60)
    expected = IsotonicRegression().fit(x, y).predict(x)
    assert isotonic(x, y, x) == pytest.approx(expected)
    # a step function: as at the next point below, or as at the first
    assert isotonic(x, y, np.array([-5.0, 7.5, 99.0])) == pytest.approx(
        isotonic(x, y, np.array([0, 7, 59.0]))
    )


def test_isotonic_regression_by_hand():
    # 3 and 1 are the wrong way round: both become 2
    found = isotonic(np.array([2.0, 1.0, 3.0, 4.0]), np.array([1.0, 3.0, 5.0, 6.0]), np.arange(1, 5.0))
    assert found.tolist() == [2, 2, 5, 6]


def made_up(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Measured drops and drops in BLEU: a bent curve and noise of 0.3 BLEU points."""
    measured = rng.uniform(0, 1, size)
    return measured, 4 * measured**1.5 + rng.normal(scale=0.3, size=size)


def test_each_end_of_the_interval_fails_as_often_as_stated():
    rng = np.random.default_rng(1)
    below = above = 0
    for _ in range(1000):
        measured, drops = made_up(rng, 60)
        low, high = Prefilter(0.1).interval(measured[1:], drops[1:], measured[0])
        below += drops[0] < low
        above += drops[0] > high
    # 100 expected of 1000, standard error 9.5; the method may fall short of the level, not exceed it much
    assert 60 < below < 130
    assert 60 < above < 130


def test_few_feasible_candidates_are_refused_and_most_hopeless_ones():
    rng = np.random.default_rng(2)
    tolerance, wrong, refused, hopeless = 1.0, 0, 0, 0
    for _ in range(20):
        measured, drops = made_up(rng, 150)
        seen: list[int] = []
        for i in range(150):  # as in a search: what is refused is not translated and teaches nothing
            if Prefilter(0.05).refuses(measured[seen], drops[seen], measured[i], tolerance):
                refused += 1
                wrong += drops[i] <= tolerance
            else:
                seen.append(i)
                hopeless += i >= 60 and drops[i] > 2.5
    assert refused > 1000
    assert wrong / refused < 0.05
    assert hopeless < 20  # of about 500


def test_it_is_silent_before_it_has_seen_enough():
    measured, drops = made_up(np.random.default_rng(4), 40)
    for prefilter, enough in ((Prefilter(0.1), 20), (Prefilter(0.05, minimum=2), 19), (Prefilter(0.05), 20)):
        few = enough - 1
        assert prefilter.interval(measured[:few], drops[:few], 1.0) == (-np.inf, np.inf)
        assert not prefilter.refuses(measured[:few], drops[:few], 99.0, 0.0)
        low, high = prefilter.interval(measured[:enough], drops[:enough], 1.0)
        assert -np.inf < low < high < np.inf
