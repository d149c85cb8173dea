"""Recipes become the right commands; a really trained model is shipped, loads and translates."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT, wait_until

from experiments.baselines import ship as shipping
from experiments.baselines.__main__ import main
from experiments.baselines.train import HERE, MODELS, PLUGIN, Recipe, read_recipe, train
from grouping.errors import StudyError
from harness.claim import Claim
from harness.corpus.prepare import prepare
from harness.decoding.linear import multiplies

COMMON = """--optimizer adam --adam-betas (0.9,_0.98) --criterion label_smoothed_cross_entropy
 --label-smoothing 0.1 --no-epoch-checkpoints --num-workers 0 --required-batch-size-multiple 1 --cpu
 --clip-norm 1 --max-tokens 2000 --lr-scheduler polynomial_decay"""
EXPECTED = {
    "transformer": """--arch transformer --encoder-embed-dim 256 --decoder-embed-dim 256
 --encoder-ffn-embed-dim 512 --decoder-ffn-embed-dim 512 --encoder-attention-heads 4
 --decoder-attention-heads 4 --encoder-layers 4 --decoder-layers 2 --share-all-embeddings
 --dropout 0.25 --attention-dropout 0.1 --lr 0.0015
 --warmup-updates 800 --max-update 6600 --total-num-update 6600""",
    "rnnsearch": """--arch lstm --encoder-embed-dim 160 --decoder-embed-dim 160 --decoder-out-embed-dim 160
 --encoder-hidden-size 192 --encoder-layers 1 --encoder-bidirectional --decoder-hidden-size 384
 --decoder-layers 1 --decoder-attention 1 --dropout 0.3 --lr 0.002 --warmup-updates 400
 --max-update 4600 --total-num-update 4600""",
    "luong": """--arch lstm --encoder-embed-dim 192 --decoder-embed-dim 192 --decoder-out-embed-dim 192
 --share-decoder-input-output-embed --encoder-hidden-size 288 --encoder-layers 2 --decoder-hidden-size 288
 --decoder-layers 2 --decoder-attention 1 --dropout 0.25 --lr 0.002 --warmup-updates 400
 --max-update 4600 --total-num-update 4600""",
}
TINY = """
threads = 1
autocast = "bfloat16"
[model]
arch = "transformer"
encoder-layers = 1
decoder-layers = 1
encoder-embed-dim = 64
decoder-embed-dim = 64
encoder-ffn-embed-dim = 64
decoder-ffn-embed-dim = 64
encoder-attention-heads = 2
decoder-attention-heads = 2
share-all-embeddings = true
[training]
optimizer = "adam"
lr = 1e-3
criterion = "label_smoothed_cross_entropy"
max-tokens = 400
required-batch-size-multiple = 1
max-update = 6
cpu = true
no-epoch-checkpoints = true
num-workers = 0
"""


def options_of(words: list[str]) -> set[tuple[str, ...]]:
    """Each flag with its value, if it has one."""
    starts = [i for i, word in enumerate(words) if word.startswith("--")]
    return {tuple(words[a:b]) for a, b in zip(starts, [*starts[1:], len(words)], strict=True)}


@pytest.mark.parametrize("name", MODELS)
def test_recipe_gives_the_command(name):
    recipe = read_recipe(HERE / f"{name}.toml")
    command = recipe.command(Path("corpus"), Path("out"), seed=3)
    assert command[:4] == [sys.executable, "-m", "fairseq_cli.train", str(Path("corpus/bin"))]
    own = f"--seed 3 --save-dir out --user-dir {PLUGIN}"
    log = "--no-progress-bar --log-format simple --log-interval 50"
    words = f"{EXPECTED[name]} {COMMON} {own} {log}".split()
    assert options_of(command[4:]) == options_of([word.replace("_0.98", " 0.98") for word in words])


def test_environment_says_threads_and_precision_whatever_was_inherited(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("OLMP_AUTOCAST", "bfloat16")
    found = Recipe("x", 1, "", (), 5).environment()
    assert (found["OMP_NUM_THREADS"], found["MKL_NUM_THREADS"], found["OLMP_AUTOCAST"]) == ("1", "1", "")


def test_it_may_train_on_a_gpu_and_on_a_cpu_it_sees_none(monkeypatch):
    """Beside a GPU fairseq clips the gradients of a CPU there, and fails."""
    recipe = read_recipe(HERE / "luong.toml")
    assert recipe.at("cpu") == recipe
    assert recipe.environment()["CUDA_VISIBLE_DEVICES"] == ""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    there = recipe.at("cuda")
    assert set(recipe.arguments) - set(there.arguments) == {"--cpu"}
    assert there.arguments[-2:] == ("--distributed-world-size", "1")
    assert there.environment()["CUDA_VISIBLE_DEVICES"] == "3"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("threads = 0", "whole number"),
        ("[a]\nlr = 1", "whole number"),
        ("threads = 1\nautocast = 'float16'", "give bfloat16"),
        ("threads = 1\nspeed = 3", "unknown setting 'speed'"),
        ("threads = 1\n[a]\ncpu = false", "leave it out"),
        ("threads = 1\n[a]\nlr = [1]", "give true, a number or text"),
        ("threads = 1\n[a]\nlr = 1", "no max-update"),
        ("threads =", "not a readable TOML"),
    ],
)
def test_bad_recipe_is_refused(tmp_path, content, message):
    (tmp_path / "bad.toml").write_text(content)
    with pytest.raises(StudyError, match=message):
        read_recipe(tmp_path / "bad.toml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("baselines")


@pytest.fixture(scope="module")
def corpus(folder):
    subjects = [("the lamp", "die Lampe"), ("the door", "die Tür"), ("my phone", "mein Telefon")]
    states = [("is on", "ist an"), ("is off", "ist aus"), ("was lost", "ist weg"), ("works", "geht")]
    places = [("in the hall", "im Flur"), ("upstairs", "oben"), ("at home", "zu Hause"), ("again", "wieder")]
    pairs = [
        (" ".join(part[0] for part in parts), " ".join(part[1] for part in parts))
        for parts in itertools.product(subjects, states, places)
    ]
    splits = {"train": pairs[:32], "valid": pairs[32:36], "search": pairs[36:40], "confirm": pairs[40:44]}
    prepare({**splits, "test": pairs[44:]}, folder / "corpus", "en", "de", vocabulary=60)
    return folder / "corpus"


@pytest.fixture(scope="module")
def recipe(folder):
    (folder / "tiny.toml").write_text(TINY)
    return read_recipe(folder / "tiny.toml")


@pytest.fixture(scope="module")
def trained(folder, corpus, recipe):
    return train([recipe], corpus, folder / "checkpoints", seed=1, jobs=1)[0]


@pytest.fixture(scope="module")
def shipped(folder, corpus, trained):
    return shipping.ship(trained / "checkpoint_best.pt", corpus, folder / "models", "tiny")


def bytes_of(weights: dict[str, torch.Tensor]) -> int:
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in weights.values()}
    return sum(storages.values())


def test_training_is_done_once(trained, recipe, corpus):
    assert trained.name == "tiny.seed1"
    about = json.loads((trained / "done.json").read_text())
    state = shipping.read_training_checkpoint(trained / "checkpoint_best.pt")
    # fairseq rounds the loss in its log to three decimals
    assert about == {"best_valid_loss": pytest.approx(state["extra_state"]["best"], abs=6e-4), "updates": 6}
    before = (trained / "train.log").read_bytes()
    assert train([recipe], corpus, trained.parent, seed=1, jobs=1) == [trained]
    assert (trained / "train.log").read_bytes() == before


@pytest.mark.parametrize("torn", [False, pytest.param(True, marks=pytest.mark.long)])
def test_interrupted_training_resumes(trained, corpus, recipe, tmp_path, torn):
    # what an interruption after six of nine updates leaves; or one while the best checkpoint becomes the last
    longer = replace(recipe, arguments=(*recipe.arguments, "--max-update", "9"), max_update=9)
    (tmp_path / "tiny.seed1").mkdir()
    last = Path(shutil.copy(trained / "checkpoint_last.pt", tmp_path / "tiny.seed1"))
    if torn:
        shutil.copy(last, last.with_name("checkpoint_best.pt"))
        last.write_bytes(last.read_bytes()[:5000])
    folder = train([longer], corpus, tmp_path, seed=1, jobs=2)[0]
    assert "@ 6 updates" in (folder / "train.log").read_text()
    state = shipping.read_training_checkpoint(folder / "checkpoint_last.pt")
    assert state["optimizer_history"][-1]["num_updates"] == 9


def test_a_folder_is_for_one_process_and_its_training_dies_with_it(corpus, tmp_path):
    command = [sys.executable, "-m", "experiments.baselines", "--model", "luong"]
    places = ["--corpus", str(corpus), "--out", str(tmp_path)]
    process = subprocess.Popen([*command, *places], cwd=ROOT, stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_until(lambda: b"fairseq_cli.train" in command_of(children.read_text()))
    training = children.read_text().strip()
    try:
        with pytest.raises(StudyError, match=f"process {process.pid} on .* is at work in .*luong.seed1"):
            train([read_recipe(HERE / "luong.toml")], corpus, tmp_path, seed=1, jobs=1)
        process.kill()
        process.wait()
        wait_until(lambda: not command_of(training))
    finally:
        process.kill()
        if command_of(training):
            os.kill(int(training), signal.SIGKILL)
    with Claim(tmp_path / "luong.seed1"):
        pass  # the next one may go on


def command_of(process: str) -> bytes:
    """The command line of a process, by its number; nothing if it has ended."""
    try:
        return Path(f"/proc/{process.strip()}/cmdline").read_bytes()
    except OSError:
        return b""


def test_another_training_in_the_folder_is_refused(trained, corpus):
    (trained.parent / "tiny.toml").write_text(TINY.replace("1e-3", "1e-2"))
    other = read_recipe(trained.parent / "tiny.toml")
    with pytest.raises(StudyError, match="another configuration"):
        train([other], corpus, trained.parent, seed=1, jobs=1)


class Failing(Recipe):
    def command(self, corpus: Path, folder: Path, seed: int) -> list[str]:
        return [sys.executable, "-c", "raise SystemExit('no memory left')"]


def test_failing_training_says_so(corpus, tmp_path):
    with pytest.raises(StudyError, match=r"train.log: no memory left"):
        train([Failing("bad", 1, "", (), 5)], corpus, tmp_path, seed=1, jobs=1)
    assert not (tmp_path / "bad.seed1" / "done.json").exists()


SLEEP = """
import os, pathlib, time
mark = pathlib.Path({!r})
mark.with_suffix(".part").write_text(str(os.getpid()))
mark.with_suffix(".part").rename(mark)
time.sleep(600)
"""
FAIL_LATER = """
import pathlib, time
while not pathlib.Path({!r}).exists():
    time.sleep(0.01)
