"""Scores averaged over tiles, the way the published code and several benchmarks report them.

They depend on the tile size and are here for comparison only; the project's own scores pool the pixels of all tiles.
"""

from __future__ import annotations

import numpy as np

from tmcnet.evaluate.metrics import Counts, Floats, iou, mean_iou, overall_accuracy, precision


def mean_tile_accuracy(tiles: Counts) -> float:
    """Mean over tiles of the share of right pixels.

    Args:
        tiles: T x K x K confusion matrices. Tiles without any labelled pixel are left out.
    """
    return _mean(overall_accuracy(_labelled(tiles)))


def mean_tile_miou(tiles: Counts) -> float:
    """Mean over tiles of the mean IoU over the classes that occur in the tile (T x K x K)."""
    return _mean(mean_iou(_labelled(tiles)))


def image_iou(tiles: Counts) -> Floats:
    """IoU per class averaged over tiles as coded in MSSNet: a class that is absent from a tile counts as 0.

    Args:
        tiles: T x K x K confusion matrices.

    Returns:
        K values; NaN without any labelled tile.
    """
    labelled = _labelled(tiles)
    if len(labelled) == 0:
        return np.full(tiles.shape[-1], np.nan)
    return np.asarray(np.nan_to_num(iou(labelled)).mean(axis=0))


def mean_precision(matrix: Counts) -> float:
    """What MSSNet calls `Mean Acc`: the mean of precision over the classes that are predicted at all."""
    predicted = matrix.sum(axis=-2) > 0
    return _mean(precision(matrix)[predicted])


def _labelled(tiles: Counts) -> Counts:
    return np.asarray(tiles[tiles.sum(axis=(1, 2)) > 0])


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
