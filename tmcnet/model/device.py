"""The device that networks are trained and run on."""

from __future__ import annotations

import torch

from tmcnet.config import ComputeConfig
from tmcnet.errors import InputError, Problem


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
