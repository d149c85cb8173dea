"""Tables as Markdown, HTML and LaTeX, with names that try to break out of each of them."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from miniature import failure, run, written

from analysis.tables import TABLES, made, render, save
from analysis.tables.best import best
from analysis.tables.style import caption_of, data_of, interval, spread, table

pytestmark = pytest.mark.no_cover

NASTY = r"a_b & 50% <b>x</b> #1 {y} ~ ^ $z$ \end{tabular} |"
ROWS = pd.DataFrame(
    {
        "model": [NASTY, "luong"],
        "remaining %": [72.04, -0.04],
        "tokens": pd.array([2143362, None], dtype="Int64"),
        "points": [-8.0, 12.25],
        "interval": [interval(-0.5, 1), ""],
        "setting": ["", ""],
    }
)
LATEX = next((name for name in ("pdflatex", "lualatex", "tectonic") if shutil.which(name)), None)


@pytest.fixture
def styler():
    return table(ROWS, "Numbers & <names>,\n    50 %.", [(0, "remaining %")])


def test_markdown(styler):
    assert render.markdown(styler) == (
        "Numbers & <names>, 50 %.\n\n"
        "| model | remaining % | tokens | points | interval |\n"
        "| --- | ---: | ---: | ---: | --- |\n"
        f"| {NASTY[:-1]}\\| | **72.0** | 2,143,362 | -8.0 | [-0.50, 1.00] |\n"
        "| luong | 0.0 |  | +12.2 |  |\n"
    )


class Cells(HTMLParser):
    """The text of all cells of a page, and its tags."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag in ("td", "th", "caption"):
            self.text.append("")

    def handle_data(self, data):
        if self.text:
            self.text[-1] += data.strip()


def test_html_escapes_what_it_shows(styler):
    page = render.page("<Tables>", [render.html(styler, "best")])
    found = Cells(page)
    assert "b" not in found.tags
    assert "script" not in found.tags
    assert found.text[0] == "Numbers & <names>, 50 %."
    assert found.text[1:6] == ["model", "remaining %", "tokens", "points", "interval"]
    assert found.text[6:11] == [NASTY, "72.0", "2,143,362", "-8.0", "[-0.50, 1.00]"]
    assert "&lt;Tables&gt;" in page
    bold = re.search(r"#T_best_row0_col1 \{\s*font-weight: bold;\s*\}", page)
    assert bold
    assert "td.col1" in page
    assert "td.col0" not in page
    assert not re.search(r"https?://|src=|href=", page)


def test_html_can_be_asked_for_twice(styler):
    assert render.html(styler, "best") == render.html(styler, "best")
    assert "**72.0**" in render.markdown(styler)


def test_latex_aligns_numbers_and_escapes_text(styler):
    text = render.latex(styler, "best")
    assert r"\begin{tabular}{lSSSl}" in text
    assert r"\toprule" in text
    assert r"{\shortstack[l]{remaining\\\%}}" in text
    assert r"\bfseries 72.0 & 2143362 & -8.0 & [$-$0.50, 1.00] \\" in text
    assert r"a\_b \& 50\% <b>x</b> \#1 \{y\} " in text
    assert r"\caption{Numbers \& <names>, 50 \%.}\label{tab:best}" in text
    assert text.count(r"\end{tabular}") == 1


def test_a_p_that_is_not_zero_is_not_printed_as_zero():
    rows = pd.DataFrame({"Holm p": [0.00004, 0.0001, 0.0314, float("nan")]})
    styler = table(rows, "Small.")
    assert [line.strip("| ") for line in render.markdown(styler).splitlines()[-4:]] == [
        "<0.0001",
        "0.0001",
        "0.0314",
        "",
    ]
    assert Cells(render.html(styler, "p")).text[2:] == ["<0.0001", "0.0001", "0.0314", ""]
    assert "&lt;0.0001" in render.html(styler, "p")
    assert "<0.0001 \\" in render.latex(styler, "p")


def test_a_long_table_goes_on_in_another_float():
    rows = pd.DataFrame({"model": [f"row {n}." for n in range(61)], "wins": [0.5] * 61})
    text = render.latex(table(rows, "Long.", [(40, "wins")]), "long")
    first, second, third = text.split(r"\begin{table}")[1:]
    found = [re.findall(r"row (\d+)\.", part) for part in (first, second, third)]
    assert [(rows[0], rows[-1], len(rows)) for rows in found] == [
        ("0", "29", 30),
        ("30", "59", 30),
        ("60", "60", 1),
    ]
    assert r"\caption{Long.}\label{tab:long}" in first
    assert text.count(r"\label") == 1
    assert r"\addtocounter{table}{-1}\caption[]{Continued.}" in third
    assert r"row 40. & \bfseries 0.50 \\" in second


def test_long_text_is_in_numbered_notes_below():
    rows = pd.DataFrame(
        {"setting": ["", "a_b=1", "c=2", "a_b=1"], "wins": [0.5] * 4, "source": ["x\\y~z", "", "", ""]}
    )
    text = render.latex(table(rows, "Noted."), "noted")
    lines = re.findall(r"^(.*) \\\\$", text, flags=re.MULTILINE)[1:]
    assert lines == [" & 0.50 & 1", "2 & 0.50 & ", "3 & 0.50 & ", "2 & 0.50 & "]
    below = text.partition(r"\end{tabular}")[2]
    assert r"1: x\textbackslash{}y\textasciitilde{}z\quad" in below
    assert r"2: a\_b=1\quad" in below
    assert below.index("2: ") < below.index("3: c=2")


