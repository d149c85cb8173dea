"""What the page shows, as plain data: cells with their curves and translations, figures, versions."""

import json
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures import LeftOut, drawn, specification, style
from analysis.frame import SETS, Results, failed, finished, translation
from analysis.report.errors import counted, gleu, profile
from analysis.report.texts import Text, Texts, plan
from analysis.settings import records, way

#: points of all curves together, so that the page stays small however many cells there are
CURVE_POINTS = 40_000
#: translations per cell: the ones that lost most, the ones that gained most
WORST, BEST = 8, 3
#: cells that bring translations, the smallest of each grouping and model first
TRANSLATED_CELLS = 300
#: what is shown of each set of sentences
SCORES = ("dense_bleu", "bleu", "drop", "low", "high", "dense_chrf", "chrf")
#: packages that a number depends on
PACKAGES = ("sacrebleu", "torch", "ve-fairseq", "fairseq-fixed", "numpy", "sentencepiece", "nevergrad")
OWN = ("olmp", "altair", "vl-convert-python", "pandas", "sacrebleu", "scipy", "statsmodels")


def contents(results: Results, texts: Texts) -> dict[str, Any]:
    """All that the page's script reads."""
    rows = finished(results.runs)
    curves = _curves(results, len(rows))
    shown: dict[str, Any] = {"cells": [], "texts": {}, "dense": {}}
    translated = _translated(rows)
    for run in records(rows.assign(way=way(rows))):
        cell = _cell(run) | {"curve": curves.get(run["cell"])}
        if counts := counted(results, run):
            cell["errors"] = profile(*counts)._asdict()
            text = texts.of(run) if run["cell"] in translated else None
            if text is not None and len(text.sources) == len(counts[0]):
                _add_sentences(shown, cell, run, text, gleu(counts[1]) - gleu(counts[0]))
        shown["cells"].append(cell)
    broken = failed(results.runs)
    shown["cells"] += [_failed_cell(run) for run in records(broken.assign(way=way(broken)))]
    shown["common"] = _common(shown["cells"])
    return shown | figures(results)


def figures(results: Results) -> dict[str, Any]:
    """Specifications of all figures, what they look like in both themes, and why some are left out."""
    found: dict[str, Any] = {"figures": [], "left_out": []}
    for figure, chart in drawn(results):
        about = {"name": figure.name, "title": figure.title, "caption": figure.caption}
        if isinstance(chart, LeftOut):
            found["left_out"].append(about | {"reason": str(chart)})
        else:
            spec = specification(chart)
            spec.pop("config", None)
            found["figures"].append(about | {"spec": spec})
    return found | {"themes": {"light": style.configuration(), "dark": style.configuration(dark=True)}}


def skipped(results: Results) -> list[dict[str, str]]:
    """What the plans left out, all cells of one reason together; and how many cells have not been run."""
    found = []
    names = set(results.runs["cell"])
    for folder in results.folders:
        about = plan(folder)
        reasons: dict[str, list[dict[str, Any]]] = {}
        for one in about.get("skipped", []):
            reasons.setdefault(str(one.get("reason")), []).append(one.get("settings", {}))
        for reason, left_out in reasons.items():
            found.append({"grid": folder.resolve().name, "what": _together(left_out), "reason": reason})
        waiting = [cell for cell in about.get("cells", []) if cell.get("name") not in names]
        if waiting:
            what = f"{len(waiting)} of {len(about['cells'])} planned cells"
            found.append({"grid": folder.resolve().name, "what": what, "reason": "not run, or not collected"})
    return found


def _together(cells: list[dict[str, Any]]) -> str:
    """How many cells there are, and the values that each of their settings has."""
    values: dict[str, dict[str, None]] = {}
    for settings in cells:
        for name, value in settings.items():
            values.setdefault(name, {})[str(value)] = None
    said = "; ".join(f"{name} {', '.join(several)}" for name, several in values.items())
    return f"{len(cells)} cell{'s' if len(cells) > 1 else ''}: {said}"


def versions(results: Results) -> list[tuple[str, str, int]]:
    """What the numbers depend on: name, value, and for how many cells it is so."""
    rows = finished(results.runs)
    found: list[tuple[str, str, int]] = []
    for name, column in (("BLEU", "sets.test.bleu_signature"), ("chrF", "sets.test.chrf_signature")):
        found += _counted(f"{name} signature", rows.get(column, []))
    for column in ("python", "system", "processor", "kernels", "revision"):
        if f"environment.{column}" in rows:
            found += _counted(column, rows[f"environment.{column}"].dropna())
    if "environment.packages" in rows:
        installed = [json.loads(text) for text in rows["environment.packages"].dropna()]
        for package in PACKAGES:
            found += _counted(package, [one[package] for one in installed if package in one])
    return found


