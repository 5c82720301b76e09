"""Validation during fine-tuning, the best weights, and their moving average."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from tmcnet.config import FinetuneSettings
from tmcnet.dataset.loading import TileDataset
from tmcnet.errors import InputError, Problem
from tmcnet.evaluate.metrics import Counts, confusion, headline
from tmcnet.evaluate.trained import predict_tiles
from tmcnet.train.callbacks import Callback, Curves
from tmcnet.train.loop import Training


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


class Validation(Callback):
    """Score whole validation tiles every `config.validate_every` steps, and keep the best weights, or the last.

    Args:
        network: The network to score: the one that is trained, or the moving average of its weights.
        tiles: The validation tiles.
        classes: K.
        config: Total steps, steps between two validations, and batch size.
        curves: Receives `val_miou` and `val_oa`.

    Attributes:
        last_step: Step of the last validation; after training, the number of steps done.
        best_step: Step of the weights that are kept.
        best: Scores at that step.
        weights: The weights that are kept, on the CPU.
    """

    def __init__(
        self, network: nn.Module, tiles: TileDataset, classes: int, config: FinetuneSettings, curves: Curves
    ) -> None:
        self.network, self.tiles, self.classes, self.config = network, tiles, classes, config
        self.curves = curves
        self.last_step = self.best_step = 0
        self.best: dict[str, float] = {"miou": -math.inf}
        self.weights: dict[str, Tensor] = {}

    def on_step_end(self, training: Training[Any]) -> None:
        """Validate if it is due."""
        step = training.step
        if step % self.config.validate_every and step != self.config.steps:
            return
        scores = validate(self.network, self.tiles, self.classes, self.config.batch_size)
        self.curves.add(step, val_miou=scores["miou"], val_oa=scores["oa"])
        self.last_step = step
        if scores["miou"] > self.best["miou"] or self.config.keep == "last":
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


class WeightAverage(Callback):
    """Exponential moving average of the weights and batch-norm statistics, updated after every step.

    It runs before the callbacks that use the average. The first step is copied.

    Args:
        network: The network that is trained.
        decay: Final decay per step, between 0 and 1; see `warm_decay`.

    Attributes:
        network: The averaged network.
        steps: Steps averaged so far.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay, self.steps = decay, 0

    def on_start(self, training: Training[Any]) -> None:
        """Give the average the device, number format and layout of the network."""
        self.network.to(training.device, training.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def on_step_end(self, training: Training[Any]) -> None:
        """Update the average after a step."""
        self.update(training.module.network)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the weights of a step; whole numbers, such as the count of batches, are copied."""
        decay = warm_decay(self.decay, self.steps) if self.steps else 0.0
        pairs = list(zip(self.network.state_dict().values(), network.state_dict().values(), strict=True))
        real = [pair for pair in pairs if pair[0].is_floating_point()]
        mix = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        mix([average for average, _ in real], [current for _, current in real], self.steps)
        for average, current in pairs:
            if not average.is_floating_point():
                average.copy_(current)
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"steps": self.steps, "network": self.network.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.steps = state_dict["steps"]
        self.network.load_state_dict(state_dict["network"])
