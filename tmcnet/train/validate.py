"""Validation during fine-tuning, the best weights, and their moving average."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tmcnet.config import FinetuneSettings
from tmcnet.dataset.loading import TileDataset
from tmcnet.errors import InputError, Problem
from tmcnet.evaluate.metrics import Counts, confusion, headline
from tmcnet.evaluate.trained import predict_tiles
from tmcnet.train.callbacks import Curves, ends_step


def validate(network: nn.Module, tiles: TileDataset, classes: int, batch_size: int) -> dict[str, float]:
    """Return the headline scores of one confusion matrix over all pixels of whole tiles.

    Raises:
        InputError: If no pixel is labelled.
    """
    pooled = np.zeros((classes, classes), dtype=np.int64)
    for tile, found in predict_tiles(network, (tiles[i] for i in range(len(tiles))), batch_size):
        pooled += confusion(tile.truth.numpy(), found.argmax(axis=0), classes)
    require_labelled(pooled, tiles)
    return headline(pooled)


def require_labelled(pooled: Counts, tiles: TileDataset) -> None:
    """Raise InputError if the confusion matrix of the validation tiles is empty."""
    if pooled.sum() == 0:
        what = "no pixel of the validation tiles is labelled"
        raise InputError(Problem(str(tiles.store.root), what, "Check the labels and the splits."))


class Validation(pl.Callback):  # type: ignore[misc]  # lightning is not type-checked here
    """Score whole validation tiles every `config.validate_every` steps, and keep the weights with the best mIoU.

    Args:
        network: The network to score: the one that is trained, or the moving average of its weights.
        tiles: The validation tiles.
        classes: K.
        config: Total steps, steps between two validations, and batch size.
        curves: Receives `val_miou` and `val_oa`.

    Attributes:
        last_step: Step of the last validation; after training, the number of steps done.
        best_step: Step of the best weights.
        best: Scores at that step.
        weights: The best weights, on the CPU.
    """

    def __init__(
        self, network: nn.Module, tiles: TileDataset, classes: int, config: FinetuneSettings, curves: Curves
    ) -> None:
        self.network, self.tiles, self.classes, self.config = network, tiles, classes, config
        self.curves = curves
        self.last_step = self.best_step = 0
        self.best: dict[str, float] = {"miou": -math.inf}
        self.weights: dict[str, Tensor] = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, _: pl.LightningModule, __: object, ___: object, batch_idx: int
    ) -> None:
        """Validate if it is due."""
        step = trainer.global_step
        due = step % self.config.validate_every == 0 or step == self.config.steps
        if not due or not ends_step(trainer, batch_idx):
            return
        scores = validate(self.network, self.tiles, self.classes, self.config.batch_size)
        self.curves.add(step, val_miou=scores["miou"], val_oa=scores["oa"])
        self.last_step = step
        if scores["miou"] > self.best["miou"]:
            self.best_step, self.best = step, scores
            state = self.network.state_dict()
            self.weights = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"best_step": self.best_step, "best": self.best, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.best_step, self.best = state_dict["best_step"], state_dict["best"]
        self.weights = state_dict["weights"]


def warm_decay(decay: float, steps: int) -> float:
    """Return the decay after a number of steps: min(decay, (1 + steps) / (10 + steps)).

    The rule of TensorFlow's `ExponentialMovingAverage` with `num_updates`: in short schedules the average
    soon forgets the random start.

    Args:
        decay: Final decay, between 0 and 1.
        steps: Steps averaged so far.
    """
    return min(decay, (1 + steps) / (10 + steps))


class WeightAverage(pl.Callback):  # type: ignore[misc]  # lightning is not type-checked here
    """Exponential moving average of the weights and batch-norm statistics, updated after every step.

    It runs before the callbacks that use the average. Lightning's `WeightAveraging` is not used, since it copies the
    whole module including tiles in memory.

    Args:
        network: The network that is trained.
        decay: Final decay per step, between 0 and 1; see `warm_decay`.

    Attributes:
        network: The averaged network.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.average = AveragedModel(network, multi_avg_fn=_update(decay), use_buffers=True)
        self.network: nn.Module = self.average.module

    def on_fit_start(self, _: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Move the average to the device of the network."""
        self.average.to(pl_module.device)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, _: object, __: object, batch_idx: int
    ) -> None:
        """Update the average after a step."""
        if ends_step(trainer, batch_idx):
            self.average.update_parameters(pl_module.network)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return dict(self.average.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.average.load_state_dict(state_dict)


def _update(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    @torch.no_grad()
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], steps: Tensor | int) -> None:
        mix = get_ema_multi_avg_fn(warm_decay(decay, int(steps)))  # type: ignore[no-untyped-call]
        mix(list(averaged), list(current), steps)

    return update
