"""Grouping against grouping on miniature results, worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from miniature import failure, run

from analysis.contrasts import contrasts, ranked
from analysis.frame import NotCollected
from analysis.significance import PairedBootstrap


def seeds(grouping: str, *remaining: float, **more) -> list[dict]:
    return [run(grouping=grouping, seed=n, remaining=r, **more) for n, r in enumerate(remaining, start=1)]


RULE = run(grouping="single", search="class-blind", remaining=0.8)


def test_pairs_are_the_seeds_that_both_have():
    # differences of the three shared seeds: -0.1, -0.2, -0.3; mean -0.2, standard deviation 0.1
    rows = seeds("gate", 0.5, 0.4, 0.3) + seeds("layer", 0.6, 0.6, 0.6, 0.1)
    (found,) = contrasts(pd.DataFrame(rows)).to_dict("records")
    assert (found["first"], found["second"], found["pairs"]) == ("gate", "layer", 3)
    assert found["mean"] == pytest.approx(-0.2)
    half = 4.302653 * 0.1 / 3**0.5  # the table of t: 97.5 %, 2 degrees of freedom
    assert (found["low"], found["high"]) == pytest.approx((-0.2 - half, -0.2 + half), abs=1e-6)
    assert found["effect"] == pytest.approx(-2)
    # t = -0.2 / (0.1 / sqrt(3)) = -3.4641; with two degrees of freedom p = 1 - t / sqrt(t^2 + 2)
    assert found["p"] == pytest.approx(1 - 12**0.5 / 14**0.5)
    assert found["p_exact"] == 2 / 2**3
    assert found["wins"] == 1
    assert found["p_holm"] == found["p"]
    assert np.isnan(found["bleu"])


def test_class_blind_is_a_constant_for_all_seeds():
    found = contrasts(pd.DataFrame([*seeds("gate", 0.7, 0.8, 0.75), RULE]))
    (row,) = found.to_dict("records")
    assert (row["second"], row["pairs"]) == ("class-blind", 3)
    assert row["mean"] == pytest.approx((-0.1 + 0 - 0.05) / 3)
    assert row["wins"] == pytest.approx((1 + 0.5 + 1) / 3)


def test_holm_is_over_the_comparisons_of_one_model_in_one_setting():
    rows = [RULE, *seeds("gate", 0.70, 0.72, 0.71), *seeds("layer", 0.60, 0.65, 0.61)]
    rows += seeds("gate", 0.70, 0.72, 0.71, model="rnnsearch") + seeds(
        "layer", 0.60, 0.65, 0.61, model="rnnsearch"
    )
    rows += [row | {"config.search": "CMA"} for row in rows if row["config.search"] == "NCS"]
    found = contrasts(pd.DataFrame(rows))
    found = found[found["search"] == "NCS"].reset_index(drop=True)
    assert found["model"].tolist() == ["luong"] * 3 + ["rnnsearch"]
    three = found[found["model"] == "luong"].sort_values("p")
    expected = (three["p"] * [3, 2, 1]).cummax()
    assert three["p_holm"].tolist() == pytest.approx(expected.tolist())
    assert found["p_holm"].iloc[3] == found["p"].iloc[3]


def test_searches_and_settings_are_not_mixed():
    rows = (
        seeds("gate", 0.5, 0.4)
        + seeds("layer", 0.6, 0.6, search="CMA")
        + seeds("head", 0.7, config__tokens=1)
    )
    assert contrasts(pd.DataFrame(rows)).empty


def test_the_bleu_difference_is_over_the_same_seeds():
    """Two sentences; the second system has every word right in both, the first in one."""
    right, wrong = [4, 4, 4, 3, 2, 1, 4, 3, 2, 1], [4, 4, 2, 1, 0, 0, 4, 3, 2, 1]
    statistics = {"a": np.array([right, wrong]), "b": np.array([right, right])}
    rows = []
    for grouping, name in (("gate", "a"), ("layer", "b")):
        files = f'{{"test.pruned.txt": "{name}"}}'
        rows += seeds(grouping, 0.5, 0.6, files=files)
    (found,) = contrasts(pd.DataFrame(rows), PairedBootstrap(statistics)).to_dict("records")
    # BLEU of a: precisions 6/8, 4/6, 2/4, 1/2; of b 100
    expected = 100 * (6 / 8 * 4 / 6 * 2 / 4 * 1 / 2) ** 0.25 - 100
    assert found["bleu"] == pytest.approx(expected)
    assert found["bleu_low"] < found["bleu"] < found["bleu_high"] == 0
    (unknown,) = contrasts(pd.DataFrame(rows), PairedBootstrap({})).to_dict("records")
    assert np.isnan(unknown["bleu"])


def test_ranks_over_models_are_of_medians():
    rows = seeds("gate", 0.5, 0.6, 0.9) + seeds("layer", 0.7) + seeds("gate", 0.9, model="rnnsearch")
    rows += seeds("layer", 0.8, model="rnnsearch") + seeds("head", 0.1, model="transformer")
    found = ranked(pd.DataFrame(rows)).set_index("grouping")
    assert found.loc["gate", ["mean rank", "wins", "models"]].tolist() == [1.5, 1, 2]  # median 0.6 before 0.7
    assert found.loc["layer", ["mean rank", "wins", "models"]].tolist() == [1.5, 1, 2]
    assert found.loc["head", ["mean rank", "wins", "models"]].tolist() == [1, 1, 1]


def test_without_results_there_is_nothing_to_compare():
    with pytest.raises(NotCollected):
        contrasts(pd.DataFrame([failure()]))
    assert contrasts(pd.DataFrame([RULE])).empty
    assert ranked(pd.DataFrame([RULE])).empty
