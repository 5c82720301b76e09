"""Autocorrelation of the labels: the distance that spatial blocks should exceed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from tmcnet.splits.index import FloatArray, IntArray, TileIndex

MIN_TILES = 30
"""Labelled tiles needed for an estimate."""

_PAIRS = 100_000  # pairs of tiles drawn
_MIN_PAIRS = 50  # in a class of distance
_EQUAL_CLASSES, _GROWTH = 8, 1.25  # classes of distance are equally wide at first, then grow by this factor


class TooFewTilesError(ValueError):
    """Raised with the reason why there is no correlogram."""


def autocorrelation(index: TileIndex, rng: np.random.Generator) -> dict[str, Any]:
    """Autocorrelation range of the labels: the distance at which the correlation of class shares falls to 1/e.

    `relation` says what the range is: `about` it; `at most`, where even neighbouring tiles are less alike; `at
    least`, where it exceeds a third of the largest scene, within which longer ranges cannot be seen; `unknown`, with
    the reason. Class shares are those of whole tiles, so a range near the side of a tile is partly the tile itself.
    Places are those in the scene; for tiles that are not part of a scene, those on the ground.

    Returns:
        `range_pixels` and `range_metres` (None where unknown), `relation`, `reason`, and the correlogram
        (`distances` in pixels, `correlations`).
    """
    try:
        distance, correlation, extent = correlogram(index, rng)
    except TooFewTilesError as error:
        unknown = {"range_pixels": None, "range_metres": None, "relation": "unknown", "reason": str(error)}
        return {**unknown, "distances": [], "correlations": []}
    below = np.flatnonzero(correlation < math.exp(-1))
    if below.size == 0:
        length, relation = float(distance[-1]), "at least"
    elif below[0] == 0:
        length, relation = float(distance[0]), "at most"
    else:
        k = int(below[0])
        share = (correlation[k - 1] - math.exp(-1)) / (correlation[k - 1] - correlation[k])
        length, relation = float(distance[k - 1] + share * (distance[k] - distance[k - 1])), "about"
        if length > extent / 3:
            length, relation = extent / 3, "at least"
    reasons = {
        "at most": "neighbouring tiles are hardly alike",
        "at least": "longer ranges cannot be seen within scenes of this size",
    }
    return {
        "range_pixels": round(length),
        "range_metres": None if index.pixel_side is None else round(length * index.pixel_side),
        "relation": relation,
        "reason": reasons.get(relation, ""),
        "distances": [round(float(d)) for d in distance],
        "correlations": [round(float(c), 3) for c in correlation],
    }


def correlogram(index: TileIndex, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, float]:
    """Correlation of the class shares of labelled tiles over the distance of their centres, within scenes.

    The correlation at a distance is 1 - semivariance / variance, both summed over the classes (Cressie, Statistics
    for Spatial Data, 1993, chapter 2). The variance is that within scenes, so that scenes that differ as a whole do
    not count as a long range.

    Returns:
        B mean distances in pixels, ascending; B correlations, 0 where pairs are no more alike than any two tiles of
        their scene; and the longest side of the largest scene in pixels.

    Raises:
        TooFewTilesError: If there are too few tiles or distances; the message is the reason.
    """
    place, centers, shares = _placed(index)
    if len(place) < MIN_TILES:
        raise TooFewTilesError(f"only {len(place)} labelled tiles share a scene; at least {MIN_TILES} are needed")
    sizes = np.bincount(place)
    squares = [float(((column - (np.bincount(place, column) / sizes)[place]) ** 2).sum()) for column in shares.T]
    variance = sum(squares) / max(len(place) - len(sizes), 1)
    if variance <= 1e-12:
        raise TooFewTilesError("all tiles of a scene have the same class shares")
    of_place = pd.DataFrame(centers).groupby(place)
    extent = max(1.0, float((of_place.max() - of_place.min()).to_numpy().max()))
    tree = cKDTree(np.column_stack([place * (4 * extent), centers]))
    nearest, _ = tree.query(tree.data[:: max(len(tree.data) // 2000, 1)], k=2)
    step = max(float(np.median(nearest[:, 1])), 1.0)
    edges = [step / 2]
    while edges[-1] < extent / 2:
        width = step if len(edges) <= _EQUAL_CLASSES else edges[-1] * (_GROWTH - 1)
        edges.append(edges[-1] + max(width, step))
    bins = len(edges) - 1
    if bins < 2:
        raise TooFewTilesError("the scenes are too small: less than 2 distances between tiles can be distinguished")
    a, b = _draw_pairs(tree, np.array(edges), step, rng)
    distance = np.sqrt(((centers[a] - centers[b]) ** 2).sum(axis=1))
    semivariance = ((shares[a] - shares[b]) ** 2).sum(axis=1) / 2
    of = np.searchsorted(edges, distance, side="right") - 1
    inside = (of >= 0) & (of < bins)
    n = np.bincount(of[inside], minlength=bins)
    enough = n >= _MIN_PAIRS
    if enough.sum() < 2:
        raise TooFewTilesError("too few pairs of tiles at different distances")
    mean = np.bincount(of[inside], distance[inside], bins)[enough] / n[enough]
    gamma = np.bincount(of[inside], semivariance[inside], bins)[enough] / n[enough]
    return mean, 1 - gamma / variance, extent


def _placed(index: TileIndex) -> tuple[IntArray, FloatArray, FloatArray]:
    """Place, centre in pixels (row, column) and class shares of the labelled tiles that share a place with others."""
    labelled = np.flatnonzero(index.area.any(axis=1))
    place, window = index.scene, index.window
    if len(index.scenes) == len(index.tiles) and index.ground is not None:
        place, window = index.ground.crs, index.ground.window
        labelled = labelled[place[labelled] >= 0]
    _, of, sizes = np.unique(place[labelled], return_inverse=True, return_counts=True)
    chosen = labelled[sizes[of] > 1]
    _, of = np.unique(place[chosen], return_inverse=True)
    area = index.area[chosen].astype(np.float64)
    centers = window[chosen, :2] + window[chosen, 2:] / 2
    return of.astype(np.int64), centers, area / area.sum(axis=1, keepdims=True)


def _draw_pairs(tree: cKDTree, edges: FloatArray, step: float, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Pairs of tiles, evenly over the classes of distance: a random tile and the nearest to a random place."""
    points = np.asarray(tree.data)
    first = rng.integers(0, len(points), _PAIRS)
    of = rng.integers(0, len(edges) - 1, _PAIRS)
    length = edges[of] + rng.random(_PAIRS) * (edges[of + 1] - edges[of])
    offset = rng.random((_PAIRS, 2)) * 2 - 1
    offset *= (length / np.maximum(np.sqrt((offset**2).sum(axis=1)), 1e-9))[:, None]
    wanted = points[first]
    wanted[:, 1:] += offset
    away, second = tree.query(wanted, distance_upper_bound=step)
    near = np.isfinite(away) & (second != first)
    return first[near].astype(np.int64), second[near].astype(np.int64)
