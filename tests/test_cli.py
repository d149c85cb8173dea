"""The command ``olmp`` as a user types it."""

import json
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import MODELS, ROOT, read_evaluations

from harness import cli
from harness.commands import compress
from harness.configuration import CellConfig
from harness.decoding.linear import multiplies
from harness.progress import SearchProgress
from harness.records import Evaluation

OLMP = Path(sys.executable).with_name("olmp")
PREPARED = ROOT / "data" / "homeassistant.en-de"
MODEL = ["--corpus", "--trust-checkpoint"]
RETRAINING = ["--epochs", "--learning-rate", "--dropout", "--batch-tokens", "--autocast", "--distillation"]
CELL = ["--grouping", "--operator", "--search", "--tolerance", "--criterion", "--confidence", "--evaluations"]
CELL += ["--constraint"]
CELL += [
    "--tokens",
    "--start",
    "--sigma",
    "--search-beam",
    *("--search-sentences", "--redraw"),
    *("--schedule", "--round-epochs", "--training-device", *RETRAINING),
    "--final-beam",
    "--vectors",
    "--seed",
    "--racing",
    "--precision",
]
CELL += ["--no-skipping", "--sparsity", "--round-tolerance"]
GRID = [
    "--out",
    "--only",
    "--done-in",
    "--trust-checkpoint",
    "--keep-checkpoints",
    "--cell-seconds",
    "--cell-memory",
]
OPTIONS = {
    "groups": [*MODEL, "--grouping", "--vectors", "--seed"],
    "compress": [*MODEL, "--out", "--workers", "--device", *CELL],
    "evaluate": [*MODEL, "--split", "--beam", "--hypotheses", "--threads", "--device"],
    "retrain": [*MODEL, "--device", "--cell", "--out", *RETRAINING, "--seed"],
    "plan": ["--out", "--only", "--done-in", "--trust-checkpoint", "--jobs"],
    "grid": [*GRID, "--executor", "--jobs", "--retry-failed", "--tracker", "--site", "--wait"],
    "status": ["--cells", "--done-in"],
    "collect": ["--into"],
    "verify": ["--sample", "--seed", "--trust-checkpoint"],
    "clean-failed": [],
    "cancel": [],
    "watch": ["--seconds"],
    "tables": ["--out", "--only"],
    "corpus homeassistant": ["--pair", "--out", "--quiet", "--vocabulary"],
    "corpus multi30k": ["--pair", "--out", "--quiet", "--vocabulary", "--from"],
    "corpus text": ["--pair", "--out", "--quiet", "--vocabulary"],
    "corpus databin": ["--pair", "--out", "--quiet", "--bpe", "--moses", "--split"],
}
#: a cell of one evaluation, every setting of the command line away from its default
UNUSUAL = {
    "grouping": "component",
    "operator": "magnitude-threshold",
    "search": "OnePlusOne",
    "tolerance": 7.5,
    "criterion": "point",
    "constraint": "bleu",  # the others do not go with the precision below
    "confidence": 0.9,
    "evaluations": 1,
    "tokens": 5000,
    "start": "dense",
    "sigma": 0.2,
    "search_beam": 2,
    "search_sentences": 18,
    "redraw": True,
    "schedule": "retrain",
    "epochs": 1,
    "round_epochs": 1,
    "round_tolerance": 9.0,
    "learning_rate": 1e-4,
    "batch_tokens": 500,
    "dropout": 0.1,
    "autocast": "bfloat16",
    "distillation": 0.5,
    "final_beam": 1,
    "vectors": True,
    "seed": 5,
    "racing": 0.05,
    "skipping": False,
    "precision": "bfloat16",
}
#: settings that do not go with those
GIVEN = {"search": "class-blind", "sparsity": 0.3}


