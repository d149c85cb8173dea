"""Translations, where their text is at hand: beside the cells of a grid, and in the corpus of its plan."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from analysis.frame import Results, description

PLAN, CORPUS = "plan.json", "corpus.json"


class Text(NamedTuple):
    """The test set and two translations of it, line by line."""

    sources: list[str]
    references: list[str]
    dense: list[str]
    pruned: list[str]


class Texts:
    """Finds the text of cells; collected results alone have none."""

    def __init__(self, results: Results) -> None:
        self._folders = {folder.resolve().name: folder for folder in results.folders}
        self._corpora = {name: _corpora(folder) for name, folder in self._folders.items()}
        self._lines = cache(_lines)

    def of(self, run: Mapping[str, Any]) -> Text | None:
        """The text of a finished cell, or None where a part of it is not there or does not fit."""
        corpus = self._corpus(run)
        if corpus is None:
            return None
        folder, source, target = corpus
        cell = self._folders[run["grid"]] / "cells" / run["cell"]
        found = (
            self._lines(folder / "text" / f"test.{source}"),
            self._lines(folder / "text" / f"test.{target}"),
            self._lines(cell / "test.dense.txt"),
            _lines(cell / "test.pruned.txt"),
        )
        lengths = {len(lines) for lines in found}
        return Text(*found) if len(lengths) == 1 and lengths != {0} else None

    def training(self, run: Mapping[str, Any]) -> list[str]:
        """The references that a cell's model was trained on; none where they are not there."""
        corpus = self._corpus(run)
        return self._lines(corpus[0] / "text" / f"train.{corpus[2]}") if corpus else []

    def _corpus(self, run: Mapping[str, Any]) -> tuple[Path, str, str] | None:
        return self._corpora.get(run["grid"], {}).get(run["config.corpus_sha256"])


def _corpora(grid: Path) -> dict[str, tuple[Path, str, str]]:
    """The texts that a grid's plan names: folder, source and target language, by their hash."""
    found = {}
    for cell in plan(grid).get("cells", []):
        try:
            folder, name = Path(cell["corpus"]), cell["config"]["corpus_sha256"]
            if name not in found and (folder / CORPUS).exists():
                about = json.loads((folder / CORPUS).read_text(encoding="utf-8"))
                found[name] = folder, str(about["source"]), str(about["target"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def plan(grid: Path) -> dict[str, Any]:
    """What was planned in a folder, as far as it says so. Raises NotCollected for a damaged plan."""
    return description(grid / PLAN)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")[:-1]
    except (OSError, UnicodeDecodeError):
        return []