raise SystemExit(1)
"""


class Scripted(Recipe):
    def command(self, corpus: Path, folder: Path, seed: int) -> list[str]:
        script = SLEEP if self.name == "long" else FAIL_LATER
        return [sys.executable, "-c", script.format(str(folder.parent / "pid"))]


def test_a_failure_stops_the_other_trainings(corpus, tmp_path):
    recipes = [Scripted("long", 1, "", (), 5), Scripted("bad", 1, "", (), 5)]
    with pytest.raises(StudyError, match="bad.seed1"):
        train(recipes, corpus, tmp_path, seed=1, jobs=2)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_command_line_refuses_a_missing_corpus(tmp_path, capsys):
    assert main(["--model", "luong", "--corpus", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("olmp: error: ")
    assert "not a prepared corpus" in err
    assert not (tmp_path / "out").exists()


def test_ctrl_c_ends_the_training_command_as_it_ends_the_others(monkeypatch, capsys):
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("experiments.baselines.__main__.train", interrupted)
    assert main(["--model", "luong"]) == 2
    assert capsys.readouterr().err == "olmp: interrupted; run the same command again, it resumes\n"


def test_shipped_checkpoint_is_half_the_weights_and_nothing_else(trained, shipped, folder):
    before = shipping.read_training_checkpoint(trained / "checkpoint_best.pt")["model"]
    # torch's own default since 2.6, without an allow-list
    state = torch.load(shipped, weights_only=True)
    after = state["model"]
    assert list(after) == list(before)
    assert 2 * bytes_of(after) == bytes_of(before)
    assert all(torch.equal(after[name], before[name].half()) for name in before)
    tied = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "decoder.output_projection.weight"]
    assert len({after[name].data_ptr() for name in tied}) == 1
    content = shipped.read_bytes()
    assert str(folder).encode() not in content
    assert str(PLUGIN).encode() not in content
    assert "last_optimizer_state" not in state
    assert (state["cfg"]["task"]["source_lang"], state["cfg"]["task"]["target_lang"]) == ("en", "de")


def test_vocabulary_lies_beside_the_shipped_checkpoint(shipped, corpus):
    assert (shipped.parent / "bpe.model").read_bytes() == (corpus / "bpe.model").read_bytes()
    assert (shipped.parent / "dict.txt").read_bytes() == (corpus / "bin/dict.de.txt").read_bytes()
    assert sorted(p.name for p in shipped.parent.iterdir()) == ["bpe.model", "dict.txt", "tiny.pt"]


def test_plain_fairseq_generate_translates_with_it(shipped, corpus):
    command = [sys.executable, "-m", "fairseq_cli.generate", str(corpus / "bin"), "--path", str(shipped)]
    # a multiple above 1, the default is 8, makes fairseq drop the last sentences without a word
    command += ["--gen-subset", "test", "--cpu", "--beam", "2", "--max-len-b", "10"]
    command += ["--required-batch-size-multiple", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    hypotheses = [line for line in done.stdout.splitlines() if line.startswith("H-")]
    assert len(hypotheses) == 4


def test_shipping_refuses_what_it_should(trained, corpus, tmp_path, monkeypatch, capsys):
    best = trained / "checkpoint_best.pt"
    (tmp_path / "half.pt").write_bytes(best.read_bytes()[:5000])
    for path, reason in ((tmp_path / "half.pt", "unreadable"), (tmp_path / "missing.pt", "does not exist")):
        with pytest.raises(StudyError, match=reason):
            shipping.ship(path, corpus, tmp_path / "out", "x")
    torch.save({"cfg": Path("a class that is not on the list")}, tmp_path / "code.pt")
    with pytest.raises(StudyError, match="wants to run code"):
        shipping.ship(tmp_path / "code.pt", corpus, tmp_path / "out", "x")
    monkeypatch.setattr(shipping, "LARGEST", 1000)
    with pytest.raises(StudyError, match="1,000 are allowed"):
        shipping.ship(best, corpus, tmp_path / "out", "x")
    assert list((tmp_path / "out").iterdir()) == []
    (tmp_path / "out" / "bpe.model").write_text("another")
    command = [str(best), "--corpus", str(corpus), "--out", str(tmp_path / "out")]
    assert shipping.main(command) == 2
    assert "belongs to another corpus" in capsys.readouterr().err


def test_shipping_what_is_not_trained_says_what_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train = "`make baselines MODEL={} SEED={}` trains {}, `make ship MODEL={} SEED={}` ships it\n"
    one = train.format("luong", 2, "one (of transformer, rnnsearch, luong)", "luong", 2)
    assert shipping.main([]) == 2
    assert capsys.readouterr().err == f"olmp: error: no model is named; trained in checkpoints: none; {one}"
    for name in ("rnnsearch.seed2", "luong.seed1"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "checkpoint_best.pt").touch()
    (tmp_path / "checkpoints" / "transformer.seed1").mkdir()  # has only begun
    trained = "does not exist; trained in checkpoints: luong.seed1, rnnsearch.seed2; "
    for name, advice in (
        ("lunog.seed1", one),
        ("rnnsearch.seed3", train.format("rnnsearch", 3, "it", "rnnsearch", 3)),
    ):
        path = f"checkpoints/{name}/checkpoint_best.pt"
        assert shipping.main([path]) == 2
        assert capsys.readouterr().err == f"olmp: error: {path} {trained}{advice}"


def test_weights_that_half_precision_cannot_hold_are_refused():
    with pytest.raises(StudyError, match="fc.weight"):
        shipping.halve({"fc.weight": torch.tensor([1.0, 70000.0])})


PROBE = """
import torch
import harness.training
from fairseq.tasks.fairseq_task import FairseqTask

class Model(torch.nn.Linear):
    def set_num_updates(self, number): pass

class Optimizer:
    def backward(self, loss): loss.backward()

def criterion(model, sample):
    output = model(sample)
    print(output.dtype, model.weight.dtype)
    return output.float().sum(), 1, {}

for harness.training.AUTOCAST in ("bfloat16", ""):
    FairseqTask.train_step(None, torch.ones(1, 2), Model(2, 2), criterion, Optimizer(), 0)
"""


def test_plugin_computes_in_the_precision_asked_for():
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
    asked = "torch.bfloat16" if multiplies(torch.bfloat16) else "torch.float32"
    expected = [asked, "torch.float32", "torch.float32", "torch.float32"]
    assert done.stdout.split() == expected, done.stderr
