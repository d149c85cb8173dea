"""What a user has is never overwritten by tables, figures or the report; what they wrote themselves is."""

import pytest
from miniature import run, written

from harness import cli


@pytest.fixture
def results(tmp_path):
    written(tmp_path / "results", [run()])
    return str(tmp_path / "results")


def olmp(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("verb", ["tables", "figures"])
def test_a_folder_of_the_user_is_left_alone(results, tmp_path, capsys, verb):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "study.md").write_text("mine")
    assert olmp(verb, results, "--out", docs) == 2
    assert capsys.readouterr().err == (
        f"olmp: error: {docs} holds files and no mark that `olmp {verb}` has made them, so that nothing "
        "there may be overwritten: name a new or an empty folder, or remove this one\n"
    )
    assert [(path.name, path.read_text()) for path in docs.iterdir()] == [("study.md", "mine")]
    (docs / "study.md").unlink()
    (docs / ".olmp").touch()  # as a kill may leave it
    assert olmp(verb, results, "--out", docs) == 0


@pytest.mark.parametrize("verb", ["tables", "figures"])
def test_an_empty_folder_is_taken_and_its_files_are_made_again(results, tmp_path, verb):
    out = tmp_path / "out"
    out.mkdir()
    assert olmp(verb, results, "--out", out) == 0
    assert (out / ".olmp").read_text().startswith(f"made by olmp {verb}\n")
    name = "cells.md" if verb == "tables" else "cells.svg"
    before = (out / name).read_bytes()
    (out / name).write_text("torn")
    assert olmp(verb, results, "--out", out) == 0
    assert (out / name).read_bytes() == before


def test_formats_of_figures_share_a_folder_but_tables_have_their_own(results, tmp_path, capsys):
    out = tmp_path / "out"
    assert olmp("figures", results, "--out", out, "--format", "svg") == 0
    assert olmp("figures", results, "--out", out, "--format", "html") == 0
    assert {"cells.svg", "cells.html"} <= {path.name for path in out.iterdir()}
    drawn = (out / "cells.html").read_text()
    capsys.readouterr()
    assert olmp("tables", results, "--out", out) == 2  # they have a cells.html, too
    assert "no mark that `olmp tables` has made them" in capsys.readouterr().err
    assert (out / "cells.html").read_text() == drawn


@pytest.mark.parametrize("text", ["# Mine\n", '<!DOCTYPE html>\n<meta charset="utf-8">\n'])
def test_the_report_overwrites_no_file_of_the_user(results, tmp_path, capsys, text):
    mine = tmp_path / "README.md"
    mine.write_text(text)
    assert olmp("report", results, "--out", mine) == 2
    assert capsys.readouterr().err == (
        f"olmp: error: {mine} is no page that `olmp report` made: name another file, or remove that one\n"
    )
    assert mine.read_text() == text
    assert olmp("report", results, "--out", tmp_path) == 2
    assert capsys.readouterr().err == (
        f"olmp: error: {tmp_path} is a folder, where a file is wanted: name a file, such as "
        f"{tmp_path}/report.html\n"
    )


def test_the_report_overwrites_its_own_page_and_an_empty_file(results, tmp_path):
    page = tmp_path / "report.html"
    page.write_text("")
    assert olmp("report", results, "--out", page) == 0
    text = page.read_text(encoding="utf-8")
    assert '<meta name="generator" content="olmp report">' in text[:1000]
    page.write_text(text[:2000])  # as if it had been interrupted
    assert olmp("report", results, "--out", page) == 0
    assert page.read_text(encoding="utf-8") == text
