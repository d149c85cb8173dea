"""Options that several verbs share."""

import argparse
import os
from pathlib import Path

from harness.workers import cores


def add_model(parser: argparse.ArgumentParser) -> None:
    """The checkpoint, and the corpus whose dictionaries it was trained with."""
    parser.add_argument("checkpoint", type=Path, help="a fairseq checkpoint (lstm or transformer)")
    parser.add_argument(
        "--corpus",
        type=Path,
        default=Path("data/homeassistant.en-de"),
        metavar="FOLDER",
        help="corpus folder made by `olmp corpus` (default: %(default)s)",
    )
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="let the checkpoint run code of its own while it is read; only if you trust its author",
    )


def add_workers(parser: argparse.ArgumentParser) -> None:
    """How many processes judge candidates side by side, a thread each."""
    parser.add_argument(
        "--workers",
        type=int,
        default=cores(),
        metavar="N",
        help="processes, a thread each; decides the time only (default: one per core, here %(default)s)",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """What computes."""
    parser.add_argument(
        "--device", default="cpu", metavar="NAME", help="what computes: cpu or cuda (default: %(default)s)"
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """How many threads; given or 1, never what the environment happens to say."""
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help=f"threads of this process (default: 1; this machine has {os.cpu_count()} cores)",
    )


def use_threads(threads: int) -> None:
    """Set torch's thread count. Raises StudyError for a number below 1."""
    import torch

    from grouping.errors import StudyError

    if threads < 1:
        raise StudyError(f"--threads {threads} is not possible: give 1 or more")
    torch.set_num_threads(threads)
