"""Grids of short real cells for tests: how to start one, and what has to be the same however it was run."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from conftest import MODELS, ROOT

from experiments.collect import collect
from experiments.grid import Grid

#: the command ``olmp`` of this very code, wherever it is installed
OLMP = [sys.executable, "-c", "from harness.cli import main; raise SystemExit(main())"]

#: cells of a second or less on the small corpus; the wide tolerance makes sure that something is pruned
PLAN = """\
title = "{title}"
corpus = "{corpus}"
models = "{models}"
[defaults]
tolerance = 15.0
criterion = "point"
resamples = 100
final_beam = 1
start = "dense"
sigma = 0.1
search = "OnePlusOne"
"""


def write_plan(path: Path, corpus: Path, tables: str) -> Path:
    """A plan whose ``[[cells]]`` are ``tables``; its title is the name of its file."""
    head = PLAN.format(title=path.stem, corpus=corpus, models=MODELS)
    path.write_text(head + tables, encoding="utf-8")
    return path


def olmp(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run ``olmp`` to its end, in a process of its own."""
    command = [*OLMP, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **options)


def outcome(folder: Path) -> Mapping[str, pd.DataFrame]:
    """What the cells of a grid have found, without what depends on when and where they ran."""
    found = collect(Grid(folder))
    assert found.unreadable == {}
    runs = found.runs.set_index("cell").sort_index()
    volatile = runs.filter(regex=r"^(failure\.)?((other_)?seconds$|traceback$|environment)").columns
    # the lines of evaluations.jsonl tell seconds, too, so the file's checksum is another one
    runs["files"] = runs["files"].str.replace(r'"evaluations.jsonl": "\w+"', "", regex=True)
    evaluations = found.evaluations.drop(columns="seconds").set_index(["cell", "index"]).sort_index()
    assert evaluations.index.is_unique  # nothing was evaluated twice
    return {
        "runs": runs.drop(columns=volatile),
        "evaluations": evaluations,
    }


def assert_same(found: Mapping[str, pd.DataFrame], expected: Mapping[str, pd.DataFrame]) -> None:
    """Fail unless two outcomes are the same, to the last bit."""
    for name, table in expected.items():
        pd.testing.assert_frame_equal(found[name], table, check_exact=True, check_like=True)


def session(leader: int) -> dict[int, tuple[int, str]]:
    """The living processes of a session: their parent and their command line, by their number."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] not in "ZX":
            found[int(process.name)] = int(fields[1]), command
    return found
