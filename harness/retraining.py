"""Retraining of a pruned model with fairseq-train, its pruned connections held at zero.

The schedule is that of See, Luong and Manning (2016): few epochs at a smaller learning rate, which is
halved after each; it ends early when the loss on *valid* no longer falls. No other set is looked at.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grouping.errors import StudyError
from harness.claim import Claim, is_leftover
from harness.corpus.corpus import Corpus
from harness.files import write_json
from harness.masks import write_masks
from harness.model import TranslationModel, hash_weights, read_checkpoint

JOB, LOG, PRUNED, MASKS, DONE = "job.json", "train.log", "pruned.pt", "masks.npz", "retraining.json"
BEST = "checkpoint_best.pt"
#: a line of fairseq's log in JSON
LINE = re.compile(r"\| (train|valid) \| (\{.*\})\s*$")
#: seconds between two looks at the log
LOOK = 0.2


@dataclass(frozen=True)
class Schedule:
    """How a pruned model is retrained; everything that decides the outcome but model, masks and text.

    ``patience``: epochs without a lower loss on valid, after which it ends. ``max_tokens`` are those of a
    batch; ``autocast`` is bfloat16 or nothing for float32.
    """

    epochs: int = 5
    learning_rate: float = 5e-4
    shrink: float = 0.5
    patience: int = 2
    max_tokens: int = 2000
    label_smoothing: float = 0.1
    autocast: str = ""
    seed: int = 1

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise StudyError(f"epochs {self.epochs} is not possible: give 1 or more")
        if not 0 < self.learning_rate < float("inf"):
            raise StudyError(f"learning-rate {self.learning_rate} is not possible: give more than 0")
        if self.autocast not in ("", "bfloat16"):
            raise StudyError(f"autocast {self.autocast!r} is not possible: give bfloat16, or nothing")

    def arguments(self) -> list[str]:
        """Of fairseq-train."""
        return [
            *("--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--clip-norm", "1"),
            *("--lr", str(self.learning_rate), "--lr-scheduler", "fixed"),
            *("--lr-shrink", str(self.shrink), "--force-anneal", "1"),
            *("--criterion", "label_smoothed_cross_entropy", "--label-smoothing", str(self.label_smoothing)),
            *("--max-tokens", str(self.max_tokens), "--required-batch-size-multiple", "1"),
            *("--max-epoch", str(self.epochs), "--patience", str(self.patience), "--seed", str(self.seed)),
        ]


@dataclass(frozen=True)
class Retrained:
    """What retraining took: updates, words of the references, and seconds; and the loss on valid by epoch."""

    updates: int
    words: int
    seconds: float
    valid_loss: list[float]

    @property
    def epochs(self) -> int:
        return len(self.valid_loss)


def retrain(
    model: TranslationModel,
    masks: Mapping[str, NDArray[np.bool_]],
    corpus: Corpus,
    folder: Path,
    schedule: Schedule,
    notify: Callable[[int, float], None] = lambda epoch, valid_loss: None,
) -> Retrained:
    """Retrain the model where its masks are True; the best epoch's weights are in it afterwards.

    ``folder`` keeps fairseq's checkpoints and log; the same call again resumes there, and returns at
    once when all is done. ``notify`` hears of every epoch. Raises StudyError if the folder holds another
    retraining, if the masks are of another model, or if fairseq-train fails.
    """
    _prune(model, masks)
    job = _job(model, corpus, folder, schedule)
    if (folder / JOB).exists():
        if (folder / JOB).read_text(encoding="utf-8") != json.dumps(job, indent=2) + "\n":
            raise StudyError(f"{folder} holds another retraining: choose another --out, or remove it")
    elif folder.exists() and any(not is_leftover(path.name) for path in folder.iterdir()):
        raise StudyError(f"{folder} exists and holds no retraining: choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    with Claim(folder):
        if not (folder / JOB).exists():
            write_json(folder / JOB, job)  # first: from here on the folder resumes
        if not (folder / PRUNED).exists():
            write_masks(folder / MASKS, masks)
            model.save(folder / PRUNED)
        if not (folder / DONE).exists():
            _drop_torn(folder)
            seconds = _train(folder, schedule, notify)
            write_json(folder / DONE, asdict(_told(folder / LOG, seconds)))
    model.load_weights(folder / BEST)
    for name, mask in masks.items():
        start = model.offsets[name]
        if model.flat[start : start + mask.size].numpy()[~mask.ravel()].any():
            raise AssertionError(f"retraining moved pruned connections of {name}")
    return Retrained(**json.loads((folder / DONE).read_text(encoding="utf-8")))


def _prune(model: TranslationModel, masks: Mapping[str, NDArray[np.bool_]]) -> None:
    for name, mask in masks.items():
        if model.description.shapes.get(name) != mask.shape:
            raise StudyError(f"the masks are of another model: {name} has another shape or is not there")
        start = model.offsets[name]
        model.flat[start : start + mask.size].numpy()[~mask.ravel()] = 0


def _job(model: TranslationModel, corpus: Corpus, folder: Path, schedule: Schedule) -> dict[str, Any]:
    languages = ["--source-lang", corpus.source, "--target-lang", corpus.target]
    places = ["--save-dir", str(folder), "--finetune-from-model", str(folder / PRUNED)]
    kept = ["--no-epoch-checkpoints", "--num-workers", "0", "--cpu"]
    told = ["--no-progress-bar", "--log-format", "json", "--log-interval", "100"]
    arguments = [str(corpus.folder / "bin"), *languages, *places, *schedule.arguments(), *kept, *told]
    return {
        "arguments": arguments,
        "model": model.state["cfg"]["model"],
        "autocast": schedule.autocast,
        # zeros and all: other masks are another retraining
        "pruned_sha256": hash_weights(model.flat),
    }


def _train(folder: Path, schedule: Schedule, notify: Callable[[int, float], None]) -> float:
    """Run fairseq-train to its end; seconds of wall clock."""
    own = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    own |= {"OLMP_MASKS": str(folder / MASKS), "OLMP_AUTOCAST": schedule.autocast}
    command = [sys.executable, "-m", "harness.training.run", str(folder / JOB)]
    started = time.monotonic()
    with (folder / LOG).open("a", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **own})
    with (folder / LOG).open(encoding="utf-8", errors="replace") as lines:
        try:
            last = ""
            while True:
                ended = process.poll() is not None
                for line in lines:
                    last = line.strip() or last
                    if (found := LINE.search(line)) and found[1] == "valid":
                        row = json.loads(found[2])
                        notify(int(row["epoch"]), float(row["valid_loss"]))
                if ended:
                    break
                time.sleep(LOOK)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode:
        raise StudyError(f"fairseq-train failed, see {folder / LOG}: {last}")
    return time.monotonic() - started


def _drop_torn(folder: Path) -> None:
    """Begin anew where a checkpoint was cut off while it was written: fairseq writes them in place."""
    found = [path for path in (folder / "checkpoint_last.pt", folder / BEST) if path.exists()]
    try:
        for path in found:
            read_checkpoint(path)
    except StudyError:
        for path in found:
            path.unlink()


def _told(log: Path, seconds: float) -> Retrained:
    """What fairseq's log says of all epochs; of one that was done again after a crash, the last word."""
    rows: dict[str, dict[int, dict[str, str]]] = {"train": {}, "valid": {}}
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if found := LINE.search(line):
            row = json.loads(found[2])
            rows[found[1]][int(row["epoch"])] = row
    updates, words = 0, 0.0
    for _, row in sorted(rows["train"].items()):
        now = int(row["train_num_updates"])
        words += float(row["train_wpb"]) * (now - updates)
        updates = now
    losses = [float(row["valid_loss"]) for _, row in sorted(rows["valid"].items())]
    return Retrained(updates=updates, words=round(words), seconds=seconds, valid_loss=losses)
