"""Confusion matrices and boundaries of the test tiles, with all modalities and with each one withheld."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import tee

import numpy as np
import torch
from torch import nn

from tmcnet.config import EvaluateConfig
from tmcnet.dataset.loading import Tile, TileDataset
from tmcnet.evaluate.boundary import boundary_counts
from tmcnet.evaluate.calibration import Calibration
from tmcnet.evaluate.metrics import Counts, confusion
from tmcnet.evaluate.predict import predict_tiles


@dataclass(frozen=True)
class TileCounts:
    """What scores are computed from.

    Attributes:
        tiles: T x K x K confusion matrices of the T tiles.
        boundary: T x K x 4 boundary pixels of the tiles, as `boundary_counts` has them.
        withheld: K x K confusion matrix of all tiles by the modality that was withheld.
    """

    tiles: Counts
    boundary: Counts
    withheld: dict[str, Counts]


def count_tiles(
    network: nn.Module,
    tiles: TileDataset,
    classes: int,
    config: EvaluateConfig,
    calibrations: Sequence[Calibration],
    withheld: Sequence[str],
) -> TileCounts:
    """Predict every tile and count.

    Args:
        network: Maps images of all modalities to logits.
        tiles: Tiles with labels.
        classes: K.
        config: Batch size and tolerance of boundaries.
        calibrations: Take the probabilities that were predicted from all modalities.
        withheld: Modalities that are withheld in one more pass each.
    """
    # a tile is read once and handed to all passes, which keep step within a batch
    streams = tee((tiles[i] for i in range(len(tiles))), 1 + len(withheld))
    whole = predict_tiles(network, streams[0], config.batch_size)
    blind = [
        predict_tiles(network, _without(sensor, stream), config.batch_size)
        for sensor, stream in zip(withheld, streams[1:], strict=True)
    ]
    matrices = []
    boundary = []
    of_blind = {sensor: np.zeros((classes, classes), dtype=np.int64) for sensor in withheld}
    for (tile, found), *others in zip(whole, *blind, strict=True):
        truth, guess = tile.truth.numpy(), found.argmax(axis=0)
        matrices.append(confusion(truth, guess, classes))
        boundary.append(boundary_counts(truth, guess, classes, config.boundary_tolerance))
        for calibration in calibrations:
            calibration.add(found.reshape(classes, -1).T, truth.ravel())
        for sensor, (_, seen) in zip(withheld, others, strict=True):
            of_blind[sensor] += confusion(truth, seen.argmax(axis=0), classes)
    return TileCounts(np.stack(matrices), np.stack(boundary), of_blind)


def _without(modality: str, tiles: Iterable[Tile]) -> Iterator[Tile]:
    """The tiles with one of their images without data, as modality dropout shows them in training."""
    for tile in tiles:
        yield tile._replace(images={**tile.images, modality: torch.zeros_like(tile.images[modality])})
