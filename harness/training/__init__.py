"""Plug-in for fairseq-train (``--user-dir``): what training with our versions and on a CPU needs.

Importing it changes fairseq for the rest of the process, so only a training process imports it. It
registers no task of its own, so that its checkpoints still say ``translation`` and load anywhere.

- ``OLMP_PARENT=number``: training ends with this process, which started it. Who takes over its folder would
  meet it there.
- ``OLMP_MASKS=masks.npz`` holds pruned connections at zero: gradients of what a mask removes are zero
  from the first update on, and with them the optimizer's moments and every step; so is weight decay.
- Resuming: fairseq keeps the model's arguments as an argparse.Namespace, which torch >= 2.6 refuses
  to load; this one class is added to what torch accepts. And it deals the sentences to batches by the seed
  and the epoch in which the process began, so that a resumed training would see other batches: here they
  are always those of the first epoch.
- ``OLMP_AUTOCAST=bfloat16`` computes forward and backward passes on a CPU in bfloat16, which is 1.5
  to 2 times faster where the CPU has the instructions. Where it has not, LSTMs would fail and products
  take ten times as long, so it computes in float32. Weights and optimizer state are float32, as is
  validation. On a GPU it computes in float32: fairseq's step turns autocast off there, and an LSTM of
  cuDNN would take float16, which wants its losses scaled.
"""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.tasks.fairseq_task import FairseqTask
from numpy.typing import NDArray

from harness.decoding.linear import multiplies
from harness.masks import read_masks
from harness.workers import die_with_parent

AUTOCAST = os.environ.get("OLMP_AUTOCAST", "")
if AUTOCAST not in ("", "bfloat16"):
    raise ValueError(f"OLMP_AUTOCAST is {AUTOCAST!r}: give bfloat16, or nothing for float32")

MASKS = os.environ.get("OLMP_MASKS", "")

if PARENT := os.environ.get("OLMP_PARENT", ""):
    die_with_parent(int(PARENT))

_train_step = FairseqTask.train_step
_build_model = FairseqTask.build_model
_get_batch_iterator = FairseqTask.get_batch_iterator


def train_step(task: FairseqTask, sample: dict, model: torch.nn.Module, *rest: Any, **options: Any) -> tuple:
    """fairseq's own training step, under autocast if the model is on a CPU that has bfloat16."""
    short = (
        AUTOCAST == "bfloat16"
        and next(model.parameters()).device.type == "cpu"
        and multiplies(torch.bfloat16)
    )
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=short):
        return _train_step(task, sample, model, *rest, **options)


def hold(model: torch.nn.Module, masks: Mapping[str, NDArray[np.bool_]]) -> None:
    """Prune a model, and keep what was pruned at zero through all training.

    ``masks`` are True where a connection is kept, by the first name of each tensor. A frozen tensor, such as
    that of ``--encoder-freeze-embed``, has no gradient to hold.
    """
    for name, parameter in model.named_parameters():
        if name in masks:
            kept = torch.from_numpy(masks[name])
            parameter.data.mul_(kept)
            if parameter.requires_grad:
                parameter.register_hook(_Kept(kept))


class _Kept:
    """A gradient without that of what was pruned."""

    def __init__(self, kept: torch.Tensor) -> None:
        self._kept = kept

    def __call__(self, gradient: torch.Tensor) -> torch.Tensor:
        # once to its device and precision, which may be others than the weights' at first
        self._kept = self._kept.to(gradient)
        return gradient * self._kept


def build_model(task: FairseqTask, *arguments: Any, **options: Any) -> torch.nn.Module:
    """fairseq's own, with its pruned connections held at zero."""
    model = _build_model(task, *arguments, **options)
    if MASKS:
        hold(model, read_masks(Path(MASKS)))
    return model


def get_batch_iterator(task: FairseqTask, dataset: Any, *arguments: Any, **options: Any) -> Any:
    """fairseq's own, with the batches of the first epoch; only their order is drawn anew in each."""
    return _get_batch_iterator(task, dataset, *arguments, **options | {"epoch": 1})


torch.serialization.add_safe_globals([argparse.Namespace])
FairseqTask.train_step = train_step
FairseqTask.build_model = build_model
FairseqTask.get_batch_iterator = get_batch_iterator
