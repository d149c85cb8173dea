"""Plug-in for fairseq-train (``--user-dir``): what training with our versions and on a CPU needs.

Importing it changes fairseq for the rest of the process, so only a training process imports it. It
registers no task of its own, so that its checkpoints still say ``translation`` and load anywhere.

- Resuming: fairseq keeps the model's arguments as an argparse.Namespace, which torch >= 2.6 refuses
  to load; this one class is added to what torch accepts.
- ``OLMP_AUTOCAST=bfloat16`` computes forward and backward passes on a CPU in bfloat16, which is 1.5
  to 2 times faster where the CPU has the instructions. Weights and optimizer state stay float32,
  as does validation. Training on a GPU is left to fairseq's own ``--fp16`` and ``--bf16``.
"""

import argparse
import os
from typing import Any

import torch
from fairseq.tasks.fairseq_task import FairseqTask

AUTOCAST = os.environ.get("OLMP_AUTOCAST", "")
if AUTOCAST not in ("", "bfloat16"):
    raise ValueError(f"OLMP_AUTOCAST is {AUTOCAST!r}: give bfloat16, or nothing for float32")

_train_step = FairseqTask.train_step


def train_step(task: FairseqTask, sample: dict, model: torch.nn.Module, *rest: Any, **options: Any) -> tuple:
    """fairseq's own training step, under autocast if the model is on a CPU."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=on_cpu and AUTOCAST == "bfloat16"):
        return _train_step(task, sample, model, *rest, **options)


torch.serialization.add_safe_globals([argparse.Namespace])
FairseqTask.train_step = train_step
