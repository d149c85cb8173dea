"""Multi30k is taken from published files only."""

import pytest

from grouping.errors import StudyError
from harness.corpus import multi30k


def test_other_languages_are_refused(tmp_path):
    with pytest.raises(StudyError, match="read as en-de or de-en, not en-fr"):
        multi30k.splits(tmp_path, "en", "fr")


def test_missing_and_changed_files_are_refused(tmp_path):
    with pytest.raises(StudyError, match="train.en is missing: give the folder with"):
        multi30k.splits(tmp_path, "en", "de")
    (tmp_path / "train.en").write_text("A man.\n")
    with pytest.raises(StudyError, match="the published file 460a15fb"):
        multi30k.splits(tmp_path, "en", "de")


def test_the_splits_of_files_with_the_right_hashes(tmp_path, monkeypatch):
    """Published text may not be committed: made-up files stand in, their hashes in place of the published."""
    sizes = {"train": 4, "val": 501, "test_2017_mscoco": 2, "test_2017_flickr": 3, "test_2016_flickr": 1}
    hashes = {}
    for name, size in sizes.items():
        word = name.translate(str.maketrans("012679", "abcdef"))
        for language in ("en", "de"):
            path = tmp_path / f"{name}.{language}"
            path.write_text("".join(f" {word}x{spell(i)} {language}\n" for i in range(size)))
            hashes[path.name] = multi30k.file_hash(path)
    # a training caption that stands in test, too
    (tmp_path / "train.en").write_text("one\ntwo\nTest_cabd_flickrxa EN!\nthree\n")
    hashes["train.en"] = multi30k.file_hash(tmp_path / "train.en")
    monkeypatch.setattr(multi30k, "SHA256", hashes)
    text = multi30k.splits(tmp_path, "en", "de")
    assert {split: len(pairs) for split, pairs in text.items()} == {
        "train": 3,
        "valid": 500,
        "search": 1 + 2,
        "confirm": 3,
        "test": 1,
    }
    assert text["test"] == [("test_cabd_flickrxa en", "test_cabd_flickrxa de")]
    assert [source for source, _ in text["train"]] == ["one", "two", "three"]


def spell(number: int) -> str:
    """A number in letters, because digits do not tell sentences apart."""
    return "".join("abcdefghij"[int(digit)] for digit in str(number))
