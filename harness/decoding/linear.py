"""Weights as decoding holds them, and the matrix product that it spends its time in."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from grouping.errors import StudyError
from harness.decoding import int8
from harness.decoding.int8 import Int8Linear

Activation = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Place:
    """Where and how decoding keeps weights: a device, a floating-point type, products in int8 or not."""

    device: torch.device
    dtype: torch.dtype
    int8: bool = False

    @classmethod
    def of(cls, device: torch.device, precision: str) -> "Place":
        """Raises StudyError for a precision that this device does not have."""
        if precision != "int8":
            return cls(device, getattr(torch, precision))
        if device.type != "cpu":
            raise StudyError("precision int8 is for CPUs: give bfloat16 or float16 on a GPU")
        if not int8.unit():
            raise StudyError(
                "precision int8 takes an x86 processor with AVX2, and the native kernels, which pip builds "
                "with GCC 11 or Clang: give bfloat16 or float32"
            )
        return cls(device, torch.bfloat16, int8=True)

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight there; itself, not a copy, where it is there already."""
        return weight.detach().to(self.device, self.dtype)

    def product(
        self, weight: torch.Tensor, bias: torch.Tensor | None = None, after: Activation | None = None
    ) -> "Product":
        """The matrix product of a weight [out, in], which may be elsewhere."""
        if self.int8:
            return Int8Linear(weight, bias, after)
        return Linear(self(weight), None if bias is None else self(bias), after)

    def product_of(self, layer: Any, after: Activation | None = None) -> Any:
        """That of one module, maybe an embedding that is an output, too; None for none."""
        return None if layer is None else self.product(layer.weight, getattr(layer, "bias", None), after)

    def joined(self, layers: Sequence[Any]) -> "Product":
        """Several products of one input in one, their outputs side by side."""
        weight, bias = (torch.cat([getattr(layer, part) for layer in layers]) for part in ("weight", "bias"))
        return self.product(weight, bias)


def multiplies(dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies such numbers on this processor: short ones take AVX-512, or a newer AVX2."""
    if dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if dtype is torch.float16:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return torch.backends.mkldnn.is_available()


#: what rounding costs in precision has to be worth it
WORTHWHILE = 1.3


def find_device(name: str) -> torch.device:
    """The device of this name. Raises StudyError for one that is not there."""
    if name not in ("cpu", "cuda"):
        raise StudyError(f"unknown device {name!r}: give cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise StudyError(
            "no GPU that torch can use was found: say cpu for the device, or install a CUDA build"
        )
    return torch.device(name)


def fastest_precision(device: str) -> str:
    """The precision in which this device multiplies fastest, by a probe of a few milliseconds.

    Each lower one has to be faster by the factor ``WORTHWHILE``: on a CPU bfloat16 and int8 where it
    has the instructions, on a GPU bfloat16 or, where that is emulated, float16.
    """
    place = find_device(device)
    lower = ["bfloat16"]
    if place.type == "cpu" and int8.unit():
        lower.append("int8")
    if place.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        lower = ["float16"]
    chosen, least = "float32", _seconds(Place.of(place, "float32"))
    for name in lower:
        seconds = _seconds(Place.of(place, name))
        if least > WORTHWHILE * seconds:
            chosen, least = name, seconds
    return chosen


def _seconds(place: Place) -> float:
    """Of the products of a decoding step, 256 rows of 512 numbers each way; the fastest of some.

    With one thread, as searches translate: how many there are must not decide.
    """
    product, x = place.product(torch.ones(512, 512)), place(torch.ones(256, 512))
    taken = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for _ in range(20):
                started = time.perf_counter()
                for _ in range(4):
                    x = product(x)
                float(x[0, 0])  # waits for a GPU
                taken.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    return min(taken)


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
        if weight.device.type == "cpu" and multiplies(weight.dtype):
            self._arranged = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
            if after is functional.relu:
                self.after, self._fused = None, "relu"

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self._arranged is None:
            x = functional.linear(x, self.weight, self.bias)
        else:
            x = torch.ops.mkldnn._linear_pointwise(x, self._arranged, self.bias, self._fused, [], "")
        return x if self.after is None else self.after(x)


Product = Linear | Int8Linear
