"""The memory that a process keeps after arrays and tensors are freed."""

from __future__ import annotations

import ctypes
import gc
import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's `mallopt` (malloc.h)."""
MAX_KEPT_BYTES = 2**31 - 1
MAX_GROWTH, SPARE_BYTES = 1.25, 2**28
"""A training keeps this many times the memory of its first step, and this much more."""


def keep_freed_memory() -> None:
    """Let this process keep the memory of freed tensors and arrays for the next ones.

    By default glibc returns large blocks to the kernel, which must clear every page again when the next layer needs
    them. This took a sixth of the CPU time of a training step with ResNet-50, and more than half with windows of 1024
    pixels (benchmarks/README.md). Other systems stay as they are.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, MAX_KEPT_BYTES)


@contextmanager
def no_garbage_search() -> Iterator[None]:
    """A context, or decorator, without Python's search for objects that only refer to each other.

    For work that keeps many objects, which each search visits again, and makes no such cycles.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class KeptMemory:
    """Keeps freed memory as `keep_freed_memory` does, but not much more than a training needs for its first step.

    glibc does not always reuse the memory of freed tensors for others of nearly the same size: without a bound, a
    network trained beside logits of whole tiles grew by 16 MB a tile, to more than 20 GiB.
    """

    def __init__(self) -> None:
        keep_freed_memory()
        self._in_use, self._of_step = resident_bytes(), -1

    def bound(self) -> None:
        """Return freed memory to the kernel if there is too much of it; to be called after each step."""
        resident = resident_bytes()
        if self._of_step < 0:
            self._of_step = max(resident - self._in_use, 0)
        elif resident > self._in_use + MAX_GROWTH * self._of_step + SPARE_BYTES:
            release_freed_memory()
            self._in_use = resident_bytes()


def resident_bytes() -> int:
    """Return the memory that this process has, in bytes; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


def release_freed_memory() -> None:
    """Return to the kernel what `keep_freed_memory` keeps, before arrays of another kind are made."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
