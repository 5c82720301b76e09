"""Divide tiles into training, validation and test part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import pandas as pd

from tmcnet.config import SplitsConfig, subset_name
from tmcnet.errors import InputError, Problem
from tmcnet.seeding import generator
from tmcnet.splits.balance import FloatArray, Wish, assign
from tmcnet.splits.finish import (
    DROPPED,
    STRIPS,
    TEST,
    TRAIN,
    VAL,
    Finished,
    Finisher,
    PartArray,
    drop,
    group_totals,
    part_totals,
    search,
    strips,
)
from tmcnet.splits.folds import divide_into_folds
from tmcnet.splits.groups import Groups, close_pairs, group_tiles
from tmcnet.splits.index import BoolArray, IntArray, Names, TileIndex
from tmcnet.splits.lists import PARTS, format_names
from tmcnet.splits.registration import misaligned

_UNDRAWN = -2


@dataclass(frozen=True)
class Division:
    """Tiles divided into parts.

    Attributes:
        part: N; number of the part, or `DROPPED`.
        by_guard: N; whether the tile was dropped for being too close to a tile of another part.
        groups: The groups that were kept together; misaligned tiles belong to none, -1.
        misaligned: N; whether the tile was dropped for its registration.
    """

    part: PartArray
    by_guard: BoolArray
    groups: Groups
    misaligned: BoolArray


def divide(index: TileIndex, config: SplitsConfig, where: str) -> Division:
    """Divide tiles into parts as the config says.

    Misaligned tiles are dropped first, and the others divided as if there were no more. Groups are assigned by
    `balance.assign`, to folds by `folds.divide_into_folds`. Unlabelled tiles of validation and test groups are
    dropped, and so are tiles too close to another part: rather training than validation tiles, rather validation than
    test tiles.

    Args:
        index: The tiles.
        config: Method, shares, guard band, seed.
        where: The index file, for messages.

    Raises:
        InputError: If a part would be empty, or method `given` meets a value that belongs to no part.
    """
    lost = misaligned(index, config)
    if not lost.any():
        return _divide(index, config, where)
    some = _divide(index.only(~lost), config, where)
    part, of = np.full(len(lost), DROPPED, np.int8), np.full(len(lost), -1, np.int64)
    by_guard = np.zeros(len(lost), bool)
    part[~lost], of[~lost], by_guard[~lost] = some.part, some.groups.of, some.by_guard
    return Division(part, by_guard, replace(some.groups, of=of), lost)


def _divide(index: TileIndex, config: SplitsConfig, where: str) -> Division:
    """Divide tiles that are all good enough."""
    groups = group_tiles(index, config)
    if config.method == "given":
        start = _given(index, config, where)
        wanted = [p for p, part in enumerate(PARTS) if not getattr(config.given, part)]
    else:
        start = np.full(len(index.tiles), _UNDRAWN, np.int8)
        wanted = [VAL, TEST]
    if config.method == "given" and index.subsets is not None and wanted:
        start[_with_subsets(index.subsets, groups, config) & (start == _UNDRAWN)] = TRAIN
    pairs = close_pairs(index, groups.of * 8 + start - _UNDRAWN, config.guard)
    if config.folds is not None:
        best = divide_into_folds(index, groups, pairs, config, where)
        return _checked(index, best.part, best.by_guard, groups, config, where)
    if not wanted:
        return _checked(index, *drop(index, start, pairs), groups, config, where)
    undrawn = start == _UNDRAWN
    finish = Finisher.of(
        index, pairs, config, lambda of_group: np.where(undrawn, of_group[groups.of], start).astype(np.int8)
    )
    task = _task(index, groups, start, [TRAIN, *wanted], config, where)
    best = _searched(task, finish, config)
    return _checked(index, best.part, best.by_guard, groups, config, where)


def _searched(task: _Task, finish: Finisher, config: SplitsConfig) -> Finished:
    """The best division found. Where tiles are lost to the guard band, more are tried and judged by what is left."""
    shares = task.shares(config, (1.0, 1.0, 1.0))
    drawn = task.draws(shares, config)
    best = finish(drawn[0])
    if not best.by_guard.any():
        return best
    corrected = task.shares(config, _excess(finish.index, best.part, config))
    more = [*drawn[1:], *task.draws(corrected, config), *task.strips(shares, config), *task.strips(corrected, config)]
    best = min(chain([best], map(finish, more)), key=lambda one: one.score)
    return search(finish, best, task.drawn, np.array(list(shares), np.int8), generator(config.seed, "guarded parts"))


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
        what = f"`field_{config.column}` has values that belong to no part: {format_names(unknown)}"
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
    used = np.zeros(groups.n, bool)
    used[groups.of[useful[codes]]] = True
    chosen: BoolArray = used[groups.of]
    return chosen


def _excess(index: TileIndex, part: PartArray, config: SplitsConfig) -> list[float]:
    """How many times its wanted share of the labelled tiles each part got once tiles were dropped."""
    tiles, _ = part_totals(index, part)
    return [max(float(n) / float(tiles.sum()) / share, 0.1) for n, share in zip(tiles, config.wanted, strict=True)]


@dataclass(frozen=True)
class _Task:
    """What is to be drawn: D groups with labelled tiles, among three parts or fewer.

    Attributes:
        groups: All groups; those without labels go to the training part, where they serve pre-training.
        drawn: D numbers of groups.
        counts: D labelled tiles.
        areas: D x K class areas.
        parts: The parts.
        fixed: Labelled tiles that are in the training part already.
    """

    groups: Groups
    drawn: IntArray
    counts: FloatArray
    areas: FloatArray
    parts: list[int]
    fixed: int

    def shares(self, config: SplitsConfig, excess: Sequence[float]) -> dict[int, float]:
        """Wanted share of each part among the drawn tiles.

        `excess` corrects it for what the guard band took from an earlier division.
        """
        drawable = int(self.counts.sum())
        wishes = {p: getattr(config.shares, PARTS[p]) / excess[p] for p in self.parts}
        shares = {p: wish / sum(wishes.values()) for p, wish in wishes.items()}
        if not self.fixed or not drawable:
            return shares
        wanted = {p: min(s * (self.fixed + drawable) / drawable, 1) for p, s in shares.items() if p != TRAIN}
        rest = 1 - sum(wanted.values())
        return {TRAIN: rest, **wanted} if rest > 0.01 else wanted

    def draws(self, shares: dict[int, float], config: SplitsConfig) -> list[PartArray]:
        """The best balanced ways found to draw, best first."""
        wish = Wish.of(list(shares.values()), self.areas)
        found = assign(self.counts, self.areas, wish, config.draws, generator(config.seed, "parts"))
        return self._of_groups(found, shares)

    def strips(self, shares: dict[int, float], config: SplitsConfig) -> list[PartArray]:
        """Ways to draw with parts in one piece."""
        wanted = np.array(list(shares.values())) / sum(shares.values())
        rng = generator(config.seed, "strips")
        return self._of_groups(strips(self.groups, self.drawn, self.counts, wanted, STRIPS, rng), shares)

    def _of_groups(self, found: IntArray, shares: dict[int, float]) -> list[PartArray]:
        result = np.full((len(found), self.groups.n), TRAIN, np.int8)
        result[:, self.drawn] = np.array(list(shares), np.int8)[found]
        return list(result)


def _task(
    index: TileIndex, groups: Groups, start: PartArray, parts: list[int], config: SplitsConfig, where: str
) -> _Task:
    labelled = (start == _UNDRAWN) & index.labelled
    drawn, counts, areas = group_totals(index, groups, labelled)
    fixed = int((index.labelled & (start == TRAIN)).sum())
    task = _Task(groups, drawn, counts, areas, parts, fixed)
    shares = task.shares(config, (1.0, 1.0, 1.0))
    if len(drawn) < len(shares):
        raise InputError(_too_few(groups.noun, len(drawn), shares, where))
    return task


def _too_few(noun: str, found: int, shares: dict[int, float], where: str) -> Problem:
    what = f"{found} {noun} with labelled tiles cannot be divided into {len(shares)} parts"
    names = ", ".join(PARTS[p] for p in sorted(shares))
    remedy = "Make `splits.block_size` smaller, add labelled scenes, or divide by `splits.method: blocks`."
    return Problem(where, f"{what} ({names}), of which each needs at least one", remedy)


def _checked(
    index: TileIndex, part: PartArray, by_guard: BoolArray, groups: Groups, config: SplitsConfig, where: str
) -> Division:
    tiles, _ = part_totals(index, part)
    empty = [name for name, n in zip(PARTS, tiles, strict=True) if n == 0]
    if empty:
        sizes = ", ".join(f"{name} {int(n)}" for name, n in zip(PARTS, tiles, strict=True))
        what = (
            f"leaves no labelled tile in {' and '.join(empty)} ({sizes}; {int(by_guard.sum())} of {len(part)} tiles "
            f"lost to the guard band of {config.guard} pixels or for overlap; {groups.n} {groups.noun})"
        )
        remedy = "Make `splits.block_size` or `splits.guard` smaller, add labelled scenes, or check `splits.given`."
        raise InputError(Problem(where, what, remedy))
    return Division(part, by_guard, groups, np.zeros(len(part), bool))
