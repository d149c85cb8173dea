"""Has fairseq-train prune while it trains."""

from typing import Any

import torch
from fairseq.tasks.fairseq_task import FairseqTask

from harness.gradual import Pruner


def install(pruner: Pruner) -> None:
    """Have the next training of this process prune; it changes fairseq for the rest of the process."""
    build_model, begin_epoch, train_step = (
        *(FairseqTask.build_model, FairseqTask.begin_epoch, FairseqTask.train_step),
    )

    def pruned_model(task: FairseqTask, *arguments: Any, **options: Any) -> torch.nn.Module:
        model = build_model(task, *arguments, **options)
        pruner.hold(model)
        return model

    def pruned_epoch(task: FairseqTask, epoch: int, model: torch.nn.Module) -> None:
        begin_epoch(task, epoch, model)
        pruner.begin_epoch(len(task.dataset_to_epoch_iter[task.dataset("train")]))

    def pruned_step(
        *own: Any, model: torch.nn.Module, optimizer: Any, update_num: int, **others: Any
    ) -> tuple:
        pruner.before_update(model, optimizer.optimizer, update_num)
        return train_step(*own, model=model, optimizer=optimizer, update_num=update_num, **others)

    FairseqTask.build_model = pruned_model
    FairseqTask.begin_epoch = pruned_epoch
    FairseqTask.train_step = pruned_step
