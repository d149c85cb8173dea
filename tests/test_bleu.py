"""BLEU from statistics against sacrebleu's own scores."""

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from grouping.errors import StudyError
from harness import bleu

REFERENCES = [
    "Das Gerät konnte nicht gefunden werden.",
    "Bitte die Verbindung prüfen, dann erneut versuchen!",
    "Der Schlüssel {key} ist ungültig.",
    "Licht im Wohnzimmer eingeschaltet",
]
HYPOTHESES = [
    "Das Gerät wurde nicht gefunden.",
    "Bitte die Verbindung prüfen und erneut versuchen!",
    "",
    "Licht im Wohnzimmer ausgeschaltet .",
]


@pytest.fixture
def metric():
    return bleu.Bleu(REFERENCES)


def test_statistics_of_one_sentence_by_hand():
    # 13a gives: a b c . / a b d . -> 1-grams a b . match, one 2-gram (a b), no longer one
    found = bleu.Bleu(["a b c."]).statistics(["a b d."])
    assert found.dtype == np.int64
    assert found.tolist() == [[4, 4, 3, 1, 0, 0, 4, 3, 2, 1]]


@pytest.mark.parametrize("hypotheses", [HYPOTHESES, REFERENCES, [""] * 4, ["x y z w v"] * 4])
def test_score_is_sacrebleu(metric, hypotheses):
    expected = BLEU().corpus_score(hypotheses, [REFERENCES]).score
    statistics = metric.statistics(hypotheses)
    assert statistics.shape == (4, bleu.STATISTICS)
    assert bleu.score(statistics.sum(axis=0)) == expected
    assert bleu.bleu_of_sums(statistics.sum(axis=0)) == pytest.approx(expected, abs=1e-9)


def test_parts_add_up(metric):
    statistics = metric.statistics(HYPOTHESES)
    parts = [bleu.Bleu(REFERENCES[i : i + 2]).statistics(HYPOTHESES[i : i + 2]) for i in (0, 2)]
    assert np.array_equal(np.concatenate(parts), statistics)


def test_signature_is_sacrebleus(metric):
    outside = BLEU()
    outside.corpus_score(HYPOTHESES, [REFERENCES])
    assert metric.signature == str(outside.get_signature())
    assert "tok:13a|smooth:exp" in metric.signature


def random_statistics(sets: int) -> np.ndarray:
    """Counts as real ones are: totals fall with the order, matches fall with both."""
    rng = np.random.default_rng(7)
    sums = np.zeros((sets, 10), dtype=np.int64)
    for row in sums:
        row[0] = rng.integers(0, 40)
        row[1] = rng.integers(1, 40)
        row[6:] = np.maximum(row[0] - rng.integers(1, 4) * np.arange(4), 0)
        limit = row[6]
        for order in range(4):
            limit = row[2 + order] = rng.integers(0, min(limit, row[6 + order]) + 1)
    return sums


def test_vectorised_equals_sacrebleu_on_random_counts():
    sums = random_statistics(3000)
    expected = [
        BLEU.compute_bleu(list(r[2:6]), list(r[6:]), r[0], r[1], smooth_method="exp").score for r in sums
    ]
    found = bleu.bleu_of_sums(sums)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    # the cases that matter are there: no match at all, smoothed orders, an order without n-grams
    matched = sums[:, 2] > 0
    assert (~matched).any()
    assert (matched & (sums[:, 5] == 0) & (sums[:, 9] > 0)).any()
    assert (matched & (sums[:, 9] == 0)).any()
    assert (sums[:, 0] == 0).any()
    assert bleu.bleu_of_sums(sums.reshape(30, 100, 10)).shape == (30, 100)


def test_another_number_of_hypotheses_is_refused(metric):
    with pytest.raises(StudyError, match="3 hypotheses for 4 references"):
        metric.statistics(HYPOTHESES[:3])
    with pytest.raises(StudyError, match="5 hypotheses for 4 references"):
        metric.statistics([*HYPOTHESES, "more"])
    with pytest.raises(StudyError, match="3 hypotheses for 4 references"):
        bleu.chrf(HYPOTHESES[:3], REFERENCES)


def test_no_references_are_refused():
    with pytest.raises(StudyError, match="no references"):
        bleu.Bleu([])
    with pytest.raises(StudyError, match="no references"):
        bleu.chrf([], [])


def test_chrf_is_sacrebleus():
    outside = CHRF()
    expected = outside.corpus_score(HYPOTHESES, [REFERENCES]).score
    assert bleu.chrf(HYPOTHESES, REFERENCES) == (expected, str(outside.get_signature()))
