"""Reading a prepared corpus, and what damage to it says."""

import json
import shutil
from pathlib import Path

import pytest
import sacrebleu

from grouping.errors import StudyError
from harness.corpus.corpus import Corpus, detokeniser

PREPARED = Path(__file__).parents[1] / "data" / "homeassistant.en-de"


@pytest.fixture
def copy(tmp_path) -> Path:
    """The default corpus, free to be damaged; train is left out because nothing here reads it."""
    return shutil.copytree(PREPARED, tmp_path / "copy", ignore=shutil.ignore_patterns("train.*", "bpe"))


def test_sentencepiece_tokens_become_text():
    plain = detokeniser("sentencepiece", None)
    assert plain(["▁Ger", "ät", "▁{", "1", "}", "▁", "öffnen", "."]) == "Gerät {1} öffnen."


def test_subword_nmt_tokens_become_text():
    plain = detokeniser("subword_nmt", None)
    assert plain(["Ger@@", "ät", "öff@@", "n@@", "en", "."]) == "Gerät öffnen ."
    assert plain(["Ende@@"]) == "Ende"


def test_moses_tokenisation_is_undone():
    plain = detokeniser("subword_nmt", "de")
    tokens = "Das ist , was wir &quot; gut &quot; nen@@ nen ; Wi @-@ Fi & amp ( heute ) !"
    assert plain(tokens.split()) == 'Das ist, was wir "gut" nennen; Wi-Fi & amp (heute)!'


def test_the_floor_of_copying_is_what_sacrebleu_says():
    corpus = Corpus.open(PREPARED)
    for split, floor in corpus.about["floors"]["copy"].items():
        said = sacrebleu.corpus_bleu(corpus.sources(split), [corpus.references(split)])
        assert floor == pytest.approx(said.score, abs=0.005)


def test_sentences_and_token_ids_belong_together():
    corpus = Corpus.open(PREPARED)
    lengths = {split: len(corpus.sources(split)) for split in ("search", "confirm", "test")}
    for split, length in lengths.items():
        assert len(corpus.references(split)) == length
        assert len(corpus.source_tokens(split)) == len(corpus.target_tokens(split)) == length
    dictionary = corpus.source_dictionary
    known = [
        (ids, text) for ids, text in zip(corpus.source_tokens("test"), corpus.sources("test"), strict=True)
    ]
    restored = [
        corpus.detokenise([dictionary[i] for i in ids[:-1]]) == text
        for ids, text in known
        if dictionary.unk() not in ids
    ]
    assert len(restored) > 0.98 * lengths["test"]
    assert all(restored)


def test_the_hash_follows_what_decides_a_study(copy):
    whole = Corpus.open(PREPARED).content_hash()
    assert Corpus.open(copy).content_hash() == whole
    text = copy / "text" / "confirm.de"
    text.write_text(text.read_text().replace("a", "b", 1))
    assert Corpus.open(copy).content_hash() != whole


def test_an_unknown_split_is_answered_with_the_known_ones():
    with pytest.raises(StudyError, match="no split 'dev'; it has train, valid, search, confirm, test"):
        Corpus.open(PREPARED).sources("dev")


def test_a_corpus_without_text_to_train_on_says_how_it_gets_it(copy):
    about = json.loads((copy / "corpus.json").read_text())
    del about["sentences"]["valid"]
    (copy / "corpus.json").write_text(json.dumps(about))
    with pytest.raises(
        StudyError, match="no split 'valid'; .*; to train, import the data-bin anew with --split"
    ):
        Corpus.open(copy).source_tokens("valid")


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_a_folder_without_a_corpus_is_refused(tmp_path, content):
    if content:
        (tmp_path / "corpus.json").write_text(content)
    with pytest.raises(StudyError, match="is no corpus folder"):
        Corpus.open(tmp_path)


def test_another_format_is_refused(copy):
    about = json.loads((copy / "corpus.json").read_text())
    (copy / "corpus.json").write_text(json.dumps({**about, "format": 0}))
    with pytest.raises(StudyError, match="has format 0, this version reads 1"):
        Corpus.open(copy)


@pytest.mark.parametrize("name", ["bin/dict.de.txt", "bin/search.en-de.de.idx", "text/test.en"])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(StudyError, match=f"{name} is missing"):
        Corpus.open(copy)


def test_a_shortened_text_is_noticed(copy):
    lines = (copy / "text" / "test.en").read_text().splitlines(keepends=True)
    (copy / "text" / "test.en").write_text("".join(lines[:-1]))
    with pytest.raises(StudyError, match=f"holds {len(lines) - 1} sentences, corpus.json says {len(lines)}"):
        Corpus.open(copy).sources("test")


# what fairseq's destructors say about a reader that could not be built
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_binary_is_refused(copy):
    (copy / "bin" / "search.en-de.en.idx").write_bytes(b"MMIDIDX\x00\x00")
    with pytest.raises(StudyError, match="search.en-de.en.bin is not a data-bin of fairseq"):
        Corpus.open(copy).source_tokens("search")


def test_a_damaged_dictionary_is_refused(copy):
    (copy / "bin" / "dict.en.txt").write_text("word without a count\n")
    with pytest.raises(StudyError, match="dict.en.txt is not a dictionary of fairseq"):
        Corpus.open(copy).source_tokens("search")


def test_a_dictionary_that_is_too_small_is_refused(copy):
    lines = (copy / "bin" / "dict.en.txt").read_text().splitlines(keepends=True)
    (copy / "bin" / "dict.en.txt").write_text("".join(lines[:100]))
    with pytest.raises(StudyError, match="its dictionary only 104 entries"):
        Corpus.open(copy).source_tokens("search")
