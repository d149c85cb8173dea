"""Published examples whose results others have printed, and sacrebleu's own bootstrap on the same text."""

import math
import random

import numpy as np
import pandas as pd
import pytest
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest

from analysis.significance import PairedBootstrap, bleu_difference, compare, holm, mean_interval, ranks
from harness.bleu import Bleu

pytestmark = pytest.mark.no_cover

#: Student (1908), hours of sleep gained by two drugs: R's data set `sleep`
DRUG_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
DRUG_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
#: Darwin's maize, crossed minus self-fertilised, in eighths of an inch (Fisher, The Design of Experiments)
MAIZE = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]


def test_the_paired_t_test_is_that_of_r_on_the_sleep_data():
    """`t.test(Pair(extra.1, extra.2) ~ 1)` in R's help of sleep: t = -4.0621, df = 9, p-value = 0.002833,
    95 percent confidence interval -2.4598858 -0.7001142, mean difference -1.58."""
    found = compare(DRUG_1, DRUG_2)
    assert found.pairs == 10
    assert found.mean == pytest.approx(-1.58)
    assert (found.low, found.high) == pytest.approx((-2.4598858, -0.7001142), abs=1e-7)
    assert found.p == pytest.approx(0.002833, abs=5e-7)
    assert found.effect == pytest.approx(-4.0621 / math.sqrt(10), abs=1e-5)
    # nine differences have one sign and the tenth is 0: of 1024 flips 2 * 2 reach the observed mean
    assert found.p_exact == 4 / 1024


def test_sign_flips_are_fisher_s_count_on_darwin_s_maize():
    """Fisher (1935, section 21): 863 of the 32768 sums are at least 314, in each direction; t = 2.148 with
    14 degrees of freedom, p = 4.97 %."""
    found = compare(MAIZE, 0)
    assert found.p_exact == 2 * 863 / 32768
    assert found.p == pytest.approx(0.0497, abs=5e-5)
    assert found.effect * math.sqrt(15) == pytest.approx(2.148, abs=5e-4)


def test_five_seeds_cannot_be_significant_by_sign_flips_alone():
    found = compare([0.70, 0.71, 0.69, 0.72, 0.70], [0.80, 0.80, 0.81, 0.79, 0.80])
    assert found.p_exact == 2 / 2**5
    assert found.p < 0.001


def test_a_rule_is_one_constant_for_all_seeds():
    assert compare([0.70, 0.72, 0.68], 0.75) == compare([0.70, 0.72, 0.68], [0.75, 0.75, 0.75])


def test_one_pair_is_no_test():
    found = compare([0.7], [0.8])
    assert (found.pairs, found.mean) == (1, pytest.approx(-0.1))
    assert all(math.isnan(value) for value in found[2:])
    assert compare([], []).pairs == 0


