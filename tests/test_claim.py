"""The right to work in a folder: exactly one holder, whoever dies, sleeps or is on another machine."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import claim
from harness.claim import Claim, Held, Lost, Watch, claimed, is_dead


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def of_another_machine(folder: Path, generation: int = 1, **owner) -> Path:
    """A claim as a process far away would have written it."""
    path = folder / f"claim-{generation:06d}"
    content = {
        "token": f"t{generation}",
        "host": "far",
        "machine": "m",
        "pid": 1,
        "started": "5",
        "job": None,
    }
    path.write_text(json.dumps(content | {"restart": 0} | owner) + "\n")
    return path


def test_one_at_a_time_and_nothing_is_left(tmp_path):
    with Claim(tmp_path) as held:
        held.check()
        assert claimed(tmp_path)
        with pytest.raises(Held, match=f"process {os.getpid()} on .* is at work in"):
            Claim(tmp_path)
    assert names(tmp_path) == []
    assert not claimed(tmp_path)
    Claim(tmp_path).release()


def holder(folder: Path) -> subprocess.Popen:
    """A process that holds the folder until it is killed."""
    program = (
        "import sys, time; from pathlib import Path; from harness.claim import Claim\n"
        "held = Claim(Path(sys.argv[1])); print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_claim_of_a_killed_process_is_taken_over_at_once(tmp_path):
    process = holder(tmp_path)
    with pytest.raises(Held):
        Claim(tmp_path)
    process.kill()
    # not even reaped by its parent yet
    time.sleep(0.2)
    with Claim(tmp_path) as held:
        assert names(tmp_path) == ["claim-000002"]
        held.check()
    process.wait()
    assert names(tmp_path) == []


def test_a_stopped_process_is_alive(tmp_path):
    process = holder(tmp_path)
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(Held):
        Claim(tmp_path)
    process.kill()
    process.wait()


def test_a_later_process_of_the_same_number_is_not_the_holder(tmp_path):
    with Claim(tmp_path) as held:
        owner = json.loads(held.path.read_text())
        assert not is_dead(tmp_path, owner)
        assert is_dead(tmp_path, owner | {"started": "1"})


def test_a_requeued_job_takes_over_from_its_earlier_run(tmp_path, monkeypatch):
    of_another_machine(tmp_path, job="7", restart=0)
    with pytest.raises(Held, match="process 1 on far"):
        Claim(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with pytest.raises(Held):
        Claim(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    Claim(tmp_path).release()


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests move."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr(claim.time, "monotonic", lambda: Clock.now)
    return Clock


def test_another_machine_is_dead_when_it_has_been_silent_for_long(tmp_path, clock):
    path = of_another_machine(tmp_path)
    watch = Watch(silence=100)
    assert watch.held(tmp_path)
    clock.now += 99
    assert watch.held(tmp_path)
    with path.open("a") as file:
        file.write(".")  # a sign of life
    clock.now += 99
    assert watch.held(tmp_path)
    clock.now += 99
    assert watch.held(tmp_path)
    with pytest.raises(Held):
        Claim(tmp_path)
    clock.now += 2
    assert not watch.held(tmp_path)
    with Claim(tmp_path):
        assert names(tmp_path) == ["claim-000002"]


def test_times_of_files_do_not_matter(tmp_path, clock):
    """Clocks differ between machines, and are set back."""
    path = of_another_machine(tmp_path)
    watch = Watch(silence=100)
    for moment in (0, 2**31):
        os.utime(path, (moment, moment))
        assert watch.held(tmp_path)
        clock.now += 49


def test_one_that_was_asleep_learns_that_it_has_lost(tmp_path):
    asleep = Claim(tmp_path)
    owner = json.loads(asleep.path.read_text())
    (tmp_path / f"silent-{owner['token']}").touch()
    with Claim(tmp_path) as awake:
        with pytest.raises(Lost, match="was taken over by another process"):
            asleep.check()
        asleep.release()
        awake.check()
    assert names(tmp_path) == []


def test_one_that_was_asleep_does_not_take_a_later_holder_for_itself(tmp_path):
    """Who took over has given the folder back, and counting has begun anew."""
    asleep = Claim(tmp_path)
    asleep.path.unlink()
    with Claim(tmp_path) as later:
        assert later.path == asleep.path
        with pytest.raises(Lost, match="was taken over by another process"):
            asleep.check()
        asleep.release()
        later.check()


def test_a_claim_that_cannot_be_read_is_waited_for(tmp_path, clock):
    (tmp_path / "claim-000001").write_text("\0\0")
    watch = Watch(silence=10)
    assert watch.held(tmp_path)
    with pytest.raises(Held):
        Claim(tmp_path)
    clock.now += 11
    assert not watch.held(tmp_path)
    Claim(tmp_path).release()
    assert names(tmp_path) == []


def test_a_holder_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(claim, "BEAT", 0.01)
    with Claim(tmp_path) as held:
        size = held.path.stat().st_size
        deadline = time.monotonic() + 30
        while held.path.stat().st_size < size + 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert held.path.stat().st_size >= size + 3
        assert json.loads(held.path.read_text().splitlines()[0])["pid"] == os.getpid()


def take(folder: Path, barrier, won, number: int) -> None:
    """Take the folder at the same moments as others, five times, and see whether anybody else has it."""
    barrier.wait()
    while won[number] < 5:
        try:
            held = Claim(folder)
        except Held:
            time.sleep(0.001)
            continue
        mark = folder / "working"
        mark.touch(exist_ok=False)
        time.sleep(0.001)
        mark.unlink()
        held.release()
        won[number] += 1


def test_of_many_processes_one_at_a_time_gets_it(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, won = context.Barrier(6), context.Array("i", 6)
    processes = [context.Process(target=take, args=(tmp_path, barrier, won, i)) for i in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 6
    assert list(won) == [5] * 6
    assert names(tmp_path) == []
