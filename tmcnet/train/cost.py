"""What a training took, for its summary."""

from __future__ import annotations

import time
from typing import Any

import torch


def cost(device: str, began: float) -> dict[str, Any]:
    """Device, seconds, and on a CUDA device the most memory that this process held there.

    Args:
        device: `cpu` or `cuda`, where it ran.
        began: `time.monotonic()` at its beginning.
    """
    told: dict[str, Any] = {"device": device, "seconds": round(time.monotonic() - began, 1)}
    if device == "cuda":
        told["gpu_memory_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return told
