"""The device that networks are trained and run on, the number format of trainings, and the memory of tensors."""

from __future__ import annotations

import ctypes
import mmap
import sys
import time
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F

from tmcnet.config import ComputeConfig
from tmcnet.errors import InputError, Problem

BFLOAT16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16")
"""With AMX, convolutions in bfloat16 are 3 to 4 times as fast, with AVX-512 1.7 times; without either slower."""
MIN_BFLOAT16_GAIN = 1.2
"""Least measured gain at which `compute.precision: auto` chooses bfloat16; usual gains are far from it."""
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's `mallopt` (malloc.h)."""
MAX_KEPT_BYTES = 2**31 - 1
MAX_GROWTH, SPARE_BYTES = 1.25, 2**28
"""A training keeps this many times the memory of its first step, and this much more."""


def choose_device(compute: ComputeConfig) -> torch.device:
    """Return the device that `compute.accelerator` selects.

    Raises:
        InputError: If a GPU is requested and there is none.
    """
    available = torch.cuda.is_available()
    if compute.accelerator == "gpu" and not available:
        remedy = "Set it to `auto` or `cpu`, or install a torch build for this GPU."
        raise InputError(Problem("config key `compute.accelerator`", "is `gpu`, but torch finds no GPU", remedy))
    return torch.device("cuda" if available and compute.accelerator != "cpu" else "cpu")


def choose_precision(compute: ComputeConfig) -> str:
    """Return the number format of a training, with `auto` resolved."""
    if compute.precision != "auto":
        return compute.precision
    found = torch.cpu.get_capabilities()
    known = choose_device(compute).type == "cpu" and any(found.get(name) for name in BFLOAT16_INSTRUCTIONS)
    return "bf16-mixed" if known and bfloat16_gain() >= MIN_BFLOAT16_GAIN else "32-true"


@cache
def bfloat16_gain() -> float:
    """Measure how many times as fast this CPU convolves in bfloat16, with gradients; takes less than a second."""
    image, weight = torch.ones(8, 64, 30, 30), torch.ones(64, 64, 3, 3)
    seconds: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    for _ in range(5):
        for kind, taken in seconds.items():
            x, w = (t.to(kind, memory_format=torch.channels_last).requires_grad_() for t in (image, weight))
            began = time.thread_time()
            F.conv2d(x, w).sum().backward()  # type: ignore[no-untyped-call]
            taken.append(time.thread_time() - began)
    return min(seconds[torch.float32]) / min(seconds[torch.bfloat16])


def keep_freed_memory() -> None:
    """Let this process keep the memory of freed tensors for the next ones.

    By default glibc returns large blocks to the kernel, which must clear every page again when the next layer needs
    them. This took a sixth of the CPU time of a training step with ResNet-50, and more than half with windows of 1024
    pixels (benchmarks/README.md). Other systems stay as they are.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, MAX_KEPT_BYTES)


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
