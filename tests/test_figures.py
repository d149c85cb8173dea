"""The data of each figure against numbers worked out by hand, and the files that are written."""

import argparse
import itertools
import re

import altair as alt
import numpy as np
import pandas as pd
import pytest
from miniature import evaluation, failure, run, written

from analysis.commands import figures as verb
from analysis.figures import FIGURES, LeftOut, drawn, save, specification, style
from analysis.figures.candidates import candidates_data, progress_data, sensitivity_data
from analysis.figures.cells import cells_data, pruned_to, staircase
from analysis.figures.groupings import group_sparsity_data, pairwise_data, roles_data
from analysis.frame import NotCollected

pytestmark = pytest.mark.no_cover

NAMES = [figure.name for figure in FIGURES]


def rows(table: pd.DataFrame, *columns: str) -> list[tuple]:
    return list(table[list(columns)].itertuples(index=False, name=None))


def test_the_staircase_keeps_what_no_other_beats_in_both():
    table = pd.DataFrame(
        {
            "way": ["a", "a", "a", "a", "a", "b"],
            "sparsity": [10.0, 20.0, 30.0, 20.0, 40.0, 15.0],
            "drop": [0.5, 0.2, 0.9, 0.3, 0.9, 9.0],
        }
    )
    # 10 % loses more than 20 % does; of the two at 20 % the lesser drop stays; 30 % loses as much as 40 %
    assert rows(staircase(table, ["way"]), "way", "sparsity", "drop") == [
        ("b", 15.0, 9.0),
        ("a", 20.0, 0.2),
        ("a", 40.0, 0.9),
    ]


def test_cells_are_in_percent_with_the_interval_of_test(tmp_path):
    results = written(
        tmp_path,
        [
            run(remaining=0.75, test=29.25),
            run(grouping="single", search="class-blind", remaining=0.5, test=30.5),
            run(grouping="matrix", search="lamp"),
            run(config__constraint="accuracy", cell="luong/accuracy"),
            run(config__sparsity=0.5, cell="luong/given"),
            failure(),
        ],
    )
    assert rows(cells_data(results), "way", "sparsity", "drop", "low", "high") == [
        ("gate", 25.0, 0.75, 0.25, 1.25),
        ("class-blind", 50.0, -0.5, -1.0, 0.0),
        ("lamp (matrix)", 25.0, 0.5, 0.0, 1.0),
    ]


def test_staircases_are_of_one_schedule_tolerance_and_budget(tmp_path):
    main = [run(seed=seed, remaining=0.75) for seed in (1, 2)] + [run(grouping="layer")]
    others = [
        run(remaining=0.1, config__schedule="retrain", cell="luong/retrained"),
        run(remaining=0.2, config__tolerance=2.0, cell="luong/wide"),
        run(remaining=0.3, config__tokens=9000, cell="luong/long"),
        *(run(seed=s, remaining=0.4, config__constraint="accuracy", cell=f"luong/a{s}") for s in range(9)),
    ]
    found = cells_data(written(tmp_path, [*others, *main]))
    assert sorted(found["cell"]) == sorted(cell["cell"] for cell in main)
    figure = FIGURES[0]
    assert (figure.name, figure.caption.startswith("All cells share one setting")) == ("cells", True)


def test_candidates_are_those_of_the_main_setting_translated_whole(tmp_path):
    gate, other = run(), run(config__tolerance=2.0, cell="luong/wide")
    results = written(
        tmp_path,
        [gate, run(seed=2), other],
        [
            evaluation(gate["cell"], 0, (0.4, 0.0), 0.25),
            evaluation(gate["cell"], 1, (0.4, 0.4), 1.5, how="raced"),
            evaluation(gate["cell"], 2, (0.4, 0.4), 1.5, stage="confirm"),
            evaluation(other["cell"], 0, (0.4, 0.4), 1.5),
        ],
    )
    found = candidates_data(results)
    assert rows(found, "cell", "drop") == [(gate["cell"], 0.25)]
    assert found["sparsity"].tolist() == pytest.approx([30.0])  # 0.4 of three quarters


