"""Label fractions: nested subsets of the labelled training tiles that keep the class shares."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tmcnet.config import SplitsConfig, subset_name
from tmcnet.seeding import generator
from tmcnet.splits.index import BoolArray, IntArray

AreaArray = npt.NDArray[np.int32]

HEAD = 2048
"""So many tiles are chosen one by one; further ones follow in strata, where a single tile weighs little."""
POOL = 256
"""Candidates looked at for one choice; fewer where few are left, so that draws differ."""


def subset_size(n: int, percent: float) -> int:
    """Tiles in a label fraction: rounded up, at least 1."""
    return max(1, math.ceil(round(n * percent / 100, 6)))


def draw_fractions(
    area: AreaArray, config: SplitsConfig, given: dict[str, BoolArray]
) -> tuple[dict[str, IntArray], list[str]]:
    """All label fractions by the name of their list.

    Within a draw each fraction contains the smaller ones. Fractions that the source gives are taken as they are;
    the others of the draw are fitted between them.

    Args:
        area: N x K labelled pixels of the classes, of the N labelled training tiles.
        config: Fractions, number of draws, seed.
        given: N membership by list name, of the fractions that the source gives.

    Returns:
        Positions of the tiles by list name, sorted; and warnings about given fractions that are not nested.
    """
    subsets: dict[str, IntArray] = {}
    warnings: list[str] = []
    for draw in range(1, config.subsets + 1):
        names = {f: subset_name(f, draw) for f in config.fractions}
        fixed = [name for f, name in names.items() if name in given and f < 100]
        warnings += _not_nested(fixed, given)
        tier = np.full(len(area), len(fixed), np.int64)
        for level, name in reversed(list(enumerate(fixed))):
            tier[given[name]] = level
        longest = max(_longest(len(area), config), int((tier < len(fixed)).sum()))
        order = draw_order(area, tier, generator(config.seed, "label fractions", draw), longest)
        least = 0
        for fraction, name in names.items():
            if name in fixed:
                subsets[name] = np.flatnonzero(given[name])
                least = int((tier <= fixed.index(name)).sum())
                continue
            above = [int((tier <= fixed.index(names[f])).sum()) for f in names if f > fraction and names[f] in fixed]
            size = min([max(subset_size(len(area), fraction), least), *above])
            subsets[name] = np.arange(len(area)) if fraction == 100 else np.sort(order[:size])
    return subsets, warnings


def _longest(n: int, config: SplitsConfig) -> int:
    """Tiles in the largest fraction below 100 %: no order is needed beyond."""
    return max((subset_size(n, f) for f in config.fractions if f < 100), default=0)


def _not_nested(fixed: list[str], given: dict[str, BoolArray]) -> list[str]:
    return [
        f"The given label fractions {small} and {large} are not nested: {int((given[small] & ~given[large]).sum())} "
        f"tiles of {small} are not in {large}."
        for small, large in pairwise(fixed)
        if (given[small] & ~given[large]).any()
    ]


def draw_order(area: AreaArray, tier: IntArray, rng: np.random.Generator, n: int) -> IntArray:
    """Order tiles such that every beginning has about the class shares of the whole.

    As soon as possible every class has occurred. Each next tile is the one, of a random pool, that leaves the
    smallest mismatch: the sum over classes of |share - wanted| and of the relative shortfall
    max(0, 1 - share/wanted), in which rare classes count as much as common ones.

    Args:
        area: N x K labelled pixels of the classes.
        tier: N; tiles of a lower tier come first.
        rng: Source of the pools.
        n: Length of the beginning that matters; the order is only made so far, but for the last tier begun.

    Returns:
        Positions of at least n tiles in their order.
    """
    total = area.sum(axis=0, dtype=np.int64)
    wanted = total / max(int(total.sum()), 1)
    sums = np.zeros(area.shape[1], np.int64)
    order: list[IntArray] = []
    length = 0
    for level in range(int(tier.max(initial=-1)) + 1):
        members = np.flatnonzero(tier == level)
        if length >= n:
            break
        head = _choose(area, members, wanted, sums, rng, min(len(members), n - length, max(HEAD - length, 0)))
        rest = members[~np.isin(members, head, assume_unique=True)]
        order += [head, _in_strata(area[rest], rng, rest)]
        sums = sums + area[members].sum(axis=0, dtype=np.int64)
        length += len(members)
    return np.concatenate(order) if order else np.empty(0, np.int64)


def _choose(
    area: AreaArray,
    members: IntArray,
    wanted: npt.NDArray[np.float64],
    before: IntArray,
    rng: np.random.Generator,
    n: int,
) -> IntArray:
    """Choose n tiles one by one."""
    left = rng.permutation(members)
    sums = before.copy()
    chosen = np.empty(n, np.int64)
    lacking = (sums == 0) & (area[members].sum(axis=0, dtype=np.int64) > 0)
    for i in range(n):
        places = _pool(area, left, lacking, rng)
        after = sums + area[left[places]]
        fresh = (after[:, lacking] > 0).sum(axis=1)
        pick = int(np.lexsort((_mismatch(after, wanted), -fresh))[0])
        chosen[i] = left[places[pick]]
        sums = after[pick]
        lacking &= sums == 0
        left[places[pick]] = left[-1]
        left = left[:-1]
    return chosen


def _pool(area: AreaArray, left: IntArray, lacking: BoolArray, rng: np.random.Generator) -> IntArray:
    """Places of the candidates: a random quarter of those left, or half of those with the rarest lacking class."""
    if not lacking.any():
        return rng.integers(0, len(left), min(POOL, max(4, len(left) // 4)))
    having = area[left][:, lacking] > 0
    carriers = np.flatnonzero(having[:, np.argmin(having.sum(axis=0))])
    return carriers[rng.integers(0, len(carriers), min(POOL, max(1, len(carriers) // 2)))]


def _mismatch(sums: IntArray, wanted: npt.NDArray[np.float64]) -> IntArray:
    """Mismatch of class sums (D x K) with the wanted shares, in millionths."""
    present = wanted > 0
    share = (sums / np.maximum(sums.sum(axis=1, keepdims=True), 1))[:, present]
    goal = wanted[present]
    units = np.rint((np.abs(share - goal) + np.maximum(0, 1 - share / goal)) * 1_000_000).astype(np.int64)
    total: IntArray = units.sum(axis=1)
    return total


def _in_strata(area: AreaArray, rng: np.random.Generator, members: IntArray) -> IntArray:
    """Tiles in random order, but such that each dominant class is spread evenly over it."""
    stratum = area.argmax(axis=1)
    shuffled = rng.permutation(len(members))
    by_stratum = shuffled[np.argsort(stratum[shuffled], kind="stable")]
    sizes = np.bincount(stratum, minlength=area.shape[1])
    starts = np.cumsum(sizes) - sizes
    group = stratum[by_stratum]
    rank = np.arange(len(members)) - starts[group]
    place = (rank + rng.random(len(members))) / sizes[group]
    return members[by_stratum[np.argsort(place, kind="stable")]]
