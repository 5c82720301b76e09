"""Label fractions: nested subsets of the labelled training tiles that keep the class shares, in draws that differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from tmcnet.config import Budget, SplitsConfig
from tmcnet.errors import InputError, Problem, format_names
from tmcnet.seeding import generator
from tmcnet.splits.index import AreaArray, BoolArray, FloatArray, IntArray, TileIndex
from tmcnet.splits.parts import TRAIN, PartArray

MAX_CHOSEN = 2048
"""Tiles chosen one by one; others follow in strata, where a single tile matters little."""
MAX_POOL = 256
"""Candidates for one choice; fewer where few are left, so that draws differ."""


def draw_fractions(
    index: TileIndex, part: PartArray, config: SplitsConfig, where: str
) -> tuple[dict[str, IntArray], list[str]]:
    """All label fractions by the name of their list; within a draw each contains the smaller ones.

    Draws share no tiles as long as there are enough, but for those with classes that few tiles have, in draws of more
    tiles than classes. Fractions that the source gives are taken as they are, without tiles that are dropped or have
    no labels; the others of the draw are fitted between them. Returns sorted positions of the tiles by name of the
    list, and warnings about given fractions and about draws that overlap.

    Raises:
        InputError: If a given fraction has tiles of another part.
    """
    given, warnings = _usable(index, part, config, where)
    labelled = np.flatnonzero((part == TRAIN) & index.labelled)
    area = index.area[labelled]
    n = len(area)
    first = np.full(n, n)  # the smallest position of each tile in the orders of earlier draws
    lists: dict[str, IntArray] = {}
    for draw in range(1, config.subsets + 1):
        names = {f: Budget("R", f).subset(draw) for f in config.fractions}
        fixed = {f: given[name][labelled] for f, name in names.items() if name in given}
        for (small, few), (large, many) in pairwise((names[f], mask) for f, mask in fixed.items()):
            if n_outside := int((few & ~many).sum()):
                what = f"{small} and {large} are not nested: {n_outside} tiles of {small} are not in {large}"
                warnings.append(f"The given label fractions {what}.")
        level = np.full(n, len(fixed), np.int64)  # number of the smallest given fraction that has the tile
        for k, mask in reversed(list(enumerate(fixed.values()))):
            level[mask] = k
        within = {f: int((level <= k).sum()) for k, f in enumerate(fixed)}  # tiles in this or a smaller one
        order = draw_order(area, level, _tiers(first), generator(config.seed, "label fractions", draw))
        first[order] = np.minimum(first[order], np.arange(n))
        for f, name in names.items():
            least = max((size for other, size in within.items() if other < f), default=0)
            most = min((size for other, size in within.items() if other > f), default=n)
            drawn = np.sort(order[: min(max(fraction_size(n, f), least), most)])
            lists[name] = labelled[np.flatnonzero(fixed[f]) if f in fixed else drawn]
    return lists, warnings + _warn_of_overlap(lists, config)


def fraction_size(n: int, percent: float) -> int:
    """Tiles in a label fraction: rounded up, at least 1."""
    return max(1, math.ceil(round(n * percent / 100, 6)))


def _tiers(first: IntArray) -> IntArray:
    """Whole number k for each of N tiles: it is not among the first N/k of any earlier draw, but of one for N/(k-1).

    A draw that takes low numbers first shares no tile of its first N/k with any of the k-1 draws before it. `first`
    are the smallest positions in earlier draws, N without any.
    """
    n = len(first)
    return np.where(first > 0, -(-n // np.maximum(first, 1)), n + 1)


def _warn_of_overlap(lists: dict[str, IntArray], config: SplitsConfig) -> list[str]:
    """A sentence for each label fraction whose draws have tiles in common."""
    warnings = []
    for budget in (Budget("R", f) for f in config.fractions if f < 100):
        draws = [lists[budget.subset(draw)] for draw in range(1, config.subsets + 1)]
        total, different = sum(map(len, draws)), len(np.unique(np.concatenate(draws)))
        if different < total:
            warnings.append(
                f"The {len(draws)} draws of {budget.name} overlap: they have {total} tiles, of which {different} are "
                "different. Their scores differ less than those of independent labels."
            )
    return warnings


def _usable(
    index: TileIndex, part: PartArray, config: SplitsConfig, where: str
) -> tuple[dict[str, BoolArray], list[str]]:
    """Given label fractions (N flags by list name) without tiles that are dropped or have no labels, and warnings."""
    problems, warnings = [], []
    usable = (part == TRAIN) & index.labelled
    for name, mask in index.given.items():
        foreign = mask & (part > TRAIN)
        if foreign.any():
            what = f"label fraction {name} has tiles that are not in train: {format_names(index.tiles[foreign])}"
            remedy = "Correct the source's lists, or set `splits.given_fractions` to false."
            problems.append(Problem(where, what, remedy))
        useless = mask & ~usable & ~foreign
        if useless.any():
            warnings.append(f"{name} lost tiles without labels or dropped: {format_names(index.tiles[useless])}.")
    if problems:
        raise InputError(problems)
    drawn = [Budget("R", f) for f in config.fractions if f < 100]
    names = [budget.name for budget in drawn if budget.subset(1) not in index.given]
    if names and config.given_fractions:
        warnings.append(f"The source gives no label fractions {', '.join(names)}; they are drawn.")
    return {name: mask & usable for name, mask in index.given.items()}, warnings


def draw_order(area: AreaArray, level: IntArray, tier: IntArray, rng: np.random.Generator) -> IntArray:
    """Order tiles such that the first ones, however many, have about the class shares of the whole.

    Every class occurs as soon as possible. Each next tile is the one, of a random pool, with the smallest mismatch:
    the sum over classes of |share - wanted| and of the relative shortfall max(0, 1 - share/wanted), in which rare
    classes count as much as common ones. Tiles (N x K labelled pixels) of a lower level (N) come first, and among
    those of one level those of a lower tier (N); but from K tiles on, one of any tier with a class that lacks.
    """
    total = area.sum(axis=0, dtype=np.int64)
    wanted = total / max(int(total.sum()), 1)
    sums = np.zeros(area.shape[1], np.int64)
    order = np.empty(0, np.int64)
    for k in range(int(level.max(initial=-1)) + 1):
        members = np.flatnonzero(level == k)
        n = min(len(members), max(MAX_CHOSEN - len(order), 0))
        chosen = _choose(area, members, tier, wanted, sums, rng, n, before=len(order))
        rest = members[~np.isin(members, chosen, assume_unique=True)]
        rest = rest[_order_in_strata(area[rest], rng)]
        order = np.concatenate([order, chosen, rest[np.argsort(tier[rest], kind="stable")]])
        sums = sums + area[members].sum(axis=0, dtype=np.int64)
    return order


def _choose(
    area: AreaArray,
    members: IntArray,
    tier: IntArray,
    wanted: FloatArray,
    sums: IntArray,
    rng: np.random.Generator,
    n: int,
    before: int,
) -> IntArray:
    """Choose n tiles one by one, after others, so many with these class sums."""
    left = rng.permutation(members)
    left = left[np.argsort(tier[left], kind="stable")]
    groups = np.split(left, np.flatnonzero(np.diff(tier[left])) + 1)  # one for each tier
    chosen = np.empty(n, np.int64)
    lacking = (sums == 0) & (area[members].sum(axis=0, dtype=np.int64) > 0)
    for i in range(n):
        g, places = _draw_pool(area, groups if before + i >= len(lacking) else groups[:1], lacking, rng)
        after = sums + area[groups[g][places]]
        new_classes = (after[:, lacking] > 0).sum(axis=1)
        best = int(np.lexsort((_mismatch(after, wanted), -new_classes))[0])
        chosen[i] = groups[g][places[best]]
        sums = after[best]
        lacking &= sums == 0
        groups[g][places[best]] = groups[g][-1]
        groups[g] = groups[g][:-1]
        if not len(groups[g]):
            del groups[g]
    return chosen


def _draw_pool(
    area: AreaArray, groups: Sequence[IntArray], lacking: BoolArray, rng: np.random.Generator
) -> tuple[int, IntArray]:
    """Candidates: a random quarter of the first group, or half of its tiles with the rarest lacking class.

    In the latter case it is the first group with that class. Returns the number of the group, and places in it.
    """
    tiles = (area[np.concatenate(groups)] > 0).sum(axis=0) if lacking.any() else np.zeros(len(lacking))
    having = np.flatnonzero(lacking & (tiles > 0))
    if not len(having):
        size = len(groups[0])
        return 0, rng.integers(0, size, min(MAX_POOL, max(4, size // 4)))
    rarest = having[np.argmin(tiles[having])]
    g = next(g for g, group in enumerate(groups) if area[group, rarest].any())
    carriers = np.flatnonzero(area[groups[g], rarest])
    return g, carriers[rng.integers(0, len(carriers), min(MAX_POOL, max(1, len(carriers) // 2)))]


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
