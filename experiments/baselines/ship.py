"""``python -m experiments.baselines.ship``: make a trained checkpoint small enough to give away.

A shipped checkpoint is a fairseq checkpoint with the weights in float16, tied tensors once, and
only those settings that build the model. They are plain dictionaries, not the argparse.Namespace
of a training checkpoint, so torch.load accepts the file with ``weights_only=True`` and no
allow-list, and with it plain ``fairseq-generate`` on torch >= 2.6. Nothing of the machine it was
trained on is left: no paths, no optimizer state.
"""

import argparse
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from experiments.baselines.train import MODELS
from grouping.errors import StudyError
from harness.cli import guarded
from harness.files import write_atomically
from harness.model import read_checkpoint

#: bytes
LARGEST = 10_000_000
#: where trainings are, and what each of them ends with
TRAININGS, BEST = Path("checkpoints"), "checkpoint_best.pt"


def check_trained(checkpoint: Path | None) -> Path:
    """Raise StudyError where no trained model is named, or none that is there; it says which there are."""
    if checkpoint is not None and checkpoint.is_file():
        return checkpoint
    folder = TRAININGS if checkpoint is None else checkpoint.parent.parent
    trained = ", ".join(sorted(path.parent.name for path in folder.glob(f"*/{BEST}"))) or "none"
    missing = "no model is named" if checkpoint is None else f"{checkpoint} does not exist"
    asked = re.fullmatch(rf"({'|'.join(MODELS)})\.seed(\d+)", checkpoint.parent.name if checkpoint else "")
    model, seed = asked.groups() if asked else ("luong", "2")
    advice = "trains it" if asked else f"trains one (of {', '.join(MODELS)})"
    raise StudyError(
        f"{missing}; trained in {folder}: {trained}; `make baselines MODEL={model} SEED={seed}` {advice}, "
        f"`make ship MODEL={model} SEED={seed}` ships it"
    )


def read_training_checkpoint(path: Path) -> dict[str, Any]:
    """Load what fairseq-train wrote, without running code from it.

    Raises StudyError if the file is missing, damaged, unsafe, or no fairseq-train checkpoint.
    """
    state = read_checkpoint(path)
    sections = state.get("cfg")
    if not isinstance(sections, dict) or not isinstance(sections.get("model"), argparse.Namespace):
        raise StudyError(f"{path} is no fairseq-train checkpoint: it has no model configuration")
    return state


def shipped(state: dict[str, Any], source: str, target: str) -> dict[str, Any]:
    """The checkpoint to ship, from the content of a training checkpoint.

    ``source`` and ``target`` are language codes; fairseq-train records none where it guesses
    them. Raises StudyError if a weight is not finite in float16.
    """
    sections = state["cfg"]
    task = {**sections["task"], "source_lang": source, "target_lang": target}
    task = {name: value for name, value in task.items() if not _is_path(value)}
    # fairseq-train copies all sections into the model's arguments; the task's are kept because
    # max_source_positions and max_target_positions belong to the model as well
    others = [part for key, part in sections.items() if key != "task" and isinstance(part, dict)]
    foreign = {name for part in others for name in part}
    model = {
        name: value
        for name, value in vars(sections["model"]).items()
        if name not in foreign and not _is_path(value)
    }
    model.update(_name=model["arch"], source_lang=source, target_lang=target)
    last = state["optimizer_history"][-1]
    history = {
        "criterion_name": last["criterion_name"],
        "optimizer_name": last["optimizer_name"],
        "lr_scheduler_state": {},
        "num_updates": last["num_updates"],
    }
    return {
        "cfg": {"model": model, "task": task},
        "model": halve(state["model"]),
        "optimizer_history": [history],
        "extra_state": {"train_iterator": {"epoch": state["extra_state"]["train_iterator"]["epoch"]}},
    }


def halve(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights in float16; names that shared a tensor share its half.

    Raises StudyError if a weight is not finite, or too large for float16.
    """
    halves: dict[tuple, torch.Tensor] = {}
    named = {}
    for name, tensor in weights.items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if place not in halves:
            halves[place] = tensor.half() if tensor.is_floating_point() else tensor.clone()
        named[name] = halves[place]
        if not torch.isfinite(named[name]).all():
            raise StudyError(f"{name} has weights that are not finite in float16: train it again")
    return named


def _is_path(value: object) -> bool:
    return isinstance(value, str) and ("/" in value or "\\" in value)


def ship(checkpoint: Path, corpus: Path, out: Path, name: str) -> Path:
    """Write ``<out>/<name>.pt`` and, beside it, the corpus's bpe.model and joint dict.txt.

    Returns the checkpoint's path. Raises StudyError if it would exceed 10,000,000 bytes, or if
    ``out`` already belongs to another vocabulary; nothing is left behind then.
    """
    state = read_training_checkpoint(checkpoint)
    try:
        about = json.loads((corpus / "corpus.json").read_text())
        source, target = about["source"], about["target"]
    except (OSError, ValueError, KeyError, TypeError):
        raise StudyError(f"{corpus} is not a prepared corpus: give the one of the training") from None
    dictionaries = [corpus / "bin" / f"dict.{language}.txt" for language in (source, target)]
    if dictionaries[0].read_bytes() != dictionaries[1].read_bytes():
        raise StudyError(f"{corpus} has two dictionaries: only models with a joint one can be shipped")
    beside = {out / "bpe.model": corpus / "bpe.model", out / "dict.txt": dictionaries[0]}
    for copy, original in beside.items():
        if copy.exists() and copy.read_bytes() != original.read_bytes():
            raise StudyError(f"{copy} belongs to another corpus: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.pt"

    def write(draft: Path) -> None:
        torch.save(shipped(state, source, target), draft)
        if (size := draft.stat().st_size) > LARGEST:
            raise StudyError(f"{name} takes {size:,} bytes, {LARGEST:,} are allowed: train a smaller model")
        for copy, original in beside.items():
            shutil.copyfile(original, copy)

    write_atomically(path, write)
    return path


def main(arguments: list[str] | None = None) -> int:
    """Ship what the command line names; exit code 2 if it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m experiments.baselines.ship", description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="?", help=f"{BEST} of a training")
    parser.add_argument("--corpus", type=Path, default=Path("data/homeassistant.en-de"))
    parser.add_argument("--out", type=Path, default=Path("models/homeassistant.en-de"))
    parser.add_argument("--name", help="of the shipped file; default: the training's folder, without .seed1")
    options = parser.parse_args(arguments)

    def run() -> None:
        checkpoint = check_trained(options.checkpoint)
        name = options.name or checkpoint.absolute().parent.name.removesuffix(".seed1")
        path = ship(checkpoint, options.corpus, options.out, name)
        print(f"{path}: {path.stat().st_size:,} bytes")

    return guarded(run, resumes=False)


if __name__ == "__main__":
    sys.exit(main())
