"""How long a call takes."""

from __future__ import annotations

import time
from collections.abc import Callable


def best_of(call: Callable[[], object], repeats: int) -> float:
    """Shortest CPU time of this process over several calls in seconds, after one call to warm up."""
    call()
    times = []
    for _ in range(repeats):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return min(times)
