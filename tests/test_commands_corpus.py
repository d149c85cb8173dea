"""``olmp corpus``: made once, recognised afterwards, never overwritten."""

import argparse
from pathlib import Path

import pytest

from grouping.errors import StudyError
from harness.commands import corpus as command
from harness.corpus.corpus import Corpus

PREPARED = Path(__file__).parents[1] / "data" / "homeassistant.en-de"


def olmp_corpus(*arguments: str | Path) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    command.run(parser.parse_args([str(argument) for argument in arguments]))


def test_own_text_is_prepared_once(tmp_path, capsys):
    plain = tmp_path / "plain"
    plain.mkdir()
    for split, size in {"train": 30, "valid": 2, "search": 2, "confirm": 2, "test": 3}.items():
        for language, words in {"en": "open the door {} times please", "de": "bitte {} mal öffnen"}.items():
            lines = [words.format(split + str(i)) + "\n" for i in range(size)]
            (plain / f"{split}.{language}").write_text("".join(lines))
    request = ("text", plain, "--pair", "en-de", "--vocabulary", "70", "--out", tmp_path / "out")
    olmp_corpus(*request)
    first = capsys.readouterr().out
    assert "preparing" in first
    # split, sentences, words en, words de, floors
    assert "test 3 18 12" in " ".join(first.split())
    made = (tmp_path / "out" / "corpus.json").stat().st_mtime_ns
    olmp_corpus(*request)
    assert capsys.readouterr().out == first.split("\n", 1)[1]
    assert (tmp_path / "out" / "corpus.json").stat().st_mtime_ns == made
    olmp_corpus(*request, "--quiet")
    assert capsys.readouterr().out == ""
    (plain / "test.en").write_text("one\ntwo\nthree\n")
    with pytest.raises(StudyError, match=r"holds another corpus \(text differ\)"):
        olmp_corpus(*request)
    assert (tmp_path / "out" / "corpus.json").stat().st_mtime_ns == made


def test_source_sentences_in_several_splits_are_said(tmp_path, capsys):
    plain = tmp_path / "plain"
    plain.mkdir()
    source = {
        "train": ["open the garden door now", *(f"sentence {word} of training" for word in "abcdefgh")],
        "valid": ["all is well"],
        "search": ["Open the garden door, now!", "nothing to see here today"],  # as in train
        # half of the 4-grams of "nothing to see here", and nobody else's sentence
        "confirm": ["nothing to see here", "the lamp is off"],
        "test": ["the window is closed", "the window is closed"],  # twice, but in one split
    }
    for split, lines in source.items():
        (plain / f"{split}.en").write_text("".join(line + "\n" for line in lines))
        (plain / f"{split}.de").write_text("".join(f"{split} {i}\n" for i in range(len(lines))))
    olmp_corpus("text", plain, "--vocabulary", "60", "--out", tmp_path / "out")
    said = "  warning: {} source sentences of {} have a near-copy in another split\n"
    assert capsys.readouterr().err == said.format(2, "search") + said.format(1, "confirm")


def test_a_databin_is_imported_and_its_unknown_words_are_said(tmp_path, capsys):
    splits = ["--split", "search=search[:9]", "--split", "confirm=confirm[:9]", "--split", "test=search[9:]"]
    request = (
        "databin",
        PREPARED / "bin",
        "--bpe",
        PREPARED / "bpe.model",
        "--out",
        tmp_path / "out",
        *splits,
    )
    olmp_corpus(*request)
    unknown = sum("<unk>" in line for line in Corpus.open(tmp_path / "out").references("test"))
    assert unknown
    assert f"warning: {unknown} references of test contain <unk>" in capsys.readouterr().out
    olmp_corpus(*request)
    assert "preparing" not in capsys.readouterr().out
    with pytest.raises(StudyError, match=r"holds another corpus \(moses differ\)"):
        olmp_corpus(*request, "--moses")


def test_the_default_corpus_is_recognised_without_a_download(capsys):
    """`make data` made it with the default request."""
    olmp_corpus("homeassistant", "--pair", "en-de", "--out", PREPARED)
    shown = capsys.readouterr().out
    assert "downloading" not in shown
    assert "train" in shown


def test_multi30k_needs_a_folder(tmp_path):
    with pytest.raises(StudyError, match="multi30k needs --from FOLDER"):
        olmp_corpus("multi30k", "--out", tmp_path / "out")


@pytest.mark.parametrize("pair", ["en", "en-en", "-de", "en_de", "en-", "../x-de"])
def test_bad_pairs_are_refused(pair):
    with pytest.raises(StudyError, match="write two different languages"):
        command.languages(pair)


def test_language_codes_may_have_a_region():
    assert command.languages("en-pt-BR") == ("en", "pt-BR")
