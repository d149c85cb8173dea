"""What a user can get wrong: one line that says so, exit code 2, and nothing overwritten."""

import os
import re
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from conftest import CELLS, MODELS, QUICK, largest_file, read_evaluations

from harness import cli

RNNSEARCH = MODELS / "rnnsearch.pt"
TRANSFORMER = MODELS / "transformer.pt"
#: a cell that takes no time
QUICKEST = ["--search", "OnePlusOne", "--start", "dense", "--grouping", "component", "--evaluations", "1"]
QUICKEST += ["--final-beam", "1"]


class Refusals:
    """Runs commands that must be refused."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments) -> str:
        """The message of a command that fails as it should, printing nothing else."""
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            code = cli.main([str(argument) for argument in arguments])
        out, err = self._capsys.readouterr()
        assert code == 2
        # a warning would be a second line; Python shows those of deprecation to programmers only
        assert [w for w in warned if not issubclass(w.category, DeprecationWarning)] == []
        assert err.startswith("olmp: error: ")
        assert err.endswith("\n")
        assert err.count("\n") == 1
        assert "Traceback" not in err
        assert out == ""
        return err.removeprefix("olmp: error: ").rstrip("\n")


@pytest.fixture
def refused(capsys) -> Refusals:
    return Refusals(capsys)


@pytest.fixture
def no_output(tmp_path):
    """A place for output; afterwards it is still not there."""
    yield tmp_path / "out"
    assert not (tmp_path / "out").exists()


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes()) for path in files
    }


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


# --- checkpoints

VERBS = [("groups",), ("evaluate",), ("compress", "--out", "OUT")]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
def test_a_missing_checkpoint(refused, small, no_output, verb):
    arguments = [no_output if word == "OUT" else word for word in verb[1:]]
    message = refused(verb[0], no_output.with_name("none.pt"), "--corpus", small, *arguments)
    assert message == f"checkpoint {no_output.with_name('none.pt')} does not exist"


def test_a_folder_as_a_checkpoint(refused, small, no_output):
    message = refused("compress", MODELS, "--corpus", small, "--out", no_output)
    assert message.endswith("a checkpoint is wanted; in it there is luong.pt, rnnsearch.pt, transformer.pt")


@pytest.mark.parametrize("size", [0, 10, 100_000, -1])
def test_a_truncated_checkpoint(refused, small, no_output, size):
    broken = no_output.with_name("broken.pt")
    broken.write_bytes(RNNSEARCH.read_bytes()[:size])
    message = refused("compress", broken, "--corpus", small, "--out", no_output)
    assert "broken.pt is " in message
    assert "truncated" in message or "damaged" in message


def test_an_empty_checkpoint_and_a_foreign_corpus_are_said_without_internals(refused, small, tmp_path):
    (empty := tmp_path / "empty.pt").touch()
    said = f"checkpoint {empty} is truncated: it ends too soon, copy it again"
    assert refused("groups", empty, "--corpus", small) == said
    (tmp_path / "corpus.json").write_text("{}")
    message = refused("groups", RNNSEARCH, "--corpus", tmp_path)
    assert message.startswith(
        f"{tmp_path} is no corpus folder (corpus.json is damaged, or another program's)"
    )
    (tmp_path / "corpus.json").unlink()
    message = refused("groups", RNNSEARCH, "--corpus", tmp_path)
    assert message == f"{tmp_path} is no corpus folder (it has no corpus.json): make one with `olmp corpus`"


def test_a_checkpoint_of_an_impossible_protocol(refused, small, no_output):
    broken = no_output.with_name("broken.pt")
    broken.write_bytes(b"\x80\xbe.....")
    message = refused("compress", broken, "--corpus", small, "--out", no_output)
    assert "broken.pt is " in message


def test_a_text_file_as_a_checkpoint(refused, small, no_output):
    message = refused("compress", small / "corpus.json", "--corpus", small, "--out", no_output)
    assert "corpus.json is no" in message


class Payload:
    """Pickles as a call that would leave a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_checkpoint_that_wants_to_run_code(refused, small, no_output):
    mark = no_output.with_name("executed")
    state = torch.load(RNNSEARCH, weights_only=False)
    path = saved(state | {"extra_state": Payload(mark)}, no_output.with_name("evil.pt"))
    message = refused("compress", path, "--corpus", small, "--out", no_output)
    assert "wants to run code while it is read (it names " in message
    assert message.endswith("if you trust its author, pass --trust-checkpoint")
    assert not mark.exists()


