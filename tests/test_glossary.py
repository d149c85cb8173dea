"""The words of the report, against the groupings and rules that the README explains."""

from conftest import ROOT
from miniature import failure, run, written

from analysis.report import page
from analysis.report.glossary import GROUPINGS, RULES, glossary
from harness.search.rules import rules


def test_only_words_that_occur_are_explained(tmp_path):
    cells = [
        run(grouping="stage+component"),
        run(grouping="shuffled(layer)"),
        run(grouping="matrix", search="lamp"),
        run(grouping="single", search="dense"),
        run(grouping="mymodule:depth"),
        failure(config__grouping="head"),
    ]
    results = written(tmp_path, cells)
    found = glossary(results.runs)
    words = ["% left", "single", "component", "layer", "matrix", "stage"]
    assert list(found) == [*words, "stage+component", "shuffled(layer)", "lamp"]
    assert found["% left"].startswith("percent of the prunable connections that remain")
    assert found["shuffled(layer)"].endswith("groups of the sizes of layer: the null control")
    assert found["stage+component"].endswith("a group for each combination of groups of stage and component")
    html = page(results)
    assert "<summary>What the words mean</summary>" in html
    assert "<dt>lamp</dt>" in html


def test_without_a_finished_cell_there_is_nothing_to_explain(tmp_path):
    results = written(tmp_path, [failure()])
    assert glossary(results.runs) == {}
    assert "What the words mean" not in page(results)


def test_meanings_are_those_of_the_readme_and_every_rule_has_one():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, meaning in GROUPINGS.items():
        if name not in ("single", "see2016"):  # said more plainly on the page
            assert f"| `{name}` | {meaning} |" in readme
    assert set(RULES) == set(rules.names())
