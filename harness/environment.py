"""What a number depends on beside the program's settings: versions and hardware, without names or paths."""

import functools
import os
import platform
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

from harness.records import Environment

#: vector and matrix units that decide which products are fast
UNITS = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "amx_fp16", "asimd", "sve", "bf16", "i8mm"),
)


def environment(gpu: bool = False) -> Environment:
    """The environment of this process. torch is asked only if it is there already.

    ``gpu``: whether one was computed on, which is named if this process has begun to use it.
    """
    threads, kernels, accelerator = None, None, None
    if (torch := sys.modules.get("torch")) is not None:
        from harness.decoding.kernels import library

        threads, kernels = torch.get_num_threads(), "native" if library() else "torch"
        if gpu and torch.cuda.is_initialized():
            accelerator = torch.cuda.get_device_name()
    model, units = processor()
    return Environment(
        python=platform.python_version(),
        system=platform.system(),
        processor=model,
        units=units,
        cores=os.cpu_count() or 1,
        accelerator=accelerator,
        threads=threads,
        kernels=kernels,
        revision=revision(),
        packages=dict(packages()),
    )


def processor() -> tuple[str, list[str]]:
    """The processor's model and its vector units."""
    path = Path("/proc/cpuinfo")
    model, units = parse_cpuinfo(path.read_text(encoding="utf-8") if path.is_file() else "")
    return model or platform.processor() or platform.machine(), units


def parse_cpuinfo(text: str) -> tuple[str, list[str]]:
    """Model name and vector units from Linux's ``/proc/cpuinfo``."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = fields.get("flags", fields.get("Features", "")).split()
    return fields.get("model name", ""), [unit for unit in UNITS if unit in flags]


@functools.cache
def packages() -> tuple[tuple[str, str], ...]:
    """Name and version of every installed package, sorted."""
    found = {d.metadata["Name"]: d.version for d in distributions() if d.metadata["Name"]}
    return tuple(sorted(found.items()))


@functools.cache
def revision() -> str | None:
    """The revision of this program's repository, with ``+`` if files were changed; None outside of one."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        said = [
            subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return said[0].stdout.strip() + "+" * bool(said[1].stdout.strip())
