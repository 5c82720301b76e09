"""Scores on the validation tiles."""

from __future__ import annotations

import numpy as np
from torch import nn

from tmcnet.dataset.loading import TileDataset
from tmcnet.errors import InputError, Problem
from tmcnet.evaluate.metrics import Counts, confusion, headline
from tmcnet.evaluate.trained import predict_tiles


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