def test_a_trusted_checkpoint_may_run_code(capsys, small, tmp_path):
    state = torch.load(RNNSEARCH, weights_only=False)
    path = saved(state | {"extra_state": Payload(tmp_path / "executed")}, tmp_path / "trusted.pt")
    assert cli.main(["groups", str(path), "--corpus", str(small), "--trust-checkpoint"]) == 0
    assert (tmp_path / "executed").is_dir()


@pytest.mark.parametrize("content", [[1, 2], {"weights": torch.zeros(2)}, {"model": torch.zeros(2)}])
def test_a_foreign_checkpoint(refused, small, no_output, content):
    path = saved(content, no_output.with_name("foreign.pt"))
    message = refused("compress", path, "--corpus", small, "--out", no_output)
    assert "is no fairseq checkpoint: it has no 'model' entry" in message


def test_weights_that_are_no_numbers(refused, small, no_output):
    state = torch.load(RNNSEARCH, weights_only=False)
    name = next(name for name, weights in state["model"].items() if weights.dim() == 2)
    for value in (float("nan"), float("inf")):
        state["model"][name][1, 1] = value
        path = saved(state, no_output.with_name("nan.pt"))
        message = refused("compress", path, "--corpus", small, "--out", no_output)
        assert f"nan.pt holds NaN or infinite weights in {name}" in message


def test_a_dictionary_that_does_not_match(refused, small, no_output, tmp_path):
    corpus = shutil.copytree(small, tmp_path / "corpus")
    for language in ("en", "de"):
        path = corpus / "bin" / f"dict.{language}.txt"
        path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:-7]))
    message = refused("compress", RNNSEARCH, "--corpus", corpus, "--out", no_output)
    assert message.startswith(f"dictionary does not match {RNNSEARCH}: the encoder has ")
    assert message.endswith("use the corpus the model was trained on")


# --- settings


@pytest.mark.parametrize("verb", [["groups"], ["compress", "--out"]], ids=["groups", "compress"])
def test_an_unknown_grouping(refused, small, no_output, verb):
    command = [verb[0], RNNSEARCH, "--corpus", small, *verb[1:], *([no_output] if verb[1:] else [])]
    message = refused(*command, "--grouping", "layr")
    assert message.startswith("unknown grouping 'layr', did you mean 'layer'? known are attention-role, ")


@pytest.mark.parametrize("grouping", ["", "layer+", "nowhere:strategy", "os:nothing", "shuffled(layr)"])
def test_an_impossible_grouping(refused, small, no_output, grouping):
    message = refused("compress", RNNSEARCH, "--corpus", small, "--out", no_output, "--grouping", grouping)
    assert "grouping" in message


def test_gates_of_a_transformer(refused, small, no_output):
    message = refused("compress", TRANSFORMER, "--corpus", small, "--out", no_output, "--grouping", "gate")
    assert message == "grouping 'gate' needs LSTM layers, which this model does not have"
    message = refused("compress", RNNSEARCH, "--corpus", small, "--out", no_output, "--grouping", "head")
    assert message == "grouping 'head' needs attention heads, which this model does not have"


WRONG = [
    ("--operator", "magnitud", "unknown operator 'magnitud', did you mean 'magnitude'?"),
    ("--search", "NSC", "unknown optimiser 'NSC'.*did you mean.*NCS"),
    ("--search", "swarm", "unknown optimiser 'swarm'"),
    ("--tolerance", "-0.5", r"tolerance -0\.5 is not possible: .*greater than or equal to 0"),
    ("--sparsity", "1", r"sparsity 1\.0 is not possible: .*less than 1"),
    ("--sparsity", "0.5", "search 'NCS' finds its own sparsity: leave out sparsity 0.5, or name a"),
    ("--tolerance", "nan", "tolerance nan is not possible: .*finite number"),
    ("--tolerance", "inf", "tolerance inf is not possible: .*finite number"),
    ("--criterion", "mean", "criterion 'mean' is not possible: .*'bound' or 'point'"),
    ("--confidence", "1", "confidence 1.0 is not possible: .*less than 1"),
    ("--confidence", "nan", "confidence nan is not possible"),
    ("--evaluations", "0", "evaluations 0 is not possible: .*greater than or equal to 1"),
    ("--tokens", "0", "tokens 0 is not possible: .*greater than or equal to 1"),
    ("--start", "sparse", "start 'sparse' is not possible: .*'class-blind' or 'dense'"),
    ("--sigma", "0", "sigma 0.0 is not possible: .*greater than 0"),
    ("--sigma", "nan", "sigma nan is not possible"),
    ("--search-beam", "0", "search-beam 0 is not possible: .*greater than or equal to 1"),
    ("--final-beam", "-1", "final-beam -1 is not possible: .*greater than or equal to 1"),
    ("--seed", "-1", "seed -1 is not possible: .*greater than or equal to 0"),
    ("--seed", str(2**32), f"seed {2**32} is not possible: .*less than {2**32}"),
    ("--workers", "0", "0 workers are not possible: give 1 or more"),
    ("--device", "tpu", "unknown device 'tpu': give cpu or cuda"),
    ("--racing", "1", "racing 1.0 is not possible: Input should be less than 0.5"),
    ("--precision", "int4", "--precision int4 is not possible: give float32, .*, int8, or auto"),
    (
        "--learning-rate",
        "0.1",
        "--learning-rate means nothing to the schedule one-shot: .* --schedule retrain",
    ),
    ("--training-device", "cuda", "--training-device means nothing to the schedule one-shot"),
    ("--sparsity", "60", r"sparsity 60.0 is not possible: .* less than 1 \(fraction of the prunable"),
]


