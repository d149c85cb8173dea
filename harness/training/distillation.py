"""Word-level distillation: a student also learns how the dense model would go on after each word.

Y. Kim, A. M. Rush, "Sequence-Level Knowledge Distillation", EMNLP 2016 (arXiv 1606.07947), section 3.1:
loss = (1 - α) L_NLL + α L_WORD-KD, here with label smoothing in the first.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
    LabelSmoothedCrossEntropyCriterionConfig,
)

from harness.model import load_model


@dataclass
class DistilledCrossEntropyConfig(LabelSmoothedCrossEntropyCriterionConfig):
    distillation: float = field(default=0.0, metadata={"help": "weight of the teacher's word distributions"})
    teacher: str = field(default="", metadata={"help": "checkpoint of the teacher"})


@register_criterion("distilled_cross_entropy", dataclass=DistilledCrossEntropyConfig)
class DistilledCrossEntropy(LabelSmoothedCrossEntropyCriterion):
    """fairseq's label-smoothed cross-entropy, mixed with that to the teacher's word distributions.

    The teacher reads the references, too; it has no dropout, and no temperature softens it. In nats, summed
    over the words of a batch. On valid the loss is that without a teacher, so that trainings with and without
    one stop by the same measure.
    """

    def __init__(
        self,
        task: Any,
        sentence_avg: bool,
        label_smoothing: float,
        distillation: float,
        teacher: str,
        ignore_prefix_size: int = 0,
        report_accuracy: bool = False,
    ):
        super().__init__(task, sentence_avg, label_smoothing, ignore_prefix_size, report_accuracy)
        self.distillation = distillation
        # in a tuple, so that it is no part of what is trained and saved
        self._teacher = (load_model(Path(teacher), task.source_dictionary, task.target_dictionary).module,)

    def compute_loss(
        self, model: Any, net_output: Any, sample: Any, reduce: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss, and the negative log-likelihood of the references."""
        loss, nll = super().compute_loss(model, net_output, sample, reduce)
        if not model.training:
            return loss, nll
        own, target = self.get_lprobs_and_target(model, net_output, sample)
        teacher = self._teacher[0].to(target.device)
        with torch.no_grad():
            taught, _ = self.get_lprobs_and_target(teacher, teacher(**sample["net_input"]), sample)
        words = (
            -(taught.exp() * own)
            .sum(dim=-1, keepdim=True)
            .masked_fill(target[:, None] == self.padding_idx, 0)
        )
        return (1 - self.distillation) * loss + self.distillation * (words.sum() if reduce else words), nll
