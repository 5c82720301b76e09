"""Divide tiles into training, validation and test part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from tmcnet.config import SplitsConfig, subset_name
from tmcnet.dataset.balance import FloatArray, Wish, assign, score
from tmcnet.dataset.groups import Groups, close_pairs, group_tiles
from tmcnet.dataset.index import BoolArray, IntArray, Names, TileIndex
from tmcnet.dataset.layout import PARTS, tell
from tmcnet.errors import InputError, Problem
from tmcnet.seeding import generator

PartArray = npt.NDArray[np.int8]

TRAIN, VAL, TEST = range(3)
"""Numbers of the parts, as in `PARTS`."""
DROPPED = -1
_UNDRAWN = -2


@dataclass(frozen=True)
class Division:
    """Tiles divided into parts.

    Attributes:
        part: N; number of the part, or `DROPPED`.
        by_guard: N; whether the tile was dropped for being too close to a tile of another part.
        groups: The groups that were kept together.
    """

    part: PartArray
    by_guard: BoolArray
    groups: Groups


def divide(index: TileIndex, config: SplitsConfig, where: str) -> Division:
    """Divide tiles into parts as the config says.

    Groups are assigned by `balance.assign`. Unlabelled tiles of validation and test groups are dropped, and so are
    tiles too close to another part: rather training than validation tiles, rather validation than test tiles.

    Args:
        index: The tiles.
        config: Method, shares, guard band, seed.
        where: The index file, for messages.

    Raises:
        InputError: If a part would be empty, or method `given` meets a value that belongs to no part.
    """
    groups = group_tiles(index, config)
    if config.method == "given":
        start = _given(index, config, where)
        wanted = [p for p, part in enumerate(PARTS) if not getattr(config.given, part)]
    else:
        start = np.full(len(index.tiles), _UNDRAWN, np.int8)
        wanted = [VAL, TEST]
    if config.method == "given" and index.subsets is not None and wanted:
        start[_with_subsets(index.subsets, groups, config) & (start == _UNDRAWN)] = TRAIN
    key = groups.of * 8 + start - _UNDRAWN
    pairs = close_pairs(index, key, config.guard)
    if not wanted:
        return _checked(index, _finish(index, start, pairs), groups, config, where)
    parts = [TRAIN, *wanted]
    finished = [_finish(index, _candidates(index, groups, start, parts, config, where)[0], pairs)]
    if finished[0][1].any():
        excess = _excess(index, finished[0][0], config)
        finished += [
            _finish(index, c, pairs) for c in _candidates(index, groups, start, parts, config, where, excess)
        ]
        finished = [finished[_best(index, finished, config)]]
    return _checked(index, finished[0], groups, config, where)


def _given(index: TileIndex, config: SplitsConfig, where: str) -> PartArray:
    """Parts from the values of the column; training tiles stay undrawn where a part is to be drawn from them."""
    part = np.full(len(index.tiles), DROPPED, np.int8)
    problems = []
    draws = not (config.given.val and config.given.test)
    values = np.asarray(index.field, dtype=object)
    for p, name in enumerate(PARTS):
        chosen = np.isin(values.astype(str), getattr(config.given, name))
        if (part[chosen] != DROPPED).any():
            what = f"values {getattr(config.given, name)} of {name} belong to another part as well"
            problems.append(Problem("config key `splits.given`", what, "Name each value once."))
        part[chosen] = _UNDRAWN if p == TRAIN and draws else p
    unknown = sorted({str(value) for value in values[part == DROPPED]})
    if unknown:
        what = f"`field_{config.column}` has values that belong to no part: {tell(unknown)}"
        problems.append(Problem(where, what, "Put each into `splits.given`: train, val or test."))
    if problems:
        raise InputError(problems)
    return part


def drawn_lists(config: SplitsConfig) -> list[str]:
    """Names of the lists of all label fractions below 100 %."""
    return [subset_name(f, draw) for draw in range(1, config.subsets + 1) for f in config.fractions if f < 100]


def _with_subsets(subsets: Names, groups: Groups, config: SplitsConfig) -> BoolArray:
    """Tiles of groups that given label fractions use: they have to stay in the training part."""
    wanted = set(drawn_lists(config))
    codes, values = pd.factorize(subsets)
    useful = np.array([any(f"train{name.strip()}" in wanted for name in str(v).split(";")) for v in values], bool)
    used = np.zeros(len(groups.names), bool)
    used[groups.of[useful[codes]]] = True
    chosen: BoolArray = used[groups.of]
    return chosen


def _excess(index: TileIndex, part: PartArray, config: SplitsConfig) -> list[float]:
    """How many times its wanted share of the labelled tiles each part got once tiles were dropped."""
    tiles, _ = part_totals(index, part)
    wanted = (config.shares.train, config.shares.val, config.shares.test)
    return [max(float(n) / float(tiles.sum()) / share, 0.1) for n, share in zip(tiles, wanted, strict=True)]


def _candidates(
    index: TileIndex,
    groups: Groups,
    start: PartArray,
    parts: list[int],
    config: SplitsConfig,
    where: str,
    excess: Sequence[float] = (1.0, 1.0, 1.0),
) -> list[PartArray]:
    """The best ways found to draw the undrawn tiles, best first.

    Groups without labels go to the training part: there they serve pre-training. `excess` corrects the
    wanted shares of the parts for what the guard band took from an earlier division.
    """
    undrawn = start == _UNDRAWN
    labelled = undrawn & index.labelled
    n_groups = len(groups.names)
    counts = np.bincount(groups.of[labelled], minlength=n_groups).astype(np.float64)
    columns = [np.bincount(groups.of[labelled], area, n_groups) for area in index.area[labelled].T]
    areas = np.stack(columns, axis=1).astype(np.float64)
    drawn = np.flatnonzero(counts)
    fixed = int((index.labelled & (start == TRAIN)).sum())
    shares = _shares(parts, config, excess, fixed, int(counts.sum()))
    if len(drawn) < len(shares):
        raise InputError(_too_few(groups.noun, len(drawn), shares, where))
    wish = Wish.of(list(shares.values()), areas[drawn])
    rng = generator(config.seed, "parts")
    found = []
    for assignment in assign(counts[drawn], areas[drawn], wish, config.draws, rng):
        of_group = np.full(n_groups, TRAIN, np.int8)
        of_group[drawn] = np.array(list(shares), np.int8)[assignment]
        found.append(np.where(undrawn, of_group[groups.of], start).astype(np.int8))
    return found


def _shares(
    parts: list[int], config: SplitsConfig, excess: Sequence[float], fixed: int, drawable: int
) -> dict[int, float]:
    """Wanted share of each part among the tiles that are drawn; `fixed` training tiles are there already."""
    wishes = {p: getattr(config.shares, PARTS[p]) / excess[p] for p in parts}
    shares = {p: wish / sum(wishes.values()) for p, wish in wishes.items()}
    if not fixed or not drawable:
        return shares
    wanted = {p: min(share * (fixed + drawable) / drawable, 1) for p, share in shares.items() if p != TRAIN}
    rest = 1 - sum(wanted.values())
    return {TRAIN: rest, **wanted} if rest > 0.01 else wanted


def _too_few(noun: str, found: int, shares: dict[int, float], where: str) -> Problem:
    what = f"{found} {noun} with labelled tiles cannot be divided into {len(shares)} parts"
    names = ", ".join(PARTS[p] for p in sorted(shares))
    remedy = "Make `splits.block_size` smaller, add labelled scenes, or divide by `splits.method: blocks`."
    return Problem(where, f"{what} ({names}), of which each needs at least one", remedy)


def _finish(index: TileIndex, part: PartArray, pairs: IntArray) -> tuple[PartArray, BoolArray]:
    """Drop unlabelled tiles outside the training part, then tiles too close to another part."""
    result = part.copy()
    result[(part != TRAIN) & ~index.labelled] = DROPPED
    by_guard = np.zeros(len(part), bool)
    a, b = pairs[result[pairs[:, 0]] != result[pairs[:, 1]]].T
    for losing in (VAL, TRAIN):
        for one, other in ((a, b), (b, a)):
            by_guard[one[(result[one] == losing) & (result[other] > losing)]] = True
        result[by_guard] = DROPPED
    return result, by_guard


def _best(index: TileIndex, finished: list[tuple[PartArray, BoolArray]], config: SplitsConfig) -> int:
    """The candidate that is nearest to the wish once tiles are dropped."""
    shares = [config.shares.train, config.shares.val, config.shares.test]
    wish = Wish.of(shares, index.area[index.labelled].astype(np.float64))
    totals = [part_totals(index, part) for part, _ in finished]
    return int(np.argmin(score(np.stack([t[0] for t in totals]), np.stack([t[1] for t in totals]), wish)))


def part_totals(index: TileIndex, part: PartArray) -> tuple[FloatArray, FloatArray]:
    """Labelled tiles (3) and class areas (3 x K) of the parts."""
    members = [np.flatnonzero((part == p) & index.labelled) for p in range(len(PARTS))]
    tiles = np.array([len(m) for m in members], np.float64)
    return tiles, np.stack([index.area[m].sum(axis=0, dtype=np.int64) for m in members]).astype(np.float64)


def _checked(
    index: TileIndex, finished: tuple[PartArray, BoolArray], groups: Groups, config: SplitsConfig, where: str
) -> Division:
    part, by_guard = finished
    tiles, _ = part_totals(index, part)
    empty = [name for name, n in zip(PARTS, tiles, strict=True) if n == 0]
    if empty:
        sizes = ", ".join(f"{name} {int(n)}" for name, n in zip(PARTS, tiles, strict=True))
        what = (
            f"leaves no labelled tile in {' and '.join(empty)} ({sizes}; {int(by_guard.sum())} of {len(part)} tiles "
            f"lost to the guard band of {config.guard} pixels; {len(groups.names)} {groups.noun})"
        )
        remedy = "Make `splits.block_size` or `splits.guard` smaller, add labelled scenes, or check `splits.given`."
        raise InputError(Problem(where, what, remedy))
    return Division(part, by_guard, groups)
