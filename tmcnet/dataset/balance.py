"""Assign groups to parts so that sizes and class shares come out as wanted: the best of many seeded draws, improved.

All sums are of whole numbers (tiles, pixels) and stay below 2**53, so they are exact in float64 whatever the order in
which a machine adds; scores are whole millionths. The same draws therefore win everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from tmcnet.dataset.index import BoolArray, IntArray

FloatArray: TypeAlias = npt.NDArray[np.float64]

KEPT = 8
"""So many of the best draws are improved and then judged with the guard band."""
WORK = 20_000_000
"""Groups times draws at most: among very many groups any draw is balanced, and fewer do."""

_CHUNK = 2_000_000
_MILLION = 1_000_000
_MISSING = 1_000 * _MILLION
_EMPTY = 1_000 * _MISSING


@dataclass(frozen=True)
class Wish:
    """What a good assignment looks like.

    Attributes:
        shares: P wanted shares of the labelled tiles; they add up to 1.
        classes: K class shares of the whole.
        must: K; classes that occur in enough groups to be in every part.
    """

    shares: FloatArray
    classes: FloatArray
    must: BoolArray

    @classmethod
    def of(cls, shares: list[float], areas: FloatArray) -> Wish:
        """From wanted shares and the G x K class areas of the groups."""
        total = areas.sum(axis=0)
        must = (areas > 0).sum(axis=0) >= len(shares)
        return cls(np.array(shares) / sum(shares), total / max(float(total.sum()), 1.0), must)


def score(counts: FloatArray, areas: FloatArray, wish: Wish) -> IntArray:
    """How far assignments are from the wish, in millionths; smaller is better.

    An empty part outweighs everything, then a class missing in a part. Then counts: largest deviation of a part's
    size, plus largest and mean deviation of a class share.

    Args:
        counts: D x P labelled tiles of the parts.
        areas: D x P x K class areas of the parts.
        wish: What is wanted.
    """
    size = np.abs(counts / counts.sum(axis=1, keepdims=True) - wish.shares)
    share = np.abs(areas / np.maximum(areas.sum(axis=2, keepdims=True), 1) - wish.classes)
    units = np.rint(share * _MILLION).astype(np.int64)
    missing = ((areas == 0) & wish.must).sum(axis=(1, 2))
    empty = (counts == 0).sum(axis=1)
    off = (
        np.rint(size.max(axis=1) * _MILLION).astype(np.int64)
        + units.max(axis=(1, 2))
        + units.mean(axis=(1, 2)).round()
    )
    result: IntArray = off.astype(np.int64) + missing * _MISSING + empty * _EMPTY
    return result


def assign(counts: FloatArray, areas: FloatArray, wish: Wish, draws: int, rng: np.random.Generator) -> IntArray:
    """The best assignments found, best first.

    Few enough groups are assigned in every possible way; else `draws` times at random, in the wanted shares.

    Args:
        counts: G labelled tiles of the groups, each at least 1.
        areas: G x K class areas of the groups.
        wish: What is wanted of P parts.
        draws: Number of draws.
        rng: Source of the draws.

    Returns:
        D x G numbers of parts, D at most `KEPT`.
    """
    n_parts, n_groups = len(wish.shares), len(counts)
    best = np.empty((0, n_groups), np.int64)
    best_scores = np.empty(0, np.int64)
    exhaustive = n_groups < 64 and n_parts**n_groups <= draws
    total = n_parts**n_groups if exhaustive else min(draws, max(WORK // n_groups, 2 * KEPT))
    step = max(_CHUNK // n_groups, 1)
    for start in range(0, total, step):
        numbers = np.arange(start, min(start + step, total))
        parts = _every(numbers, n_groups, n_parts) if exhaustive else _draw(len(numbers), counts, wish.shares, rng)
        best = np.concatenate([best, parts])
        best_scores = np.concatenate([best_scores, score(*_totals(parts, counts, areas, n_parts), wish)])
        keep = np.argsort(best_scores, kind="stable")[:KEPT]
        best, best_scores = best[keep], best_scores[keep]
    improved = np.stack([_improve(parts, counts, areas, wish) for parts in best])
    scores = score(*_totals(improved, counts, areas, n_parts), wish)
    ordered: IntArray = improved[np.argsort(scores, kind="stable")]
    return ordered


def _every(numbers: IntArray, n_groups: int, n_parts: int) -> IntArray:
    """Assignments as the digits of running numbers."""
    digits: IntArray = numbers[:, None] // n_parts ** np.arange(n_groups) % n_parts
    return digits


def _draw(n: int, counts: FloatArray, shares: FloatArray, rng: np.random.Generator) -> IntArray:
    """Groups in random order are dealt out: each part takes them until it has its share of tiles."""
    order = np.argsort(rng.random((n, len(counts))), axis=1, kind="stable")
    sizes = counts[order]
    middle = np.cumsum(sizes, axis=1) - sizes / 2
    dealt = np.searchsorted(np.cumsum(shares)[:-1] * counts.sum(), middle.ravel()).reshape(middle.shape)
    parts = np.empty_like(dealt)
    np.put_along_axis(parts, order, dealt, axis=1)
    return parts


def _totals(parts: IntArray, counts: FloatArray, areas: FloatArray, n_parts: int) -> tuple[FloatArray, FloatArray]:
    """D x P tiles and D x P x K class areas of the parts."""
    member = [(parts == p).astype(np.float64) for p in range(n_parts)]
    return np.stack([m @ counts for m in member], axis=1), np.stack([m @ areas for m in member], axis=1)


def _improve(parts: IntArray, counts: FloatArray, areas: FloatArray, wish: Wish) -> IntArray:
    """Move single groups to other parts as long as that betters the score."""
    parts = parts.copy()
    n_parts = len(wish.shares)
    tiles, sums = (total[0] for total in _totals(parts[None], counts, areas, n_parts))
    now = int(score(tiles[None], sums[None], wish)[0])
    for _ in range(min(100, 200_000 // len(counts)) + len(wish.must)):
        groups = _movable(sums, areas, wish)
        if groups.size == 0:
            break
        moved, target = np.repeat(groups, n_parts), np.tile(np.arange(n_parts), len(groups))
        change = (np.arange(n_parts) == target[:, None]) - (np.arange(n_parts) == parts[moved][:, None]).astype(float)
        new_tiles = tiles + change * counts[moved][:, None]
        new_sums = sums + change[:, :, None] * areas[moved][:, None, :]
        scores = score(new_tiles, new_sums, wish)
        pick = int(np.argmin(scores))
        if scores[pick] >= now:
            break
        now, tiles, sums = int(scores[pick]), new_tiles[pick], new_sums[pick]
        parts[moved[pick]] = target[pick]
    return parts


def _movable(sums: FloatArray, areas: FloatArray, wish: Wish) -> IntArray:
    """Groups worth trying: those with a class that a part lacks, else all unless they are too many."""
    missing = ((sums == 0) & wish.must).any(axis=0)
    if missing.any():
        return np.flatnonzero((areas[:, missing] > 0).any(axis=1))[:4000]
    return np.arange(len(areas)) if len(areas) <= 4000 else np.empty(0, np.int64)
