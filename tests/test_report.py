"""What the report says, against numbers worked out by hand; what it looks like is in test_report_browser."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from miniature import evaluation, failure, run, written

from analysis.commands import report as verb
from analysis.frame import NotCollected
from analysis.report import _embedded, page, words
from analysis.report.answers import answers
from analysis.report.content import contents, skipped, versions
from analysis.report.errors import Lengths, by_length, gleu, kinds, profile
from analysis.report.texts import Texts
from analysis.significance import BleuDifference, sign_test
from harness.bleu import Bleu

pytestmark = pytest.mark.no_cover


def counted(references: list[str], hypotheses: list[str]) -> np.ndarray:
    return Bleu(references).statistics(hypotheses)


def collected(file: str, references: list[str], hypotheses: list[str]) -> dict:
    """A row of sentences.parquet."""
    return {"file_sha256": file, "statistics": counted(references, hypotheses).astype("int16").ravel()}


def test_gleu_is_matches_over_the_longer_side():
    # of 4 words against 5: 10 n-grams against 5 + 4 + 3 + 2 = 14
    some = [4, 5, 3, 2, 1, 0, 4, 3, 2, 1]
    # of 6 words against 2: 18 n-grams against 3
    long = [6, 2, 2, 1, 0, 0, 6, 5, 4, 3]
    equal = [5, 5, 5, 4, 3, 2, 5, 4, 3, 2]
    empty = [0, 5, 0, 0, 0, 0, 0, 0, 0, 0]
    assert gleu(np.array([some, long, equal, empty])).tolist() == pytest.approx([6 / 14, 3 / 18, 1, 0])


def test_a_profile_counts_sentences_and_n_grams():
    references = ["a b c d", "a b c d", "a b c d", "a b"]
    dense = counted(references, ["a b c d", "a b x y", "x", "a b"])
    pruned = counted(references, ["a b c x", "a b c y", "x", "b a"])
    found = profile(dense, pruned)
    assert (found.sentences, found.better, found.worse, found.same) == (4, 1, 2, 1)
    # dense: 4 + 2 + 0 + 2 of 11 words, 3 + 1 + 0 + 1 of 7 pairs; pruned: 3 + 3 + 0 + 2 and 2 + 2 + 0 + 0
    assert found.precisions[0] == pytest.approx((800 / 11, 800 / 11))
    assert found.precisions[1] == pytest.approx((500 / 7, 400 / 7))
    assert found.ratio == pytest.approx((11 / 14, 11 / 14))


def test_lengths_part_the_whole_set_in_order():
    references = [" ".join("abcdefghijkl"[:n]) for n in range(1, 13)]
    same = counted(references, references)
    cut = counted(references, [line if len(line) < 18 else "x" for line in references])
    found = by_length(same, cut)
    assert [(part.shortest, part.longest, part.sentences) for part in found] == [
        (1, 3, 3),
        (4, 6, 3),
        (7, 9, 3),
        (10, 12, 3),
    ]
    assert found[3].bleu.drop == pytest.approx(100, abs=1)  # nothing of these is left
    assert found[1].bleu.drop == 0


def test_kinds_of_errors_are_counted_by_hand():
    training = ["die Lampe"] * 6 + ["der Sensor"]
    sources = ["the lamp {1}", "the sensor", "turn on", "5 lamps"]
    references = ["die Lampe {1}", "der Sensor", "die Lampe an an", "5 Lampe"]
    dense = ["die Lampe {1}", "der Sensor", "die Lampe an an", "5 Lampe"]
    pruned = ["die die Lampe", "the Sensor", "die", "5 Lampe ja ja ja"]
    found = {kind.name.partition(" (")[0]: tuple(kind[1:4]) for kind in
             kinds(sources, references, dense, pruned, training)}  # fmt: skip
    assert found == {
        "frequent words of the reference missing": (0, 1, 5),  # Lampe, in the third
        # {1}, der, an, an of: {1} der Sensor an an 5
        "rare words of the reference missing": (0, 4, 6),
        "placeholders and numbers missing": (0, 1, 2),
        "sentences with a word of the source left untranslated": (0, 1, 4),
        "sentences that repeat a word at once": (0, 2, 4),
        "sentences under 70% of the reference's length": (0, 1, 4),
        "sentences over 140% of the reference's length": (0, 1, 4),
    }


def test_kinds_are_tested_over_sentences_that_changed(tmp_path):
    sources, references = ["x"] * 12, ["die Lampe"] * 12
    dense = ["die Lampe"] * 10 + ["die die Lampe", "die Lampe"]
    pruned = ["die die Lampe"] * 10 + ["die Lampe", "die Lampe"]
    found = {
        kind.name.partition(" (")[0]: kind for kind in kinds(sources, references, dense, pruned, references)
    }
    # 10 up and 1 down: 2 (1 + 11) / 2^11; five kinds are left, as there is no rare word and no number
    repeats = found["sentences that repeat a word at once"]
    assert (repeats.more, repeats.fewer, repeats.p) == (10, 1, pytest.approx(5 * 24 / 2048))
    assert len(found) == 5
    # three words for two are too long as well, with the same p: Holm's correction is the same for both
    assert found["sentences over 140% of the reference's length"].p == repeats.p
    assert found["sentences under 70% of the reference's length"][4:] == (0, 0, 1.0)
    results = written(tmp_path, [run()])
    [answer] = answers(results, Texts(results))
    counts = counted(references, dense), counted(references, pruned)
    answer = answer._replace(profile=profile(*counts), kinds=list(found.values()))
    assert list(words.errors(answer))[-1] == "By kind: no kind of error grew by more than noise."
    sure = repeats._replace(p=0.05)
    down = repeats._replace(name="down", dense=10, pruned=1, more=1, fewer=10, p=0.01)
    assert list(words.errors(answer._replace(kinds=[repeats, down, sure])))[-1] == (
        "By kind, what grew by more than noise: sentences that repeat a word at once: 10, dense 1."
    )


def test_missing_words_are_tested_by_sentence_not_by_word():
    references = ["die Lampe ist aus"] * 6 + ["die"] * 6
    dense = ["die Lampe ist aus"] * 6 + [""] * 6
    pruned = [""] * 3 + ["die Lampe ist aus"] * 3 + ["die"] * 6
    found = kinds(references, references, dense, pruned, references * 6)[0]
    # 12 words in 3 sentences more, 6 words in 6 sentences fewer: 2 (1 + 9 + 36 + 84) / 2^9
    assert found[:4] == ("frequent words of the reference missing", 6, 12, 30)
    assert (found.more, found.fewer) == (3, 6)
    assert sign_test(3, 6) == pytest.approx(260 / 512)


def study() -> list[dict]:
    """Five seeds: gate is 4 points smaller than layer, 1 to 5 points smaller than its control."""
    found = [run(grouping="single", search="class-blind", remaining=0.75)]
    for seed in range(1, 6):
        small = 0.600 + 0.002 * seed
        found += [
            run(grouping="gate", seed=seed, remaining=small),
            run(grouping="layer", seed=seed, remaining=small + 0.040 + 0.001 * (seed % 2)),
            run(grouping="shuffled(gate)", seed=seed, remaining=small + 0.045 * (seed % 2) - 0.02),
            run(grouping="shuffled(layer)", seed=seed, remaining=0.9),
        ]
    return found


def test_the_winner_is_held_against_the_next_its_control_and_class_blind(tmp_path):
    results = written(tmp_path, study())
    [answer] = answers(results, Texts(results))
    assert (answer.model, answer.family) == ("luong", "LSTM")
    assert (answer.winner.way, answer.winner.search, answer.winner.seeds) == ("gate", "NCS", 5)
    assert answer.winner.mean == pytest.approx(60.6)
    assert list(answer.versus) == ["next", "shuffled", "class-blind"]
    # layer is larger by 4.1, 4.0, 4.1, 4.0 and 4.1 points
    assert answer.versus["next"].points == pytest.approx(4.06)
    assert answer.versus["next"].verdict == "smaller"
    # the control by 2.5, -2.0, 2.5, -2.0 and 2.5
    assert answer.versus["shuffled"].way == "shuffled(gate)"
    assert answer.versus["shuffled"].points == pytest.approx(0.7)
    assert answer.versus["shuffled"].verdict == "unclear"
    assert answer.versus["class-blind"].points == pytest.approx(14.4)
    assert answer.example["remaining"] == pytest.approx(0.606)
    assert words.noise(answer) == "More than noise: yes. More than its shuffled control: not shown."


def test_what_the_winning_search_lacks_is_answered_by_another_search_of_its_grouping(tmp_path):
    # DE is 10 points smaller, but has neither the control nor the search without groups
    winning = [
        run(
            grouping=cell["config.grouping"],
            search="DE",
            seed=cell["config.seed"],
            remaining=cell["remaining"] - 0.1,
        )
        for cell in study()
        if cell["config.grouping"] in ("gate", "layer")
    ]
    results = written(tmp_path, [*study(), *winning])
    [answer] = answers(results, Texts(results))
    assert (answer.winner.way, answer.winner.search) == ("gate", "DE")
    assert {role: (one.way, one.search) for role, one in answer.versus.items()} == {
        "next": ("layer", "DE"),
        "shuffled": ("shuffled(gate)", "NCS"),
        "class-blind": ("class-blind", "DE"),
    }
    assert answer.versus["next"].points == pytest.approx(4.06)
    assert answer.versus["shuffled"].points == pytest.approx(0.7)
    assert answer.versus["class-blind"].points == pytest.approx(24.4)
    assert words.noise(answer) == (
        "More than noise: yes. More than its shuffled control: not shown (gate by NCS)."
    )
    assert '<span class="note"> (gate by NCS)</span>' in page(results)


@pytest.mark.parametrize(
    ("single", "roles"), [(0.001, {"next": "single"}), (0.2, {"next": "layer", "single": "single"})]
)
def test_a_search_without_groups_that_comes_second_is_the_next(tmp_path, single, roles):
    # without groups the models are larger by 0.06 or by 20 points: noise, or more than that
    rows = [cell for cell in study() if cell["config.grouping"] in ("gate", "layer")]
    gate = {cell["config.seed"]: cell["remaining"] for cell in rows if cell["config.grouping"] == "gate"}
    rows += [
        run(grouping="single", seed=seed, remaining=size + single + 0.002 * (-1) ** seed)
        for seed, size in gate.items()
    ]
    results = written(tmp_path, rows)
    [answer] = answers(results, Texts(results))
    assert answer.winner.way == "gate"
    assert {role: one.way for role, one in answer.versus.items()} == roles
    said = {"single": "not shown", "layer": "yes"}[roles["next"]]
    assert words.noise(answer) == f"More than noise: {said}."
    named = {"single": "a search without groups", "layer": "the next grouping"}
    assert words.role(answer.versus["next"]) == named[roles["next"]]


def test_one_seed_says_nothing_about_noise(tmp_path):
    results = written(tmp_path, [run(remaining=0.6), run(grouping="layer", remaining=0.7)])
    [answer] = answers(results, Texts(results))
    assert answer.versus["next"].verdict == "untested"
    assert words.points(answer.versus["next"]) == "10.0"
    assert words.noise(answer) == "More than noise: cannot be told. One seed says nothing about noise."


def test_seeds_that_end_alike_have_no_interval_and_it_is_said(tmp_path):
    rows = [run(grouping=g, seed=s, remaining=r) for g, r in (("gate", 0.6), ("layer", 0.7)) for s in (1, 2)]
    results = written(tmp_path, [*rows, run(grouping="head", remaining=0.8)])
    [answer] = answers(results, Texts(results))
    assert [words.seeds_interval(entry) for entry in answer.entries] == ["all alike", "all alike", "one seed"]
    assert words.points(answer.versus["next"]) == "10.0, all alike"
    assert words.wins(answer).startswith("keeps the fewest connections: 60.0 % (all of 2 seeds), searched")
    shown = page(results).partition('id="figures"')[0].partition("<body>")[2]
    assert "<td>60.0</td><td>all alike</td>" in shown
    assert not re.search(r"\bnan\b", shown)


def test_a_rule_that_is_smaller_is_said(tmp_path):
    results = written(tmp_path, [run(remaining=0.6), run(grouping="matrix", search="lamp", remaining=0.5)])
    [answer] = answers(results, Texts(results))
    assert answer.winner.way == "gate"
    assert words.wins(answer) == (
        "keeps the fewest connections: 60.0 % (one seed), searched by NCS. "
        "Smaller still, without any search: the rule lamp (matrix), 50.0 %."
    )
    assert answer.versus["rule"].verdict == "described"


def test_a_shuffled_grouping_never_wins_but_it_is_said_that_it_is_smaller(tmp_path):
    more = [run(grouping="layer", remaining=0.7), run(grouping="shuffled(gate)", remaining=0.5)]
    results = written(tmp_path, [run(remaining=0.6), *more])
    [answer] = answers(results, Texts(results))
    assert (answer.winner.way, answer.versus["shuffled"].points) == ("gate", pytest.approx(-10))
    assert words.wins(answer) == (
        "keeps the fewest connections: 60.0 % (one seed), searched by NCS. Next: layer 70.0 %. "
        "Smaller still, with groups dealt at random: shuffled(gate) 50.0 %."
    )


def test_a_dense_model_is_no_search(tmp_path):
    dense = run(grouping="single", search="dense", remaining=1.0, pruned=(0, 0))
    results = written(tmp_path, [run(remaining=0.6), dense])
    [answer] = answers(results, Texts(results))
    assert [entry.way for entry in answer.entries] == ["gate"]
    assert answer.versus == {}
    assert words.wins(answer) == "keeps the fewest connections: 60.0 % (one seed), searched by NCS."


def test_costs_are_in_delivered_tokens_and_minutes_of_a_core(tmp_path):
    rule = run(grouping="single", search="class-blind", remaining=0.8, tokens=200_000)
    results = written(tmp_path, [run(remaining=0.6, tokens=2_040_000, test=29.25), rule])
    [answer] = answers(results, Texts(results))
    assert words.costs(answer) == (
        "The dense model has 30.00 BLEU on test. The pruned one loses 0.75. "
        "A search takes 2.0 million delivered tokens, 1 minute of one core; "
        "class-blind without search, 0.2 million."
    )


def test_lstms_come_first(tmp_path):
    results = written(tmp_path, [run("transformer"), run("rnnsearch"), run("luong")])
    assert [one.model for one in answers(results, Texts(results))] == ["luong", "rnnsearch", "transformer"]


@pytest.mark.parametrize(
    ("p", "said"), [(0.0004, "< 0.001"), (0.0314, "0.031"), (1.0, "1.000"), (np.nan, "")]
)
def test_p_values_are_printed_as_far_as_they_say_something(p, said):
    assert words.p_number(p) == said


@pytest.mark.parametrize(("low", "said"), [(0.2, ""), (-0.4, ", which may be noise")])
def test_a_loss_that_may_be_noise_is_called_so(tmp_path, low, said):
    results = written(tmp_path, [run()])
    [answer] = answers(results, Texts(results))
    counts = counted(REFERENCES, DENSE), counted(REFERENCES, PRUNED)
    parts = [
        Lengths(1, 5, 9, BleuDifference(30.0, 29.0, 1.0, low, 2.5, 0.1)),
        Lengths(6, 8, 9, BleuDifference(30.0, 30.1, -0.1, -0.5, 0.3, 0.5)),
    ]
    found = list(words.errors(answer._replace(profile=profile(*counts), lengths=parts)))
    assert found[0].startswith(
        "Of 3 test sentences 1 (33 %) are translated worse than by the dense model in GLEU"
    )
    assert found[1] == (
        "Of two lengths it loses most on references of 1 to 5 words: 1.0 BLEU "
        f"(95 % interval {low} to 2.5{said}); "
        "least on those of 6 to 8: -0.1."
    )


def test_no_zero_has_a_sign(tmp_path):
    results = written(tmp_path, [run(remaining=0.6), run(grouping="layer", remaining=0.6000001)])
    [answer] = answers(results, Texts(results))
    assert words.points(answer.versus["next"]) == "0.0"


SOURCES = ["the lamp", "the sensor is off", "turn it on now"]
REFERENCES = ["die Lampe", "der Sensor ist aus", "schalte es jetzt ein"]
DENSE = ["die Lampe", "der Sensor ist aus", "schalte es ein"]
PRUNED = ["die Lampe", "der der ist aus", "schalte es jetzt ein"]


def with_text(folder: Path, cell: dict, pruned: list[str] = PRUNED, **others: dict):
    """Results of a grid whose text is there: a corpus, and a cell's translations."""
    corpus = folder / "corpus"
    (corpus / "text").mkdir(parents=True)
    (corpus / "corpus.json").write_text(json.dumps({"source": "en", "target": "de"}))
    for name, lines in (("test.en", SOURCES), ("test.de", REFERENCES), ("train.de", REFERENCES)):
        (corpus / "text" / name).write_text("".join(f"{line}\n" for line in lines))
    grid = folder / "grid"
    place = grid / "cells" / cell["cell"]
    place.mkdir(parents=True)
    (place / "test.dense.txt").write_text("".join(f"{line}\n" for line in DENSE))
    (place / "test.pruned.txt").write_text("".join(f"{line}\n" for line in pruned))
    planned = {"name": cell["cell"], "corpus": str(corpus), "config": {"corpus_sha256": "text"}}
    missing = planned | {"name": "luong/not-run"}
    skipped = [
        {"settings": {"model": model, "grouping": "head", "seed": seed}, "reason": "no heads"}
        for model in ("luong", "rnnsearch")
        for seed in (1, 2)
    ]
    skipped.append({"settings": {"model": "luong", "grouping": "role"}, "reason": "no roles"})
    (grid / "plan.json").write_text(json.dumps({"cells": [planned, missing], "skipped": skipped}))
    names = json.loads(cell["files"])
    sentences = [
        collected(names[f"test.{model}.txt"], REFERENCES, lines)
        for model, lines in (("dense", DENSE), ("pruned", pruned))
    ]
    return written(grid, [cell, *others.get("runs", ())], others.get("evaluations", ()), sentences)


