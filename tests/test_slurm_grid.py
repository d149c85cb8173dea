"""A grid on a real SLURM: cells fail, jobs are cancelled and preempted, and the results are the same."""

import re
import subprocess
from collections.abc import Iterator

import pytest
from conftest import ROOT, wait_until
from grids import OLMP, assert_same, olmp, outcome, session, write_plan
from slurm_cluster import Cluster, missing

from experiments.executors.slurm import in_queue
from experiments.grid import Grid
from harness.cli import main

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(missing() is not None, reason=str(missing()))]

#: two cells to a job: a long one in the first job and in the third, one that fails in the second
TABLES = """\
[[cells]]
model = ["rnnsearch", "transformer"]
grouping = "single"
evaluations = 120
[[cells]]
model = ["rnnsearch", "transformer"]
grouping = ["component", "layer"]
evaluations = 6
[[cells]]
model = "rnnsearch"
grouping = "single"
evaluations = 5
search_sentences = 1000  # more than there are, which is noticed when the sentences are drawn
"""
SITE = """\
cells_per_job = 2
memory_gb = 1.9
minutes = 5
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("slurm") / "cluster", max_array_size=3) as cluster:
        yield cluster


@pytest.fixture
def ask(cluster, monkeypatch, capsys):
    """What ``olmp`` prints in this process, which is on the cluster, and how it ends."""
    monkeypatch.chdir(ROOT)
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)

    def ask(*arguments: object, code: int = 0) -> str:
        assert main([str(argument) for argument in arguments]) == code
        said = capsys.readouterr()
        return said.err if code else said.out

    return ask


def submitted(cluster: Cluster, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Submit what is to be run in a process of its own; nothing but what it printed stays of it."""
    command = [*OLMP, *map(str, arguments)]
    code = "import os, sys; os.setsid(); print(os.getpid(), flush=True); os.execvp(sys.argv[1], sys.argv[1:])"
    done = cluster.run([OLMP[0], "-c", code, *command], cwd=ROOT, capture_output=True, text=True)
    leader, _, done.stdout = done.stdout.partition("\n")
    assert session(int(leader)) == {}
    return done


def evaluations(grid: Grid, cell: str) -> int:
    """How many lines the record of a cell has."""
    path = grid.cells_folder / cell / "evaluations.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_cells_come_out_as_on_one_machine(cluster, ask, small, tmp_path):
    plan = write_plan(tmp_path / "short.toml", small, TABLES)
    site = tmp_path / "site.toml"
    site.write_text(SITE)
    here, there = Grid(tmp_path / "here"), Grid(tmp_path / "there")

    grid = ("grid", plan, "--out", there.folder, "--executor", "slurm", "--site", site)

    first = submitted(cluster, *grid)
    assert (first.returncode, first.stderr) == (0, "")
    arrays = re.findall(r"(\d+) jobs with (\d+) cells", first.stdout)
    assert arrays == [("3", "6"), ("1", "1")]  # the cluster takes three at once
    jobs = sorted(in_queue(there))
    assert [len(job.cells) for job in jobs] == [2, 2, 2, 1]
    preempted, _, cancelled, _ = (job.cells[0] for job in jobs)
    assert "nothing to submit: 7 cells are in the queue" in ask(*grid)

    wait_until(lambda: evaluations(there, preempted) > 1, between=0.01)
    assert f"running: {preempted}\n" in ask("status", there.folder)
    signalled = cluster.run(["scancel", "--signal=USR2", jobs[0].job])
    assert signalled.returncode == 0

    wait_until(lambda: evaluations(there, cancelled) > 1, between=0.01)
    assert cluster.run(["scancel", jobs[2].job]).returncode == 0
    wait_until(lambda: jobs[2] not in in_queue(there))
    before = evaluations(there, cancelled)
    said = ask("status", there.folder, "--cells")
    assert f"interrupted: {cancelled}\n" in said
    assert f"planned: {jobs[2].cells[1]}\n" in said
    assert re.search(
        r"^failed: rnnsearch/single-\S+: error: search-sentences 1000 is not possible", said, re.M
    )

    # what is in the queue stays there, the failed cell has failed, the cells of the cancelled job go on
    rest = submitted(cluster, *grid, "--wait")
    assert re.findall(r"(\d+) jobs with (\d+) cells", rest.stdout) == [("1", "2")]
    assert rest.returncode == 2
    assert rest.stderr.startswith("olmp: error: 1 of 7 cells have no result: ")
    assert rest.stderr.count("\n") == 1
    assert in_queue(there) == []
    assert "6 done, 1 failed\n" in ask("status", there.folder)
    assert 1 < before < evaluations(there, cancelled)
    output = "".join(path.read_text() for path in there.slurm_folder.rglob("*_log.err"))
    # so near to its limit that the signal counts as the one that SLURM sends at the end of the time
    assert output.count("this job is timed-out") == 1

    assert "1 jobs with 1 cells" in ask(*grid, "--retry-failed")
    assert ask("cancel", there.folder) == "1 jobs cancelled\n"
    wait_until(lambda: in_queue(there) == [])
    assert "6 done, 1 planned\n" in ask("status", there.folder)
    assert "1 of 7 cells have no result" in ask(*grid, "--wait", code=2)
    assert "6 done, 1 failed\n" in ask("status", there.folder)

    done = olmp("grid", plan, "--out", here.folder, "--jobs", 2)
    assert done.returncode == 2
    assert "1 of 7 cells failed" in done.stderr
    assert_same(outcome(there.folder), outcome(here.folder))
