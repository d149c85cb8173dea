"""A tiny corpus through sentencepiece and fairseq-preprocess, and its reading back."""

import random
import shutil
from pathlib import Path

import pytest

from grouping.errors import StudyError
from harness.corpus.corpus import Corpus
from harness.corpus.prepare import Pieces, new_folder, prepare, prepared, read_parallel
from harness.corpus.splits import SPLITS

SIZES = {"train": 60, "valid": 4, "search": 5, "confirm": 6, "test": 7}
WORDS = ["Gerät", "öffnen", "door", "{1}", "Wi-Fi", "ist", "the", "100", "%", "“so”", "Straße", "a"]


def tiny_text() -> dict[str, list[tuple[str, str]]]:
    draw = random.Random(3)

    def sentence() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(4, 9)))

    return {split: [(sentence(), sentence()) for _ in range(size)] for split, size in SIZES.items()}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpora") / "tiny.en-de"
    prepare(tiny_text(), folder, "en", "de", vocabulary=60, origin={"corpus": "tiny"})
    return folder


def test_text_comes_back_as_it_was_given(tiny):
    corpus = Corpus.open(tiny)
    for split, pairs in tiny_text().items():
        assert list(zip(corpus.sources(split), corpus.references(split), strict=True)) == pairs
    assert corpus.about["sentences"] == SIZES


def test_token_ids_are_the_pieces_of_the_text(tiny):
    corpus = Corpus.open(tiny)
    for split in SPLITS:
        for tokens, dictionary, text in (
            (corpus.source_tokens(split), corpus.source_dictionary, corpus.sources(split)),
            (corpus.target_tokens(split), corpus.target_dictionary, corpus.references(split)),
        ):
            assert all(ids.dtype == "int64" and ids[-1] == dictionary.eos() for ids in tokens)
            assert [corpus.detokenise([dictionary[i] for i in ids[:-1]]) for ids in tokens] == text


def test_given_pieces_take_the_place_of_learned_ones(tiny, tmp_path):
    pieces = Pieces(tiny / "bpe.model", tiny / "bin" / "dict.en.txt")
    other = {**tiny_text(), "train": tiny_text()["train"][:9]}
    again = Corpus.open(_made(prepare, other, tmp_path / "again", pieces=pieces))
    first = Corpus.open(tiny)
    for name in ("bpe.model", "bin/dict.en.txt", "bin/dict.de.txt", "bin/test.en-de.de.bin"):
        assert (again.folder / name).read_bytes() == (tiny / name).read_bytes()
    # other training text, the same study
    assert again.content_hash() == first.content_hash()


def _made(make, text, folder, **options) -> Path:
    make(text, folder, "en", "de", **options)
    return folder


def test_the_same_origin_is_recognised_and_another_refused(tiny, tmp_path):
    about = prepared(tiny, {"corpus": "tiny"})
    assert about is not None
    assert about["sentences"] == SIZES
    with pytest.raises(StudyError, match=r"holds another corpus \(corpus differ\)"):
        prepared(tiny, {"corpus": "large"})
    assert prepared(tmp_path / "new", {}) is None


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path):
    (tmp_path / "precious").write_text("text")
    with pytest.raises(StudyError, match="exists already"):
        prepared(tmp_path, {})
    with pytest.raises(StudyError, match="exists already"):
        prepare(tiny_text(), tmp_path, "en", "de", vocabulary=60)
    assert (tmp_path / "precious").read_text() == "text"
    (tmp_path / "corpus.json").write_text("{")
    with pytest.raises(StudyError, match="cannot be read"):
        prepared(tmp_path, {})


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    def fail(draft: Path) -> None:
        (draft / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "out") as draft:
        fail(draft)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="could not write"), new_folder(tmp_path / "file" / "out"):
        pass


def test_more_pieces_than_the_text_has_are_refused(tmp_path):
    with pytest.raises(StudyError, match="sentencepiece could not learn 5000 pieces"):
        prepare(tiny_text(), tmp_path / "out", "en", "de", vocabulary=5000)
    assert list(tmp_path.iterdir()) == []


def test_pieces_that_are_none_are_refused(tmp_path):
    (tmp_path / "bpe.model").write_text("no model")
    pieces = Pieces(tmp_path / "bpe.model", tmp_path / "dict.txt")
    with pytest.raises(StudyError, match="not a sentencepiece model"):
        prepare(tiny_text(), tmp_path / "out", "en", "de", pieces=pieces)
    shutil.copy(Path(__file__).parents[1] / "data/homeassistant.en-de/bpe.model", tmp_path / "bpe.model")
    with pytest.raises(StudyError, match=r"fairseq-preprocess failed: .*dict.txt"):
        prepare(tiny_text(), tmp_path / "out", "en", "de", pieces=pieces)


@pytest.fixture
def plain(tmp_path) -> Path:
    """A user's own corpus as plain text."""
    for split, pairs in tiny_text().items():
        for side, language in enumerate(("en", "de")):
            (tmp_path / f"{split}.{language}").write_text("".join(pair[side] + "\n" for pair in pairs))
    return tmp_path


def test_plain_text_is_read_line_by_line(plain):
    # not every editor ends the last line, and a line separator inside a sentence is no line end
    text = tiny_text()
    (plain / "test.de").write_text("\n".join(pair[1] for pair in text["test"]))
    (plain / "valid.de").write_text("".join(f"{pair[1]}\u2028x\n" for pair in text["valid"]))
    text["valid"] = [(source, f"{target}\u2028x") for source, target in text["valid"]]
    assert read_parallel(plain, "en", "de") == text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("search.de", None, "search.de is missing: a corpus folder holds train.en/.de"),
        ("search.de", b"one\ntwo\n", "search is misaligned in .*: 5 lines of en, 2 lines of de"),
        ("search.de", b"1\n2\n \n4\n5\n", "search.de:3 is blank"),
        ("search.de", b"\xff\n", "is not UTF-8 text"),
    ],
)
def test_malformed_text_is_refused(plain, name, content, message):
    (plain / name).unlink()
    if content is not None:
        (plain / name).write_bytes(content)
    with pytest.raises(StudyError, match=message):
        read_parallel(plain, "en", "de")


def test_an_empty_split_is_refused(plain):
    for language in ("en", "de"):
        (plain / f"test.{language}").write_text("")
    with pytest.raises(StudyError, match="is empty: every split needs sentences"):
        read_parallel(plain, "en", "de")