@pytest.mark.parametrize(("option", "value", "said"), WRONG, ids=lambda word: word[:14])
def test_an_impossible_setting(refused, small, no_output, option, value, said):
    message = refused("compress", RNNSEARCH, "--corpus", small, "--out", no_output, f"{option}={value}")
    assert re.match(said, message), message


def test_evaluate_refuses_what_it_cannot_do(refused, small):
    base = ("evaluate", RNNSEARCH, "--corpus", small)
    assert refused(*base, "--beam", 0) == "--beam 0 is not possible: give 1 (greedy) or more"
    assert refused(*base, "--threads", 0) == "--threads 0 is not possible: give 1 or more"
    assert "has no split 'dev'; it has train, valid, search" in refused(*base, "--split", "dev")


def test_groups_refuses_a_negative_seed(refused, small):
    arguments = ("--grouping", "shuffled(layer)", "--seed", -1)
    message = refused("groups", RNNSEARCH, "--corpus", small, *arguments)
    assert message == "--seed -1 is not possible: give 0 or more"


# --- text


@pytest.fixture
def text(tmp_path) -> Path:
    """A user's own sentences, good so far."""
    folder = tmp_path / "text"
    folder.mkdir()
    for split in ("train", "valid", "search", "confirm", "test"):
        for language in ("en", "de"):
            (folder / f"{split}.{language}").write_text("".join(f"{split} {i}\n" for i in range(5)))
    return folder


BAD_TEXT = {
    "empty": ("", "search is misaligned in .*: 0 lines of en, 5 lines of de"),
    "misaligned": ("a\n" * 4, "search is misaligned in .*: 4 lines of en, 5 lines of de"),
    "blank": ("a\nb\n \nc\nd\n", "search.en:3 is blank: remove the pair"),
    "binary": ("\xff\xfe\n" * 5, "search.en is not UTF-8 text"),
}


@pytest.mark.parametrize("kind", BAD_TEXT)
def test_bad_text(refused, text, no_output, kind):
    content, said = BAD_TEXT[kind]
    (text / "search.en").write_text(content, encoding="latin-1")
    message = refused("corpus", "text", text, "--out", no_output)
    assert re.search(said, message), message


def test_text_that_is_empty_on_both_sides(refused, text, no_output):
    for language in ("en", "de"):
        (text / f"test.{language}").write_text("")
    assert refused("corpus", "text", text, "--out", no_output).endswith(
        "test.en is empty: every split needs sentences"
    )


def test_text_that_is_missing(refused, text, no_output):
    (text / "confirm.de").unlink()
    message = refused("corpus", "text", text, "--out", no_output)
    assert "confirm.de is missing: a corpus folder holds " in message
    message = refused("corpus", "text", text, "--out", no_output, "--pair", "english")
    assert message == "bad language pair 'english': write two different languages, such as en-de"


def test_a_folder_without_a_corpus(refused, no_output, tmp_path):
    for place in (tmp_path, tmp_path / "none", RNNSEARCH):
        message = refused("compress", RNNSEARCH, "--corpus", place, "--out", no_output)
        assert f"{place} is no corpus folder" in message


# --- places for output


