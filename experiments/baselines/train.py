"""Train the baselines with fairseq-train, side by side, one process and one core each.

A recipe is a TOML file: ``threads`` and ``autocast`` at the top, and tables whose entries are
fairseq-train arguments. A training's folder is ``<out>/<model>.seed<seed>``::

    training.json       what is trained: arguments, seed, corpus; another one is refused
    train.log           fairseq's own log
    checkpoint_*.pt     fairseq's checkpoints
    done.json           best validation loss; written last
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

import harness
from grouping.errors import StudyError
from harness.claim import Claim
from harness.files import write_json, write_text

HERE = Path(__file__).parent
MODELS = ("transformer", "rnnsearch", "luong")
PLUGIN = Path(harness.__file__).parent / "training"

UPDATES = re.compile(r"train_inner .* num_updates=(\d+)")
VALID = re.compile(r"valid on 'valid' subset \| loss ([\d.]+) .*num_updates (\d+)(?: \| best_loss ([\d.]+))?")

#: seconds between two looks at the logs
PAUSE = 0.5


@dataclass(frozen=True)
class Recipe:
    """How one model is trained; everything that decides the result but corpus and seed."""

    name: str
    threads: int
    #: "bfloat16", where the processor has it, or "" for float32
    autocast: str
    #: of fairseq-train, flags and values in order
    arguments: tuple[str, ...]
    max_update: int

    def command(self, corpus: Path, folder: Path, seed: int) -> list[str]:
        """The fairseq-train command line."""
        command = [sys.executable, "-m", "fairseq_cli.train", str(corpus / "bin")]
        command += ["--save-dir", str(folder), "--user-dir", str(PLUGIN), "--seed", str(seed)]
        command += ["--no-progress-bar", "--log-format", "simple", "--log-interval", "50"]
        return command + list(self.arguments)

    def at(self, device: str) -> "Recipe":
        """The same on another class of device, cpu or cuda. Raises StudyError for one that is not there."""
        from harness.decoding.linear import find_device  # loads torch
        from harness.retraining import PLACED

        find_device(device)
        others = tuple(argument for argument in self.arguments if argument not in PLACED["cpu"])
        return self if device == "cpu" else replace(self, arguments=(*others, *PLACED[device]))

    def environment(self) -> dict[str, str]:
        """The process environment: threads and autocast as the recipe says, whatever was inherited."""
        from harness.retraining import HIDDEN  # loads torch

        own = {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        hidden = HIDDEN if "--cpu" in self.arguments else {}
        return {**os.environ, **own, **hidden, "OLMP_AUTOCAST": self.autocast}


def read_recipe(path: Path) -> Recipe:
    """Read a recipe. Raises StudyError for anything but the two settings and tables of arguments."""
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise StudyError(f"{path} is not a readable TOML file: {error}") from None
    threads, autocast = content.pop("threads", None), content.pop("autocast", "")
    if not isinstance(threads, int) or threads < 1:
        raise StudyError(f"threads = {threads!r} in {path}: give a whole number of at least 1")
    if autocast not in ("", "bfloat16"):
        raise StudyError(f"autocast = {autocast!r} in {path}: give bfloat16, or leave it out for float32")
    arguments: list[str] = []
    max_update = None
    for table, entries in content.items():
        if not isinstance(entries, dict):
            raise StudyError(f"unknown setting {table!r} in {path}: allowed are threads, autocast and tables")
        for key, value in entries.items():
            if isinstance(value, bool) and value:
                arguments.append(f"--{key}")
            elif isinstance(value, str | int | float) and not isinstance(value, bool):
                arguments += [f"--{key}", str(value)]
            else:
                raise StudyError(f"{key} = {value!r} in {path}: give true, a number or text, or leave it out")
        max_update = entries.get("max-update", max_update)
    if not isinstance(max_update, int):
        raise StudyError(f"{path} has no max-update: say after how many updates training ends")
    return Recipe(path.stem, threads, autocast, tuple(arguments), max_update)


class Training:
    """One fairseq-train process, its folder, its log and its progress bar."""

    def __init__(self, recipe: Recipe, corpus: Path, out: Path, seed: int) -> None:
        self.recipe, self.corpus, self.seed = recipe, corpus, seed
        self.folder = out / f"{recipe.name}.seed{seed}"
        self.log = self.folder / "train.log"
        self.best_loss: float | None = None

    def check(self) -> bool:
        """Whether something says what is trained here. Raises StudyError if that is another training."""
        mark = self.folder / "training.json"
        if mark.exists() and mark.read_text() != self._about():
            raise StudyError(
                f"{self.folder} holds a training with another configuration, seed or corpus: "
                "choose another --out, or remove that folder"
            )
        return mark.exists()

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the folder. Raises StudyError if another process does, or if it holds another training."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with Claim(self.folder):
            if not self.check():
                write_text(self.folder / "training.json", self._about())
            yield

    def _about(self) -> str:
        content = {
            "model": self.recipe.name,
            "seed": self.seed,
            "threads": self.recipe.threads,
            "autocast": self.recipe.autocast,
            "arguments": self.recipe.arguments,
            "corpus_sha256": hashlib.sha256((self.corpus / "corpus.json").read_bytes()).hexdigest(),
        }
        return json.dumps(content, indent=2) + "\n"

    @property
    def done(self) -> bool:
        """Whether an earlier run has finished this training."""
        return (self.folder / "done.json").exists()

    def start(self, position: int = 0) -> None:
        """Start or, from fairseq's last checkpoint, resume; the bar appears only on a terminal.

        The process dies with this one, even if that is killed: who takes over the folder would meet it there.
        """
        from harness.checkpoints import mend  # loads torch

        mend(self.folder)
        command = self.recipe.command(self.corpus, self.folder, self.seed)
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.recipe.environment() | {"OLMP_PARENT": str(os.getpid())},
            )
        self._lines = self.log.open(errors="replace")
        self._last = ""
        self._bar = tqdm(
            total=self.recipe.max_update,
            desc=self.folder.name,
            unit="update",
            position=position,
            disable=None,
        )

    def look(self) -> bool:
        """Show what the log says; True once the process has ended and the training is done.

        Raises StudyError with the last line of the log if fairseq-train failed.
        """
        code = self._process.poll()
        for line in self._lines:
            self._last = line.strip() or self._last
            self._note(line)
        if code is None:
            return False
        if code:
            raise StudyError(f"fairseq-train failed, see {self.log}: {self._last}")
        about = {"best_valid_loss": self.best_loss, "updates": self._bar.total}
        write_json(self.folder / "done.json", about)
        return True

    def _note(self, line: str) -> None:
        updates = 0
        if found := UPDATES.search(line):
            updates = int(found[1])
        elif found := VALID.search(line):
            updates = int(found[2])
            self.best_loss = float(found[3] or found[1])
            self._bar.set_postfix(valid_loss=found[1], best=self.best_loss, refresh=False)
        if updates:
            self._bar.update(updates - self._bar.n)

    def close(self) -> None:
        """Stop the process if it still runs; what it had saved stays, to resume from."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
        self._lines.close()
        self._bar.close()


