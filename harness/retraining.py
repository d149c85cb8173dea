"""Retraining of a pruned model with fairseq-train, its pruned connections held at zero.

The schedule is that of See, Luong and Manning (2016): few epochs at a smaller learning rate, which is
halved in each; it ends early when the loss on *valid* no longer falls. No other set is looked at.
Or a model is pruned while it is trained on (``gradual``).
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from grouping.errors import StudyError
from harness.checkpoints import BEST, LAST, mend
from harness.claim import Claim, is_leftover
from harness.corpus.corpus import Corpus
from harness.decoding.linear import find_device, multiplies
from harness.files import write_json
from harness.gradual import Gradual
from harness.masks import write_masks
from harness.model import TranslationModel, hash_weights, read_checkpoint
from harness.trainer import training
from harness.workers import GPUS

GRADUAL, TEACHER = "gradual.json", "teacher.pt"
JOB, LOG, PRUNED, MASKS, DONE = "job.json", "train.log", "pruned.pt", "masks.npz", "retraining.json"
#: of a job: where its files are
PLACES = "places"
#: fairseq's names of the dropout of embeddings and layers
DROPOUTS = ("dropout", *(f"{side}_dropout_{end}" for side in ("encoder", "decoder") for end in ("in", "out")))
#: what fairseq's log says of an epoch, in JSON
LINE = re.compile(r"\| valid \| (\{.*\})\s*$")
#: of fairseq-train, which takes all GPUs that it sees unless told otherwise
PLACED = {"cpu": ["--cpu"], "cuda": ["--distributed-world-size", "1"]}
#: of its environment on a CPU: where it sees a GPU, it clips gradients there all the same, and fails
HIDDEN = {GPUS: ""}
#: seconds between two looks at the log
LOOK = 0.2
#: settings of a cell that are those of its schedule, too, by the same names
SHARED = ("batch_tokens", "dropout", "autocast", "distillation", "seed")


@dataclass(frozen=True)
class Schedule:
    """How a pruned model is retrained; everything that decides the outcome but model, masks and text.

    ``constant`` epochs have the whole learning rate before it begins to shrink. ``patience``: epochs without
    a lower loss on valid, after which it ends, and the best epoch counts; 0: all are trained, and the last
    counts. ``batch_tokens`` are those of a batch, at most. ``dropout``, a fraction, replaces that of the
    dense model's training: what is left of a pruned model overfits less (Han et al., 2015, section 3.2).
    ``distillation`` is the weight of the teacher in the loss. ``autocast`` is bfloat16, or empty for float32,
    in which a GPU, and a processor without bfloat16, compute anyway. ``device`` is cpu or cuda: one GPU,
    whose sums are not in the same order each time, so that the same training may end in other last bits.
    """

    epochs: int = 5
    learning_rate: float = 5e-4
    constant: int = 1
    shrink: float = 0.5
    patience: int = 2
    batch_tokens: int = 2000
    dropout: float | None = None
    label_smoothing: float = 0.1
    distillation: float = 0.0
    autocast: str = ""
    device: str = "cpu"
    seed: int = 1

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise StudyError(f"epochs {self.epochs} is not possible: give 1 or more")
        if not 0 < self.learning_rate < float("inf"):
            raise StudyError(f"learning-rate {self.learning_rate} is not possible: give more than 0")
        if not 0 <= self.distillation <= 1:
            raise StudyError(f"distillation {self.distillation} is not possible: give a fraction from 0 to 1")
        if self.batch_tokens < 1:
            raise StudyError(f"batch-tokens {self.batch_tokens} is not possible: give 1 or more")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise StudyError(f"dropout {self.dropout} is not possible: give a fraction from 0 to below 1")
        if self.autocast not in ("", "bfloat16"):
            raise StudyError(f"autocast {self.autocast!r} is not possible: give bfloat16, or nothing")
        if not 0 <= self.seed < 2**32:
            raise StudyError(f"seed {self.seed} is not possible: give 0 or more, below 2**32")
        find_device(self.device)

    @classmethod
    def gradual(cls, epochs: int, learning_rate: float, **others: Any) -> "Schedule":
        """Where connections go meanwhile: the learning rate shrinks when pruning is over.

        A small one would not let the model recover (Zhu and Gupta 2017). The last epoch counts, because the
        loss on valid is lowest before much has gone.
        """
        # all epochs that have begun when pruning ends
        constant = -(-2 * epochs // 3)
        return cls(epochs, learning_rate, constant=constant, patience=0, **others)

    @property
    def precision(self) -> str:
        """In which it computes: bfloat16 only on a processor that multiplies in it."""
        short = self.autocast and self.device == "cpu" and multiplies(torch.bfloat16)
        return self.autocast if short else "float32"

    def settings(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """Of the model that is trained, from those of its checkpoint.

        fairseq's LSTMs have a dropout each for what goes in and what comes out; a Transformer ignores those.
        That of attention and of activations stays what it is.
        """
        given = {} if self.dropout is None else dict.fromkeys(DROPOUTS, self.dropout)
        return {**model, **given}

    def arguments(self) -> list[str]:
        """Of fairseq-train."""
        if self.distillation:
            criterion = ["distilled_cross_entropy", "--distillation", str(self.distillation)]
        else:
            criterion = ["label_smoothed_cross_entropy"]
        return [
            *("--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--clip-norm", "1"),
            *("--lr", str(self.learning_rate), "--lr-scheduler", "fixed"),
            *("--lr-shrink", str(self.shrink), "--force-anneal", str(self.constant + 1)),
            *("--criterion", *criterion, "--label-smoothing", str(self.label_smoothing)),
            *("--max-tokens", str(self.batch_tokens), "--required-batch-size-multiple", "1"),
            *("--max-epoch", str(self.epochs), "--patience", str(self.patience), "--seed", str(self.seed)),
        ]


@dataclass(frozen=True)
class Retrained:
    """What retraining took: updates, words of the references, and seconds; and the loss on valid by epoch.

    Seconds are fairseq's, of training and validation, without what a kill has lost and start-up.
    ``precision`` is that of the passes, on the processor that ended it; None before it was recorded.
    """

    updates: int
    words: int
    seconds: float
    valid_loss: list[float]
    precision: str | None = None

    @property
    def epochs(self) -> int:
        return len(self.valid_loss)


def check_valid(model: TranslationModel, corpus: Corpus, batch_tokens: int) -> None:
    """Raise StudyError for a sentence of valid that a batch or the model has no room for.

    Of train fairseq leaves such sentences out.
    """
    longest = [max(map(len, tokens("valid"))) for tokens in (corpus.source_tokens, corpus.target_tokens)]
    if batch_tokens < max(longest):
        raise StudyError(
            f"batch-tokens {batch_tokens} is not possible: a sentence of valid has {max(longest)}; give "
            f"{max(longest)} or more"
        )
    for side, length, limit in zip(("source", "target"), longest, model.module.max_positions(), strict=True):
        if length > limit:
            raise StudyError(
                f"a sentence of valid has {length} tokens, and the model {limit} positions: leave it out, or "
                f"use a model trained with a larger --max-{side}-positions"
            )


def retrain(
    model: TranslationModel,
    masks: Mapping[str, NDArray[np.bool_]],
    corpus: Corpus,
    folder: Path,
    schedule: Schedule,
    notify: Callable[[int, float], None] = lambda epoch, valid_loss: None,
    gradual: Gradual | None = None,
    teacher: torch.Tensor | None = None,
) -> Retrained:
    """Retrain the model where its masks are True; the weights of the epoch that counts are in it afterwards.

    With ``gradual``, more connections go meanwhile. ``teacher``, float32 [parameters], are the weights of the
    model that the schedule's ``distillation`` is from, of the same architecture.

    ``folder`` keeps fairseq's checkpoints and log; the same call again resumes there, and returns at
    once when all is done. ``notify`` hears of every epoch. Raises StudyError if the folder holds another
    retraining that has come to an epoch's end, if the masks are of another model, or if fairseq-train fails.
    """
    _prune(model, masks)
    job = _job(model, corpus, folder, schedule, gradual, teacher)
    inside = [path.name for path in folder.iterdir() if not is_leftover(path.name)] if folder.exists() else []
    if inside and JOB not in inside:
        raise StudyError(f"{folder} exists and holds no retraining: choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    with Claim(folder) as claim:
        claim.sweep()
        if (folder / JOB).exists() and _identity(read_job(folder / JOB)) != _identity(job):
            if any((folder / name).exists() for name in (BEST, LAST, DONE)):
                raise StudyError(f"{folder} holds another retraining: choose another --out, or remove it")
            # one that came to nothing, mostly by impossible settings
            for name in (LOG, PRUNED, MASKS, GRADUAL, TEACHER):
                (folder / name).unlink(missing_ok=True)
        # first: from here on the folder resumes, wherever it and the corpus are by then
        if not (folder / JOB).exists() or read_job(folder / JOB) != job:
            write_json(folder / JOB, job)
        if not (folder / PRUNED).exists():
            write_masks(folder / MASKS, masks)
            if gradual:
                gradual.write(folder / GRADUAL)
            if schedule.distillation and teacher is not None:
                pruned = model.flat.clone()
                model.flat.copy_(teacher)
                model.save(folder / TEACHER)
                model.flat.copy_(pruned)
            model.save(folder / PRUNED)
        finished = (folder / DONE).exists()
        if not finished and not _ended(folder, schedule):
            _train(folder, schedule, notify)
        model.load_weights(folder / (BEST if schedule.patience else LAST))
        if not finished:
            epochs = told(folder / LOG)
            retrained = Retrained(
                updates=epochs[-1].updates,
                words=len(epochs) * _words(model, corpus, schedule),
                seconds=_seconds(folder / LAST),
                valid_loss=[epoch.valid_loss for epoch in epochs],
                precision=schedule.precision,
            )
            write_json(folder / DONE, asdict(retrained))
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


def _job(
    model: TranslationModel,
    corpus: Corpus,
    folder: Path,
    schedule: Schedule,
    gradual: Gradual | None,
    teacher: torch.Tensor | None,
) -> dict[str, Any]:
    """What is trained and how. All but the places decides the outcome."""
    languages = ["--source-lang", corpus.source, "--target-lang", corpus.target]
    places = [str(corpus.folder / "bin"), "--save-dir", str(folder)]
    places += ["--finetune-from-model", str(folder / PRUNED)]
    kept = ["--no-epoch-checkpoints", "--num-workers", "0", *PLACED[schedule.device]]
    told = ["--no-progress-bar", "--log-format", "json", "--log-interval", "100"]
    arguments = [*languages, *schedule.arguments(), *kept, *told]
    more: dict[str, Any] = {"gradual": gradual.identity()} if gradual else {}
    if schedule.distillation:
        if teacher is None:
            raise ValueError("distillation without a teacher")
        places += ["--teacher", str(folder / TEACHER)]
        more["teacher_sha256"] = hash_weights(teacher)
    job: dict[str, Any] = {
        PLACES: places,
        "arguments": arguments,
        "training_sha256": corpus.training_hash(),
        "model": schedule.settings(model.state["cfg"]["model"]),
        "autocast": schedule.autocast,
        # zeros and all: other masks are another retraining
        "pruned_sha256": hash_weights(model.flat),
        **more,
    }
    as_read: dict[str, Any] = json.loads(json.dumps(job))  # tuples are lists there
    return as_read


def _identity(job: Mapping[str, Any]) -> dict[str, Any]:
    """What makes another retraining of it: not where its files are."""
    return {name: value for name, value in job.items() if name != PLACES}


def read_job(path: Path) -> dict[str, Any]:
    """Read a job, as JSON has it. Raises StudyError when it is damaged."""
    try:
        job: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(f"{path} cannot be read ({error}): remove {path.parent}") from None
    return job


def _train(folder: Path, schedule: Schedule, notify: Callable[[int, float], None]) -> None:
    """Run fairseq-train to its end."""
    own = {"OLMP_MASKS": str(folder / MASKS), "OLMP_AUTOCAST": schedule.autocast}
    if schedule.device == "cpu":
        own |= HIDDEN
    last = ""
    with (
        training(folder / JOB, folder / LOG, own) as running,
        (folder / LOG).open(encoding="utf-8", errors="replace") as lines,
    ):
        ended = False
        while not ended:
            ended = running.ended(LOOK)
            for line in lines:
                last = line.strip() or last
                if (epoch := _epoch(line)) is not None:
                    notify(epoch.number, epoch.valid_loss)
    if running.code:
        how = "failed" if running.code > 0 else "was killed"
        raise StudyError(f"fairseq-train {how}, see {folder / LOG}: {last}")


def _ended(folder: Path, schedule: Schedule) -> bool:
    """Whether the training that was stopped here had lost its patience already.

    Raises StudyError where the log has lost saved epochs: patience and what is recorded follow from it.
    """
    saved = _saved_epochs(folder)
    epochs = told(folder / LOG)[:saved]
    if len(epochs) < saved:
        raise StudyError(
            f"{folder / LOG} tells of {len(epochs)} of the {saved} epochs that {LAST} has seen: put the log "
            "back, or remove the folder to train again"
        )
    return out_of_patience(epochs, schedule.patience)


def _saved_epochs(folder: Path) -> int:
    """How many epochs the last checkpoint has seen; 0 where training begins."""
    mend(folder)
    if not (folder / LAST).exists():
        return 0
    return int(read_checkpoint(folder / LAST)["extra_state"]["train_iterator"]["epoch"]) - 1


class Epoch(NamedTuple):
    """The end of an epoch: its number, the loss on valid, and the updates until then."""

    number: int
    valid_loss: float
    updates: int


def _epoch(line: str) -> Epoch | None:
    if (found := LINE.search(line)) is None:
        return None
    row = json.loads(found[1])
    return Epoch(int(row["epoch"]), float(row["valid_loss"]), int(row["valid_num_updates"]))


def told(log: Path) -> list[Epoch]:
    """What fairseq's log says of all epochs up to the latest; of one that was done again, the last word."""
    if not log.exists():
        return []
    epochs: dict[int, Epoch] = {}
    latest = 0
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if (epoch := _epoch(line)) is not None:
            epochs[epoch.number], latest = epoch, epoch.number
    return [epochs[number] for number in sorted(epochs) if number <= latest]


def _seconds(last: Path) -> float:
    """Seconds until fairseq's last checkpoint, as it adds them up over all runs."""
    return float(read_checkpoint(last)["extra_state"]["previous_training_time"])


def out_of_patience(epochs: Sequence[Epoch], patience: int) -> bool:
    """Whether the loss on valid has not fallen below its lowest for ``patience`` epochs (0: never).

    As fairseq counts, but it follows from the epochs alone: fairseq's own count is lost when it is killed.
    """
    losses = [epoch.valid_loss for epoch in epochs]
    return len(losses) > 0 and 0 < patience <= len(losses) - 1 - losses.index(min(losses))


def _words(model: TranslationModel, corpus: Corpus, schedule: Schedule) -> int:
    """Words of the references that an epoch sees: fairseq leaves out sentences that are too long."""
    longest = [min(schedule.batch_tokens, limit) for limit in model.module.max_positions()]
    pairs = zip(corpus.source_tokens("train"), corpus.target_tokens("train"), strict=True)
    lengths = ((len(source), len(target)) for source, target in pairs)
    return sum(target for source, target in lengths if source <= longest[0] and target <= longest[1])
