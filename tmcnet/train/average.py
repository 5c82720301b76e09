"""A running mean of the weights, which often does better on new images than the weights themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tmcnet.train.callbacks import ends_step


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