def olmp(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


def as_options(settings: dict) -> list[str]:
    words = []
    for name, value in settings.items():
        words.append(f"--{'no-' if value is False else ''}{name.replace('_', '-')}")
        words += [] if isinstance(value, bool) else [str(value)]
    return words


@pytest.fixture
def rnnsearch(small) -> list:
    """The checkpoint and the corpus, as the command line wants them."""
    return [MODELS / "rnnsearch.pt", "--corpus", small]


def test_help_lists_the_verbs(capsys):
    with pytest.raises(SystemExit) as end:
        olmp("--help")
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert all(
        re.search(rf"^ +{verb} ", shown, re.M) for verb in ("groups", "compress", "evaluate", "corpus")
    )


@pytest.mark.parametrize("verb", OPTIONS)
def test_help_of_a_verb_lists_its_options(capsys, verb):
    with pytest.raises(SystemExit) as end:
        olmp(*verb.split(), "--help")
    assert end.value.code == 0
    shown = capsys.readouterr().out
    listed = set(re.findall(r"^  (?:-h, )?(--[a-z-]+)", shown, re.M))
    assert listed == {"--help", *OPTIONS[verb]}


def test_every_field_of_a_cell_can_be_given_or_is_fixed():
    fixed = {"schema_version", "checkpoint_sha256", "corpus_sha256", "resamples", "device"}
    fixed |= {"groups_sha256", "training_sha256"}
    given = {option.removeprefix("--").removeprefix("no-").replace("-", "_") for option in CELL}
    assert given | fixed == set(CellConfig.model_fields)
    assert set(UNUSUAL) | set(GIVEN) | {"training_device"} == given  # which takes a GPU


def test_a_given_sparsity_is_a_setting_of_its_own():
    args = cli.parser().parse_args(["compress", "model.pt", *as_options(GIVEN)])
    assert compress.settings(args) == GIVEN


def test_nothing_given_is_the_default_cell():
    args = cli.parser().parse_args(["compress", "model.pt"])
    assert compress.settings(args) == {}


def test_groups_are_printed_with_their_weights(capsys, rnnsearch):
    assert olmp("groups", *rnnsearch, "--grouping", "gate") == 0
    out, err = capsys.readouterr()
    assert err == ""
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    state = torch.load(MODELS / "rnnsearch.pt", weights_only=False)["model"]
    lstm = [
        t.float()
        for n, t in state.items()
        if re.search(r"lstm|layers\.\d+\.weight_[ih]h", n) and t.dim() == 2
    ]
    # PyTorch's order of gates: input, forget, cell, output
    by_gate = zip(*(tensor.chunk(4) for tensor in lstm), strict=True)
    chunks = dict(zip(("input", "forget", "cell", "output"), by_gate, strict=True))
    total = int(re.search(r"([\d,]+) prunable", out)[1].replace(",", ""))
    for gate, blocks in chunks.items():
        values = torch.cat([block.flatten() for block in blocks]).double()
        count, connections, share, mean, std = rows[gate]
        assert int(count) == len(blocks)
        assert int(connections) == values.numel()
        assert share == f"{values.numel() / total:.2%}"
        assert float(mean) == pytest.approx(values.abs().mean().item(), abs=1e-5)
        assert float(std) == pytest.approx(values.std(correction=0).item(), abs=1e-5)
    assert out.splitlines()[-1].startswith("5 groups, ")


def test_compress_takes_every_setting_and_returns_at_once_the_second_time(
    capsys, monkeypatch, tmp_path, rnnsearch
):
    monkeypatch.chdir(tmp_path)
    assert olmp("compress", *rnnsearch, *as_options(UNUSUAL)) == 0
    out, err = capsys.readouterr()
    # no progress bar where no terminal is; but UNUSUAL asks for bfloat16
    slow = (
        ""
        if multiplies(torch.bfloat16)
        else "this processor has no bfloat16: it takes longer than float32 does\n"
    )
    assert err == slow
    assert out.startswith(
        "component / magnitude-threshold / OnePlusOne, tolerance 7.5 BLEU (point), seed 5\n"
    )
    folder = Path(out.splitlines()[-1].removeprefix("written to "))
    assert folder.parent == Path("runs")
    assert folder.name.startswith("component-OnePlusOne-7.5-seed5-")
    written = json.loads((folder / "config.json").read_text())
    assert {name: written[name] for name in UNUSUAL} == UNUSUAL
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert olmp("compress", *rnnsearch, *as_options(UNUSUAL)) == 0
    assert capsys.readouterr().out == out
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_model_that_was_pruned_before_is_pointed_out(capsys, finished, small, tmp_path):
    cell = finished("OnePlusOne")
    arguments = [cell.folder / "pruned.pt", "--corpus", small, "--search", "dense", "--grouping", "single"]
    assert olmp("compress", *arguments, "--out", tmp_path / "cell") == 0
    said = capsys.readouterr().err
    weights = torch.load(cell.folder / "pruned.pt", weights_only=False)["model"]
    sizes = [(int((w == 0).sum()), w.numel()) for name, w in weights.items() if "version" not in name]
    zeros, total = map(sum, zip(*sizes, strict=True))
    assert said.startswith(f"{zeros / total:.1%} of the weights of this model are zero already")


def test_evaluate_scores_what_compress_wrote(capsys, finished, small, tmp_path):
    cell = finished("OnePlusOne")
    hypotheses = tmp_path / "hypotheses.txt"
    arguments = [cell.folder / "pruned.pt", "--corpus", small, "--beam", 2, "--hypotheses", hypotheses]
    assert olmp("evaluate", *arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    test = cell.result.sets["test"]
    assert lines[0].startswith("test: 12 sentences, ")
    assert lines[0].endswith(" tokens, beam 2")
    assert lines[1] == f"BLEU {test.bleu:.2f}  {test.bleu_signature}"
    assert lines[2] == f"chrF {test.chrf:.2f}  {test.chrf_signature}"
    state = torch.load(cell.folder / "pruned.pt", weights_only=False)["model"]
    kept = sum(int((t != 0).sum()) for name, t in state.items() if "version" not in name)
    assert lines[3].startswith(f"{kept:,} of ")
    assert hypotheses.read_bytes() == (cell.folder / "test.pruned.txt").read_bytes()
    assert olmp("groups", *arguments[:3]) == 0
    parameters = capsys.readouterr().out.split(" connections of ")[1].split(" parameters")[0]
    assert lines[3] == f"{kept:,} of {parameters} parameters are not zero"


def test_evaluate_another_split(capsys, rnnsearch):
    assert olmp("evaluate", *rnnsearch, "--split", "valid", "--beam", 1) == 0
    assert capsys.readouterr().out.startswith("valid: 8 sentences, ")


def test_progress_counts_the_search_and_shows_the_smallest_feasible_size(capsys):
    config = CellConfig(checkpoint_sha256="", corpus_sha256="", evaluations=4)
    seen = {"knobs": [], "how": "translated", "score": 1, "seconds": 0}
    seen |= dict.fromkeys(("sentences", "tokens", "tokens_computed"), 1)
    seen |= dict.fromkeys(("bleu", "drop", "bound", "standard_error"))
    found = [("start", 0.8, True), ("search", 0.5, False), ("search", 0.7, True), ("confirm", 0.7, True)]
    for quiet in (False, True):
        with SearchProgress(config, quiet) as progress:
            for index, (stage, size, feasible) in enumerate(found):
                progress(Evaluation(index=index, stage=stage, size=size, feasible=feasible, **seen))
        shown = capsys.readouterr().err
        if quiet:
            assert shown == ""
        else:
            assert "layer NCS" in shown
            assert "3/4" in shown
            assert "4/4" not in shown
            assert "confirming 70.0% remaining" in shown


def wait_for_evaluations(folder: Path, process: subprocess.Popen, count: int) -> None:
    """Until a running cell has recorded so many evaluations."""
    path = folder / "evaluations.jsonl"
    while process.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") < count):
        time.sleep(0.02)


def test_killed_and_interrupted_runs_resume_to_the_uninterrupted_result(capsys, tmp_path, rnnsearch):
    """One real process is killed, the next gets Ctrl-C, a third run completes the cell."""
    # NGOpt says much in its log and runs Cobyla in a thread of its own
    settings = ["--search", "NGOpt", "--start", "dense", "--sigma", "0.1", "--evaluations", "25"]
    settings += ["--tolerance", "20", "--criterion", "point", "--final-beam", "1", "--grouping", "stage"]
    command = [OLMP, "compress", *rnnsearch, *settings, "--out", tmp_path / "cell"]
    for number, recorded in ((signal.SIGKILL, 2), (signal.SIGINT, 6)):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_for_evaluations(tmp_path / "cell", process, recorded)
        process.send_signal(number)
        out, err = process.communicate(timeout=600)
        assert out == ""
        assert not (tmp_path / "cell" / "result.json").exists()
    assert process.returncode == 2
    assert err == "olmp: interrupted; run the same command again, it resumes\n"
    kept = (tmp_path / "cell" / "evaluations.jsonl").read_bytes()
    assert 6 <= kept.count(b"\n") < 25

    for place in ("cell", "whole"):
        assert olmp("compress", *rnnsearch, *settings, "--out", tmp_path / place) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("pruned ")]
    assert shown[0] == shown[1]
    assert (tmp_path / "cell" / "evaluations.jsonl").read_bytes().startswith(kept)
    runs = [read_evaluations(tmp_path / place) for place in ("cell", "whole")]
    resumed, whole = ([e.model_copy(update={"seconds": 0}) for e in run] for run in runs)
    assert resumed == whole
    for name in ("test.pruned.txt", "confirm.pruned.txt", "config.json"):
        assert (tmp_path / "cell" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_reader_that_has_gone_is_no_error():
    command = [OLMP, "corpus", "homeassistant", "--out", PREPARED]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.wait(timeout=600) == 0
    assert process.stderr.read() == ""


def test_output_that_cannot_be_written_is_an_error(tmp_path):
    with (tmp_path / "out").open("w") as out:
        done = subprocess.run(
            [OLMP, "corpus", "homeassistant", "--out", PREPARED],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
        )
    assert done.returncode == 2
    assert done.stderr == "olmp: error: [Errno 27] File too large\n"


def fail(error: BaseException) -> None:
    raise error


def test_a_missing_package_is_named_unless_it_is_ours(capsys):
    missing = ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn")
    assert cli.guarded(lambda: fail(missing)) == 2
    expected = "olmp: error: torch is not installed: install olmp[study] (make setup)\n"
    assert capsys.readouterr().err == expected
    ours = ModuleNotFoundError("No module named 'harness.nothing'", name="harness.nothing")
    with pytest.raises(ModuleNotFoundError):
        cli.guarded(lambda: fail(ours))


def test_only_what_resumes_says_so(capsys):
    args = {
        words[0]: cli.parser().parse_args(words)
        for words in (["compress", "x.pt"], ["groups", "x.pt"], ["evaluate", "x.pt"])
    }
    assert {verb: found.resumes for verb, found in args.items()} == {
        "compress": True,
        "groups": False,
        "evaluate": False,
    }
    assert cli.guarded(lambda: fail(KeyboardInterrupt()), resumes=False) == 2
    assert capsys.readouterr().err == "olmp: interrupted\n"
