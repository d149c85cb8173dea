"""The emulated cluster runs, cancels and requeues jobs like a real one, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm_cluster
from conftest import is_alive, wait_until
from slurm_cluster import Cluster, missing

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(missing() is not None, reason=str(missing()))]

ROOT = Path(__file__).parents[1]
ENDLESS = 'trap "" TERM; echo $$ > $SLURM_JOB_ID.pid; while :; do sleep 1; done'


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    with Cluster(
        tmp_path_factory.mktemp("slurm") / "cluster", max_array_size=4, memory_limits=True
    ) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def ask(cluster: Cluster, *command: str) -> list[str]:
    """The lines that a command prints."""
    return cluster.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def submit(cluster: Cluster, script: str, *options: str) -> str:
    return ask(cluster, "sbatch", "--parsable", *options, "--wrap", script)[0]


def states(cluster: Cluster, job: str) -> set[str]:
    """The states that the tasks of a job are in."""
    return set(ask(cluster, "squeue", "-h", "-r", "-t", "all", "-o", "%T", "-j", job))


def lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []


def started_in(folder: Path) -> set[int]:
    """The daemons that work in a folder, and those that run their jobs."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name, inside = (process / "comm").read_text(), (process / "environ").read_bytes()
        except OSError:
            continue
        if name.startswith(("munged", "slurm")) and os.fsencode(folder) in inside:
            found.add(int(process.name))
    return found


def test_all_nodes_are_idle_when_it_is_there(cluster):
    assert sorted(ask(cluster, "sinfo", "-h", "-N", "-o", "%N %c %m %t")) == [
        "n1 1 2000 idle",
        "n2 1 2000 idle",
    ]


def test_srun_runs_a_command_on_each_node(cluster):
    printed = ask(cluster, "srun", "-N2", "bash", "-c", "echo $(hostname) $SLURM_NODEID $SLURMD_NODENAME")
    host = os.uname().nodename
    assert sorted(printed) == [f"{host} 0 n1", f"{host} 1 n2"]


def test_a_batch_job_runs(cluster):
    job = submit(cluster, "echo $SLURM_JOB_ID > job")
    wait_until(lambda: states(cluster, job) == {"COMPLETED"})
    assert lines("job") == [job]


def test_a_job_that_fails_says_so(cluster):
    job = submit(cluster, "exit 3")
    wait_until(lambda: states(cluster, job) == {"FAILED"})


def test_an_array_runs_all_its_tasks(cluster):
    job = submit(
        cluster, "echo $SLURM_ARRAY_JOB_ID $SLURM_ARRAY_TASK_ID > task$SLURM_ARRAY_TASK_ID", "-a", "0-3"
    )
    wait_until(lambda: states(cluster, job) == {"COMPLETED"})
    assert [lines(f"task{number}") for number in range(4)] == [[f"{job} {number}"] for number in range(4)]


def test_a_longer_array_is_refused(cluster):
    with pytest.raises(subprocess.CalledProcessError) as refused:
        submit(cluster, "true", "-a", "0-4")
    assert "Invalid job array" in refused.value.stderr


def test_a_cancelled_job_is_killed(cluster):
    job = submit(cluster, ENDLESS)
    wait_until(lambda: lines(f"{job}.pid") != [])
    ask(cluster, "scancel", job)
    wait_until(lambda: states(cluster, job) == {"CANCELLED"})
    wait_until(lambda: not is_alive(int(lines(f"{job}.pid")[0])))


def test_a_requeued_job_runs_again(cluster):
    job = submit(cluster, "echo ${SLURM_RESTART_COUNT-first} >> runs; test $SLURM_RESTART_COUNT || sleep 600")
    wait_until(lambda: lines("runs") == ["first"])
    ask(cluster, "scontrol", "requeue", job)
    wait_until(lambda: lines("runs") == ["first", "1"])
    wait_until(lambda: states(cluster, job) == {"COMPLETED"})


def test_a_job_beyond_its_memory_is_killed(cluster):
    greedy = f"exec {sys.executable} -c 'import time; room = b\"x\" * 200_000_000; time.sleep(600)'"
    job = submit(cluster, greedy, "--mem=50", "-o", "output")
    # without cgroups SLURM does not tell why it killed a job but in its output
    wait_until(lambda: states(cluster, job) <= {"FAILED", "CANCELLED"})
    assert any("exceeded memory limit" in line for line in lines("output"))


def test_nothing_is_left_of_it(tmp_path):
    with Cluster(tmp_path / "cluster", nodes=1) as cluster:
        running = submit(cluster, ENDLESS)
        submit(cluster, ENDLESS)  # has to wait for the only CPU
        wait_until(lambda: lines(f"{running}.pid") != [])
        job = int(lines(f"{running}.pid")[0])
        # munged, slurmctld with its helper, slurmd, and what runs the job
        assert is_alive(job)
        assert len(started_in(tmp_path)) >= 5
    assert not is_alive(job)
    assert started_in(tmp_path) == set()


def test_the_daemons_end_with_whoever_started_them(tmp_path):
    code = """
import sys, time, slurm_cluster
with slurm_cluster.Cluster(sys.argv[1], nodes=1):
    print("up")
    time.sleep(600)
"""
    command = [sys.executable, "-uc", code, tmp_path / "cluster"]
    with (
        tempfile.TemporaryDirectory() as left,  # a killed process clears nothing away
        subprocess.Popen(
            command, cwd=ROOT / "tests", env=os.environ | {"TMPDIR": left}, stdout=subprocess.PIPE
        ) as starter,
    ):
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"up\n"
        assert len(started_in(tmp_path)) == 4
        starter.kill()
        wait_until(lambda: started_in(tmp_path) == set())


def test_a_daemon_that_ends_is_told_with_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm_cluster, "CONFIGURATION", slurm_cluster.CONFIGURATION + "NoSuchSetting=1\n")
    with (
        pytest.raises(RuntimeError, match=r"slurmctld has ended(?s:.)*NoSuchSetting"),
        Cluster(tmp_path / "cluster"),
    ):
        pass
    assert started_in(tmp_path) == set()


def test_patience_has_an_end(tmp_path):
    with pytest.raises(RuntimeError, match="not up after 0 s"), Cluster(tmp_path / "cluster", patience=0):
        pass
    assert started_in(tmp_path) == set()


def test_the_folder_has_to_be_new(tmp_path):
    with pytest.raises(FileExistsError), Cluster(tmp_path):
        pass


def test_the_folder_may_have_a_long_name(tmp_path):
    with Cluster(tmp_path / ("x" * 100), nodes=1, cpus=64) as cluster:
        assert ask(cluster, "srun", "-n64", "echo", "here") == ["here"] * 64


def test_programs_that_are_missing_are_named(monkeypatch):
    monkeypatch.setattr(slurm_cluster, "PATH", "/nowhere")
    assert "munged, slurmctld, slurmd" in str(missing())


@pytest.mark.parametrize(("command", "status"), [("exit 7", 7), ("kill -TERM $$", 128 + signal.SIGTERM)])
def test_the_command_line_gives_back_the_status_of_its_command(command, status):
    command = f"scontrol ping > ping && {command}"
    with_nodes = [sys.executable, "-m", "tests.slurm_cluster", "--nodes", "1", "bash", "-c", command]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    assert subprocess.run(with_nodes, env=os.environ | {"PYTHONPATH": path}).returncode == status
    assert "UP" in lines("ping")[0]