def test_sensitivity_is_the_slope_in_points_per_percent_of_the_model(tmp_path):
    generator = np.random.default_rng(1)
    knobs = generator.uniform(0, 0.5, size=(20, 2))
    # what is pruned from a group in percent of all: 75 and 25 times its knob
    drops = 0.1 + 0.02 * 75 * knobs[:, 0] + 0.05 * 25 * knobs[:, 1]
    cell = run()
    tried = [evaluation(cell["cell"], i, knobs[i], drops[i]) for i in range(20)]
    few = run(seed=2)
    tried += [evaluation(few["cell"], i, knobs[i], drops[i]) for i in range(7)]
    found = sensitivity_data(written(tmp_path, [cell, few], tried))
    assert found["group"].tolist() == ["large", "small"]
    assert found["cell"].unique().tolist() == [cell["cell"]]  # 7 candidates are too few for 2 groups
    assert found["slope"].tolist() == pytest.approx([0.02, 0.05])


def test_sensitivity_leaves_out_what_racing_stopped_and_says_so(tmp_path):
    generator = np.random.default_rng(1)
    # 2 points per percent of the model, in knobs of the large group: 75 % of it; racing stops what loses more
    knobs = generator.uniform(0, 0.02, size=(40, 2))
    drops = 2 * 75 * knobs[:, 0]
    tried = [
        evaluation(
            run()["cell"], i, tuple(k), float(d) if d < 1.5 else 1.5, how="translated" if d < 1.5 else "raced"
        )
        for i, (k, d) in enumerate(zip(knobs, drops, strict=True))
    ]
    found = sensitivity_data(written(tmp_path, [run()], tried))
    assert found["slope"].tolist() == pytest.approx([2, 0], abs=1e-6)
    [figure] = [figure for figure in FIGURES if figure.name == "sensitivity"]
    assert "candidates that racing did not stop" in figure.caption
    assert "pulls slopes towards zero" in figure.caption


def test_sensitivity_is_about_bleu_alone(tmp_path):
    cell = run(config__constraint="accuracy")
    tried = [evaluation(cell["cell"], i, (0.1 * (i % 4), 0.02 * i), 0.1 * i) for i in range(20)]
    with pytest.raises(LeftOut):
        sensitivity_data(written(tmp_path, [cell], tried))


def test_progress_has_quartiles_over_seeds_at_the_same_tokens(tmp_path):
    cells = [run(seed=seed) for seed in (1, 2, 3)]
    tried = []
    for cell, knob in zip(cells, (0.2, 0.4, 0.6), strict=True):
        tried.append(evaluation(cell["cell"], 0, (0.8, 0.8), 5.0))  # infeasible: still dense
        tried.append(evaluation(cell["cell"], 1, (knob, knob), 0.5))
        tried.append(evaluation(cell["cell"], 2, (knob / 2, knob / 2), 0.5))  # larger: nothing new
        tried.append(evaluation(cell["cell"], 3, (0.9, 0.9), 0.5, stage="confirm"))  # not of the search
    found = progress_data(written(tmp_path, cells, tried))
    # sizes 80, 60 and 40 % after the 200 tokens of two candidates; 300 is the end
    assert found["tokens"].tolist() == pytest.approx([0, 201, 300])
    assert found["median"].tolist() == pytest.approx([100, 60, 60])
    assert found["low"].tolist() == pytest.approx([100, 50, 50])
    assert found["high"].tolist() == pytest.approx([100, 70, 70])
    assert found["seeds"].unique().tolist() == [3]


