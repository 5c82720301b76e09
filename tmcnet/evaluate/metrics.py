"""Scores from confusion matrices, boundary F1 and calibration, in plain NumPy.

A confusion matrix has the truth in its rows and the prediction in its columns. Every function takes arrays of shape
... x K x K, so that thousands of bootstrap draws are scored at once. Void pixels are never counted.

A class that occurs neither in the truth nor in the prediction has no score: it is NaN and stays out of every mean. A
class that occurs in one of the two only scores 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tmcnet.config import IGNORE

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
BINS = 15
"""Equal bins of confidence in the calibration error, as Guo et al. (2017) have them."""
_SMALLEST = 1e-12
"""Minimum probability before the logarithm."""


def confusion(truth: NDArray[np.integer], prediction: NDArray[np.integer], classes: int) -> Counts:
    """Count pixels by true and predicted class: K x K int64, from arrays of class ids of any one shape.

    `IGNORE` in the truth is left out.

    Raises:
        ValueError: If an id other than `IGNORE` is not below K, or the shapes differ.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}")
    labelled = truth != IGNORE
    rows, columns = truth[labelled].astype(np.int64), prediction[labelled].astype(np.int64)
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
    defined = ~np.isnan(scores)
    return ratio(np.where(defined, scores, 0.0).sum(-1), defined.sum(-1).astype(np.float64))


def without_nan(value: Any) -> Any:  # noqa: ANN401 - JSON values of any kind
    """Replace every NaN in a JSON value by None, since JSON has no NaN."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def mean_tile_accuracy(tiles: Counts) -> float:
    """Mean over tiles (T x K x K) of the share of right pixels; tiles without any labelled pixel do not count."""
    return _mean(overall_accuracy(_labelled(tiles)))


def mean_tile_miou(tiles: Counts) -> float:
    """Mean over tiles of the mean IoU over the classes that occur in the tile (T x K x K)."""
    return _mean(mean_iou(_labelled(tiles)))


def image_iou(tiles: Counts) -> Floats:
    """IoU of the K classes averaged over tiles (T x K x K) as coded in MSSNet; NaN without any labelled tile.

    A class that is absent from a tile counts as 0.
    """
    labelled = _labelled(tiles)
    return ratio(np.nan_to_num(iou(labelled)).sum(axis=0), np.full(tiles.shape[-1], float(len(labelled))))


def mean_precision(matrix: Counts) -> float:
    """What MSSNet calls `Mean Acc`: the mean of precision over the classes that are predicted at all."""
    predicted = matrix.sum(axis=-2) > 0
    return _mean(precision(matrix)[predicted])


def _labelled(tiles: Counts) -> Counts:
    return np.asarray(tiles[tiles.sum(axis=(1, 2)) > 0])


def _mean(values: Floats) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def boundary_counts(
    truth: NDArray[np.integer], prediction: NDArray[np.integer], classes: int, tolerance: int
) -> Counts:
    """Count the boundary pixels of one tile (Csurka et al., 2013); the counts of several tiles are added.

    A pixel is a boundary pixel of its class where one of its four neighbours belongs to another class. Void and the
    tile edge make no boundary. A predicted boundary pixel is right if a true one of the same class is within
    `tolerance` pixels of it (Euclidean); a true one is found if a predicted one is that near. Predicted ones that are
    void in the truth, or within `tolerance` of void, do not count in precision, since their boundary may be in
    unlabelled pixels, but true ones may be found by them.

    Returns:
        K x 4 int64: predicted boundary pixels that are right, all predicted ones that count, true boundary pixels
        that are found, all true ones.

    Raises:
        ValueError: If the shapes (H x W) differ.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}")
    disk = _disk(tolerance)
    true_edge, predicted_edge = _edges(truth), _edges(prediction)
    judged = predicted_edge & ~_near(truth == IGNORE, disk)
    counts = np.zeros((classes, 4), dtype=np.int64)
    for k in range(classes):
        true, predicted = true_edge & (truth == k), predicted_edge & (prediction == k)
        counted = judged & predicted
        right, found = counted & _near(true, disk), true & _near(predicted, disk)
        counts[k] = [np.count_nonzero(mask) for mask in (right, counted, found, true)]
    return counts


def boundary_f1(counts: Counts | Floats) -> Floats:
    """Boundary F1 per class: the harmonic mean of precision and recall of boundary pixels.

    Csurka et al. take the mean over images. Here the pixels of all tiles are counted together, as for all other
    scores, so that a tile with one boundary pixel does not weigh as much as any other. From ... x K x 4 counts of
    `boundary_counts`, summed over tiles, ... x K values in 0..1; NaN for classes without a boundary in truth or
    prediction, 0 for those with one in one of the two only.
    """
    right, predicted, found, true = (counts[..., i].astype(np.float64) for i in range(4))
    precision, recall = np.nan_to_num(ratio(right, predicted)), np.nan_to_num(ratio(found, true))
    score = np.nan_to_num(ratio(2 * precision * recall, precision + recall))
    return np.where(predicted + true > 0, score, np.nan)


