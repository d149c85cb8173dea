"""Floors of BLEU against hand calculations."""

from math import exp

import pytest

from harness.corpus.floors import floors, nearest


def test_nearest_sentence_by_rare_words_and_first_of_equals():
    pool = ["open the door", "open the window", "open the window", "close it"]
    assert nearest(["the window", "Close {1} 5!", "door?"], pool) == [1, 3, 0]


def test_nothing_in_common_gives_the_first():
    assert nearest(["xyz"], ["a", "b"]) == [0]
    assert nearest(["xyz", "abc"], ["1", "{2}"]) == [0, 0]


def test_floors_by_hand():
    text = {
        "train": [("open the door", "q r s t"), ("close the window now", "a b c d")],
        # copied whole: 100
        "search": [("a b c d", "a b c d")],
        # every n-gram is right, four words for five: brevity penalty exp(1 - 5/4) alone
        "test": [("window now", "a b c d e")],
    }
    found = floors(text)
    assert found["copy"]["search"] == 100
    assert found["nearest"]["test"] == pytest.approx(100 * exp(1 - 5 / 4), abs=0.005)
    assert set(found["copy"]) == {"search", "test"}
    assert found["signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")


def test_without_train_there_is_no_nearest():
    assert floors({"test": [("a", "b")]})["nearest"] == {}
