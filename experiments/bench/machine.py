"""What a speed depends on beside the program: the processor and the versions, without names or paths."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

#: vector and matrix units that decide which products are fast
UNITS = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "amx_fp16", "asimd", "sve", "bf16", "i8mm"),
)
#: units of which one multiplies in a precision; without, it is emulated and not worth a try
FAST = {
    "bfloat16": ("avx512_bf16", "amx_bf16", "bf16"),
    "float16": ("avx512_fp16", "amx_fp16"),
}
PACKAGES = ("torch", "ve-fairseq", "fairseq-fixed", "ctranslate2", "numpy", "sacrebleu")


def machine(cores: int) -> dict[str, Any]:
    """The processor's model, how many of its cores were used, and which vector units it has."""
    path = Path("/proc/cpuinfo")
    model, units = parse_cpuinfo(path.read_text(encoding="utf-8") if path.is_file() else "")
    return {"cpu": model or platform.processor() or platform.machine(), "cores": cores, "flags": units}


def multiplies(precision: str) -> bool:
    """Whether the processor has a unit for products in ``precision``; true for float32."""
    return precision == "float32" or not set(FAST[precision]).isdisjoint(machine(1)["flags"])


def parse_cpuinfo(text: str) -> tuple[str, list[str]]:
    """Model name and vector units from Linux's ``/proc/cpuinfo``."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = fields.get("flags", fields.get("Features", "")).split()
    return fields.get("model name", ""), [unit for unit in UNITS if unit in flags]


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