def test_pairs_are_between_settings_that_differ_in_the_grouping_alone(tmp_path):
    results = written(
        tmp_path,
        [
            run(grouping="gate", seed=1, remaining=0.6),
            run(grouping="layer", seed=1, remaining=0.7),
            run(grouping="gate", seed=2, remaining=0.7),
            run(grouping="layer", seed=2, remaining=0.7),
            run(grouping="layer", seed=3, remaining=0.1),  # no other grouping has this seed
            run(grouping="gate", search="CMA", remaining=0.9),  # nor this search
            run("transformer", grouping="layer", remaining=0.5),
            run("transformer", grouping="stage", remaining=0.4),
            run(grouping="matrix", search="lamp", remaining=0.1),  # a rule searches nothing
        ],
    )
    found = pairwise_data(results)
    assert rows(found, "model", "grouping", "against", "wins", "settings") == [
        ("all models", "gate", "layer", 75.0, 2),
        ("all models", "layer", "gate", 25.0, 2),
        ("all models", "layer", "stage", 0.0, 1),
        ("all models", "stage", "layer", 100.0, 1),
        ("luong", "gate", "layer", 75.0, 2),
        ("luong", "layer", "gate", 25.0, 2),
        ("transformer", "layer", "stage", 0.0, 1),
        ("transformer", "stage", "layer", 100.0, 1),
    ]


def test_group_sparsity_is_of_the_groups_of_the_smallest_model(tmp_path):
    results = written(
        tmp_path,
        [
            run(seed=1, remaining=0.75, pruned=(60, 40)),
            run(seed=2, remaining=0.5, pruned=(150, 50)),
            run(grouping="shuffled(gate)", remaining=0.1),
        ],
    )
    assert rows(group_sparsity_data(results), "cell", "group", "sparsity", "overall") == [
        ("luong/gate-NCS-seed2", "large", 50.0, 50.0),
        ("luong/gate-NCS-seed2", "small", 50.0, 50.0),
    ]


def test_roles_are_of_every_search_over_roles(tmp_path):
    results = written(tmp_path, [run(pruned=(60, 40)), run(grouping="layer"), run(grouping="matrix")])
    assert rows(roles_data(results), "grouping", "group", "sparsity", "overall") == [
        ("gate", "large", 20.0, 25.0),
        ("gate", "small", 40.0, 25.0),
    ]


def test_given_sparsities_are_apart_with_and_without_retraining(tmp_path):
    def cell(sparsity, schedule, bleu):
        return run(
            grouping="see2016",
            search="class-blind",
            test=bleu,
            remaining=1 - sparsity,
            config__sparsity=sparsity,
            config__schedule=schedule,
            cell=f"luong/{sparsity}-{schedule}",
        )

    cells = [cell(0.5, "one-shot", 20.0), cell(0.5, "retrain", 29.0), cell(0.75, "iterative", 29.0)]
    cells.append(cell(0.5, "retrain", 29.5) | {"config.dropout": 0.1, "cell": "luong/less-dropout"})
    with pytest.raises(LeftOut, match="two or more given sparsities"):
        pruned_to(written(tmp_path / "one", [*cells, run()]))
    found = pruned_to(written(tmp_path / "two", [*cells, cell(0.25, "one-shot", 28.0), run()]))
    assert rows(found, "rule", "retraining", "sparsity", "BLEU", "dense BLEU") == [
        ("class-blind", "pruned only", 50.0, 20.0, 30.0),
        ("class-blind", "retrained", 50.0, 29.0, 30.0),
        ("class-blind", "retrained, dropout 0.1", 50.0, 29.5, 30.0),
        ("class-blind", "pruned only", 25.0, 28.0, 30.0),
    ]


@pytest.fixture
def results(tmp_path):
    """A little of everything that a figure needs."""
    kinds = itertools.product(("luong", "rnnsearch"), ("gate", "layer"), (1, 2))
    cells = [run(model, grouping, seed=seed) for model, grouping, seed in kinds]
    generator = np.random.default_rng(1)
    tried = [
        evaluation(cell["cell"], i, knobs, float(generator.uniform(0, 1.5)))
        for cell in cells
        for i, knobs in enumerate(generator.uniform(0, 0.5, size=(10, 2)))
    ]
    given = [
        run(search="class-blind", grouping="see2016", config__sparsity=s, cell=f"luong/{s}")
        for s in (0.2, 0.4)
    ]
    return written(tmp_path / "results", [*cells, *given, failure()], tried)


