"""Callbacks of the training loop: curves, progress, non-finite loss, checkpoints."""

from __future__ import annotations

import csv
import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch.nn.utils import get_total_norm

from tmcnet.errors import TrainingError
from tmcnet.train.distributed import processes, rank, wait_for_all

PROGRESS_SECONDS = 10.0
STATE_FILE = "last.ckpt"


def ends_step(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Return whether a batch is the last one of its step, after which the weights are updated."""
    return bool((batch_idx + 1) % trainer.accumulate_grad_batches == 0)


def reported(trainer: pl.Trainer, outputs: dict[str, torch.Tensor]) -> dict[str, float]:
    """Return the values of a batch; Lightning divides the loss by the number of accumulated batches, undone here."""
    shares = {"loss": trainer.accumulate_grad_batches}
    return {name: float(value) * shares.get(name, 1) for name, value in outputs.items()}


class Curves(pl.Callback):  # type: ignore[misc]  # lightning is not type-checked here
    """Mean values of the batches, one row per `log_every` steps; part of the checkpoint, so resuming leaves no gap.

    Args:
        log_every: Steps between two rows.
        steps: Total number of steps; the last one always ends a row.
    """

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
        """Add values, such as the gradient norm, to the means of the next row."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)
            self.counts[name] = self.counts.get(name, 0) + 1

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: dict[str, torch.Tensor],
        _: object,
        batch_idx: int,
    ) -> None:
        """Add the values of a batch, and end the row if it is due."""
        self.accumulate(**reported(trainer, outputs))
        step = trainer.global_step
        if ends_step(trainer, batch_idx) and self.wants(step):
            means = {name: total / self.counts[name] for name, total in self.sums.items()}
            self.add(step, **means, learning_rate=pl_module.last_rate, **pl_module.measure(step))
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


class GradientNorm(pl.Callback):  # type: ignore[misc]
    """Norm of the gradient of all weights before clipping, as `gradient_norm` in the curves.

    Sudden peaks mean that the learning rate is too high or that clipping would help; a norm near 0 means that nothing
    is learnt.
    """

    def __init__(self, curves: Curves) -> None:
        self.curves = curves

    def on_before_optimizer_step(self, _: pl.Trainer, pl_module: pl.LightningModule, *__: object) -> None:
        """Measure the gradient of a step."""
        gradients = [p.grad for p in pl_module.network.parameters() if p.grad is not None]
        self.curves.accumulate(gradient_norm=float(get_total_norm(gradients)))


class Progress(pl.Callback):  # type: ignore[misc]
    """Print step, loss, tiles per second and time left every ten seconds.

    Args:
        label: Name of the training.
        steps: Total number of steps.
        batch_size: Tiles in a step.
    """

    def __init__(self, label: str, steps: int, batch_size: int) -> None:
        self.label, self.steps, self.batch_size = label, steps, batch_size
        self.first, self.began, self.printed = 0, 0.0, 0.0

    def on_train_start(self, trainer: pl.Trainer, *_: object) -> None:
        """Start the clock."""
        self.first, self.began = trainer.global_step, time.monotonic()
        self.printed = self.began
        if self.first:
            print(f"{self.label}: resumes after step {self.first}", file=sys.stderr, flush=True)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        _: pl.LightningModule,
        outputs: dict[str, torch.Tensor],
        __: object,
        batch_idx: int,
    ) -> None:
        """Print a line if it is due."""
        now, step = time.monotonic(), trainer.global_step
        early = now - self.printed < PROGRESS_SECONDS and step != self.steps
        if early or not ends_step(trainer, batch_idx):
            return
        self.printed = now
        rate = (step - self.first) / max(now - self.began, 1e-9)
        print(
            f"{self.label}: step {step}/{self.steps}, loss {reported(trainer, outputs)['loss']:.4f}, "
            f"{rate * self.batch_size:.1f} tiles/s, {math.ceil((self.steps - step) / rate)} s left",
            file=sys.stderr,
            flush=True,
        )


def tensors_of(batch: object) -> dict[str, torch.Tensor]:
    """Return the tensors of a batch by name: that of a field or key, and a number if it holds several.

    Args:
        batch: A tensor, or a mapping, list or (named) tuple of such; anything else is left out.
    """
    if isinstance(batch, torch.Tensor):
        return {"": batch.detach().cpu().clone(memory_format=torch.contiguous_format)}
    if isinstance(batch, Mapping):
        items = list(batch.items())
    elif isinstance(batch, tuple | list):
        names = getattr(batch, "_fields", None) or [str(place) for place in range(1, len(batch) + 1)]
        # the keys of a mapping are names enough
        items = [("" if isinstance(v, Mapping) else name, v) for name, v in zip(names, batch, strict=True)]
    else:
        return {}
    parts = ((name, tensors_of(value)) for name, value in items)
    return {f"{name}{rest}": tensor for name, found in parts for rest, tensor in found.items()}


class FiniteLoss(pl.Callback):  # type: ignore[misc]
    """Stop before a non-finite loss reaches the weights, and save its batch.

    Processes that train together stop together, and each saves its share of the batch.

    Args:
        state: Folder of the run's state, where the batch and the names of its tiles are written.
    """

    def __init__(self, state: Path) -> None:
        self.state, self.batch = state, None

    def on_train_batch_start(self, _: pl.Trainer, __: pl.LightningModule, batch: Any, ___: int) -> None:  # noqa: ANN401
        """Remember the batch."""
        self.batch = batch

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: torch.Tensor) -> None:
        """Check the loss of a step."""
        non_finite = (~torch.isfinite(loss.detach())).float()
        if processes() > 1:
            dist.all_reduce(non_finite)
        if not non_finite:
            return
        step, names = trainer.global_step + 1, pl_module.tile_names
        share = f"_process_{rank()}" if processes() > 1 else ""
        file = self.state / f"not_finite_step_{step}{share}.safetensors"
        self.state.mkdir(parents=True, exist_ok=True)
        file.with_suffix(".json").write_text(json.dumps({"step": step, "tiles": names}, indent=1))
        save_file(tensors_of(self.batch), file)
        wait_for_all()
        raise TrainingError(
            f"the loss of step {step} is {float(loss.detach())}; its batch is in {file}, and the names of its tiles "
            "are in the .json file beside it. Check their values, or lower the learning rate."
        )


class StateSaver(pl.Callback):  # type: ignore[misc]
    """Save checkpoints, from which a killed run resumes.

    It is the last callback, so that the state of the others belongs to the same step.

    Args:
        state: Folder of the run's state.
        every: Steps between two checkpoints.
        steps: Total number of steps.
    """

    def __init__(self, state: Path, every: int, steps: int) -> None:
        self.state, self.every, self.steps = state, every, steps

    def on_train_batch_end(
        self, trainer: pl.Trainer, _: pl.LightningModule, __: object, ___: object, batch_idx: int
    ) -> None:
        """Save if it is due, but not after the last step, when the results are written."""
        over = trainer.global_step >= self.steps
        if not over and trainer.global_step % self.every == 0 and ends_step(trainer, batch_idx):
            self.state.mkdir(parents=True, exist_ok=True)
            trainer.save_checkpoint(self.state / STATE_FILE)