def test_a_folder_of_another_cell(refused, capsys, small, finished):
    cell = finished("OnePlusOne")
    before = snapshot(cell.folder)
    model, _ = CELLS["OnePlusOne"]
    command = ["compress", MODELS / f"{model}.pt", "--corpus", small, "--out", cell.folder]
    message = refused(*command, "--tolerance", 2, "--criterion", "bound", "--seed", 9)
    assert message.startswith(
        f"{cell.folder} holds a cell of another configuration (differs in groups_sha256, grouping, "
    )
    assert message.endswith("seed): choose another --out")
    assert snapshot(cell.folder) == before


def test_a_folder_that_is_no_cell(refused, small, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "result.json").write_text("{}")
    (mine / "thesis.tex").write_text("years of work")
    before = snapshot(mine)
    for place in (mine, mine / "thesis.tex"):
        message = refused("compress", RNNSEARCH, "--corpus", small, "--out", place, *QUICKEST)
        assert message == f"{place} exists and is no cell folder: choose another --out"
    message = refused(
        "compress", RNNSEARCH, "--corpus", small, "--out", mine / "thesis.tex" / "cell", *QUICKEST
    )
    assert message.startswith("could not make ")
    assert snapshot(mine) == before


def test_a_place_that_cannot_be_written(refused, small):
    """Nobody, root included, can make a folder in /proc or in a folder that does not exist there."""
    message = refused("compress", RNNSEARCH, "--corpus", small, "--out", "/proc/olmp/cell", *QUICKEST)
    assert message.startswith("could not make /proc/olmp/cell: ")
    assert not Path("/proc/olmp").exists()


class LateRefusals(Refusals):
    """A translation is printed before its file turns out to be impossible."""

    def __call__(self, *arguments) -> str:
        code = cli.main([str(argument) for argument in arguments])
        err = self._capsys.readouterr().err
        assert code == 2
        assert err.startswith("olmp: error: ")
        assert err.count("\n") == 1
        return err.removeprefix("olmp: error: ").rstrip("\n")


def test_hypotheses_that_cannot_be_written(capsys, small, tmp_path):
    refused = LateRefusals(capsys)
    (tmp_path / "folder").mkdir()
    old = tmp_path / "old.txt"
    old.write_text("mine\n")
    base = ("evaluate", RNNSEARCH, "--corpus", small, "--split", "valid", "--beam", 1, "--hypotheses")
    assert refused(*base, tmp_path / "none" / "h.txt").endswith("make it first")
    for there in (tmp_path / "folder", old, "/dev/null"):
        assert refused(*base, there) == f"{there} exists: give --hypotheses another name, or remove it"
    assert refused(*base, "/proc/h.txt").startswith("could not write /proc/h.txt: ")
    with largest_file(20):
        assert "File too large" in refused(*base, tmp_path / "new.txt")
    assert old.read_text() == "mine\n"
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "old.txt"}


def test_a_full_disk_while_compressing(refused, capsys, small, tmp_path, finished):
    """The disk fills up at the schema, among the evaluations, at the masks, and at the checkpoint."""
    reference = finished("OnePlusOne")
    model, settings = CELLS["OnePlusOne"]
    # the one setting without an option keeps its default here
    settings = {name: value for name, value in (QUICK | settings).items() if name != "resamples"}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    folder = tmp_path / "cell"
    command = ("compress", MODELS / f"{model}.pt", "--corpus", small, "--out", folder, *options)
    with largest_file(1200):
        assert "could not write " in refused(*command)
    assert {path.name for path in folder.iterdir()} == {"config.json"}
    (folder / "schema.json").write_text("{}")  # as large as it may be
    with largest_file(1200):
        assert "it resumes" in refused(*command)
    assert 1 <= len(read_evaluations_that_are_whole(folder)) < len(reference.evaluations())
    for size, last in ((100_000, "masks.npz"), (2_000_000, "pruned.pt")):
        with largest_file(size):
            assert f"could not write {folder / last}: " in refused(*command)
        recorded = read_evaluations(folder)
        assert [e.knobs for e in recorded] == [e.knobs for e in reference.evaluations()]
        assert not (folder / last).exists()
        assert not (folder / "result.json").exists()
    assert cli.main([str(word) for word in command]) == 0
    assert read_evaluations(folder) == recorded
    assert (folder / "test.pruned.txt").read_bytes() == (reference.folder / "test.pruned.txt").read_bytes()
    assert not [path for path in folder.iterdir() if path.name.endswith(".part")]


def read_evaluations_that_are_whole(folder: Path) -> list[str]:
    lines = (folder / "evaluations.jsonl").read_text().splitlines(keepends=True)
    return [line for line in lines if line.endswith("}\n")]
