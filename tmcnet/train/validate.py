"""A look at the validation part every so many steps, and the best weights seen there."""

from __future__ import annotations

import math
import sys
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
from tmcnet.evaluate.predict import predict_tiles
from tmcnet.train.callbacks import Curves, ends_step


def validate(network: nn.Module, tiles: TileDataset, classes: int, batch_size: int) -> dict[str, float]:
    """Headline scores of one confusion matrix over all pixels of whole tiles.

    Raises:
        InputError: If no pixel is labelled.
    """
    pooled = np.zeros((classes, classes), dtype=np.int64)
    for tile, found in predict_tiles(network, (tiles[i] for i in range(len(tiles))), batch_size):
        pooled += confusion(tile.truth.numpy(), found.argmax(axis=0), classes)
    require_labelled(pooled, tiles)
    return headline(pooled)


def require_labelled(pooled: Counts, tiles: TileDataset) -> None:
    """Stop where the confusion matrix of the validation tiles is empty.

    Raises:
        InputError: If it is.
    """
    if pooled.sum() == 0:
        what = "no pixel of the validation tiles is labelled"
        raise InputError(Problem(str(tiles.store.root), what, "Check the labels and the splits."))


class Validation(pl.Callback):  # type: ignore[misc]  # lightning is not type-checked here
    """Scores whole validation tiles every so many steps and after the last, and keeps the best weights by mIoU.

    Ends training after `config.patience` looks in a row without a better mIoU.

    Args:
        network: What is scored and kept: the network that is trained, or the running mean of its weights.
        tiles: The validation tiles.
        classes: K.
        config: Steps in all and between two looks, tiles in one forward pass, and patience.
        curves: Takes `val_miou` and `val_oa`.

    Attributes:
        last_step: Step of the last look; the number of steps done once training has ended.
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

    @property
    def stopped_early(self) -> bool:
        """Whether training ended before its last step."""
        return self.last_step < self.config.steps

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, _: object, __: object, batch_idx: int
    ) -> None:
        """Look at the validation part where it is due."""
        step = trainer.global_step
        due = step % self.config.validate_every == 0 or step == self.config.steps
        if not due or not ends_step(trainer, batch_idx):
            return
        self._look(step)
        if self._waited_enough():
            print(f"stops at step {step}: nothing better since step {self.best_step}", file=sys.stderr, flush=True)
            self.curves.close(step, pl_module)
            trainer.should_stop = True

    def _look(self, step: int) -> None:
        scores = validate(self.network, self.tiles, self.classes, self.config.batch_size)
        self.curves.add(step, val_miou=scores["miou"], val_oa=scores["oa"])
        self.last_step = step
        if scores["miou"] > self.best["miou"]:
            self.best_step, self.best = step, scores
            state = self.network.state_dict()
            self.weights = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

    def _waited_enough(self) -> bool:
        if self.config.patience is None or not self.stopped_early:
            return False
        return self.last_step - self.best_step >= self.config.patience * self.config.validate_every

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"best_step": self.best_step, "best": self.best, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best weights where a killed run left them."""
        self.best_step, self.best = state_dict["best_step"], state_dict["best"]
        self.weights = state_dict["weights"]


def warm_decay(decay: float, steps: int) -> float:
    """Decay of the mean after so many steps: min(decay, (1 + steps) / (10 + steps)).

    The rule of TensorFlow's `ExponentialMovingAverage` with `num_updates`. The mean looks back over about a ninth of
    the steps so far until it reaches its full length, so that short schedules are not held at their random start.

    Args:
        decay: Decay in the long run, between 0 and 1.
        steps: Steps that the mean holds already.
    """
    return min(decay, (1 + steps) / (10 + steps))


class WeightAverage(pl.Callback):  # type: ignore[misc]  # lightning is not type-checked here
    """Exponential moving average of a network, taken in after every step; the first step is copied.

    The statistics of batch norm are averaged with the weights: those of the last step belong to the last weights, and
    only their mean belongs to the mean of the weights. Stands before the callbacks that look at the average.

    Lightning's own `WeightAveraging` copies the whole module, tiles in memory included, and shows the average only to
    Lightning's own validation, which is not used here.

    Args:
        network: What is trained.
        decay: Decay per step in the long run, between 0 and 1; see `warm_decay`.

    Attributes:
        network: The average, a network of its own.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.average = AveragedModel(network, multi_avg_fn=_update(decay), use_buffers=True)
        self.network: nn.Module = self.average.module

    def on_fit_start(self, _: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the average beside the network."""
        self.average.to(pl_module.device)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, _: object, __: object, batch_idx: int
    ) -> None:
        """Take in the weights of a step."""
        if ends_step(trainer, batch_idx):
            self.average.update_parameters(pl_module.network)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return dict(self.average.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the average up where a killed run left it."""
        self.average.load_state_dict(state_dict)


def _update(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    @torch.no_grad()
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], steps: Tensor | int) -> None:
        mix = get_ema_multi_avg_fn(warm_decay(decay, int(steps)))  # type: ignore[no-untyped-call]
        mix(list(averaged), list(current), steps)

    return update
