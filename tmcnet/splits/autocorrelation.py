"""How far labels resemble each other: the distance that spatial blocks should exceed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from tmcnet.splits.index import FloatArray, IntArray, TileIndex

PAIRS = 100_000
"""Pairs of tiles drawn."""
LEAST_TILES = 30
"""Fewer labelled tiles tell nothing."""

_LEAST_PAIRS = 50
_LINEAR = 8
_GROWTH = 1.25


@dataclass(frozen=True)
class Correlogram:
    """Correlation of class shares over the distance between tiles.

    Attributes:
        distance: B mean distances in pixels, ascending.
        correlation: B values, at most 1; 0 where pairs are no more alike than any two tiles of their scene.
        extent: Longest side in pixels of the largest scene.
    """

    distance: FloatArray
    correlation: FloatArray
    extent: float


def autocorrelation(index: TileIndex, rng: np.random.Generator) -> dict[str, Any]:
    """Autocorrelation range of the labels: the distance at which the correlation of class shares falls to 1/e.

    `relation` says what the range is: `about` it; `at most`, where already neighbouring tiles are less alike; `at
    least`, where it takes up more than a third of the largest scene, within which longer ranges cannot be told;
    `unknown`, with the reason. Since class shares are those of whole tiles, a range near the side of a tile is
    partly the tile itself.

    Args:
        index: The tiles. Their places are those in their scene; for tiles that are no part of a scene, those on the
            ground.
        rng: Source of the pairs of tiles that are compared.

    Returns:
        `range_pixels` and `range_metres` (None where not known), `relation`, `reason`, and the correlogram
        (`distances` in pixels, `correlations`).
    """
    found = correlogram(index, rng)
    if isinstance(found, str):
        return _told(None, None, "unknown", found, [], [])
    distance, correlation = found.distance, found.correlation
    below = np.flatnonzero(correlation < math.exp(-1))
    if below.size == 0:
        length, relation = float(distance[-1]), "at least"
    elif below[0] == 0:
        length, relation = float(distance[0]), "at most"
    else:
        k = int(below[0])
        share = (correlation[k - 1] - math.exp(-1)) / (correlation[k - 1] - correlation[k])
        length, relation = float(distance[k - 1] + share * (distance[k] - distance[k - 1])), "about"
        if length > found.extent / 3:
            length, relation = found.extent / 3, "at least"
    side = index.pixel_side
    metres = None if side is None else round(length * side)
    reasons = {
        "about": "",
        "at most": "neighbouring tiles are hardly alike",
        "at least": "longer ranges cannot be told within scenes of this size",
    }
    return _told(round(length), metres, relation, reasons[relation], distance, correlation)


def _told(
    pixels: int | None,
    metres: int | None,
    relation: str,
    reason: str,
    distances: FloatArray | list[float],
    correlations: FloatArray | list[float],
) -> dict[str, Any]:
    return {
        "range_pixels": pixels,
        "range_metres": metres,
        "relation": relation,
        "reason": reason,
        "distances": [round(float(d)) for d in distances],
        "correlations": [round(float(c), 3) for c in correlations],
    }


def correlogram(index: TileIndex, rng: np.random.Generator) -> Correlogram | str:
    """Correlation of the class shares of labelled tiles with the distance of their centres, within scenes.

    The correlation at a distance is 1 - semivariance / variance, both summed over the classes; the variance is that
    within scenes, so that scenes that differ as a whole do not count as a long range.

    Args:
        index: The tiles.
        rng: Source of the pairs.

    Returns:
        The correlogram, or the reason why there is none.
    """
    place, centers, shares = _placed(index)
    if len(place) < LEAST_TILES:
        return f"only {len(place)} labelled tiles lie in scenes with other tiles; at least {LEAST_TILES} are needed"
    variance = _variance_within(place, shares)
    if variance <= 1e-12:
        return "all tiles of a scene have the same class shares"
    extent = _extent(place, centers)
    tree = cKDTree(np.column_stack([place * (4 * extent), centers]))
    step = _spacing(tree)
    edges = _edges(step, extent / 2)
    if len(edges) < 3:
        return "the scenes are too small: less than 2 distances between tiles can be told apart"
    a, b = _draw_pairs(tree, edges, step, rng)
    distance = np.sqrt(((centers[a] - centers[b]) ** 2).sum(axis=1))
    semivariance = ((shares[a] - shares[b]) ** 2).sum(axis=1) / 2
    of = np.searchsorted(edges, distance, side="right") - 1
    inside = (of >= 0) & (of < len(edges) - 1)
    bins = len(edges) - 1
    n = np.bincount(of[inside], minlength=bins)
    enough = n >= _LEAST_PAIRS
    if enough.sum() < 2:
        return "too few pairs of tiles at different distances"
    mean = np.bincount(of[inside], distance[inside], bins)[enough] / n[enough]
    gamma = np.bincount(of[inside], semivariance[inside], bins)[enough] / n[enough]
    return Correlogram(mean, 1 - gamma / variance, extent)


def _placed(index: TileIndex) -> tuple[IntArray, FloatArray, FloatArray]:
    """Place, centre in pixels (row, column) and class shares of the labelled tiles with company in their place."""
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


def _variance_within(place: IntArray, shares: FloatArray) -> float:
    """Unbiased variance within places, summed over the classes."""
    sizes = np.bincount(place)
    total = 0.0
    for column in shares.T:
        mean = np.bincount(place, column) / sizes
        total += float(((column - mean[place]) ** 2).sum())
    return total / max(len(place) - len(sizes), 1)


def _extent(place: IntArray, centers: FloatArray) -> float:
    """Longest side of the rectangle around the centres of the largest place, in pixels; at least 1."""
    sides = []
    for axis in centers.T:
        low, high = np.full(place.max() + 1, np.inf), np.full(place.max() + 1, -np.inf)
        np.minimum.at(low, place, axis)
        np.maximum.at(high, place, axis)
        sides.append(float((high - low).max()))
    return max(*sides, 1.0)


def _spacing(tree: cKDTree) -> float:
    """Median distance of a tile to its nearest neighbour elsewhere, in pixels; 1 where tiles lie on each other."""
    points = tree.data[:: max(len(tree.data) // 2000, 1)]
    nearest, _ = tree.query(points, k=2)
    return max(float(np.median(nearest[:, 1])), 1.0)


def _edges(step: float, reach: float) -> FloatArray:
    """Limits of the classes of distance: one step wide at first, then growing."""
    edges = [step / 2]
    while edges[-1] < reach:
        width = step if len(edges) <= _LINEAR else edges[-1] * (_GROWTH - 1)
        edges.append(edges[-1] + max(width, step))
    return np.array(edges)


def _draw_pairs(tree: cKDTree, edges: FloatArray, step: float, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Pairs of tiles, evenly over the classes of distance: a random tile and the nearest to a random place."""
    points = np.asarray(tree.data)
    first = rng.integers(0, len(points), PAIRS)
    of = rng.integers(0, len(edges) - 1, PAIRS)
    length = edges[of] + rng.random(PAIRS) * (edges[of + 1] - edges[of])
    offset = rng.random((PAIRS, 2)) * 2 - 1
    offset *= (length / np.maximum(np.sqrt((offset**2).sum(axis=1)), 1e-9))[:, None]
    wanted = points[first]
    wanted[:, 1:] += offset
    away, second = tree.query(wanted, distance_upper_bound=step)
    found = np.isfinite(away) & (second != first)
    return first[found].astype(np.int64), second[found].astype(np.int64)
