"""What is left of a division once tiles are dropped, and the search for one that keeps its parts then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tmcnet.config import SplitsConfig
from tmcnet.splits.balance import FloatArray, Wish, deal, score
from tmcnet.splits.groups import Groups
from tmcnet.splits.index import BoolArray, IntArray, TileIndex
from tmcnet.splits.lists import PARTS

PartArray = npt.NDArray[np.int8]

TRAIN, VAL, TEST = range(3)
"""Numbers of the parts, as in `PARTS`."""
DROPPED = -1

STRIPS = 8
"""Divisions into strips that are looked at beside the best draws when tiles are lost to the guard band."""
TRIALS = 300
"""Changes tried on the best division then, at most."""

_TRIAL_WORK = 10_000_000


@dataclass(frozen=True)
class Finished:
    """A division after tiles were dropped.

    Attributes:
        of_group: G parts that were assigned.
        part: N; number of the part, or `DROPPED`.
        by_guard: N; whether the tile was dropped for being too close to a tile of another part.
        score: Distance from what is wanted; smaller is better.
    """

    of_group: PartArray
    part: PartArray
    by_guard: BoolArray
    score: int


@dataclass(frozen=True)
class Finisher:
    """Drops what must go from a division and scores the rest.

    Attributes:
        index: The tiles.
        pairs: M x 2 positions of tiles too close to be in different parts.
        wish: What is wanted of the three parts.
        spread: From parts of the G groups to parts of the N tiles.
    """

    index: TileIndex
    pairs: IntArray
    wish: Wish
    spread: Callable[[PartArray], PartArray]

    @classmethod
    def of(
        cls, index: TileIndex, pairs: IntArray, config: SplitsConfig, spread: Callable[[PartArray], PartArray]
    ) -> Finisher:
        """Wants the shares of the config and the class shares of all labelled tiles."""
        return cls(index, pairs, Wish.of(list(config.wanted), index.area[index.labelled].astype(np.float64)), spread)

    def __call__(self, of_group: PartArray) -> Finished:
        """Finish one assignment of groups."""
        part, by_guard = drop(self.index, self.spread(of_group), self.pairs)
        tiles, areas = part_totals(self.index, part)
        return Finished(of_group, part, by_guard, int(score(tiles[None], areas[None], self.wish)[0]))


def drop(index: TileIndex, part: PartArray, pairs: IntArray) -> tuple[PartArray, BoolArray]:
    """Drop unlabelled tiles outside the training part, then tiles too close to another part.

    Training tiles are dropped rather than validation tiles, and these rather than test tiles.
    """
    result = part.copy()
    result[(part != TRAIN) & ~index.labelled] = DROPPED
    by_guard = np.zeros(len(part), bool)
    a, b = pairs[result[pairs[:, 0]] != result[pairs[:, 1]]].T
    for losing in (VAL, TRAIN):
        for one, other in ((a, b), (b, a)):
            by_guard[one[(result[one] == losing) & (result[other] > losing)]] = True
        result[by_guard] = DROPPED
    return result, by_guard


def part_totals(index: TileIndex, part: PartArray) -> tuple[FloatArray, FloatArray]:
    """Labelled tiles (3) and class areas (3 x K) of the parts."""
    members = [np.flatnonzero((part == p) & index.labelled) for p in range(len(PARTS))]
    tiles = np.array([len(m) for m in members], np.float64)
    return tiles, np.stack([index.area[m].sum(axis=0, dtype=np.int64) for m in members]).astype(np.float64)


def group_totals(index: TileIndex, groups: Groups, labelled: BoolArray) -> tuple[IntArray, FloatArray, FloatArray]:
    """What there is to be assigned: the D groups with labelled tiles, their tiles (D) and class areas (D x K).

    Args:
        index: The tiles.
        groups: All groups.
        labelled: N; the labelled tiles that count.
    """
    counts = np.bincount(groups.of[labelled], minlength=groups.n).astype(np.float64)
    columns = [np.bincount(groups.of[labelled], area, groups.n) for area in index.area[labelled].T]
    drawn = np.flatnonzero(counts)
    return drawn, counts[drawn], np.stack(columns, axis=1).astype(np.float64)[drawn]


def strips(
    groups: Groups, drawn: IntArray, counts: FloatArray, shares: FloatArray, n: int, rng: np.random.Generator
) -> IntArray:
    """Assign blocks in strips across scenes, scene by scene: parts in one piece lose least to a guard band.

    Args:
        groups: The groups of tiles.
        drawn: D groups to be assigned.
        counts: D labelled tiles of these groups.
        shares: P wanted shares.
        n: How many assignments, each with strips in a direction of its own.
        rng: Source of directions and order of scenes.

    Returns:
        n x D numbers of parts; 0 x D where groups have no places.
    """
    if groups.places is None:
        return np.empty((0, len(drawn)), np.int64)
    scene, row, col = groups.places[drawn].T
    orders = []
    for down, right in rng.integers(-3, 4, (n, 2)):
        shuffled = rng.permutation(int(scene.max()) + 1)
        orders.append(np.lexsort((col, row, down * row + right * col, shuffled[scene])))
    return deal(np.stack(orders), counts, shares)


def search(finish: Finisher, start: Finished, drawn: IntArray, parts: IntArray, rng: np.random.Generator) -> Finished:
    """Better a division, judged by what is left once tiles are dropped, by random moves and swaps of groups.

    Args:
        finish: Drops and scores.
        start: The division to begin with.
        drawn: D groups that may change their part.
        parts: Parts they may be in.
        rng: Source of the changes.
    """
    now = start
    for _ in range(min(TRIALS, _TRIAL_WORK // (len(start.part) + len(finish.pairs)))):
        of_group = now.of_group.copy()
        one, other = rng.choice(drawn, 2)
        if rng.random() < 0.5:
            of_group[one] = rng.choice(parts)
        else:
            of_group[[one, other]] = of_group[[other, one]]
        if (of_group == now.of_group).all():
            continue
        trial = finish(of_group)
        if trial.score <= now.score:
            now = trial
    return now
