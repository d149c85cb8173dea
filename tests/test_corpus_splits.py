"""Near-copies by hand, and no leakage in the real corpus by brute force."""

import random
from pathlib import Path

import pytest

from harness.corpus.corpus import Corpus
from harness.corpus.homeassistant import Pair
from harness.corpus.splits import (
    MAX_SHARE,
    SPLITS,
    fourgrams,
    normalised_words,
    split_by_component,
    with_foreign_near_copy,
    without_near_copies,
)

PREPARED = Path(__file__).parents[1] / "data" / "homeassistant.en-de"


def test_case_digits_punctuation_and_placeholders_do_not_count():
    assert normalised_words("Connect to {1}, port 8080: Wi-Fi!") == ("connect", "to", "port", "wi", "fi")
    assert normalised_words("STRASSE straße") == ("strasse", "strasse")
    assert normalised_words("{1} %") == ()


def test_fourgrams():
    assert fourgrams(["a", "b", "c", "d", "e"]) == {("a", "b", "c", "d"), ("b", "c", "d", "e")}
    assert fourgrams(["a", "b", "c"]) == frozenset()


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        ("Turn it on", "turn it ON {1}!", True),
        ("Turn it on", "Turn it off", False),
        # 4-grams abcd bcde against abcd bcdx: one of two is half
        ("a b c d e", "a b c d x", True),
        # abcd bcde cdef against abcd bcdx cdxy: one of three
        ("a b c d e f", "a b c d x y", False),
        # the only 4-gram of the short sentence stands in the long one
        ("a b c d", "a b c d e f g h", True),
        ("", "", True),
    ],
)
def test_near_copies_are_found_in_both_directions(one, other, near):
    assert with_foreign_near_copy([one, other], ["p", "q"]) == [near, near]


def test_near_copies_of_the_same_owner_do_not_count():
    assert with_foreign_near_copy(["a b c d", "a b c d"], ["p", "p"]) == [False, False]


def corpus_of_components(sizes: dict[str, int]) -> list[Pair]:
    """So many sentences per component that share no word, and one short sentence in each."""
    found = []
    for name, size in sizes.items():
        found.append(Pair(name, "off", "aus"))
        found += [
            Pair(name, " ".join(f"{name}x{letters(i)}x{w}" for w in "abcd"), f"{name} {i}")
            for i in range(size)
        ]
    return found


def letters(number: int) -> str:
    """A number in letters, because digits are ignored."""
    return "".join("abcdefghij"[int(digit)] for digit in str(number))


def test_components_are_dealt_whole_and_their_short_sentences_are_not_used():
    sizes = {f"c{letters(i)}": 20 for i in range(400)}
    splits = split_by_component(corpus_of_components(sizes))
    assert {name: len(pairs) for name, pairs in splits.items()} == {
        # of 400 components of 20: 100 + 60 + 60 + 25 held out, 155 train with 20 + the one "off" of all
        "train": 155 * 20 + 1,
        "valid": 500,
        "search": 1200,
        "confirm": 1200,
        "test": 2000,
    }
    owners = [{pair.component for pair in pairs} for pairs in splits.values()]
    # the one "off" that train keeps is of a component of train
    assert sum(map(len, owners)) == len(set().union(*owners)) == 400


def test_a_component_that_is_too_large_trains():
    sizes = {"large": 101, "fits": 100}
    splits = split_by_component(corpus_of_components(sizes))
    assert 2000 * MAX_SHARE == 100
    assert {pair.component for pair in splits["test"]} == {"fits"}
    assert {pair.component for pair in splits["train"]} == {"large"}


def test_a_sentence_shared_by_components_is_never_held_out_and_trains_once():
    shared = [Pair(name, "this sentence is everywhere", "Satz") for name in ("one", "two")]
    splits = split_by_component(shared)
    assert splits["train"] == shared[:1]
    assert not any(splits[name] for name in SPLITS[1:])


def test_the_order_of_dealing_depends_on_the_seed_alone():
    pairs = corpus_of_components({f"c{letters(i)}": 20 for i in range(400)})
    assert split_by_component(pairs) == split_by_component(iter(pairs))
    assert split_by_component(pairs)["test"] != split_by_component(pairs, seed=2)["test"]


def test_later_splits_stay_whole():
    splits = {
        "train": [("a b c d", "1"), ("e f g h", "2"), ("i j k l", "3")],
        "valid": [("A B C D", "4"), ("m n o p", "5")],
        "test": [("m n o p!", "6"), ("e f g h x", "7"), ("e f g h", "8")],
    }
    assert without_near_copies(splits) == {
        "train": [("i j k l", "3")],
        "valid": [("A B C D", "4")],
        "test": splits["test"],
    }


def plain_words(sentence: str) -> list[str]:
    """The definition once more, a character at a time."""
    kept, depth = [], 0
    for char in sentence.casefold():
        depth += char == "{"
        kept.append(char if depth == 0 and char.isalnum() and not char.isdecimal() else " ")
        depth -= char == "}"
    return "".join(kept).split()


def test_no_held_out_sentence_has_a_near_copy_elsewhere():
    corpus = Corpus.open(PREPARED)
    words = {split: [plain_words(line) for line in corpus.sources(split)] for split in SPLITS}
    grams = {
        split: [{tuple(w[i : i + 4]) for i in range(len(w) - 3)} for w in sentences]
        for split, sentences in words.items()
    }
    draw = random.Random(5)
    for split in SPLITS[1:]:
        for i in draw.sample(range(len(words[split])), 15):
            mine = grams[split][i]
            assert len(words[split][i]) >= 4
            for other in SPLITS:
                for theirs, their_words in zip(grams[other], words[other], strict=True):
                    if other != split:
                        assert their_words != words[split][i]
                        shared = len(mine & theirs)
                        assert not shared or (2 * shared < len(mine) and 2 * shared < len(theirs))


def test_the_real_splits_have_the_sizes_asked_for():
    sentences = Corpus.open(PREPARED).about["sentences"]
    for split, wanted in {"valid": 500, "search": 1200, "confirm": 1200, "test": 2000}.items():
        assert wanted <= sentences[split] <= wanted * (1 + MAX_SHARE)
    assert sentences["train"] > 20_000
