"""`make demo`, with a budget that takes no time."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from conftest import MODELS, ROOT

from experiments import demo
from harness.cli import guarded, main
from harness.workers import cores


def test_cores_are_those_this_process_may_use():
    assert 1 <= cores() <= os.cpu_count()


def demo_command(small: Path, out: Path, *options: str) -> list[str]:
    return ["demo", "--corpus", str(small), "--models", str(MODELS), "--out", str(out), *options]


def test_the_demo_ends_with_both_models_and_tells_about_them(capsys, monkeypatch, small, tmp_path):
    monkeypatch.setattr(sys, "argv", demo_command(small, tmp_path, "--evaluations", "1", "--jobs", "1"))
    assert guarded(demo.main) == 0
    shown = capsys.readouterr().out
    for model, grouping in (("transformer", "attention-role"), ("rnnsearch", "gate")):
        part = shown.split(f"== {model}\n")[1].split("==")[0]
        assert part.startswith(f"{grouping} / magnitude / NCS, tolerance 1 BLEU (bound), seed 1\n")
        assert "sparsity" in part
        assert [line.split()[0] for line in part.splitlines()[3:6]] == ["search", "confirm", "test"]
        assert f"every evaluation: {tmp_path / 'cells' / model}" in part
        assert len(list((tmp_path / "cells" / model).glob("*/pruned.pt"))) == 1
    assert shown.splitlines()[-1].endswith(" s")
    # its folder is that of a grid
    assert main(["status", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "demo: 2 done\n"
    assert main(["collect", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""
    assert (tmp_path / "sentences.parquet").is_file()


def test_the_demo_without_a_corpus_says_so(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", demo_command(tmp_path / "none", tmp_path / "out", "--jobs", "1"))
    assert guarded(demo.main) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"olmp: error: {tmp_path / 'none'} is no corpus folder")
    assert err.count("\n") == 1


def test_ctrl_c_ends_all_processes_with_one_line(small, tmp_path):
    """A terminal sends it to every process of the group."""
    command = [sys.executable, "-m", "experiments.demo", *demo_command(small, tmp_path, "--jobs", "1")[1:]]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while process.poll() is None and not list(tmp_path.glob("cells/*/*/evaluations.jsonl")):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    # the error stream ends when no process of the group has it any more
    _, err = process.communicate(timeout=600)
    assert process.returncode == 2
    assert err == "olmp: interrupted; run the same command again, it resumes\n"
    assert not list(tmp_path.glob("cells/*/*/result.json"))
