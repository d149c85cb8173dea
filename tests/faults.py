"""What faults do to a grid: kills at random moments, full disks, read-only folders, torn files, wrong clocks.

``python tests/faults.py`` tries them all (``make faults``: about a quarter of an hour), ``test_faults.py`` a
few. After each the same command has to go on, and to end where a run without faults ends.
"""

import argparse
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from conftest import ROOT, prepare_small, wait_until
from grids import OLMP, assert_same, olmp, outcome, session, write_plan

#: options of all runs; a cell that was killed three times has failed, and is to be tried again
LOCAL = ("--jobs", "2", "--retry-failed")
#: seconds at most between two draws of who is to be killed
PAUSE = 1.0
#: how often the draw is whose; a runner needs seconds to start, and should live to see some cells
DRAWS = {"runner": 1, "forkserver": 1, "worker": 7, "nobody": 20}

TABLES = """\
[[cells]]
model = ["rnnsearch", "transformer"]
grouping = ["component", "layer", "single"]
evaluations = 12
seed = [{seeds}]
"""
#: what a run may say beside its error
REMARKS = re.compile(r"(waiting for \S+: another process runs it|olmp: error: \d+ of \d+ cells failed: .*)\n")
#: a module that Python loads before all others: the clock of the system is a year late
LATE = "import time\nnow = time.time\ntime.time = lambda: now() - 3e7\n"
#: in a namespace of its own, so that nothing stays mounted: a small disk that is made larger later
SMALL_DISK = """
disk=$1; kept=$2; shift 2
mount -t tmpfs -o size=1500k none "$disk"
"$@" && exit 99
test $? = 2 && mount -o remount,size=100m "$disk" && "$@" && cp -a "$disk/." "$kept"
"""
READ_ONLY = """
folder=$1; shift
mount --bind "$folder" "$folder" && mount -o remount,bind,ro "$folder" && exec "$@"
"""


UNSHARE = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]


class Ledger:
    """What a grid may never lose or make twice: complete lines of records, and results."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._lines: dict[Path, bytes] = {}
        self._results: dict[Path, tuple[int, int]] = {}

    def look(self) -> None:
        """Compare what is there with all earlier looks."""
        for path in self.folder.glob("cells/*/*/evaluations.jsonl"):
            found = path.read_bytes()
            complete = found[: found.rfind(b"\n") + 1]
            assert complete.startswith(self._lines.get(path, b"")), f"{path} has lost lines"
            self._lines[path] = complete
        for path in {*self._results, *self.folder.glob("cells/*/*/result.json")}:
            status = path.stat()
            identity = status.st_ino, status.st_mtime_ns
            assert self._results.setdefault(path, identity) == identity, f"{path} was written again"


def grid(plan: Path, folder: Path) -> list[str]:
    """The command that runs what is not done."""
    return [*OLMP, "grid", str(plan), "--out", str(folder), *LOCAL]


@contextmanager
def runner(plan: Path, folder: Path, said: IO[str] | int = subprocess.DEVNULL) -> Iterator[subprocess.Popen]:
    """That command at work, in a session of its own, of which nothing stays."""
    process = subprocess.Popen(
        grid(plan, folder), cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=said
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        # whoever is alone sees it when it has started
        wait_until(lambda: session(process.pid) == {})


def complete(plan: Path, folder: Path, **options: Any) -> None:
    """Run what is not done, which has to succeed without a word."""
    done = olmp("grid", plan, "--out", folder, *LOCAL, **options)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one line with which a command says that it cannot go on."""
    assert done.returncode == 2, done
    assert re.fullmatch("olmp: error: .*\n", done.stderr), done.stderr
    return done.stderr


def victims(leader: int) -> dict[str, list[int]]:
    """The processes of a run, by what they are."""
    found = session(leader)
    servers = [p for p, (parent, command) in found.items() if parent == leader and "forkserver" in command]
    workers = [p for p, (parent, _) in found.items() if parent in servers]
    return {"runner": [leader], "forkserver": servers, "worker": workers}


def only_remarks(said: IO[str]) -> None:
    """Fail if runs have said anything that need not be said."""
    said.seek(0)
    assert (rest := REMARKS.sub("", said.read())) == "", rest


