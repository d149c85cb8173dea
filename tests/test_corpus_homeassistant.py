"""Cleaning of the default corpus, on a hand-made wheel."""

import json
import zipfile
from pathlib import Path

import pytest

from grouping.errors import StudyError
from harness.corpus import homeassistant
from harness.corpus.homeassistant import Pair, number_placeholders, pairs, strip_markup


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Set **up** the `api_key`.", "Set up the api_key."),
        ("See [the docs](https://example.org/a_b) first", "See the docs first"),
        ("Open https://example.org/a?b=1, then wait.", "Open {url}, then wait."),
        ("1. First\tstep ", "First step"),
        ("## Title<br/>of <b>it</b>", "Title" + "of it"),
        ("an _important_ snake_case word", "an important snake_case word"),
        # a letter and its combining dots become the one character
        ("Gera\u0308t", "Gerät"),
    ],
)
def test_markup_goes_and_text_stays(raw, clean):
    assert strip_markup(raw) == clean


def test_placeholders_are_numbered_by_first_appearance_in_the_source():
    numbered = number_placeholders("{name} at {host}: {name}", "{host}: {name}, {name}")
    assert numbered == ("{1} at {2}: {1}", "{2}: {1}, {1}")


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("Remove {name}", "Entfernen"),
        ("Remove it", "{name} entfernen"),
        ("{n, plural, one {# day} other {# days}}", "{n, plural, one {# Tag} other {# Tage}}"),
        ("a } b", "a b"),
    ],
)
def test_pairs_with_other_placeholders_are_no_translations(source, target):
    assert number_placeholders(source, target) is None


@pytest.fixture
def wheel(tmp_path) -> Path:
    """Two components; German lacks one key, one string is untranslated, one too long for its source."""
    texts = {
        ("lamp", "en"): {
            "config": {"title": "Connect to {host}", "abort": "Only English"},
            "steps": "1. Open the app\n\n2. Press the button",
            "joined": "One line\nand another",
            "same": "Light strip with effects",
            "name": "Wi-Fi",
            "number": "{value} %",
            "count": 3,
        },
        ("lamp", "de"): {
            "config": {"title": "Verbinden mit {host}"},
            "steps": "1. App öffnen\n2. Knopf drücken",
            "joined": "Eine Zeile und noch eine",
            "same": "Light strip with effects",
            "name": "Wi-Fi",
            "number": "{value} %",
            "count": 3,
        },
        ("boiler", "en"): {"a": "Connect to {address}", "b": "Off", "c": "Off"},
        ("boiler", "de"): {"a": "Verbinden mit {address}", "b": "Aus", "c": "Aus"},
        ("english", "en"): {"a": "Nobody translated this"},
    }
    path = tmp_path / "package.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for (component, language), tree in texts.items():
            name = f"homeassistant/components/{component}/translations/{language}.json"
            archive.writestr(name, json.dumps(tree))
        archive.writestr("homeassistant/components/lamp/strings.json", "not read")
    return path


def test_strings_are_paired_by_component_and_key(wheel):
    assert pairs(wheel, "en", "de") == [
        Pair("boiler", "Connect to {1}", "Verbinden mit {1}"),
        Pair("boiler", "Off", "Aus"),
        Pair("lamp", "Connect to {1}", "Verbinden mit {1}"),
        Pair("lamp", "Open the app", "App öffnen"),
        Pair("lamp", "Press the button", "Knopf drücken"),
        Pair("lamp", "One line and another", "Eine Zeile und noch eine"),
        # two words may well be the same in both languages, four are untranslated
        Pair("lamp", "Wi-Fi", "Wi-Fi"),
    ]


def test_the_pair_can_be_turned_round(wheel):
    turned = pairs(wheel, "de", "en")
    assert Pair("lamp", "Verbinden mit {1}", "Connect to {1}") in turned
    assert len(turned) == len(pairs(wheel, "en", "de"))


def test_an_unknown_language_is_answered_with_the_known_ones(wheel):
    with pytest.raises(StudyError, match="no text in language 'xx'; known: de, en"):
        pairs(wheel, "en", "xx")


def test_a_wheel_with_other_contents_is_refused(tmp_path):
    (tmp_path / homeassistant.WHEEL).write_bytes(b"something else")
    with pytest.raises(StudyError, match="delete it and fetch it again"):
        homeassistant.fetch(tmp_path)


def test_a_failed_download_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(StudyError, match=r"pip could not download homeassistant==2026.11.0: "):
        homeassistant.fetch(tmp_path / "new")


def test_a_folder_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="could not make"):
        homeassistant.fetch(tmp_path / "file" / "data")
