"""Validation during fine-tuning, and the best weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor, nn

from tmcnet.config import FinetuneSettings
from tmcnet.dataset.loading import TileDataset
from tmcnet.errors import InputError, Problem
from tmcnet.evaluate.metrics import Counts, confusion, headline
from tmcnet.evaluate.trained import predict_tiles
from tmcnet.train.distributed import from_first
from tmcnet.train.loop import Evaluation


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


class Validation(Evaluation):
    """Score a network, or its moving average, on whole validation tiles, and keep its best or last weights.

    Attributes:
        last_step: Step of the last validation; after training, the number of steps done.
        best_step: Step of the weights that are kept.
        best: Scores at that step.
        weights: The weights that are kept, on the CPU.
    """

    def __init__(self, network: nn.Module, tiles: TileDataset, classes: int, config: FinetuneSettings) -> None:
        self.network, self.tiles, self.classes, self.config = network, tiles, classes, config
        self.every = config.validate_every
        self.last_step = self.best_step = 0
        self.best: dict[str, float] = {"miou": -math.inf}
        self.weights: dict[str, Tensor] = {}

    def score(self, step: int) -> dict[str, float]:
        """Validate, and keep the weights if they are wanted."""
        scores = from_first(lambda: validate(self.network, self.tiles, self.classes, self.config.batch_size))
        self.last_step = step
        if scores["miou"] > self.best["miou"] or self.config.keep != "best":
            self.best_step, self.best = step, scores
            state = self.network.state_dict()
            self.weights = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
        return {"val_miou": scores["miou"], "val_oa": scores["oa"]}

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"best_step": self.best_step, "best": self.best, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.best_step, self.best = state_dict["best_step"], state_dict["best"]
        self.weights = state_dict["weights"]
