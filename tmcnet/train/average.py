"""Moving average of the weights of a network that is trained."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


def warm_decay(decay: float, steps: int) -> float:
    """Return the decay after a number of steps: min(decay, (1 + steps) / (10 + steps)).

    The rule of TensorFlow's `ExponentialMovingAverage` with `num_updates`: in short schedules the average soon
    forgets the random start.
    """
    return min(decay, (1 + steps) / (10 + steps))


class WeightAverage:
    """Exponential moving average of the weights and batch-norm statistics, updated after every step.

    The first step is copied. `network` is the averaged network, `steps` counts the steps so far; `decay` is the final
    one, see `warm_decay`.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the weights of a step; whole numbers, such as the count of batches, are copied."""
        decay = warm_decay(self.decay, self.steps) if self.steps else 0.0
        pairs = list(zip(_tensors(self.network), _tensors(network), strict=True))
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


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    """Weights and statistics; `state_dict` builds names and takes several times as long."""
    yield from network.parameters()
    yield from network.buffers()
