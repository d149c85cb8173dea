"""Every table of a miniature that was worked out by hand."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from miniature import evaluation, failure, measured, run, written

from analysis.frame import NotCollected, Results
from analysis.tables import TABLES, made
from analysis.tables.best import best
from analysis.tables.cells import cells
from analysis.tables.comparisons import groupings, optimisers, ranks
from analysis.tables.groups import sparsities
from analysis.tables.optimism import optimism
from analysis.tables.published import published, published_rows
from analysis.tables.render import markdown
from analysis.tables.retraining import retraining
from analysis.tables.rounds import rounds
from analysis.tables.rules import rules

pytestmark = pytest.mark.no_cover


def seeds(grouping: str, *remaining: float, **more) -> list[dict]:
    found = [run(grouping=grouping, seed=n, remaining=r, **more) for n, r in enumerate(remaining, start=1)]
    return [row | {"cell": f"{row['cell']}-{row['config.schedule']}"} for row in found]


RULE = run(grouping="single", search="class-blind", remaining=0.8, backed_off=2, seconds=24.0)
#: of class-blind's 80 %, gate keeps 70, 72 and 74, the control 76, 77 and 81
STUDY = [
    RULE,
    *seeds("gate", 0.70, 0.72, 0.74),
    *seeds("shuffled(layer)", 0.76, 0.77, 0.81),
    failure(),
]


def shown(styler) -> pd.DataFrame:
    """The cells as they are written, by column."""
    lines = [line for line in markdown(styler).splitlines() if line.startswith("|")]
    head, _, *body = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    rows = [(line + [""] * len(head))[: len(head)] for line in body]
    return pd.DataFrame(rows, columns=head)


def of(tmp_path: Path, *rows: dict) -> Results:
    return written(tmp_path / "grid", rows)


def test_best(tmp_path):
    table = shown(best(of(tmp_path, *STUDY)))
    assert table["grouping"].tolist() == ["gate", "shuffled(layer)", "single"]
    assert table["search"].tolist() == ["NCS", "NCS", "class-blind"]
    assert table["seeds"].tolist() == ["3", "3", "1"]
    assert table["failed"].tolist() == ["1", "", ""]
    assert table["remaining %"].tolist() == ["**72.0**", "77.0", "80.0"]
    assert table["range"].tolist() == ["[70.0, 74.0]", "[76.0, 81.0]", ""]
    # -10, -8, -6: mean -8, half an interval 4.3027 * 2 / sqrt(3) = 4.97
    assert table["class-blind points"].tolist() == ["-8.0", "-2.0", ""]
    assert table["class-blind interval"].iloc[0] == "[-13.0, -3.0]"
    # -6, -5, -7 over the same seeds: mean -6, half 4.3027 / sqrt(3) = 2.48
    assert table["shuffled points"].tolist() == ["-6.0", "", ""]
    assert table["shuffled interval"].iloc[0] == "[-8.5, -3.5]"
    assert table["test drop"].tolist() == ["0.50"] * 3
    assert table["test interval"].tolist() == ["[0.00, 1.00]"] * 3
    assert table["back-offs"].tolist() == ["0.0", "0.0", "2.0"]
    assert table["tokens"].tolist() == ["1,000"] * 3
    assert table["core hours"].tolist() == ["0.02", "0.02", "0.01"]  # 72 and 36 seconds


def test_a_grouping_whose_cells_have_all_failed_has_a_row(tmp_path):
    lost = [failure(f"head-{n}", config__grouping="head") for n in (1, 2)]
    table = shown(best(of(tmp_path, RULE, *lost)))
    assert table[["grouping", "seeds", "failed"]].to_numpy().tolist() == [
        ["single", "1", ""],
        ["head", "0", "2"],
    ]
    assert table["remaining %"].tolist() == ["80.0", ""]


def test_nothing_is_bold_that_may_be_noise(tmp_path):
    # -15, -1, -5: mean -7, half an interval 4.3027 * 7.21 / sqrt(3) = 17.9
    table = shown(best(of(tmp_path, RULE, *seeds("gate", 0.65, 0.79, 0.75))))
    assert table["remaining %"].tolist() == ["75.0", "80.0"]
    assert table["class-blind interval"].iloc[0] == "[-24.9, 10.9]"


def test_a_larger_model_is_not_bold_either(tmp_path):
    table = shown(best(of(tmp_path, RULE, *seeds("gate", 0.90, 0.91, 0.92))))
    assert table["class-blind interval"].tolist()[1] == "[8.5, 13.5]"
    assert "**" not in "".join(table["remaining %"])


def test_the_own_control_comes_before_another_one(tmp_path):
    rows = [*seeds("gate", 0.5, 0.5), *seeds("shuffled(layer)", 0.6, 0.6), *seeds("shuffled(gate)", 0.7, 0.7)]
    table = shown(best(of(tmp_path, *rows))).set_index("grouping")
    assert table.loc["gate", "shuffled points"] == "-20.0"
    assert table.loc["shuffled(layer)", "shuffled points"] == ""


def test_groupings(tmp_path):
    table = shown(groupings(of(tmp_path, *STUDY)))
    assert table[["grouping", "against"]].to_numpy().tolist() == [
        ["gate", "class-blind"],
        ["shuffled(layer)", "class-blind"],
        ["gate", "shuffled(layer)"],
    ]
    assert table["points"].tolist() == ["**-8.0**", "-2.0", "**-6.0**"]
    assert table["interval"].tolist() == ["[-13.0, -3.0]", "[-8.6, 4.6]", "[-8.5, -3.5]"]
    # t = -8 / (2 / sqrt(3)) = -6.93 and so on, two degrees of freedom: p = 1 - |t| / sqrt(t^2 + 2)
    assert table["p"].tolist() == ["0.0202", "0.3206", "0.0091"]
    assert table["Holm p"].tolist() == ["0.0404", "0.3206", "0.0274"]
    assert table["sign-flip p"].tolist() == ["0.2500", "0.5000", "0.2500"]
    assert table["effect"].tolist() == ["-4.00", "-0.76", "-6.00"]
    assert table["wins"].tolist() == ["1.00", "0.67", "1.00"]


def test_ranks(tmp_path):
    more = [*seeds("gate", 0.9, model="rnnsearch"), *seeds("shuffled(layer)", 0.8, model="rnnsearch")]
    table = shown(ranks(of(tmp_path, *STUDY, *more)))
    assert table["mean rank"].tolist() == ["1.50", "1.50"]
    assert table["wins"].tolist() == ["1.00", "1.00"]
    assert table["models"].tolist() == ["2", "2"]


def test_optimisers(tmp_path):
    rows = [
        *seeds("gate", 0.70, 0.72),
        *seeds("layer", 0.60, 0.64),
        *seeds("stage", 0.1),  # which nobody else has searched
        *seeds("gate", 0.68, 0.70, search="CMA"),
        *seeds("layer", 0.58, 0.68, 0.1, search="CMA"),  # NCS has no third seed
        *seeds("layer", 0.70, search="PSO"),
        *seeds("head", 0.1, search="TBPSA"),  # nor this grouping
        *seeds("head", 0.1, search="DE", config__tokens=2000),  # another budget
    ]
    table = shown(optimisers(of(tmp_path, *rows)))
    assert table["optimiser"].tolist() == ["NCS", "CMA", "PSO"]
    assert table["pairs"].tolist() == ["4", "4", "1"]
    # of all three, over the one pair that they share: .60, .58, .70
    assert table["mean rank"].tolist() == ["2.00", "1.00", "3.00"]
    rows = [row for row in rows if row["config.search"] != "PSO"]
    table = shown(optimisers(of(tmp_path / "two", *rows)))
    # medians of .60 .64 .70 .72 and of .58 .68 .68 .70
    assert table["remaining %"].tolist() == ["67.0", "68.0"]
    assert table["range"].tolist() == ["[60.0, 72.0]", "[58.0, 70.0]"]
    # CMA - NCS: -2, -2, -2, +4: mean -0.5, standard deviation 3; half an interval 3.182 * 3 / 2 = 4.77
    assert table["points"].tolist() == ["", "-0.5"]
    assert table["interval"].tolist() == ["", "[-5.3, 4.3]"]
    assert table["mean rank"].tolist() == ["1.75", "1.25"]
    assert table["Holm p"].tolist() == ["", "0.7608"]  # t = -1/3, three degrees of freedom


def test_optimisers_are_corrected_within_their_block(tmp_path):
    rows = [
        row | {"cell": f"{row['cell']}-{tolerance}", "config.tolerance": tolerance}
        for tolerance in (1.0, 2.0)
        for row in (
            *seeds("gate", 0.70, 0.72),
            *seeds("layer", 0.60, 0.64),
            *seeds("gate", 0.68, 0.70, search="CMA"),
            *seeds("layer", 0.58, 0.68, search="CMA"),
        )
    ]
    # the same two at each tolerance: one comparison in each block, so nothing is corrected
    assert shown(optimisers(of(tmp_path, *rows)))["Holm p"].tolist() == ["", "0.7608"] * 2


def test_retraining(tmp_path):
    def after(remaining: float, drop: float, losses: list[float] | None, counts: bool) -> dict:
        training = None if losses is None else {"valid_loss": losses}
        held = {"drop": drop}
        return {"remaining": remaining, "held": held, "retraining": training, "counts": counts}

    trained = [
        after(0.4, 4.0, None, False),
        after(0.4, 0.5, [2.5, 2.4], True),
        after(0.3, 4.0, None, False),
        after(0.3, 1.5, [2.6], False),
        after(0.38, 0.9, None, True),  # of the model that was retrained for two epochs
    ]
    again = {"config__schedule": "retrain", "config__round_tolerance": 5.0, "rounds": json.dumps(trained)}
    rows = [
        RULE,
        *seeds("gate", 0.70, 0.72),
        *seeds("gate", 0.40, 0.44, pruned=(200, 40), test=29.0, **again),
        *seeds("layer", 0.1),  # has no retrained counterpart
        *seeds("single", 0.4, search="class-blind", config__schedule="gradual", config__sparsity=0.6),
        *seeds("single", 0.3, search="class-blind", config__sparsity=0.7),  # nor has this
        run(model="small", grouping="single", search="dense", remaining=1.0, pruned=(0, 0)),
    ]
    # two sentences of five and seven words, to references of eight
    counted = np.array([[5, 8] + [0] * 8, [7, 8] + [0] * 8], dtype="<i2").tobytes()
    said = {"file_sha256": "luong-pruned", "statistics": counted}
    table = shown(retraining(written(tmp_path / "grid", rows, sentences=[said])))
    assert table["length ratio"].tolist() == ["0.750"] * 4 + [""]
    assert table[["model", "schedule", "grouping"]].to_numpy().tolist() == [
        ["luong", "gradual", "single"],
        ["luong", "one-shot", "gate"],
        ["luong", "one-shot", "single"],
        ["luong", "retrain", "gate"],
        ["small", "one-shot", "single"],
    ]
    assert table["remaining %"].tolist() == ["40.0", "71.0", "80.0", "42.0", "100.0"]
    assert table["asked %"].tolist() == ["40.0", "", "", "", ""]
    assert table["round tolerance"].tolist() == ["", "", "", "5", ""]
    assert "setting" not in table
    assert table["connections"].tolist() == ["300", "300", "300", "160", "400"]
    assert table["epochs"].tolist() == ["0", "0", "0", "2", "0"]
    assert table["all epochs"].tolist() == ["0", "0", "0", "3", "0"]
    assert table["test BLEU"].tolist() == ["29.50", "29.50", "29.50", "29.00", "29.50"]
    assert table["test drop"].tolist() == [
        "0.50",
        "0.50",
        "0.50",
        "1.00",
        "",
    ]  # the small one is its own reference
    assert table["test interval"].tolist()[3:] == ["[0.50, 1.50]", ""]


def test_a_search_goes_on_from_the_retraining_before_it(tmp_path):
    """Also where that model is as small as its parent and no better, so that it would not be the result."""
    way = [
        {"remaining": 0.7, "held": {"drop": 0.2}, "retraining": None},
        {"remaining": 0.7, "held": {"drop": 0.3}, "retraining": {"valid_loss": [2.5, 2.4]}},
        {"remaining": 0.6, "held": {"drop": 0.4}, "retraining": None},
        {"remaining": 0.6, "held": {"drop": 0.9}, "retraining": {"valid_loss": [2.6]}},
    ]
    one = run(rounds=json.dumps(way), remaining=0.6, config__schedule="iterative")
    table = shown(retraining(of(tmp_path, one)))
    assert table[["epochs", "all epochs"]].to_numpy().tolist() == [["2", "3"]]


def test_rules_at_one_size_are_held_against_class_blind(tmp_path):
    """Two sentences: of what class-uniform says half is right, of what the others say all."""
    right, wrong = [4, 4, 4, 3, 2, 1, 4, 3, 2, 1], [4, 4, 2, 1, 0, 0, 4, 3, 2, 1]
    said = {
        "class-blind": [right, right],
        "class-uniform": [wrong, wrong],
        "class-distribution": [right, right],
    }
    counted = [
        {"file_sha256": name, "statistics": np.array(lines, dtype="<i2").tobytes()}
        for name, lines in said.items()
    ]
    rows = [
        # class-blind has one group, whatever the classes
        run(
            search=search,
            grouping="single" if search == "class-blind" else "see2016",
            cell=f"{search}-{schedule}-{sparsity}",
            test=29.0,
        )
        | {"config.schedule": schedule, "config.sparsity": sparsity, "config.dropout": dropout}
        | {"config.device": "cuda" if search == "class-uniform" else "cpu"}
        | {"files": json.dumps({"test.pruned.txt": search})}
        for search in said
        for schedule, sparsity, dropout in (
            ("one-shot", 0.4, None),
            ("retrain", 0.4, None),
            ("retrain", 0.6, 0.1),
        )
        if (search, sparsity) != ("class-blind", 0.6)
    ]
    table = shown(rules(written(tmp_path / "grid", [*STUDY, *rows], sentences=counted)))
    assert table["schedule"].tolist() == ["one-shot"] * 3 + ["retrain"] * 5
    assert table["dropout"].tolist() == [""] * 3 + ["0.1"] * 2 + [""] * 3
    assert table["removed %"].tolist() == ["40.0"] * 3 + ["60.0"] * 2 + ["40.0"] * 3
    assert table["search"].tolist()[:3] == ["class-blind", "class-distribution", "class-uniform"]
    assert set(table["test drop"]) == {"1.00"}
    # precisions 4/8, 2/6, 0 and 0 of 4 and 2, which sacrebleu smooths to 1/8 and 1/8: all sentences are alike
    lost = f"{100 - 100 * (4 / 8 * 2 / 6 / 8 / 8) ** 0.25:.2f}"
    assert table["class-blind drop"].tolist() == [
        "",
        "0.00",
        f"**{lost}**",
        "",
        "",
        "",
        "0.00",
        f"**{lost}**",
    ]
    assert table["interval"].tolist()[:3] == ["", "[0.00, 0.00]", f"[{lost}, {lost}]"]
    with pytest.raises(NotCollected, match="olmp grid sparsity"):
        rules(of(tmp_path / "none", *STUDY))


def test_rounds_are_the_way_of_each_cell(tmp_path):
    def after(remaining: float, drop: float, losses: list[float] | None = None, **more) -> dict:
        held = {"value": 32.0 - drop, "drop": drop, "bound": drop + 0.5}
        training = None if losses is None else {"valid_loss": losses}
        return {"remaining": remaining, "held": held, "retraining": training} | more

    way = [
        after(0.8, 0.5),
        after(0.8, -0.25, [3.5, 3.25], counts=True),
        after(0.7, 0.25),
        after(0.7, 1.0, [3.75], counts=False),
    ]
    one = run(search="class-blind", grouping="single", remaining=0.7, rounds=json.dumps(way))
    own = {"cell": "way", "config.schedule": "iterative", "config.round_tolerance": 5.0}
    table = shown(rounds(of(tmp_path, *STUDY, one | own)))
    assert table["round tolerance"].tolist() == ["5"] * 4
    assert table["schedule"].tolist() == ["iterative"] * 4
    assert table["after"].tolist() == ["search", "retraining", "search", "retraining"]
    assert table["epochs"].tolist() == ["0", "2", "2", "3"]
    assert table["valid loss"].tolist() == ["", "3.250", "", "3.750"]
    assert table["remaining %"].tolist() == ["80.0", "80.0", "70.0", "70.0"]
    assert table["confirm BLEU"].tolist() == ["31.50", "32.25", "31.75", "31.00"]
    assert table["bound drop"].tolist() == ["1.00", "0.25", "0.75", "1.50"]
    assert table["counts"].tolist() == ["", "", "", "no"]


def test_sparsities_are_of_the_winner(tmp_path):
    rows = [
        RULE,
        run(seed=1, remaining=0.7, pruned=(60, 60)),
        run(seed=2, remaining=0.7, pruned=(90, 30)),
        run(grouping="shuffled(gate)", remaining=0.1),
        run(grouping="layer", remaining=0.75),
    ]
    table = shown(sparsities(of(tmp_path, *rows)))
    assert table["grouping"].tolist() == ["gate", "gate"]
    assert table["group"].tolist() == ["large", "small"]
    assert table["connections"].tolist() == ["300", "100"]
    assert table["share %"].tolist() == ["75.0", "25.0"]
    assert table["pruned %"].tolist() == ["25.0", "45.0"]  # of 20 and 30; of 60 and 30
    assert table["range"].tolist() == ["[20.0, 30.0]", "[30.0, 60.0]"]
    assert table["threshold"].tolist() == ["0.1250", "0.1250"]


def test_optimism_is_that_of_the_model_chosen_before_back_offs(tmp_path):
    """Of three seeds on few sentences, the third is refused by confirm and ends as another model."""
    few = {"config__search_sentences": 2}
    rows = [
        RULE,
        *seeds("gate", 0.70, 0.72, 0.80, **few, **measured("test", 30.0, 29.5)),
        run(grouping="layer", remaining=0.9),
    ]
    rows[3] |= {"backed_off": 1} | measured("test", 30.0, 28.5)
    own = [row["cell"] for row in rows[1:4]]
    drops = {own[0]: (0.2, 0.5), own[1]: (0.4, 0.9), own[2]: (0.3, 1.4)}
    tried = [
        one
        for cell, (search, confirm) in drops.items()
        for one in (
            evaluation(cell, 0, (0.1, 0.1), 0.0),
            evaluation(cell, 1, (0.3, 0.2), search),
            evaluation(cell, 2, (0.3, 0.2), confirm, stage="confirm"),
        )
    ]
    tried += [evaluation(own[2], 3, (0.1, 0.1), 0.6, stage="confirm")]
    tried += [  # judged again in another precision
        evaluation(rows[4]["cell"], 0, (0.1, 0.0), 0.0),
        evaluation(rows[4]["cell"], 1, (0.1, 0.0), 0.1, stage="exact"),
        evaluation(rows[4]["cell"], 2, (0.1, 0.0), 0.3, stage="confirm"),
    ]
    table = shown(optimism(written(tmp_path / "grid", rows, tried)))
    assert table["grouping"].tolist() == ["gate", "layer", "single"]
    assert table["search sentences"].tolist() == ["2", "4", "4"]
    assert table["seeds"].tolist() == ["3", "1", "1"]
    assert table["chosen search drop"].tolist() == ["0.30", "0.10", ""]
    assert table["chosen confirm drop"].tolist() == ["0.93", "0.30", ""]
    # 0.3, 0.5, 1.1: mean 0.633, half an interval 4.3027 * 0.4163 / sqrt(3) = 1.034
    assert table["optimism drop"].tolist() == ["0.63", "0.20", ""]
    assert table["optimism interval"].tolist() == ["[-0.40, 1.67]", "", ""]
    assert table["test drop"].tolist() == ["0.83", "0.50", "0.50"]
    assert table["beyond %"].tolist() == ["33.3", "0.0", "0.0"]


def test_optimism_of_another_measure_has_no_drop_in_bleu(tmp_path):
    row = run(config__constraint="likelihood", config__tolerance=0.05)
    tried = [
        evaluation(row["cell"], 0, (0.3, 0.2), 0.01),
        evaluation(row["cell"], 1, (0.3, 0.2), 0.04, stage="confirm"),
    ]
    table = shown(optimism(written(tmp_path / "grid", [row], tried)))
    assert table["test drop"].tolist() == ["0.50"]
    assert not {"chosen search drop", "optimism drop", "beyond %"} & set(table)


def test_published_rows_are_marked_and_ours_stand_below(tmp_path):
    table = shown(published(of(tmp_path, *STUDY, *seeds("layer", 0.4, config__schedule="retrain"))))
    assert table["origin"].value_counts().to_dict() == {"published": len(published_rows()), "this study": 2}
    sipo = table[table["model"] == "RNNSearch"].iloc[0]
    assert sipo[["pruned %", "dense BLEU", "BLEU", "drop"]].tolist() == ["84.9", "18.25", "17.97", "0.28"]
    ours = table[table["origin"] == "this study"]
    assert ours["method"].tolist() == ["gate, NCS", "layer, NCS"]
    assert ours["retrained"].tolist() == ["no", "retrain"]
    assert ours["pruned %"].tolist() == ["28.0", "60.0"]
    assert ours["drop"].tolist() == ["0.50", "0.50"]
    assert ours["interval"].tolist() == ["[0.00, 1.00]"] * 2


def test_ours_beside_published_ones_are_compressed_and_say_their_setting(tmp_path):
    rows = [
        *seeds("gate", 0.70, 0.72, config__criterion="bound", config__confidence=0.95),
        *seeds("layer", 0.60, config__criterion="bound", config__confidence=0.9),
        *seeds("stage", 0.50, config__criterion="point", config__confidence=0.95),
        *seeds("single", 1.0, search="dense", config__schedule="retrain", config__criterion="bound"),
    ]
    table = shown(published(of(tmp_path, *rows)))
    ours = table[table["origin"] == "this study"]
    assert ours[["method", "note"]].to_numpy().tolist() == [
        ["layer, NCS", "tolerance 1, seeds: 1, confidence=0.9"]
    ]


def test_every_published_row_has_a_source_that_can_be_cited():
    for row in published_rows():
        assert re.search(r"\((.*, )?20\d\d\)$", row["work"])
        assert re.search(r"arXiv \d{4}\.\d{5}|doi 10\.\d+/", row["source"])
        assert ("bleu" in row) == ("dense_bleu" in row)
        assert "bleu" in row or row["note"]


def test_cells(tmp_path):
    table = shown(cells(of(tmp_path, *STUDY[:3], run(seed=9, remaining=0.71, model="a", config__tokens=5))))
    assert table["model"].tolist() == ["a", "luong", "luong", "luong"]
    assert table["setting"].tolist() == ["tokens=5", "", "", ""]
    assert table["seed"].tolist() == ["9", "1", "2", "1"]
    assert table["remaining %"].tolist() == ["71.0", "70.0", "72.0", "80.0"]
    one = table.iloc[3][["search drop", "confirm BLEU", "confirm drop", "test BLEU", "test drop"]]
    assert one.tolist() == ["0.50", "31.50", "0.50", "29.50", "0.50"]
    rest = table.iloc[3][["test interval", "back-offs", "evaluations", "skipped", "tokens"]]
    assert rest.tolist() == ["[0.00, 1.00]", "2.0", "10", "2", "1,000"]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_without_its_cells_says_what_is_missing(tmp_path, name):
    (found,) = made(of(tmp_path, failure()), [name])
    if name == "published":
        assert found.styler is not None
    else:
        assert found.styler is None
        assert found.missing.startswith("no ")
        assert found.markdown() == f"{found.missing}\n"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("groupings", "no two groupings are finished in one setting"),
        ("ranks", "no search over a grouping is finished"),
        ("optimisers", "no two optimisers are finished with the same groupings"),
        ("retraining", "no retrained cell is finished"),
        ("sparsities", "no search over a grouping is finished"),
        ("optimism", "no search is finished"),
        ("rounds", "no retrained cell is finished"),
    ],
)
def test_a_rule_alone_is_not_enough(tmp_path, name, said):
    (found,) = made(of(tmp_path, RULE), [name])
    assert found.missing.startswith(said)


def test_older_results_lack_columns_and_say_so(tmp_path):
    row = {key: value for key, value in RULE.items() if key != "skipped"}
    (found,) = made(of(tmp_path, row), ["cells"])
    said = "the table of runs lacks skipped: it was collected by another version, collect it again"
    assert found.missing == said


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path):
    with pytest.raises(
        NotCollected, match="there is no table 'bset', did you mean 'best'. Known are best, groupings"
    ):
        made(of(tmp_path, RULE), ["bset"])
