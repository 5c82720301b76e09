"""Scores from confusion matrices, in plain NumPy.

A confusion matrix has the truth in its rows and the prediction in its columns. Every function takes arrays of shape
... x K x K, so that thousands of bootstrap draws are scored at once. Void pixels are never counted.

A class that occurs neither in the truth nor in the prediction has no score: it is NaN and stays out of every mean. A
class that occurs in one of the two only scores 0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tmcnet.config import IGNORE

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


def confusion(truth: NDArray[np.integer], prediction: NDArray[np.integer], classes: int) -> Counts:
    """Count pixels by true and predicted class.

    Args:
        truth: Class ids of any shape; `IGNORE` is left out.
        prediction: Class ids 0..K-1 of the same shape.
        classes: K.

    Returns:
        K x K int64.

    Raises:
        ValueError: If an id other than `IGNORE` is not below K, or the shapes differ.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}")
    known = truth != IGNORE
    rows, columns = truth[known].astype(np.int64), prediction[known].astype(np.int64)
    for ids, name in ((rows, "truth"), (columns, "prediction")):
        if ids.size and not 0 <= ids.min() <= ids.max() < classes:
            raise ValueError(f"{name} holds ids from {ids.min()} to {ids.max()}; there are {classes} classes")
    return np.bincount(rows * classes + columns, minlength=classes**2).reshape(classes, classes).astype(np.int64)


def overall_accuracy(matrix: Counts | Floats) -> Floats:
    """Share of pixels that are right, of shape ...; NaN where there are no pixels."""
    return ratio(_diagonal(matrix).sum(-1), _as_float(matrix).sum((-2, -1)))


def kappa(matrix: Counts | Floats) -> Floats:
    """Cohen's kappa, of shape ...; NaN where only one class occurs at all.

    Computed from shares in double precision: products of pixel counts overflow 64-bit integers from about three
    thousand million pixels on.
    """
    shares = _as_float(matrix)
    total = shares.sum((-2, -1), keepdims=True)
    shares = ratio(shares, np.broadcast_to(total, shares.shape))
    observed = _diagonal(shares).sum(-1)
    expected = (shares.sum(-1) * shares.sum(-2)).sum(-1)
    return ratio(observed - expected, np.where(expected >= 1, 0.0, 1 - expected))


def iou(matrix: Counts | Floats) -> Floats:
    """Intersection over union per class, of shape ... x K."""
    hit, true, predicted = _parts(matrix)
    return ratio(hit, true + predicted - hit)


def precision(matrix: Counts | Floats) -> Floats:
    """Share of a class's predicted pixels that are right (user's accuracy), of shape ... x K."""
    hit, true, predicted = _parts(matrix)
    return _share(hit, predicted, true + predicted)


def recall(matrix: Counts | Floats) -> Floats:
    """Share of a class's true pixels that are found (producer's accuracy), of shape ... x K."""
    hit, true, predicted = _parts(matrix)
    return _share(hit, true, true + predicted)


def f1(matrix: Counts | Floats) -> Floats:
    """Harmonic mean of precision and recall per class, of shape ... x K."""
    hit, true, predicted = _parts(matrix)
    return ratio(2 * hit, true + predicted)


def mean_iou(matrix: Counts | Floats) -> Floats:
    """Mean of `iou` over the classes that occur, of shape ..."""
    return class_mean(iou(matrix))


def mean_f1(matrix: Counts | Floats) -> Floats:
    """Mean of `f1` over the classes that occur, of shape ..."""
    return class_mean(f1(matrix))


HEADLINE = {"oa": overall_accuracy, "kappa": kappa, "miou": mean_iou, "mf1": mean_f1}
"""The headline scores: overall accuracy, kappa, mIoU, mean F1."""


def headline(matrix: Counts | Floats) -> dict[str, float]:
    """The headline scores of one K x K matrix."""
    return {name: float(score(matrix)) for name, score in HEADLINE.items()}


def _as_float(matrix: Counts | Floats) -> Floats:
    return np.asarray(matrix, dtype=np.float64)


def _diagonal(matrix: Counts | Floats) -> Floats:
    return np.asarray(np.diagonal(_as_float(matrix), axis1=-2, axis2=-1))


def _parts(matrix: Counts | Floats) -> tuple[Floats, Floats, Floats]:
    """Right, true and predicted pixels per class."""
    values = _as_float(matrix)
    return _diagonal(values), values.sum(-1), values.sum(-2)


def ratio(above: Floats, below: Floats) -> Floats:
    """Quotient that is NaN where the divisor is 0."""
    quotient: Floats = np.divide(above, below, out=np.full(np.shape(below), np.nan), where=np.asarray(below) > 0)
    return quotient


def _share(hit: Floats, below: Floats, occurs: Floats) -> Floats:
    return np.where(occurs > 0, np.nan_to_num(ratio(hit, below)), np.nan)


def class_mean(scores: Floats) -> Floats:
    """Mean over the classes (the last axis) that have a score, of shape ...; NaN where none has."""
    known = ~np.isnan(scores)
    return ratio(np.where(known, scores, 0.0).sum(-1), known.sum(-1).astype(np.float64))


def without_nan(value: Any) -> Any:  # noqa: ANN401 - JSON values of any kind
    """Replace every NaN in a JSON value by None, since JSON has no NaN."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


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