def test_translations_that_differ_most_come_with_their_text(tmp_path):
    results = with_text(tmp_path, run())
    shown = contents(results, Texts(results))
    [cell] = shown["cells"]
    corpus, dense = (shown[name][key] for name, key in zip(("texts", "dense"), cell["text"], strict=True))
    assert [index for index, *_ in cell["sentences"]] == [1, 2]  # what lost, then what gained
    # 2 words and 1 pair of 10 n-grams are matched where all were: der, ist aus... 3 words and 1 pair
    assert cell["sentences"][0] == [1, "der der ist aus", pytest.approx(100 * (4 / 10 - 1))]
    assert corpus["1"] == ["the sensor is off", "der Sensor ist aus"]
    assert dense["1"] == "der Sensor ist aus"
    assert "0" not in corpus  # nothing differs there
    assert cell["errors"]["worse"] == 1


def test_text_that_does_not_fit_is_left_out(tmp_path):
    results = with_text(tmp_path, run())
    path = tmp_path / "grid" / "cells" / run()["cell"] / "test.pruned.txt"
    path.write_text("one line\n")
    assert "sentences" not in contents(results, Texts(results))["cells"][0]
    path.unlink()
    assert "sentences" not in contents(results, Texts(results))["cells"][0]


def test_sizes_are_exact_enough_to_be_rounded_by_the_page(tmp_path):
    results = written(tmp_path, [run(remaining=0.7285194)])
    assert contents(results, Texts(results))["cells"][0]["left"] == 72.8519  # 72.85 would be shown as 72.8


