"""What, beside its task, the numbers of a training depend on."""

from __future__ import annotations

import platform
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import torch

CPUINFO = Path("/proc/cpuinfo")


def surroundings(device: str) -> dict[str, str | int]:
    """Return hardware, threads, and the versions of what computes, of this process."""
    hardware = torch.cuda.get_device_name() if device == "cuda" else processor()
    return {
        "hardware": hardware,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "timm": version("timm"),
    }


@lru_cache
def processor() -> str:
    """Return the processor's model, or as much of it as the system tells."""
    # On Linux `platform.processor()` names the architecture, or nothing.
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())