def test_intervals_and_ranges():
    assert interval(-0.004, 0.015) == "[0.00, 0.01]"
    assert interval(float("nan"), 1) == ""
    assert spread(pd.Series([0.7, 0.6]), scale=100) == "[60.0, 70.0]"
    assert spread(pd.Series([0.7])) == ""


@pytest.fixture
def results(tmp_path):
    """Enough for every table, with a name that is no friend of LaTeX."""
    held = {"value": 31.5, "drop": 0.5, "bound": 1.0}
    way = [{"remaining": 0.9, "held": held, "retraining": {"valid_loss": [2.5]}}]
    rows = [
        run(
            model="a_b&50%",
            grouping=grouping,
            search=search,
            seed=seed,
            remaining=size + seed / 100,
            cell=name,
        )
        | {"config.schedule": schedule, "rounds": json.dumps(way)}
        for schedule in ("one-shot", "retrain")
        for grouping, size in (("gate", 0.6), ("layer", 0.7), ("shuffled(gate)", 0.75))
        for search in ("NCS", "CMA")
        for seed in (1, 2, 3, 4)
        for name in [f"{schedule}-{grouping}-{search}-{seed}"]
    ]
    rule = run(model="a_b&50%", grouping="single", search="class-blind", remaining=0.8)
    given = rule | {"cell": "given", "config.sparsity": 0.2}
    return written(tmp_path / "grid", [*rows, rule, given, failure()])


def test_all_tables_are_saved(results, tmp_path):
    tables = made(results)
    assert [one.missing for one in tables] == [""] * len(TABLES)
    save(tables, tmp_path / "out")
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {f"{name}.{kind}" for name in (*TABLES, "tables") for kind in ("md", "html", "tex")}
    page = Cells((tmp_path / "out" / "tables.html").read_text())
    assert page.tags.count("table") == len(TABLES)
    assert (tmp_path / "out" / "tables.md").read_text().count("\n## ") == len(TABLES) - 1


def test_a_missing_table_is_a_sentence_in_every_form(tmp_path):
    (one,) = made(written(tmp_path / "grid", [failure()]), ["best"])
    assert one.markdown() == f"{one.missing}\n"
    assert one.html() == render.paragraph(one.missing)
    assert one.latex() == f"% {one.missing}\n"


@pytest.mark.filterwarnings("error")
def test_seeds_that_end_alike_have_empty_intervals(tmp_path):
    way = json.dumps(
        [{"remaining": 0.9, "held": {"value": 31.5, "drop": 0.5, "bound": 1.0}, "retraining": None}]
    )
    rows = [
        run(grouping=grouping, search=search, seed=seed, remaining=size, rounds=way)
        | {"cell": f"{schedule}-{grouping}-{search}-{seed}", "config.schedule": schedule}
        for schedule in ("one-shot", "retrain")
        for grouping, size in (("gate", 0.6), ("layer", 0.7), ("shuffled(gate)", 0.75))
        for search in ("NCS", "CMA")
        for seed in (1, 2, 3)
    ]
    rule = run(grouping="single", search="class-blind", remaining=0.8)
    given = rule | {"cell": "given", "config.sparsity": 0.2}
    for one in made(written(tmp_path, [*rows, rule, given])):
        assert not one.missing
        for text in (one.markdown(), one.html(), one.latex()):
            assert not re.search(r"\b(nan|inf)\b", text)


@pytest.mark.latex
@pytest.mark.skipif(LATEX is None, reason="no LaTeX is installed: pdflatex, lualatex or tectonic")
def test_latex_compiles_every_table(results, tmp_path, styler):
    out = tmp_path / "out"
    save(made(results), out)
    (out / "nasty.tex").write_text(render.latex(styler, "nasty"), encoding="utf-8")
    # the widest table, over more rows than a page has, with the longest names that there are
    rows = data_of(best(results))
    names = {"model": "transformer", "search": "class-distribution", "grouping": "stage+component"}
    settings = [f"constraint=likelihood criterion=point evaluations=1000 tokens={n}" for n in range(8)]
    many = [rows.assign(**names, setting=setting) for setting in settings]
    broken = table(pd.concat(many), caption_of(best(results)))
    (out / "broken.tex").write_text(render.latex(broken, "broken"), encoding="utf-8")
    document = (out / "tables.tex").read_text(encoding="utf-8")
    everything = r"\input{best}\input{nasty}\clearpage\input{broken}"
    (out / "tables.tex").write_text(document.replace(r"\input{best}", everything))
    options = [] if LATEX == "tectonic" else ["-interaction=nonstopmode", "-halt-on-error"]
    done = subprocess.run([str(LATEX), *options, "tables.tex"], cwd=out, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert pages(out / "tables.pdf") >= len(TABLES)
    if LATEX != "tectonic":
        log = (out / "tables.log").read_text(errors="replace")
        assert not re.findall(r"^! .*|Overfull .*|Float too large.*|undefined", log, flags=re.MULTILINE)


def pages(path: Path) -> int:
    """As the page tree of a PDF says, or its log where the tree is compressed."""
    counts = re.findall(rb"/Count (\d+)", path.read_bytes())
    if counts:
        return max(map(int, counts))
    found = re.search(
        r"\((\d+) pages?", path.with_suffix(".log").read_text(errors="replace").replace("\n", "")
    )
    assert found
    return int(found[1])
