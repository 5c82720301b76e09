"""How long a call takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def best_of(call: Callable[[], object], repeats: int) -> float:
    """Shortest CPU time of this process over several calls in seconds, after one call to warm up."""
    call()
    times = []
    for _ in range(repeats):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return min(times)


def peak_mib() -> float:
    """Most memory that this process ever held, in MiB (Linux).

    `resource.getrusage` would start from the peak of the process that started this one.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**10