def train(recipes: Sequence[Recipe], corpus: Path, out: Path, seed: int, jobs: int) -> list[Path]:
    """Train every recipe, ``jobs`` at a time, and return their folders; finished ones are kept.

    ``corpus`` is a prepared corpus. Raises StudyError if it is not, if a folder holds another training or
    another process works there, or if fairseq-train fails; the other trainings are then stopped and can be
    resumed.
    """
    if not (corpus / "corpus.json").is_file():
        raise StudyError(f"{corpus} is not a prepared corpus: run make data, or give another --corpus")
    trainings = [Training(recipe, corpus, out, seed) for recipe in recipes]
    for training in trainings:
        training.check()
    with ExitStack() as folders:
        for training in trainings:
            if not training.done:
                folders.enter_context(training.claimed())
        _run([training for training in trainings if not training.done], jobs)
    return [training.folder for training in trainings]


def _run(waiting: list[Training], jobs: int) -> None:
    """Train until none waits and none runs, ``jobs`` at a time."""
    running: dict[int, Training] = {}
    try:
        while waiting or running:
            for place in range(jobs):
                if waiting and place not in running:
                    waiting[0].start(place)
                    running[place] = waiting.pop(0)
            time.sleep(PAUSE)
            for place, training in list(running.items()):
                if training.look():
                    running.pop(place).close()
    finally:
        for training in running.values():
            training.close()
