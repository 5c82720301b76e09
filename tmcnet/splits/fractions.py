"""Label fractions: nested subsets of the labelled training tiles that keep the class shares."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tmcnet.config import Budget, SplitsConfig
from tmcnet.seeding import generator
from tmcnet.splits.index import BoolArray, FloatArray, IntArray, TileIndex

AreaArray = npt.NDArray[np.int32]

MAX_CHOSEN = 2048
"""Tiles chosen one by one; others follow in strata, where a single tile matters little."""
MAX_POOL = 256
"""Candidates for one choice; fewer where few are left, so that draws differ."""


def given_fractions(index: TileIndex, config: SplitsConfig) -> dict[str, BoolArray]:
    """Membership (N) of the label fractions that the source gives, by list name; only those the config has."""
    if index.subsets is None:
        return {}
    members: dict[str, list[int]] = {}
    for position in np.flatnonzero(index.subsets != ""):
        for subset in {name.strip() for name in str(index.subsets[position]).split(";")}:
            members.setdefault(f"train{subset}", []).append(int(position))
    draws, fractions = range(1, config.subsets + 1), [Budget("R", f) for f in config.fractions if f < 100]
    names = [budget.subset(draw) for draw in draws for budget in fractions]
    tiles = np.arange(len(index.tiles))
    return {name: np.isin(tiles, members[name]) for name in names if name in members}


def fraction_size(n: int, percent: float) -> int:
    """Tiles in a label fraction: rounded up, at least 1."""
    return max(1, math.ceil(round(n * percent / 100, 6)))


def draw_fractions(
    area: AreaArray, config: SplitsConfig, given: dict[str, BoolArray]
) -> tuple[dict[str, IntArray], list[str]]:
    """All label fractions by the name of their list.

    Within a draw each fraction contains the smaller ones. Given fractions are taken as they are; the others of the
    draw are fitted between them.

    Args:
        area: N x K labelled pixels of the classes, of the N labelled training tiles.
        config: Fractions, number of draws, seed.
        given: N membership by list name, of the fractions given by the source.

    Returns:
        Positions of the tiles by list name, sorted; and warnings about given fractions that are not nested.
    """
    subsets: dict[str, IntArray] = {}
    warnings: list[str] = []
    for draw in range(1, config.subsets + 1):
        names = {f: Budget("R", f).subset(draw) for f in config.fractions}
        fixed = [f for f, name in names.items() if name in given]
        warnings += _not_nested([names[f] for f in fixed], given)
        level = np.full(len(area), len(fixed), np.int64)  # the smallest given fraction that has the tile
        for k, fraction in reversed(list(enumerate(fixed))):
            level[given[names[fraction]]] = k
        within = [int((level <= k).sum()) for k in range(len(fixed))]  # tiles in the first given fractions
        sizes = {f: fraction_size(len(area), f) for f in config.fractions}
        longest = max([size for f, size in sizes.items() if f < 100] + within, default=0)
        order = draw_order(area, level, generator(config.seed, "label fractions", draw), longest)
        for fraction, name in names.items():
            if fraction in fixed:
                subsets[name] = np.flatnonzero(given[name])
            elif fraction == 100:
                subsets[name] = np.arange(len(area))
            else:
                least = max((n for f, n in zip(fixed, within, strict=True) if f < fraction), default=0)
                most = min((n for f, n in zip(fixed, within, strict=True) if f > fraction), default=len(area))
                subsets[name] = np.sort(order[: min(max(sizes[fraction], least), most)])
    return subsets, warnings


def _not_nested(names: list[str], given: dict[str, BoolArray]) -> list[str]:
    outside = {(small, large): int((given[small] & ~given[large]).sum()) for small, large in pairwise(names)}
    return [
        f"The given label fractions {small} and {large} are not nested: {n} tiles of {small} are not in {large}."
        for (small, large), n in outside.items()
        if n
    ]


def draw_order(area: AreaArray, level: IntArray, rng: np.random.Generator, n: int) -> IntArray:
    """Order tiles such that the first ones, however many, have about the class shares of the whole.

    Every class occurs as soon as possible. Each next tile is the one, of a random pool, with the smallest mismatch:
    the sum over classes of |share - wanted| and of the relative shortfall max(0, 1 - share/wanted), in which rare
    classes count as much as common ones.

    Args:
        area: N x K labelled pixels of the classes.
        level: N; tiles of a lower level come first.
        rng: Source of the pools.
        n: Length needed; the order ends there, or after the level that reaches it.

    Returns:
        Positions of at least n tiles in their order.
    """
    total = area.sum(axis=0, dtype=np.int64)
    wanted = total / max(int(total.sum()), 1)
    sums = np.zeros(area.shape[1], np.int64)
    order = np.empty(0, np.int64)
    for k in range(int(level.max(initial=-1)) + 1):
        if len(order) >= n:
            break
        members = np.flatnonzero(level == k)
        count = min(len(members), n - len(order), max(MAX_CHOSEN - len(order), 0))
        chosen = _choose(area, members, wanted, sums, rng, count)
        rest = members[~np.isin(members, chosen, assume_unique=True)]
        order = np.concatenate([order, chosen, rest[_order_in_strata(area[rest], rng)]])
        sums = sums + area[members].sum(axis=0, dtype=np.int64)
    return order


def _choose(
    area: AreaArray, members: IntArray, wanted: FloatArray, sums: IntArray, rng: np.random.Generator, n: int
) -> IntArray:
    """Choose n tiles one by one, after others with these class sums."""
    left = rng.permutation(members)
    chosen = np.empty(n, np.int64)
    lacking = (sums == 0) & (area[members].sum(axis=0, dtype=np.int64) > 0)
    for i in range(n):
        places = _draw_pool(area, left, lacking, rng)
        after = sums + area[left[places]]
        new_classes = (after[:, lacking] > 0).sum(axis=1)
        best = int(np.lexsort((_mismatch(after, wanted), -new_classes))[0])
        chosen[i] = left[places[best]]
        sums = after[best]
        lacking &= sums == 0
        left[places[best]] = left[-1]
        left = left[:-1]
    return chosen


def _draw_pool(area: AreaArray, left: IntArray, lacking: BoolArray, rng: np.random.Generator) -> IntArray:
    """Places of the candidates: a random quarter of those left, or half of those with the rarest lacking class."""
    if not lacking.any():
        return rng.integers(0, len(left), min(MAX_POOL, max(4, len(left) // 4)))
    having = area[left][:, lacking] > 0
    carriers = np.flatnonzero(having[:, np.argmin(having.sum(axis=0))])
    return carriers[rng.integers(0, len(carriers), min(MAX_POOL, max(1, len(carriers) // 2)))]


def _mismatch(sums: IntArray, wanted: FloatArray) -> IntArray:
    """Mismatch of class sums (D x K) with the wanted shares, in millionths."""
    present = wanted > 0
    share = (sums / np.maximum(sums.sum(axis=1, keepdims=True), 1))[:, present]
    goal = wanted[present]
    units = np.rint((np.abs(share - goal) + np.maximum(0, 1 - share / goal)) * 1_000_000).astype(np.int64)
    total: IntArray = units.sum(axis=1)
    return total


def _order_in_strata(area: AreaArray, rng: np.random.Generator) -> IntArray:
    """Random order of tiles in which each dominant class is spread evenly."""
    stratum = area.argmax(axis=1)
    shuffled = rng.permutation(len(area))
    by_stratum = shuffled[np.argsort(stratum[shuffled], kind="stable")]
    sizes = np.bincount(stratum, minlength=area.shape[1])
    group = stratum[by_stratum]
    rank = np.arange(len(area)) - (np.cumsum(sizes) - sizes)[group]
    place = (rank + rng.random(len(area))) / sizes[group]
    return by_stratum[np.argsort(place, kind="stable")]
