"""What a training records: curves, and the batch of a loss that is not finite."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from tmcnet.errors import TrainingError
from tmcnet.train.distributed import processes, rank, wait_for_all


class Curves:
    """Means of the batches, one row per `log_every` of all `steps`, and one at the end; part of the checkpoint."""

    def __init__(self, log_every: int, steps: int) -> None:
        self.log_every, self.steps = log_every, steps
        self.rows: dict[int, dict[str, float]] = {}
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def wants(self, step: int) -> bool:
        """Return whether a step (counted from 1) ends a row."""
        return step % self.log_every == 0 or step == self.steps

    def add(self, step: int, **values: float) -> None:
        """Add values, such as a validation score, to the row of a step (counted from 1)."""
        self.rows.setdefault(step, {}).update({name: float(value) for name, value in values.items()})

    def accumulate(self, **values: float) -> None:
        """Add values of a batch or step to the means of the next row."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)
            self.counts[name] = self.counts.get(name, 0) + 1

    def end_row(self, step: int, **values: float) -> None:
        """End the row of a step with the means since the last row, and more values."""
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        self.add(step, **means, **values)
        self.sums, self.counts = {}, {}

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"rows": self.rows, "sums": self.sums, "counts": self.counts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.rows, self.sums, self.counts = state_dict["rows"], state_dict["sums"], state_dict["counts"]

    def write(self, path: Path) -> None:
        """Write `curves.csv`, with empty cells where a value was not measured."""
        columns = ["step", *dict.fromkeys(name for row in self.rows.values() for name in row)]
        with path.open("w", newline="") as file:
            rows = csv.DictWriter(file, columns, lineterminator="\n")
            rows.writeheader()
            for step, row in sorted(self.rows.items()):
                rows.writerow({"step": step, **{name: f"{value:.6g}" for name, value in row.items()}})


def tensors_of(batch: object, name: str = "") -> dict[str, Tensor]:
    """Return the tensors of a batch by name: those of fields and keys, or places counted from 1, one after the other.

    A batch is a tensor, or a mapping, list or (named) tuple of such; anything else is left out.
    """
    if isinstance(batch, Tensor):
        return {name: batch.detach().cpu().clone(memory_format=torch.contiguous_format)}
    if isinstance(batch, Mapping):
        parts = list(batch.items())
    elif isinstance(batch, tuple | list):
        names = getattr(batch, "_fields", None) or map(str, range(1, len(batch) + 1))
        # the keys of a mapping are names enough
        parts = [("" if isinstance(v, Mapping) else field, v) for field, v in zip(names, batch, strict=True)]
    else:
        return {}
    return {key: tensor for field, v in parts for key, tensor in tensors_of(v, f"{name}{field}").items()}


def check_finite(loss: Tensor, batch: object, step: int, names: Sequence[str], state: Path) -> None:
    """Stop before a non-finite loss reaches the weights, and save its batch and the names of its tiles.

    Processes that train together stop together, and each saves its share of the batch in the folder `state`.

    Raises:
        TrainingError: If the loss of any process is not finite.
    """
    non_finite = (~torch.isfinite(loss.detach())).float()
    if processes() > 1:
        dist.all_reduce(non_finite)
    if not non_finite:
        return
    share = f"_process_{rank()}" if processes() > 1 else ""
    file = state / f"not_finite_step_{step}{share}.safetensors"
    state.mkdir(parents=True, exist_ok=True)
    file.with_suffix(".json").write_text(json.dumps({"step": step, "tiles": list(names)}, indent=1))
    save_file(tensors_of(batch), file)
    wait_for_all()
    raise TrainingError(
        f"the loss of step {step} is {float(loss.detach())}; its batch is in {file}, and the names of its tiles "
        "are in the .json file beside it. Check their values, or lower the learning rate."
    )