def test_what_was_skipped_or_not_run_is_told(tmp_path):
    results = with_text(tmp_path, run())
    assert skipped(results) == [
        {
            "grid": "grid",
            "what": "4 cells: model luong, rnnsearch; grouping head; seed 1, 2",
            "reason": "no heads",
        },
        {"grid": "grid", "what": "1 cell: model luong; grouping role", "reason": "no roles"},
        {"grid": "grid", "what": "1 of 2 planned cells", "reason": "not run, or not collected"},
    ]


def test_a_damaged_plan_is_said(tmp_path):
    results = written(tmp_path, [run()])
    (tmp_path / "plan.json").write_text("")
    with pytest.raises(NotCollected, match="plan.json cannot be read as JSON .*: take it from a copy"):
        page(results)


def test_a_curve_is_thinned_but_keeps_what_improved(tmp_path, monkeypatch):
    monkeypatch.setattr("analysis.report.content.CURVE_POINTS", 10)
    name = run()["cell"]
    tried = [evaluation(name, i, (0.2, 0.2), 5.0) for i in range(100)]
    tried[37] |= {"size": 0.7, "feasible": True, "drop": 0.5}
    tried[38] |= {"how": "skipped"}
    [cell] = contents(written(tmp_path, [run()], tried), Texts(written(tmp_path, [run()], tried)))["cells"]
    assert len(cell["curve"]) <= 11
    assert [3800.0, 70.0, 0.5, 1.0] in cell["curve"]


