"""What a training records: curves, and the batch of a loss that is not finite."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TypeAlias

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from tmcnet.errors import TrainingError
from tmcnet.train.distributed import processes, rank
from tmcnet.train.stream import map_tensors

Curves: TypeAlias = dict[int, dict[str, float]]
"""Values of a row by name, and rows by step (counted from 1): means of the batches since the last row, and scores."""


def write_curves(path: Path, curves: Curves) -> None:
    """Write `curves.csv`, with empty cells where a value was not measured."""
    columns = ["step", *dict.fromkeys(name for row in curves.values() for name in row)]
    with path.open("w", newline="") as file:
        rows = csv.DictWriter(file, columns, lineterminator="\n")
        rows.writeheader()
        for step, row in sorted(curves.items()):
            rows.writerow({"step": step, **{name: f"{value:.6g}" for name, value in row.items()}})


def check_finite(loss: Tensor, batch: object, step: int, state: Path) -> None:
    """Stop before a non-finite loss reaches the weights, and save its batch and the names of its tiles.

    Processes that train together stop together, and each saves its share of the batch in the folder `state`.

    Raises:
        TrainingError: If the loss of any process is not finite.
    """
    several = processes() > 1
    non_finite = (~torch.isfinite(loss.detach())).float()
    if several:
        dist.all_reduce(non_finite)
    if not non_finite:
        return
    share = f"_process_{rank()}" if several else ""
    file = state / f"not_finite_step_{step}{share}.safetensors"
    state.mkdir(parents=True, exist_ok=True)
    tiles = getattr(batch, "names", [])
    file.with_suffix(".json").write_text(json.dumps({"step": step, "tiles": list(tiles)}, indent=1))
    tensors: dict[str, Tensor] = {}
    map_tensors(batch, tensors.setdefault)
    save_file({name: t.cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}, file)
    if several:
        dist.barrier()  # the first process that ends ends the others
    raise TrainingError(
        f"the loss of step {step} is {float(loss.detach())}; its batch is in {file}, and the names of its tiles "
        "are in the .json file beside it. Check their values, or lower the learning rate."
    )