def own_versions() -> str:
    """What made the page."""
    return ", ".join(f"{name} {version(name)}" for name in OWN)


def _counted(name: str, values: Iterable[Any]) -> list[tuple[str, str, int]]:
    return [(name, str(value), number) for value, number in Counter(values).most_common()]


def _cell(run: dict[str, Any]) -> dict[str, Any]:
    groups = json.loads(run["groups"])
    return {
        "cell": run["cell"],
        "status": "done",
        **_about(run),
        # shown with one decimal: rounded to two before, 72.852 would become 72.8 in the browser
        "left": _rounded(100 * run["remaining"], 4),
        "left_of_all": _rounded(100 * run["remaining_of_all"], 4),
        "sets": {name: {key: _rounded(run[f"sets.{name}.{key}"]) for key in SCORES} for name in SETS},
        "groups": [[one[key] for key in ("group", "connections", "pruned", "threshold")] for one in groups],
        "spent": {
            name: _rounded(run[name], 0)
            for name in ("evaluations", "skipped", "raced", "cached", "tokens", "seconds", "backed_off")
            if name in run and pd.notna(run[name])
        },
    }


def _failed_cell(run: dict[str, Any]) -> dict[str, Any]:
    return {
        "cell": run["cell"],
        "status": "failed",
        **_about(run),
        "failure": {
            name: str(run[f"failure.{name}"])
            for name in ("reason", "message", "traceback")
            if f"failure.{name}" in run
        },
    }


def _about(run: dict[str, Any]) -> dict[str, Any]:
    config = {
        name.removeprefix("config."): value if isinstance(value, str | bool) else float(value)
        for name, value in run.items()
        if name.startswith("config.") and pd.notna(value)
    }
    return {"model": run["model"], "grid": run["grid"], "way": run["way"], "config": config}


def _common(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """The settings that all cells have in common, taken out of them."""
    if not cells:
        return {}
    first = cells[0]["config"]
    common = {
        name: value for name, value in first.items() if all(c["config"].get(name) == value for c in cells)
    }
    for cell in cells:
        cell["config"] = {name: value for name, value in cell["config"].items() if name not in common}
    return common


def _curves(results: Results, cells: int) -> dict[str, list[list[float | None]]]:
    """Each cell's candidates, some if they are many: tokens so far, percent left, drop, feasible or not."""
    tried = results.evaluations
    tried = tried[tried["stage"].isin(["start", "search"]) & (tried["how"] != "skipped")]
    most = max(10, CURVE_POINTS // max(cells, 1))
    found = {}
    for cell, mine in tried.sort_values(["round", "index"]).groupby("cell"):
        tokens = mine["tokens"].cumsum().to_numpy()
        feasible = mine["feasible"].astype(bool).to_numpy()
        size = 100 * mine["size"].to_numpy()
        best = np.minimum.accumulate(np.where(feasible, size, 100.0))
        # what improves is kept, and of the rest some at even distances
        keep = np.union1d(
            np.flatnonzero(np.diff(best, prepend=100.0) < 0)[-most // 2 :],
            np.linspace(0, len(mine) - 1, min(len(mine), most)).astype(int),
        )
        table = np.column_stack([tokens, size.round(2), mine["drop"].astype(float).round(2), feasible])[keep]
        found[str(cell)] = [[None if np.isnan(x) else float(x) for x in row] for row in table]
    return found


def _translated(rows: pd.DataFrame) -> set[str]:
    """The cells that bring translations: all, or where they are too many the smallest of each kind first."""
    if rows.empty:
        return set()
    kind = [rows["model"], rows["config.grouping"], rows["config.search"]]
    rank = rows.groupby(kind)["remaining"].rank(method="first")
    return set(rows.assign(rank=rank).sort_values(["rank", "cell"])["cell"].head(TRANSLATED_CELLS))


def _add_sentences(
    shown: dict[str, Any], cell: dict[str, Any], run: dict[str, Any], text: Text, change: np.ndarray
) -> None:
    """The sentences that lost and that gained most, each text once on the page."""
    order = np.argsort(change, kind="stable")
    chosen = [int(i) for i in order[:WORST] if change[i] < 0]
    chosen += [int(i) for i in order[::-1][:BEST] if change[i] > 0]
    test = shown["texts"].setdefault(run["config.corpus_sha256"][:16], {})
    dense = shown["dense"].setdefault(translation(run, "dense")[:16], {})
    for i in chosen:
        test[str(i)] = [text.sources[i], text.references[i]]
        dense[str(i)] = text.dense[i]
    cell["text"] = [run["config.corpus_sha256"][:16], translation(run, "dense")[:16]]
    cell["sentences"] = [[i, text.pruned[i], _rounded(100 * change[i])] for i in chosen]


def _rounded(number: Any, digits: int = 2) -> float | None:
    return None if pd.isna(number) else round(float(number), digits)
