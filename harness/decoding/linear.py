"""The matrix product that decoding spends its time in."""

import torch
from torch.nn import functional


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """``x [..., in] @ weight[out, in]ᵀ + bias``.

    On a CPU through oneDNN, which multiplies float32 on all vector units of either maker's
    processors; the default library was seen to reach half of its speed on some.
    """
    if x.device.type == "cpu" and torch.backends.mkldnn.is_available():
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return functional.linear(x, weight, bias)
