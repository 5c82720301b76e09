"""Assign groups to parts so that sizes and class shares come out as wanted: the best of many seeded draws, improved.

All sums are of whole numbers (tiles, pixels) and stay below 2**53, so they are exact in float64 whatever the order in
which a machine adds; scores are whole millionths. The same draws therefore win everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from tmcnet.splits.index import BoolArray, IntArray

FloatArray: TypeAlias = npt.NDArray[np.float64]

KEPT = 8
"""So many of the best draws are judged with the guard band."""
IMPROVED = 3
"""So many of them are improved first; all of them where the best lacks a class in a part."""
WORK = 20_000_000
"""Groups times draws at most: among very many groups any draw is balanced, and fewer do."""

_CHUNK = 2_000_000
_MOVES = 1000
_SWAPS = 500
_STEPS = 80
_MORE = 3
_STEP_WORK = 20_000_000
_IDLE = 2
_KICK = 3
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
    if exhaustive:
        return best
    starts = KEPT if best_scores[0] >= _MISSING else IMPROVED
    improved = np.stack([*(_improve(p, counts, areas, wish, rng) for p in best[:starts]), *best[starts:]])
    scores = score(*_totals(improved, counts, areas, n_parts), wish)
    ordered: IntArray = improved[np.argsort(scores, kind="stable")]
    return ordered


def _every(numbers: IntArray, n_groups: int, n_parts: int) -> IntArray:
    """Assignments as the digits of running numbers."""
    digits: IntArray = numbers[:, None] // n_parts ** np.arange(n_groups) % n_parts
    return digits


def _draw(n: int, counts: FloatArray, shares: FloatArray, rng: np.random.Generator) -> IntArray:
    """Groups dealt out in random order: each part takes them until it has its share of tiles."""
    return deal(np.argsort(rng.random((n, len(counts))), axis=1, kind="stable"), counts, shares)


def deal(order: IntArray, counts: FloatArray, shares: FloatArray) -> IntArray:
    """Deal groups out in a given order, one part after the other.

    Args:
        order: D x G positions of the groups in the order of each draw.
        counts: G labelled tiles of the groups.
        shares: P wanted shares of the parts.

    Returns:
        D x G numbers of parts.
    """
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


def _improve(
    parts: IntArray, counts: FloatArray, areas: FloatArray, wish: Wish, rng: np.random.Generator
) -> IntArray:
    """Local search: the best of all moves of a group to another part and of some random swaps, while one betters.

    Once nothing betters, a few groups are moved at random and the search goes on from there; the best is kept.
    """
    best = _State.of(parts, counts, areas, wish)
    now = best
    idle = 0
    steps = min(_STEPS, max(_STEP_WORK // len(counts), 20))
    for step in range(_MORE * steps):
        if step >= steps and best.score < _MISSING:
            break
        after = _better(now, counts, areas, wish, rng)
        if after is not None:
            now, idle = after, 0
            continue
        best = min(best, now, key=lambda state: state.score)
        idle += 1
        if idle >= _IDLE:
            now, idle = _kicked(best, counts, areas, wish, rng), 0
    return min(best, now, key=lambda state: state.score).parts


@dataclass(frozen=True)
class _State:
    """An assignment (G), its P tiles and P x K class areas, and its score."""

    parts: IntArray
    tiles: FloatArray
    sums: FloatArray
    score: int

    @classmethod
    def of(cls, parts: IntArray, counts: FloatArray, areas: FloatArray, wish: Wish) -> _State:
        tiles, sums = _totals(parts[None], counts, areas, len(wish.shares))
        return cls(parts, tiles[0], sums[0], int(score(tiles, sums, wish)[0]))


def _better(
    now: _State, counts: FloatArray, areas: FloatArray, wish: Wish, rng: np.random.Generator
) -> _State | None:
    """The best neighbour, if it is better: one group moved, or two swapped."""
    n_parts = len(wish.shares)
    groups = _movable(now.sums, areas, wish, rng)
    moved, target = np.repeat(groups, n_parts), np.tile(np.arange(n_parts), len(groups))
    one = groups[rng.integers(0, len(groups), _SWAPS)]
    other = rng.integers(0, len(counts), _SWAPS)
    first = np.concatenate([moved, one])
    second = np.concatenate([moved, other])
    goal = np.concatenate([target, now.parts[other]])
    source, numbers = now.parts[first], np.arange(n_parts)
    change = (numbers == goal[:, None]).astype(np.float64) - (numbers == source[:, None])
    single = first == second
    weight = counts[first] - np.where(single, 0, counts[second])
    area = areas[first] - np.where(single[:, None], 0, areas[second])
    tiles, sums = now.tiles + change * weight[:, None], now.sums + change[:, :, None] * area[:, None, :]
    scores = score(tiles, sums, wish)
    pick = int(np.argmin(scores))
    if scores[pick] >= now.score:
        return None
    parts = now.parts.copy()
    parts[first[pick]] = goal[pick]
    if not single[pick]:
        parts[second[pick]] = source[pick]
    return _State(parts, tiles[pick], sums[pick], int(scores[pick]))


def _kicked(state: _State, counts: FloatArray, areas: FloatArray, wish: Wish, rng: np.random.Generator) -> _State:
    """The state with a few random groups in random parts."""
    parts = state.parts.copy()
    parts[rng.integers(0, len(parts), _KICK)] = rng.integers(0, len(wish.shares), _KICK)
    return _State.of(parts, counts, areas, wish)


def _movable(sums: FloatArray, areas: FloatArray, wish: Wish, rng: np.random.Generator) -> IntArray:
    """Groups worth trying: those with a class that a part lacks, else all; some of them where they are too many."""
    missing = ((sums == 0) & wish.must).any(axis=0)
    groups = np.flatnonzero((areas[:, missing] > 0).any(axis=1)) if missing.any() else np.arange(len(areas))
    return groups if len(groups) <= _MOVES else np.sort(rng.choice(groups, _MOVES, replace=False))
