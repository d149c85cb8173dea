"""Which cells belong together, on miniature results."""

import pandas as pd
import pytest
from miniature import failure, run

from analysis.frame import NotCollected
from analysis.outcomes import PLACE, failures, one_shot, outcomes, placed, rule_beside

pytestmark = pytest.mark.no_cover


def frame(*rows: dict) -> pd.DataFrame:
    return pd.DataFrame(list(rows))


def test_the_seeds_of_one_grouping_are_one_outcome():
    rows = placed(frame(run(seed=2, remaining=0.7), run(seed=1, remaining=0.6), run(grouping="layer")))
    first, second = outcomes(rows)
    assert first.place == {
        "model": "luong",
        "tolerance": 1.0,
        "search": "NCS",
        "grouping": "gate",
        "setting": "",
    }
    assert first.cells["remaining"].tolist() == [0.6, 0.7]  # in the order of seeds
    assert second.place["grouping"] == "layer"


def test_a_setting_says_only_what_is_not_as_usual():
    odd = run(seed=3, config__evaluations=50, config__tokens=None)
    rows = placed(frame(run(seed=1), run(seed=2), odd))
    assert rows["setting"].tolist() == ["", "", "tokens=none evaluations=50"]
    assert len(list(outcomes(rows))) == 2


def test_fields_that_get_a_column_are_not_part_of_the_setting():
    rows = placed(frame(run(seed=1), run(seed=2), run(seed=3, config__schedule="retrain")), ["schedule"])
    assert rows["schedule"].tolist() == ["one-shot", "one-shot", "retrain"]
    assert set(rows["setting"]) == {""}
    assert len(list(outcomes(rows))) == 1
    assert len(list(outcomes(rows, [*PLACE, "schedule"]))) == 2


def test_models_of_one_name_are_told_apart():
    other = run(seed=2, config__checkpoint_sha256="0123456789")
    rows = placed(frame(run(seed=1), other, run(model="rnnsearch")))
    assert rows["model"].tolist() == ["luong luong text", "luong 012345 text", "rnnsearch"]


def test_retrained_cells_and_given_sparsities_stand_apart():
    rows = placed(frame(run(), run(seed=2, config__schedule="retrain"), run(seed=3, config__sparsity=0.5)))
    assert one_shot(rows)["config.seed"].tolist() == [1]
    with pytest.raises(NotCollected, match="no cell of the schedule one-shot that searches is finished"):
        one_shot(rows.iloc[1:])


def test_the_rule_of_the_same_yardstick_that_agrees_best():
    rule = {"grouping": "single", "search": "class-blind"}
    rows = placed(
        frame(
            run(),
            run(**rule, seed=1, config__tolerance=2.0),  # another yardstick
            run(**rule, seed=2, config__evaluations=99),
            run(**rule, seed=3),
            run(**rule, seed=4, model="rnnsearch"),
        )
    )
    first = next(one for one in outcomes(rows) if one.place["search"] == "NCS")
    found = rule_beside(rows, first)
    assert found is not None
    assert found["config.seed"] == 3
    assert rule_beside(rows, first, "lamp") is None


@pytest.mark.parametrize(
    "other",
    [{"search_sentences": 150}, {"redraw": True}, {"search_beam": 5}, {"precision": "float32"}],
    ids=lambda other: next(iter(other)),
)
def test_what_moves_the_edge_of_a_rule_is_part_of_the_yardstick(other):
    usual = {"search_sentences": None, "redraw": False, "search_beam": 1, "precision": "int8"}
    search = run(**{f"config__{name}": value for name, value in usual.items()})
    moved = {f"config__{name}": value for name, value in (usual | other).items()}
    rows = placed(frame(search, run(grouping="single", search="class-blind", **moved)))
    first = next(one for one in outcomes(rows) if one.place["search"] == "NCS")
    assert rule_beside(rows, first) is None


def test_failures_are_counted_where_their_cells_belong():
    counts = failures(frame(run(), failure("a"), failure("b"), failure("c", config__grouping="layer")))
    assert counts == {("luong", 1.0, "NCS", "gate", ""): 2, ("luong", 1.0, "NCS", "layer", ""): 1}
    assert failures(frame(run())) == {}


def test_nothing_finished_and_missing_columns_are_said():
    with pytest.raises(NotCollected, match="no cell is finished yet: `olmp grid` runs them"):
        placed(frame(failure()))
    with pytest.raises(NotCollected, match="the table of runs lacks remaining"):
        placed(frame(run()).drop(columns="remaining"))
