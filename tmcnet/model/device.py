"""The device that networks are trained and run on, and the number format of trainings."""

from __future__ import annotations

import time
from functools import cache

import torch
import torch.nn.functional as F

from tmcnet.config import ComputeConfig
from tmcnet.errors import InputError, Problem

BFLOAT16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16")
"""With AMX, convolutions in bfloat16 are 3 to 4 times as fast, with AVX-512 1.7 times; without either slower."""
MIN_BFLOAT16_GAIN = 1.2
"""Least measured gain at which `compute.precision: auto` chooses bfloat16; usual gains are far from it."""


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
