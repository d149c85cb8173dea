"""Matrix products of 8-bit integers: weights quantised for each output, activations for each row.

Through the native library (``int8.c``) on processors that multiply several of them in one instruction. The
same in PyTorch, which is slow, says what it has to compute.
"""

from collections.abc import Callable

import torch
from torch.nn import functional

from harness.decoding import kernels

#: outputs whose weights lie together (``PANEL`` of int8.c)
PANEL = 64
#: the largest whole number
MOST = 127


#: what the native library multiplies with, by its number there; a faster one has a larger number
UNITS = {3: "avx512_vnni", 2: "avx_vnni", 1: "avx2"}


def unit() -> int:
    """The fastest of ``UNITS`` that this processor and the native library have; 0 for none."""
    loaded = kernels.library()
    return 0 if loaded is None else loaded.int8_unit()


class Int8Linear:
    """``x [R, in] → after(x @ weight[out, in]ᵀ + bias) [R, out]``, both bfloat16; ReLU costs nothing.

    A row's result does not depend on the other rows. ``weight`` and ``bias`` are float32.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        after: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        self.relu = after is functional.relu
        self.after = None if self.relu else after
        self.outputs, self.inputs = weight.shape
        panels, groups = -(-self.outputs // PANEL), -(-self.inputs // 4)
        self.bias = torch.zeros(panels * PANEL)
        if bias is not None:
            self.bias[: self.outputs] = bias
        self.unit = unit()
        self.native = kernels.library() if self.unit else None
        weight = weight.detach().float().contiguous()
        if self.native is not None:
            self.weights = torch.zeros(panels, groups, PANEL, 4, dtype=torch.int8)
            self.sums = torch.zeros(panels * PANEL, dtype=torch.int32)
            self.scales = torch.zeros(panels * PANEL)
            into = (self.weights, self.sums, self.scales)
            kernels.call(self.native.arrange_int8, weight, self.outputs, self.inputs, *into)
        else:
            self.weights, self.scales = _quantised(weight)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.native is not None:
            out = torch.empty(len(x), self.outputs, dtype=torch.bfloat16)
            weights = (self.weights, self.sums, self.scales, self.bias)
            kernels.call(
                self.native.multiply_int8,
                *(x.contiguous(), len(x), self.inputs, *weights),
                *(self.outputs, self.relu, self.unit, out),
            )
        else:
            whole, scales = _quantised(x.float())
            found = whole @ self.weights.T * (scales * self.scales.T) + self.bias[: self.outputs]
            out = (found.relu() if self.relu else found).bfloat16()
        return out if self.after is None else self.after(out)


def _quantised(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole numbers, as float32, and a scale for each row [R, 1]."""
    most = rows.abs().amax(dim=1, keepdim=True)
    steps = torch.where(most > 0, MOST / most, 0)
    return (rows * steps).round(), most / MOST