def _edges(ids: NDArray[np.integer]) -> Mask:
    """Return the pixels next to another class; void has no boundary."""
    edge = np.zeros(ids.shape, dtype=bool)
    for one, other in (((slice(1, None), ...), (slice(-1), ...)), ((..., slice(1, None)), (..., slice(-1)))):
        differ = (ids[one] != ids[other]) & (ids[one] != IGNORE) & (ids[other] != IGNORE)
        edge[one] |= differ
        edge[other] |= differ
    return edge


def _disk(radius: int) -> Mask:
    """Return the pixels within `radius` of the centre of a square."""
    row, column = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(row**2 + column**2 <= radius**2)


def _near(mask: Mask, disk: Mask) -> Mask:
    """Dilate a mask by a disk; for radii of a few pixels faster than a distance transform."""
    return np.asarray(ndimage.binary_dilation(mask, disk)) if mask.any() else mask


class Calibration:
    """Reliability of the predicted class's probability, accumulated over batches in equal bins of confidence.

    Args:
        temperature: The probabilities are sharpened (below 1) or softened (above 1) by it first.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = temperature
        self._count = np.zeros(BINS, dtype=np.int64)
        self._confidence = np.zeros(BINS)
        self._right = np.zeros(BINS, dtype=np.int64)
        self._loss = 0.0

    @classmethod
    def pooled(cls, records: Sequence[Mapping[str, Any]], temperature: float = 1.0) -> Calibration:
        """Add up several calibrations, each given by its `table` (`bins`) and its `log_loss`."""
        calibration = cls(temperature)
        for record in records:
            count, confidence, accuracy = (
                np.array([row[key] or 0.0 for row in record["bins"]]) for key in ("count", "confidence", "accuracy")
            )
            calibration._count += count.astype(np.int64)
            calibration._confidence += count * confidence
            calibration._right += np.rint(count * accuracy).astype(np.int64)
            calibration._loss += float(count.sum()) * (record["log_loss"] or 0.0)
        return calibration

    def add(self, probabilities: NDArray[np.floating], truth: NDArray[np.integer]) -> None:
        """Count one batch of probabilities N x K, whose rows add up to 1, and class ids N; `IGNORE` is left out."""
        labelled = truth != IGNORE
        scaled = apply_temperature(probabilities[labelled], self.temperature)
        ids = truth[labelled].astype(np.int64)
        confidence = scaled.max(axis=1, initial=0.0)
        right = scaled.argmax(axis=1) == ids if len(ids) else np.zeros(0, dtype=bool)
        place = np.clip((confidence * BINS).astype(np.int64), 0, BINS - 1)
        self._count += np.bincount(place, minlength=BINS)
        self._confidence += np.bincount(place, weights=confidence, minlength=BINS)
        self._right += np.bincount(place[right], minlength=BINS)
        self._loss += float(-np.log(np.maximum(scaled[np.arange(len(ids)), ids], _SMALLEST)).sum())

    @property
    def error(self) -> float:
        """Expected calibration error: gap between confidence and accuracy, weighted by pixels (Guo et al., 2017)."""
        total = self._count.sum()
        return float(np.abs(self._confidence - self._right).sum() / total) if total else float("nan")

    @property
    def log_loss(self) -> float:
        """Mean negative logarithm of the true class's probability."""
        total = self._count.sum()
        return self._loss / float(total) if total else float("nan")

    def table(self) -> list[dict[str, float | int | None]]:
        """Return one row per bin: limits, pixels, mean confidence and accuracy (None in empty bins)."""
        edges = np.linspace(0, 1, BINS + 1)
        return [
            {
                "low": float(edges[i]),
                "high": float(edges[i + 1]),
                "count": int(n),
                "confidence": float(self._confidence[i] / n) if n else None,
                "accuracy": float(self._right[i] / n) if n else None,
            }
            for i, n in enumerate(self._count)
        ]


def apply_temperature(probabilities: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Return probabilities (N x K) after dividing their logits by `temperature`.

    Logarithms of probabilities are logits up to a constant per row, which the softmax removes.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if temperature == 1.0 or len(values) == 0:
        return values
    logits = np.log(np.maximum(values, _SMALLEST)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def fit_temperature(probabilities: NDArray[np.floating], truth: NDArray[np.integer]) -> float:
    """Return the temperature with the lowest log loss, between 0.05 and 20 (Guo et al., 2017).

    Probabilities are N x K, of held-out pixels, none of them from the test part; of class ids, N, `IGNORE` is left
    out. Without a labelled pixel it is 1.
    """
    from scipy.optimize import minimize_scalar  # takes a third of a second to import, and most jobs fit nothing

    labelled = truth != IGNORE
    if not labelled.any():
        return 1.0
    logits = np.log(np.maximum(np.asarray(probabilities[labelled], dtype=np.float64), _SMALLEST))
    ids = truth[labelled].astype(np.int64)

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        top = scaled.max(axis=1)
        normaliser = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
        return float((normaliser - scaled[np.arange(len(ids)), ids]).mean())

    minimum = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(minimum.x))
