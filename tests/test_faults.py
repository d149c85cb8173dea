"""A grid survives kills, torn files, limits and company; ``faults.py`` tries more of each, and more kinds."""

import multiprocessing
import random
import resource
import shutil
import time
from functools import partial

import pytest
from faults import LOCAL, TABLES, complete, refusal, run_under_kills, tear, two_runners
from grids import assert_same, olmp, outcome, write_plan

from experiments.executors.local import _serve


@pytest.fixture(scope="module")
def plan(small, tmp_path_factory):
    return write_plan(tmp_path_factory.mktemp("plan") / "short.toml", small, TABLES.format(seeds="1"))


@pytest.fixture(scope="module")
def undisturbed(plan):
    """A grid where nothing has gone wrong."""
    folder = plan.with_name("undisturbed")
    complete(plan, folder)
    return folder


@pytest.fixture(scope="module")
def expected(undisturbed):
    return outcome(undisturbed)


@pytest.mark.long  # as `make faults`
def test_kills_at_random_moments(plan, expected, tmp_path):
    draws = {"runner": 1, "forkserver": 1, "worker": 6, "nobody": 4}
    killed = run_under_kills(plan, tmp_path / "killed", 4, random.Random(1), draws)
    assert killed.total() == 4
    assert_same(outcome(tmp_path / "killed"), expected)


def test_torn_records_and_a_limit_of_files(plan, undisturbed, expected, tmp_path):
    folder, chance = tmp_path / "torn", random.Random(2)
    shutil.copytree(undisturbed, folder)
    for result in sorted(folder.glob("cells/*/*/result.json"))[::2]:
        result.unlink()
        tear(result.with_name("evaluations.jsonl"), chance)
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (200_000, 200_000))  # masks are larger
    said = refusal(olmp("grid", plan, "--out", folder, *LOCAL, preexec_fn=limit))
    assert "File too large" in said
    assert "the grid is stopped: run the same command, it resumes" in said
    assert not list(folder.rglob("failure.json"))
    complete(plan, folder)
    assert_same(outcome(folder), expected)


def test_two_runners_share_the_cells(plan, expected, tmp_path):
    two_runners(plan, tmp_path / "two", random.Random(3))
    assert_same(outcome(tmp_path / "two"), expected)


def test_a_worker_whose_runner_is_gone_does_not_blame_the_cell(tmp_path):
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    begun, blamed = tmp_path / "begun", tmp_path / "blamed"

    def work(cell, tell):
        begun.touch()
        ours.close()  # as the runner does, at about the same time: then nobody listens any more
        try:
            for _ in range(1000):
                tell("an evaluation")
                time.sleep(0.01)
        except Exception:
            blamed.touch()

    worker = context.Process(target=_serve, args=(work, theirs, None))
    ours.send("a cell")
    worker.start()
    ours.close()
    worker.join(60)
    assert worker.exitcode == 0
    assert begun.exists()
    assert not blamed.exists()
