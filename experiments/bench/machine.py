"""What a speed depends on beside the program: the processor and the versions, without names or paths."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from harness.environment import processor

#: units of which one multiplies in a precision; without, it is emulated and not worth a try
FAST = {
    "bfloat16": ("avx512_bf16", "amx_bf16", "bf16"),
    "float16": ("avx512_fp16", "amx_fp16"),
    "int8": ("avx512_vnni", "avx_vnni", "avx2"),
}
PACKAGES = ("torch", "ve-fairseq", "fairseq-fixed", "ctranslate2", "numpy", "sacrebleu")


def machine(cores: int) -> dict[str, Any]:
    """The processor's model, how many of its cores were used, and which vector units it has."""
    model, units = processor()
    return {"cpu": model, "cores": cores, "flags": units}


def multiplies(precision: str) -> bool:
    """Whether the processor has a unit for products in ``precision``; true for float32."""
    return precision == "float32" or not set(FAST[precision]).isdisjoint(machine(1)["flags"])


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def confine(cores: int) -> int:
    """Keep this process and all it starts on the first ``cores`` cores it may use; how many it got."""
    if not hasattr(os, "sched_setaffinity"):
        return min(cores, os.cpu_count() or 1)
    mine = sorted(os.sched_getaffinity(0))[:cores]
    os.sched_setaffinity(0, mine)
    return len(mine)