def test_every_figure_is_drawn_where_there_is_everything(results):
    assert [name for (name, *_), chart in drawn(results) if isinstance(chart, LeftOut)] == []


@pytest.mark.parametrize(
    ("cells", "there"),
    [([failure()], []), ([run(search="lamp")], ["cells"]), ([run()], ["cells", "group-sparsity", "roles"])],
)
def test_what_is_missing_leaves_a_figure_out_with_a_reason(tmp_path, cells, there):
    found = dict(drawn(written(tmp_path, [*cells, failure("luong/other")])))
    assert [figure.name for figure, chart in found.items() if not isinstance(chart, LeftOut)] == there
    assert all(str(chart) for chart in found.values() if isinstance(chart, LeftOut))


@pytest.mark.parametrize("kind", ["svg", "pdf", "png", "html"])
def test_a_figure_is_written_in_every_format(results, tmp_path, kind):
    figure = FIGURES[0]
    path = tmp_path / f"cells.{kind}"
    save(figure.draw(results), path, figure)
    start = {"svg": b"<svg", "pdf": b"%PDF-", "png": b"\x89PNG", "html": b"<!DOCTYPE html>"}[kind]
    content = path.read_bytes()
    assert content.lstrip().startswith(start)
    if kind == "html":  # no script, style or picture from elsewhere
        assert re.findall(rb"<(?:script|link|img)[^>]*(?:src|href)=[^>]*(?:http:|https:|//)", content) == []


def test_a_figure_may_have_many_points(tmp_path):
    results = written(tmp_path, [run(seed=seed, cell=f"luong/{seed}") for seed in range(5001)])
    points = specification(FIGURES[0].draw(results))["datasets"]
    assert sum(map(len, points.values())) > 5001  # Altair itself refuses more than 5,000


def test_series_differ_in_colour_and_in_shape_or_dash():
    names = [f"way {i}" for i in range(9)]
    colours = style.configuration()["range"]["category"]
    shapes = style.configuration()["range"]["symbol"]
    dashes = style.dash("way", names).to_dict()["scale"]["range"]
    assert len({(colours[i % len(colours)], shapes[i % len(shapes)]) for i in range(9)}) == 9
    assert len({(colours[i % len(colours)], tuple(dashes[i])) for i in range(9)}) == 9


def luminance(colour: str) -> float:
    """Relative luminance, as the Web Content Accessibility Guidelines define it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_a_heat_map_darkens_steadily_so_that_grey_says_the_same():
    steps = [luminance(colour) for colour in style.HEAT]
    assert steps == sorted(steps, reverse=True)
    assert steps[0] - steps[-1] > 0.9


def test_the_verb_writes_files_and_captions_and_says_what_is_left_out(tmp_path, capsys):
    written(tmp_path / "results" / "one", [run(), failure()])
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    out = tmp_path / "figures"
    verb.run(parser.parse_args([str(tmp_path / "results"), "--out", str(out), "--format", "svg", "html"]))
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [
            ".olmp",
            "captions.md",
            *(f"{name}.{kind}" for name in ("cells", "group-sparsity", "roles") for kind in ("svg", "html")),
        ]
    )
    assert "left out: see2016: no cells are pruned to two or more given sparsities" in capsys.readouterr().err
    assert "**cells: What compression costs on test.**" in (out / "captions.md").read_text()


def test_the_verb_without_results_says_how_to_make_them(tmp_path):
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    with pytest.raises(NotCollected, match="there is no runs.parquet"):
        verb.run(parser.parse_args([str(tmp_path)]))
    assert NotCollected in verb.ERRORS  # so the command prints it in one line


def test_charts_are_specifications_of_altair(results):
    assert all(isinstance(chart, alt.TopLevelMixin) for _, chart in drawn(results))
