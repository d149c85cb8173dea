"""A table as Markdown, as HTML, and as LaTeX (booktabs; numbers aligned by siunitx)."""

import copy
import re
from html import escape
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from analysis.tables.style import caption_of, data_of, numbers, written

#: between cells; no text holds it
SEPARATOR = "\x1f"
#: what the LaTeX of a table needs
PREAMBLE = r"""\documentclass[a4paper,landscape]{article}
\usepackage[utf8]{inputenc}
\usepackage[T1]{fontenc}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\usepackage[margin=1.5cm]{geometry}
\usepackage{booktabs,etoolbox,graphicx,siunitx}
\robustify\bfseries
\sisetup{detect-all,group-digits=integer,group-separator={,},group-minimum-digits=4,retain-explicit-plus}
\setlength{\belowcaptionskip}{4pt}
"""
NEEDED = "% needs booktabs, etoolbox, graphicx and siunitx, set up as in tables.tex\n"
#: rows that fit on a page, with their notes; a longer table goes on in another float
PAGE = 30
#: columns of long text, which on paper are numbers of notes below
NOTED = ("setting", "note", "source")
#: characters that mean something to LaTeX
SPECIAL = str.maketrans(
    {character: "\\" + character for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
#: between columns, before a wide table is scaled
NARROW = r"\setlength{\tabcolsep}{3pt}"
#: as wide as it is, but no wider than the page
FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"


def markdown(styler: Styler) -> str:
    """In GitHub's Markdown, the caption above."""
    inner: Any = written(styler)
    head, *body = [line.split(SEPARATOR) for line in inner.to_string(delimiter=SEPARATOR).splitlines()]
    # pandas has neither Markdown nor a public way to the styles of cells
    for (row, column), properties in inner._compute().ctx.items():
        if ("font-weight", "bold") in properties and body[row][column]:
            body[row][column] = f"**{body[row][column]}**"
    aligned = set(numbers(styler))
    rule = ["---:" if name in aligned else "---" for name in data_of(styler)]
    lines = [" | ".join(cell.replace("|", r"\|") for cell in line) for line in (head, rule, *body)]
    return f"{caption_of(styler)}\n\n" + "".join(f"| {line} |\n" for line in lines)


def html(styler: Styler, name: str) -> str:
    """A table element and its style, with all text escaped; ``name`` is part of its identifiers."""
    aligned = set(numbers(styler))
    right = [place for place, column in enumerate(data_of(styler)) if column in aligned]
    copied = written(copy.deepcopy(styler), "html").set_uuid(name).set_caption(escape(caption_of(styler)))
    copied.set_table_styles([{"selector": f"td.col{n}", "props": "text-align: right"} for n in right])
    return copied.to_html(table_attributes='class="olmp"')


def paragraph(text: str) -> str:
    """A line of text for an HTML page."""
    return f"<p>{escape(text)}</p>"


def latex(styler: Styler, name: str) -> str:
    """A float, or several where it does not fit on a page; its label is ``tab:<name>``.

    Long text, as of settings, stands in numbered notes below. What is wider than the page is scaled.
    """
    # siunitx groups digits itself, and takes a comma for the decimal marker
    copied: Any = written(copy.deepcopy(styler), "latex", thousands="")
    copied.format_index(_stacked, axis="columns", escape="latex")
    copied.caption = None
    data = data_of(styler)
    noted = [column for column in NOTED if column in data]
    notes = _notes(data[noted])
    copied.format(lambda text: str(notes.get(text, "")), subset=noted)
    caption = f"\\caption{{{_escaped(caption_of(styler))}}}\\label{{tab:{name}}}"
    parts = []
    for start in range(0, len(data), PAGE):
        others = [row for row in data.index if not start <= row < start + PAGE]
        part = copy.deepcopy(copied).hide(axis="index", subset=others)
        body = _minus(part.to_latex(hrules=True, siunitx=True, convert_css=True))
        said = {text: notes[text] for text in _notes(data[noted].iloc[start : start + PAGE])}
        parts.append(_float(caption, body, said))
        caption = r"\addtocounter{table}{-1}\caption[]{Continued.}"
    return NEEDED + "".join(parts)


def document(tables: list[str]) -> str:
    """A LaTeX document that shows the tables of these names, each in a file of its own beside it."""
    body = "".join(f"\\input{{{name}}}\n\\clearpage\n" for name in tables)
    return f"{PREAMBLE}\\begin{{document}}\n{body}\\end{{document}}\n"


def page(title: str, parts: list[str]) -> str:
    """An HTML page of tables, without anything from elsewhere."""
    head = f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
    return head + CSS + "\n".join(parts) + "\n</html>\n"


CSS = """<style>
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em; color-scheme: light dark }
table { border-collapse: collapse; margin: 2em 0; font-variant-numeric: tabular-nums }
caption { text-align: left; max-width: 60em; padding: .5em 0 }
th { text-align: left; border-bottom: 1px solid }
td, th { padding: .15em .6em }
td { white-space: nowrap }
</style>
"""


def _notes(columns: pd.DataFrame) -> dict[str, int]:
    """The texts of these columns, numbered in the order in which a reader meets them."""
    texts = dict.fromkeys(text for row in columns.itertuples(index=False) for text in row if text)
    return {text: number for number, text in enumerate(texts, start=1)}


def _float(caption: str, body: str, notes: dict[str, int]) -> str:
    below = "".join(f"\n{number}: {_escaped(text)}\\quad" for text, number in notes.items())
    if below:
        below = f"\\par\\smallskip\\footnotesize\\raggedright{below}\\par\n"
    return f"\\begin{{table}}[htbp]\n\\centering{NARROW}\n{caption}\n{FIT}\n{body}}}\n{below}\\end{{table}}\n"


def _stacked(name: str) -> str:
    """A heading with a word a line, since most are wider than what is below."""
    return "\\shortstack[l]{" + name.replace(" ", "\\\\") + "}" if " " in name else name


def _minus(text: str) -> str:
    """Signs of numbers in intervals, which are text to LaTeX."""
    return re.sub(r"\[-?\d[^]]*\]", lambda found: found[0].replace("-", "$-$"), text)


def _escaped(text: str) -> str:
    """Text for LaTeX, as Styler escapes that of cells."""
    return text.translate(SPECIAL)
