"""Weights as decoding holds them, and the matrix product that it spends its time in."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from grouping.errors import StudyError


@dataclass(frozen=True)
class Place:
    """Where and how decoding keeps weights: a device and a floating-point type."""

    device: torch.device
    dtype: torch.dtype

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight there; itself, not a copy, where it is there already."""
        return weight.detach().to(self.device, self.dtype)


#: what rounding costs in precision has to be worth it
WORTHWHILE = 1.3


def find_device(name: str) -> torch.device:
    """The device of this name. Raises StudyError for one that is not there."""
    if name not in ("cpu", "cuda"):
        raise StudyError(f"unknown device {name!r}: give cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise StudyError("no GPU that torch can use was found: give --device cpu, or install a CUDA build")
    return torch.device(name)


def fastest_precision(device: str) -> str:
    """The precision in which this device multiplies fastest, by a probe of a few milliseconds.

    float32 unless another one is faster by the factor ``WORTHWHILE``: on a CPU bfloat16 where it has
    the instructions, on a GPU bfloat16 or, where that is emulated, float16.
    """
    place = find_device(device)
    lower = "bfloat16"
    if place.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        lower = "float16"
    seconds = {name: _seconds(Place(place, getattr(torch, name))) for name in ("float32", lower)}
    return lower if seconds["float32"] > WORTHWHILE * seconds[lower] else "float32"


def _seconds(place: Place) -> float:
    """Of the products of a decoding step, 256 rows of 512 numbers each way; the fastest of some."""
    product, x = Linear(place(torch.ones(512, 512))), place(torch.ones(256, 512))
    taken = []
    with torch.inference_mode():
        for _ in range(20):
            started = time.perf_counter()
            for _ in range(4):
                x = product(x)
            float(x[0, 0])  # waits for a GPU
            taken.append(time.perf_counter() - started)
    return min(taken)


Activation = Callable[[torch.Tensor], torch.Tensor]
#: rows that oneDNN arranges weights for; it multiplies any number of them
ROWS = 256


class Linear:
    """``x [R, in] → after(x @ weight[out, in]ᵀ + bias) [R, out]``.

    On a CPU through oneDNN, which multiplies float32 on all vector units of either maker's
    processors; the default library was seen to reach half of its speed on some. The weight is
    arranged once, as oneDNN reads it, instead of in each call, and ReLU costs nothing.
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None = None, after: Activation | None = None
    ) -> None:
        self.weight, self.bias, self.after = weight, bias, after
        self._arranged, self._fused = None, "none"
        if weight.device.type == "cpu" and torch.backends.mkldnn.is_available():
            self._arranged = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
            if after is functional.relu:
                self.after, self._fused = None, "relu"

    @classmethod
    def of(cls, layer: Any, place: Place, after: Activation | None = None) -> Any:
        """The product of one module; None for none."""
        if layer is None:
            return None
        return cls(place(layer.weight), None if layer.bias is None else place(layer.bias), after)

    @classmethod
    def joined(cls, layers: Sequence[Any], place: Place) -> "Linear":
        """Several products of one input in one, their outputs side by side."""
        weight = torch.cat([place(layer.weight) for layer in layers])
        return cls(weight, torch.cat([place(layer.bias) for layer in layers]))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self._arranged is None:
            x = functional.linear(x, self.weight, self.bias)
        else:
            x = torch.ops.mkldnn._linear_pointwise(x, self._arranged, self.bias, self._fused, [], "")
        return x if self.after is None else self.after(x)
