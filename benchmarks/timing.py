"""Time of a call."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def best_of(call: Callable[[], object], repeats: int, device: str = "cpu", warm: bool = False) -> float:
    """Shortest time of several calls in seconds, after one warm-up call unless it is warm already.

    CPU time of this process for `cpu`; wall time until the GPU has finished for `cuda`.
    """
    if not warm:
        call()
    times = []
    for _ in range(repeats):
        began = _now(device)
        call()
        times.append(_now(device) - began)
    return min(times)


def _now(device: str) -> float:
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()