def test_without_spread_sign_flips_are_all_there_is():
    same = compare([0.5] * 3, [0.5] * 3)
    assert (same.mean, same.p, same.p_exact, same.effect) == (0, 1, 1, 0)
    found = compare([0.5] * 3, [0.75] * 3)
    assert (found.mean, found.p, found.effect) == (-0.25, 2 / 8, -math.inf)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_holm_s_correction_by_hand():
    """Ordered 0.005, 0.01, 0.03, 0.04, times 4, 3, 2, 1, and never below the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    found = holm([0.01, math.nan, 0.04])
    assert found[0::2] == pytest.approx([0.02, 0.04])
    assert math.isnan(found[1])
    assert holm([]) == []


def test_the_interval_of_a_mean_is_that_of_r():
    differences = np.array(DRUG_1) - np.array(DRUG_2)
    assert mean_interval(differences) == pytest.approx((-2.4598858, -0.7001142), abs=1e-7)
    assert all(math.isnan(end) for values in ([0.5, 0.5], [0.5], []) for end in mean_interval(values))


def test_ranks_and_wins_by_hand():
    outcomes = pd.DataFrame({"a": [0.7, 0.8, 0.8], "b": [0.6, 0.6, np.nan]}, index=["gate", "layer", "head"])
    found = ranks(outcomes)
    assert found.loc["gate"].tolist() == [1.25, 1.5, 2]  # ranks 1 and 1.5, a win and half of one
    assert found.loc["layer"].tolist() == [2.0, 0.5, 2]  # ranks 2.5 and 1.5
    assert found.loc["head"].tolist() == [2.5, 0.0, 1]
    assert list(found.index) == ["gate", "layer", "head"]


WORDS = [
    "der",
    "die",
    "das",
    "Licht",
    "Gerät",
    "wurde",
    "nicht",
    "gefunden",
    ",",
    "ein",
    "Fehler",
    "ist",
    ".",
]


@pytest.fixture(scope="module")
def text() -> dict[str, list[str]]:
    """References and two systems that make mistakes of their own, the second more of them."""
    draw = random.Random(1)
    references = [" ".join(draw.choices(WORDS, k=draw.randint(4, 15))) for _ in range(60)]

    def spoilt(share: float) -> list[str]:
        return [
            " ".join(draw.choice(WORDS) if draw.random() < share else word for word in line.split())
            for line in references
        ]

    return {"references": references, "dense": spoilt(0.15), "pruned": spoilt(0.2)}


@pytest.mark.parametrize("systems", [("dense", "pruned"), ("pruned", "dense"), ("dense", "dense")])
def test_the_bootstrap_is_sacrebleu_s_own(text, systems):
    named = [(name, text[name]) for name in systems]
    named[1] = ("other", named[1][1])
    _, scores = PairedTest(named, {"BLEU": BLEU()}, [text["references"]], test_type="bs", n_samples=1000)()
    bleu = Bleu(text["references"])
    found = bleu_difference(*(bleu.statistics(lines) for _, lines in named))
    assert found.baseline == scores["BLEU"][0].score
    assert found.system == scores["BLEU"][1].score
    assert found.drop == found.baseline - found.system
    assert found.p == scores["BLEU"][1].p_value
    assert found.low <= found.drop <= found.high


def test_the_interval_is_that_of_the_resampled_differences(text):
    """Drawn and scored here by sacrebleu, resample for resample."""
    drawn = np.random.default_rng(12345).choice(60, size=(1000, 60), replace=True)
    score = BLEU().corpus_score
    differences = []
    for places in drawn:
        references = [[text["references"][i] for i in places]]
        dense, pruned = (score([text[name][i] for i in places], references) for name in ("dense", "pruned"))
        differences.append(dense.score - pruned.score)
    bleu = Bleu(text["references"])
    found = bleu_difference(bleu.statistics(text["dense"]), bleu.statistics(text["pruned"]))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(differences, [0.025, 0.975])))


def test_a_mean_over_pairs_is_the_mean_of_their_scores(text):
    bleu = Bleu(text["references"])
    bootstrap = PairedBootstrap({name: bleu.statistics(text[name]) for name in ("dense", "pruned")})
    one = bootstrap.difference("dense", "pruned")
    assert bootstrap.mean_difference(["dense", "dense"], ["pruned", "pruned"]) == one
    half = bootstrap.mean_difference(["dense", "dense"], ["pruned", "dense"])
    assert half.drop == pytest.approx(one.drop / 2)
    assert (half.low, half.high) == pytest.approx((one.low / 2, one.high / 2))
    assert "dense" in bootstrap
    assert "other" not in bootstrap


def test_translations_of_different_sets_are_refused(text):
    bleu = Bleu(text["references"])
    statistics = bleu.statistics(text["dense"])
    with pytest.raises(ValueError, match="sentences"):
        bleu_difference(statistics, statistics[:10])
    with pytest.raises(KeyError):
        PairedBootstrap({"dense": statistics}).difference("dense", "gone")
