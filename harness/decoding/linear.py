"""Weights as decoding holds them, and the matrix product that it spends its time in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional


@dataclass(frozen=True)
class Place:
    """Where and how decoding keeps weights: a device and a floating-point type."""

    device: torch.device
    dtype: torch.dtype

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight there; itself, not a copy, where it is there already."""
        return weight.detach().to(self.device, self.dtype)


class Linear:
    """``x [R, in] → x @ weight[out, in]ᵀ + bias [R, out]``.

    On a CPU through oneDNN, which multiplies float32 on all vector units of either maker's
    processors; the default library was seen to reach half of its speed on some.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None):
        self.weight, self.bias = weight, bias
        self._onednn = weight.device.type == "cpu" and torch.backends.mkldnn.is_available()

    @classmethod
    def of(cls, layer: Any, place: Place) -> Any:
        """The product of one module; None for none."""
        if layer is None:
            return None
        return cls(place(layer.weight), None if layer.bias is None else place(layer.bias))

    @classmethod
    def joined(cls, layers: Sequence[Any], place: Place) -> "Linear":
        """Several products of one input in one, their outputs side by side."""
        weight = torch.cat([place(layer.weight) for layer in layers])
        return cls(weight, torch.cat([place(layer.bias) for layer in layers]))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self._onednn:
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return functional.linear(x, self.weight, self.bias)