def kill(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def run_under_kills(
    plan: Path, folder: Path, kills: int, chance: random.Random, draws: Mapping[str, int] = DRAWS
) -> Counter[str]:
    """Run a plan to its end although its processes are killed, ``kills`` of them at most; says which ones."""
    ledger, killed, over = Ledger(folder), Counter[str](), False
    with tempfile.TemporaryFile("w+") as said:
        while not over:
            ledger.look()
            with runner(plan, folder, said) as process:
                while process.poll() is None:
                    time.sleep(chance.uniform(0, PAUSE))
                    ledger.look()
                    (kind,) = chance.choices(list(draws), list(draws.values()))
                    if killed.total() < kills and (found := victims(process.pid).get(kind)):
                        kill(chance.choice(found))
                        killed[kind] += 1
                over = process.returncode == 0
            only_remarks(said)
            assert process.returncode in (0, 2, -signal.SIGKILL)
    ledger.look()
    return killed


def begun(plan: Path, folder: Path) -> None:
    """A grid whose runner was killed when something was done, and something else had begun."""
    with runner(plan, folder) as process:
        wait_until(
            lambda: (
                any(folder.glob("cells/*/*/result.json"))
                and any(record.read_bytes().count(b"\n") < 6 for record in unfinished(folder))
            ),
            between=0.01,
        )
        assert process.poll() is None
    assert unfinished(folder)


def unfinished(folder: Path) -> list[Path]:
    """The records of cells that have begun and are not done."""
    records = folder.glob("cells/*/*/evaluations.jsonl")
    return [path for path in records if not path.with_name("result.json").exists()]


def tear(record: Path, chance: random.Random) -> None:
    """What a crash of the machine may leave of a file: less than was written, or zeros at its end."""
    content = record.read_bytes()
    cut = chance.randrange(len(content))
    record.write_bytes(content[:cut] + bytes(chance.choice([0, 1, 4096])))


def torn_records(plan: Path, folder: Path, chance: random.Random) -> None:
    begun(plan, folder)
    for record in unfinished(folder):
        tear(record, chance)
    complete(plan, folder)


def damaged_result(plan: Path, folder: Path, chance: random.Random) -> None:
    """A cell that was done is noticed by ``olmp verify``, and made anew when its folder is removed."""
    complete(plan, folder)
    record = chance.choice(sorted(folder.glob("cells/*/*/evaluations.jsonl")))
    tear(record, chance)
    said = olmp("verify", folder, "--sample", 0)
    assert "1 of" in refusal(said)
    assert f"{record.parent.name}: evaluations.jsonl is not what it was" in said.stdout
    shutil.rmtree(record.parent)
    complete(plan, folder)


def limited_files(plan: Path, folder: Path, chance: random.Random) -> None:
    """No file may grow beyond a size that not even the plan has; then one that masks do not have."""
    for size in (1_000, 200_000):
        limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))
        assert "File too large" in refusal(olmp("grid", plan, "--out", folder, *LOCAL, preexec_fn=limit))
    complete(plan, folder)


def small_disk(plan: Path, folder: Path, chance: random.Random) -> None:
    disk = folder.with_name("disk")
    disk.mkdir()
    folder.mkdir()
    said = namespace(SMALL_DISK, disk, folder, *grid(plan, disk / "grid"))
    assert said.returncode == 0, said
    assert re.fullmatch("olmp: error: .*No space left on device.*\n", said.stderr), said.stderr
    for path in (folder / "grid").iterdir():
        path.rename(folder / path.name)


def read_only_folder(plan: Path, folder: Path, chance: random.Random) -> None:
    begun(plan, folder)
    ledger = Ledger(folder)
    for part in (folder, folder / "cells"):
        ledger.look()
        assert "Read-only file system" in refusal(namespace(READ_ONLY, part, *grid(plan, folder)))
    ledger.look()
    complete(plan, folder)
    ledger.look()


def wrong_clock(plan: Path, folder: Path, chance: random.Random) -> None:
    """The clock is set back, and files are of another age than anybody thinks."""
    begun(plan, folder)
    for path in folder.rglob("*"):
        os.utime(path, (age := time.time() + chance.choice([-1, 1]) * 1e8, age))
    with tempfile.TemporaryDirectory() as early:
        Path(early, "sitecustomize.py").write_text(LATE)
        modules = os.pathsep.join(filter(None, [early, os.environ.get("PYTHONPATH")]))
        complete(plan, folder, env=os.environ | {"PYTHONPATH": modules})


def two_runners(plan: Path, folder: Path, chance: random.Random) -> None:
    """They share the cells."""
    ledger = Ledger(folder)
    with (
        tempfile.TemporaryFile("w+") as said,
        runner(plan, folder, said) as one,
        runner(plan, folder, said) as two,
    ):
        while None in (one.poll(), two.poll()):
            time.sleep(0.02)
            ledger.look()
        only_remarks(said)
        assert (one.returncode, two.returncode) == (0, 0)
    ledger.look()


def namespace(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a shell script that may mount; what it mounts is gone when it ends."""
    command = [*UNSHARE, "sh", "-c", script, "sh", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def mountable() -> bool:
    """Whether this machine lets us mount something in a namespace of our own."""
    return shutil.which("unshare") is not None and namespace("mount -t tmpfs none /mnt").returncode == 0


FAULTS = (torn_records, damaged_result, limited_files, wrong_clock, two_runners)
MOUNTED = (small_disk, read_only_folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="0: only the other faults")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder, began = Path(name), time.monotonic()

        def tell(what: str) -> None:
            print(f"{time.monotonic() - began:5.0f} s  {what}", flush=True)

        corpus = folder / "small.en-de"
        prepare_small(corpus)
        killed, rounds = Counter[str](), 0
        if args.kills:
            seeds = ", ".join(map(str, range(1, 10)))
            plan = write_plan(folder / "long.toml", corpus, TABLES.format(seeds=seeds))
            complete(plan, folder / "undisturbed")
            expected = outcome(folder / "undisturbed")
            tell(f"{len(expected['runs'])} cells undisturbed")
        while killed.total() < args.kills:
            rounds += 1
            out = folder / f"killed{rounds}"
            killed += run_under_kills(plan, out, args.kills - killed.total(), chance)
            assert_same(outcome(out), expected)
            tell(f"killed so far, in {rounds} runs: {dict(killed)}")
        plan = write_plan(folder / "short.toml", corpus, TABLES.format(seeds="1"))
        complete(plan, folder / "short")
        expected = outcome(folder / "short")
        for fault in (*FAULTS, *MOUNTED):
            if fault in MOUNTED and not mountable():
                tell(f"{fault.__name__.replace('_', ' ')}: left out, nothing can be mounted here")
                continue
            out = folder / fault.__name__
            fault(plan, out, chance)
            assert_same(outcome(out), expected)
            tell(fault.__name__.replace("_", " "))


if __name__ == "__main__":
    main()
