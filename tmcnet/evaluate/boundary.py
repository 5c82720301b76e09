"""Boundary F1: quality of the outlines of classes, independent of their area (Csurka et al., 2013).

A pixel is a boundary pixel of its class where one of its four neighbours belongs to another class. Void
neighbours and those outside the tile do not count: a boundary against void or the tile edge is not a boundary.

A predicted boundary pixel is right if a true boundary pixel of the same class is within `tolerance` pixels of it
(Euclidean); a true one is found if a predicted one is that near. Predicted boundary pixels that are void in the
truth, or within `tolerance` of void, are left out of precision: their boundary may be in
unlabelled pixels. True boundary pixels may still be found by them.

Csurka et al. score each image and take the mean over images. Here the pixels of all tiles are counted together, as
for all other scores of this project, so that a tile with one boundary pixel does not weigh as much as any other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tmcnet.config import IGNORE
from tmcnet.evaluate.metrics import Counts, Floats, ratio

Mask = NDArray[np.bool_]


def boundary_counts(
    truth: NDArray[np.integer], prediction: NDArray[np.integer], classes: int, tolerance: int
) -> Counts:
    """Count the boundary pixels of one tile; the counts of several tiles are added.

    Args:
        truth: H x W class ids, `IGNORE` for void.
        prediction: H x W class ids 0..K-1.
        classes: K.
        tolerance: Distance in pixels up to which a boundary counts as found.

    Returns:
        K x 4 int64: predicted boundary pixels that are right, all predicted ones that count, true boundary pixels
        that are found, all true ones.

    Raises:
        ValueError: If the shapes differ.
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

    Args:
        counts: ... x K x 4 as `boundary_counts` gives them, summed over tiles.

    Returns:
        ... x K values in 0..1; NaN for classes without a boundary in truth or prediction, 0 for those with one in one
        of the two only.
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
