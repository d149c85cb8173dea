"""Gradual magnitude pruning: connections go while the model is trained on.

M. Zhu, S. Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression", 2017
(arXiv 1710.01878). The sparsity rises by a cubic law, most of it early, when the model can best do without;
in the last third of the updates nothing more goes and the model recovers.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from grouping import content_hash
from harness.files import write_json
from harness.masks import pruned_masks
from harness.model import snapshot
from harness.operators import MagnitudePruning
from harness.search.rules import rules

#: of a table of blocks, what pruning needs to know
COLUMNS = ["parameter", "row", "rows", "col", "cols", "size", "group"]


def pruning_share(whole: int) -> int:
    """How many of some updates are over when pruning is: two thirds, rounded down."""
    return 2 * whole // 3


@dataclass(frozen=True)
class CubicLaw:
    """The sparsity s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (n Δt))³ for t = t_0, t_0 + Δt, …, t_0 + n Δt.

    t counts updates. s_i = 0 and t_0 = 0: training goes on from a trained model. ``final`` is s_f, a
    fraction; ``updates`` are those of the whole training; ``steps`` is about n.
    """

    final: float
    updates: int
    steps: int

    @property
    def interval(self) -> int:
        """Δt, in updates."""
        return max(1, pruning_share(self.updates) // self.steps)

    @property
    def end(self) -> int:
        """n Δt, the update before which the last connections go."""
        return pruning_share(self.updates) // self.interval * self.interval

    def due(self, update: int) -> bool:
        """Whether connections go after ``update`` updates."""
        return update <= self.end and update % self.interval == 0

    def sparsity(self, update: int) -> float:
        """The fraction that is gone after ``update`` updates, the same from one step to the next."""
        reached = min(update // self.interval * self.interval, self.end)
        return self.final * (1 - (1 - reached / self.end) ** 3) if self.end else self.final


@dataclass(frozen=True)
class Gradual:
    """What goes while a model is trained: by which rule over which groups, and how much in the end.

    ``blocks`` is a partition of the model's connection table. ``rule`` is a search-free one, whose strength
    is the sparsity.
    """

    blocks: pd.DataFrame
    rule: str
    sparsity: float
    steps: int = 30

    def identity(self) -> dict[str, Any]:
        """Everything that decides what goes, in short."""
        groups = content_hash(self.blocks)
        return {"rule": self.rule, "sparsity": self.sparsity, "steps": self.steps, "groups_sha256": groups}

    def write(self, path: Path) -> None:
        """Write it for a training process."""
        blocks = {name: self.blocks[name].tolist() for name in COLUMNS}
        write_json(
            path, {"rule": self.rule, "sparsity": self.sparsity, "steps": self.steps, "blocks": blocks}
        )

    @classmethod
    def read(cls, path: Path) -> "Gradual":
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(**content | {"blocks": pd.DataFrame(content["blocks"])})

    def masks(self, module: torch.nn.Module, sparsity: float) -> dict[str, NDArray[np.bool_]]:
        """What stays (True) when this fraction of a model's smallest connections goes, as they are now."""
        model = snapshot(module)
        operator = MagnitudePruning(model, self.blocks)
        operator.apply(operator.knobs(rules.get(self.rule)(operator.magnitudes(), sparsity)))
        return pruned_masks(model, operator)


class Pruner:
    """Prunes a model that is being trained, and holds what has gone at zero.

    The masks are a function of the weights and of the number of updates. They are made anew at every step of
    the law and whenever an epoch begins, where training may have been resumed: what has gone by then is zero
    and goes again first, so that nothing but the checkpoint is needed to go on in the same way.
    """

    def __init__(self, gradual: Gradual, epochs: int):
        self.gradual, self.epochs = gradual, epochs
        self._law = CubicLaw(gradual.sparsity, 0, gradual.steps)
        self._kept: dict[str, torch.Tensor] = {}
        self._due = True

    def hold(self, module: torch.nn.Module) -> None:
        """Have gradients of what has gone be zero, from whenever it goes."""
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                parameter.register_hook(lambda gradient, name=name: self._held(name, gradient))

    def begin_epoch(self, updates: int) -> None:
        """To be called before each epoch, with its number of updates."""
        self._law = CubicLaw(self.gradual.sparsity, self.epochs * updates, self.gradual.steps)
        self._due = True

    def before_update(self, module: torch.nn.Module, optimizer: torch.optim.Optimizer, update: int) -> None:
        """Prune if it is time to, ``update`` updates having been made."""
        if not (self._due or self._law.due(update)):
            return
        self._due = False
        masks = self.gradual.masks(module, self._law.sparsity(update))
        self._kept = {name: torch.from_numpy(mask) for name, mask in masks.items()}
        for name, parameter in module.named_parameters():
            kept = self._kept[name] = self._kept[name].to(parameter.device)
            for tensor in (parameter.data, *_moments(optimizer, parameter)):
                # not by a product: that of a negative number would be -0
                tensor.masked_fill_(~kept, 0)

    def _held(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * self._kept[name].to(gradient) if name in self._kept else gradient


def _moments(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter) -> Iterator[torch.Tensor]:
    """What the optimizer remembers of each connection: it would go on moving what has just gone."""
    for value in optimizer.state.get(parameter, {}).values():
        if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
            yield value
