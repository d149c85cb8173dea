"""Existing data-bins: what is asked for, and a round trip with unchanged token ids."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary
from fairseq.data.indexed_dataset import make_builder

from grouping.errors import StudyError
from harness.corpus.corpus import Corpus
from harness.corpus.databin import Part, bpe_kind, import_databin, parse_parts

PREPARED = Path(__file__).parents[1] / "data" / "homeassistant.en-de"
WHOLE = ["search=valid[:2]", "confirm=valid[2:]", "test=test"]


def test_assignments_are_read_in_the_order_of_the_splits():
    parts = parse_parts(["test=test", "search=valid[:1000]", "confirm=valid[1000:1500]", "train=train"])
    assert parts == {
        "train": Part("train", 0, None),
        "search": Part("valid", 0, 1000),
        "confirm": Part("valid", 1000, 1500),
        "test": Part("test", 0, None),
    }
    assert list(parts) == ["train", "search", "confirm", "test"]


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["search"], "write for example"),
        (["search=valid[-5:]"], "write for example"),
        (["dev=valid"], "dev is unknown, take one of train, valid"),
        (["test=test", "test=valid"], "test is given twice"),
        (["search=valid", "test=test"], "no sentences for confirm"),
        (
            ["search=valid[:10]", "confirm=valid[9:]", "test=test"],
            "search and confirm share sentences of valid",
        ),
        (["search=valid", "confirm=valid[3:4]", "test=test"], "search and confirm share sentences of valid"),
    ],
)
def test_bad_assignments_are_refused(assignments, message):
    with pytest.raises(StudyError, match=message):
        parse_parts(assignments)


def test_the_kind_of_segmentation_is_recognised(tmp_path):
    assert bpe_kind(PREPARED / "bpe.model") == "sentencepiece"
    codes = tmp_path / "codes"
    codes.write_text("#version: 0.2\ne n</w>\nö f\n")
    assert bpe_kind(codes) == "subword_nmt"
    codes.write_text("e n</w> 812\nö f 77\n")
    assert bpe_kind(codes) == "subword_nmt"
    for content in (b"", b"some text of more than three words\n", b"\xff\xfe"):
        codes.write_bytes(content)
        with pytest.raises(StudyError, match="neither a sentencepiece model nor"):
            bpe_kind(codes)
    with pytest.raises(StudyError, match="is missing"):
        bpe_kind(tmp_path / "nothing")


def test_a_sentencepiece_databin_keeps_its_ids(tmp_path):
    parts = parse_parts(["search=search[:100]", "confirm=search[100:]", "test=confirm[5:9]", "valid=valid"])
    import_databin(PREPARED / "bin", tmp_path / "out", "en", "de", parts, PREPARED / "bpe.model")
    before, after = Corpus.open(PREPARED), Corpus.open(tmp_path / "out")
    assert after.about["sentences"] == {"valid": 514, "search": 100, "confirm": 1103, "test": 4}
    for ours, theirs, cut in (
        ("search", "search", slice(100)),
        ("confirm", "search", slice(100, None)),
        ("test", "confirm", slice(5, 9)),
        ("valid", "valid", slice(None)),
    ):
        for read in (Corpus.source_tokens, Corpus.target_tokens):
            pairs = zip(read(after, ours), read(before, theirs)[cut], strict=True)
            assert all(np.array_equal(one, other) for one, other in pairs)
    # whole splits come out byte by byte as fairseq-preprocess wrote them
    binary = "bin/valid.en-de.de.bin"
    assert (tmp_path / "out" / binary).read_bytes() == (PREPARED / binary).read_bytes()
    # text differs only where the dictionary lacks a piece
    lines = list(zip(after.references("search"), before.references("search")[:100], strict=True))
    assert all(got == given for got, given in lines if "<unk>" not in got)
    assert sum("<unk>" in got for got, _ in lines) < 5


@pytest.fixture
def words(tmp_path) -> Path:
    """A hand-made data-bin, de-en, of subword-nmt pieces after Moses tokenisation, and its codes."""
    folder = tmp_path / "words"
    folder.mkdir()
    (folder / "codes").write_text("#version: 0.2\nt ü\n")
    text = {
        "valid": [
            ("open the do@@ or , please .", "die T@@ ü@@ r bitte öff@@ nen ."),
            ("it &apos;s done", "es ist fer@@ tig !"),
            ("ok", "gut"),
        ],
        "test": [("the do@@ or", "die T@@ ü@@ r xyz")],
    }
    for side, language in enumerate(("en", "de")):
        dictionary = Dictionary()
        for pairs in text.values():
            for pair in pairs:
                for symbol in pair[side].split():
                    if symbol != "xyz":
                        dictionary.add_symbol(symbol)
        dictionary.save(str(folder / f"dict.{language}.txt"))
        for split, pairs in text.items():
            write(folder / f"{split}.de-en.{language}", dictionary, [pair[side] for pair in pairs])
    return folder


def write(prefix: Path, dictionary: Dictionary, lines: list[str], eos: bool = True) -> None:
    builder = make_builder(f"{prefix}.bin", "mmap", len(dictionary))
    for line in lines:
        ids = dictionary.encode_line(line, add_if_not_exist=False, append_eos=eos)
        builder.add_item(torch.as_tensor(ids))
    builder.finalize(f"{prefix}.idx")


def test_subword_nmt_and_moses_are_undone(words, tmp_path):
    # made for de-en, used for en-de: fairseq takes either order, too
    import_databin(words, tmp_path / "out", "en", "de", parse_parts(WHOLE), words / "codes", moses=True)
    corpus = Corpus.open(tmp_path / "out")
    assert corpus.sources("search") == ["open the door, please.", "it's done"]
    assert corpus.references("search") == ["die Tür bitte öffnen.", "es ist fertig!"]
    assert corpus.references("confirm") == ["gut"]
    assert corpus.references("test") == ["die Tür <unk>"]
    assert corpus.detokenise(["T@@", "ü@@", "r", "!"]) == "Tür!"
    assert corpus.about["floors"]["nearest"] == {}


def test_without_moses_the_tokens_stay_apart(words, tmp_path):
    import_databin(words, tmp_path / "out", "en", "de", parse_parts(WHOLE), words / "codes")
    assert Corpus.open(tmp_path / "out").sources("search")[0] == "open the door , please ."


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["search=valid[:2]", "confirm=valid[2:4]", "test=test"], "confirm asks for sentences 2:4 of 3"),
        (["search=valid[:2]", "confirm=valid[3:]", "test=test"], "confirm asks for sentences 3:None of 3"),
        (["search=valid[:2]", "confirm=valid[2:2]", "test=test"], "confirm is empty"),
        (["search=valid[:2]", "confirm=dev", "test=test"], "dev.*missing; splits found in .*: test, valid"),
    ],
)
def test_slices_that_do_not_fit_are_refused(words, tmp_path, assignments, message):
    with pytest.raises(StudyError, match=message):
        import_databin(words, tmp_path / "out", "en", "de", parse_parts(assignments), words / "codes")
    assert not (tmp_path / "out").exists()


def test_misaligned_sides_are_refused(words, tmp_path):
    for suffix in ("bin", "idx"):
        shutil.copy(words / f"valid.de-en.de.{suffix}", words / f"test.de-en.de.{suffix}")
    with pytest.raises(StudyError, match="test is misaligned: 1 en, 3 de sentences"):
        import_databin(words, tmp_path / "out", "en", "de", parse_parts(WHOLE), words / "codes")


def test_sentences_without_an_end_are_refused(words, tmp_path):
    dictionary = Dictionary.load(str(words / "dict.de.txt"))
    write(words / "test.de-en.de", dictionary, ["die T@@ ü@@ r"], eos=False)
    with pytest.raises(StudyError, match="has sentences without an end"):
        import_databin(words, tmp_path / "out", "en", "de", parse_parts(WHOLE), words / "codes")


def test_an_unknown_language_is_refused(words, tmp_path):
    with pytest.raises(StudyError, match=r"dict.fr.txt is missing"):
        import_databin(words, tmp_path / "out", "en", "fr", parse_parts(WHOLE), words / "codes")