def test_settings_that_all_cells_share_are_there_once(tmp_path):
    results = written(tmp_path, [run(), run(seed=2), failure()])
    shown = contents(results, Texts(results))
    assert [cell["config"] for cell in shown["cells"]] == [{"seed": 1.0}, {"seed": 2.0}, {"seed": 1.0}]
    assert shown["common"]["tolerance"] == 1.0


def test_versions_are_counted_over_cells(tmp_path):
    results = written(tmp_path, [run(), run(seed=2, environment__python="3.12.1")])
    found = versions(results)
    assert ("BLEU signature", "nrefs:1|tok:13a", 2) in found
    assert ("python", "3.11.7", 1) in found
    assert ("torch", "2.13.0", 2) in found


COLUMNS = ("files", "groups", "seconds", "family", "config.constraint", "config.schedule", "sets.test.chrf")


@pytest.mark.parametrize("column", COLUMNS)
def test_older_results_lack_columns_and_say_so(tmp_path, column):
    older = {key: value for key, value in run().items() if key != column}
    with pytest.raises(NotCollected, match=f"the table of runs lacks {column}: it was collected by another"):
        page(written(tmp_path, [older]))


def test_embedded_data_cannot_end_its_element():
    text = _embedded({"</script>": "<!-- <script> & \u2028"})
    assert not set("<>&") & set(text)
    assert json.loads(text) == {"</script>": "<!-- <script> & \u2028"}


def test_failed_cells_alone_make_a_page(tmp_path):
    html = page(written(tmp_path, [failure()]))
    assert "There is no finished search to answer from." in html
    assert "ValueError: no" in html


def test_the_verb_writes_one_page(tmp_path, capsys):
    import argparse

    written(tmp_path / "results", [run()])
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    out = tmp_path / "new" / "page.html"
    verb.run(parser.parse_args([str(tmp_path / "results"), "--out", str(out)]))
    assert capsys.readouterr().out == f"{out}\n"
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    with pytest.raises(NotCollected):
        verb.run(parser.parse_args([str(tmp_path / "none")]))
