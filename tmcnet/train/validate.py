"""A look at the validation part every so many steps, and the best weights seen there."""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
import numpy as np
from torch import Tensor, nn

from tmcnet.dataset.loading import TileDataset
from tmcnet.errors import InputError, Problem
from tmcnet.evaluate.metrics import confusion, headline
from tmcnet.evaluate.predict import predict_tiles
from tmcnet.train.callbacks import Curves


def validate(network: nn.Module, tiles: TileDataset, classes: int, batch_size: int) -> dict[str, float]:
    """Headline scores of one confusion matrix over all pixels of whole tiles.

    Raises:
        InputError: If no pixel is labelled.
    """
    pooled = np.zeros((classes, classes), dtype=np.int64)
    for tile, found in predict_tiles(network, (tiles[i] for i in range(len(tiles))), batch_size):
        if tile.label is None:
            raise ValueError("validation needs tiles with labels")
        pooled += confusion(tile.label.numpy(), found.argmax(axis=0), classes)
    if pooled.sum() == 0:
        what = "no pixel of the validation tiles is labelled"
        raise InputError(Problem(str(tiles.store.root), what, "Check the labels and the splits."))
    return headline(pooled)


class Validation(pl.Callback):  # type: ignore[misc]  # lightning is not type-checked here
    """Scores whole validation tiles every `every` steps and after the last, and keeps the best weights by mIoU.

    Args:
        tiles: The validation tiles.
        classes: K.
        batch_size: Tiles in one forward pass.
        every: Steps between two looks.
        steps: Number of steps in all.
        curves: Takes `val_miou` and `val_oa`.

    Attributes:
        best_step: Step of the best weights.
        best: Scores at that step.
        weights: The best weights, on the CPU.
    """

    def __init__(
        self, tiles: TileDataset, classes: int, batch_size: int, every: int, steps: int, curves: Curves
    ) -> None:
        self.tiles, self.classes, self.batch_size = tiles, classes, batch_size
        self.every, self.steps, self.curves = every, steps, curves
        self.best_step = 0
        self.best: dict[str, float] = {"miou": -math.inf}
        self.weights: dict[str, Tensor] = {}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        """Look at the validation part where it is due."""
        step = trainer.global_step
        if step % self.every and step != self.steps:
            return
        scores = validate(pl_module.network, self.tiles, self.classes, self.batch_size)
        self.curves.add(step, val_miou=scores["miou"], val_oa=scores["oa"])
        if scores["miou"] > self.best["miou"]:
            self.best_step, self.best = step, scores
            state = pl_module.network.state_dict()
            self.weights = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"best_step": self.best_step, "best": self.best, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best weights where a killed run left them."""
        self.best_step, self.best = state_dict["best_step"], state_dict["best"]
        self.weights = state_dict["weights"]
