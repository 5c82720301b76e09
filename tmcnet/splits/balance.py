"""Assign groups to parts so that sizes and class shares come out as wanted: many seeded draws, then local search.

All sums are of whole numbers (tiles, pixels) below 2**53, so they are exact in float64 in any order of summation, and
scores are whole millionths. The same assignment therefore wins on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tmcnet.splits.index import BoolArray, FloatArray, IntArray

DRAWS = 2000
"""Seeded draws among which the best are searched on from."""
MAX_BEST = 8
"""Best assignments kept: they may be judged again with the guard band."""

_MAX_DRAWN = 20_000_000  # draws times groups: among very many groups any draw is balanced
_MAX_CHUNK = 2_000_000  # draws times groups scored at once
_SEARCHED = 3  # of the best assignments; all of them while the best lacks a class in a part
_MAX_STEPS, _MAX_STEPS_MISSING = 80, 240  # steps of one search, and while a class is missing in a part
_MAX_MOVED, _SWAPS = 1000, 500  # neighbours looked at in one step
_PERTURBED = 3  # groups moved at random once nothing improves

_MILLION = 1_000_000
_MISSING = 1_000 * _MILLION
_EMPTY = 1_000 * _MISSING


@dataclass(frozen=True)
class BalanceTarget:
    """What a good assignment to P parts looks like.

    Attributes:
        shares: P wanted shares of the labelled tiles; they add up to 1.
        classes: K class shares of the whole.
        required: K; classes that occur in enough groups to be in every part.
    """

    shares: FloatArray
    classes: FloatArray
    required: BoolArray

    @classmethod
    def of(cls, shares: list[float], areas: FloatArray) -> BalanceTarget:
        """Target from wanted shares and the G x K class areas of the groups."""
        total = areas.sum(axis=0)
        required = (areas > 0).sum(axis=0) >= len(shares)
        return cls(np.array(shares) / sum(shares), total / max(float(total.sum()), 1.0), required)

    def score(self, counts: FloatArray, areas: FloatArray) -> IntArray:
        """Mismatch of D assignments in millionths; smaller is better.

        An empty part outweighs everything, then a class missing in a part. Then counts: largest deviation of a part's
        size, plus largest and mean deviation of a class share. `counts` are D x P labelled tiles of the parts and
        `areas` their D x P x K class areas.
        """
        size = np.abs(counts / counts.sum(axis=1, keepdims=True) - self.shares)
        share = np.abs(areas / np.maximum(areas.sum(axis=2, keepdims=True), 1) - self.classes)
        units = np.rint(share * _MILLION).astype(np.int64)
        off = np.rint(size.max(axis=1) * _MILLION) + units.max(axis=(1, 2)) + units.mean(axis=(1, 2)).round()
        missing = ((areas == 0) & self.required).sum(axis=(1, 2))
        result: IntArray = off.astype(np.int64) + missing * _MISSING + (counts == 0).sum(axis=1) * _EMPTY
        return result


def balanced_assignments(
    counts: FloatArray, areas: FloatArray, target: BalanceTarget, rng: np.random.Generator
) -> IntArray:
    """The best assignments to P parts, best first: D x G numbers of parts, D at most `MAX_BEST`.

    Few enough groups are assigned in every possible way. Else the best of `DRAWS` random assignments are improved by
    local search. `counts` are G labelled tiles of the groups, each at least 1, `areas` G x K class areas.
    """
    search = _Search(counts, areas, target, rng)
    n_groups, n_parts = len(counts), len(target.shares)
    if every := n_groups < 64 and n_parts**n_groups <= DRAWS:  # the digits of running numbers
        batches = iter([np.arange(n_parts**n_groups)[:, None] // n_parts ** np.arange(n_groups) % n_parts])
    else:
        batches = search.draws()
    best, scores = np.empty((0, n_groups), np.int64), np.empty(0, np.int64)
    for assignments in batches:
        best, scores = np.concatenate([best, assignments]), np.concatenate([scores, search.score(assignments)])
        first = np.argsort(scores, kind="stable")[:MAX_BEST]
        best, scores = best[first], scores[first]
    if every:
        return best
    n = MAX_BEST if scores[0] >= _MISSING else _SEARCHED
    best = np.stack([*map(search.improved, best[:n]), *best[n:]])
    ordered: IntArray = best[np.argsort(search.score(best), kind="stable")]
    return ordered


def assign_in_order(order: IntArray, counts: FloatArray, shares: FloatArray) -> IntArray:
    """Assign groups in D given orders (D x G), one part after the other; each takes groups until it has its share.

    Returns D x G numbers of parts, from G labelled tiles of the groups and P wanted shares.
    """
    sizes = counts[order]
    middle = np.cumsum(sizes, axis=1) - sizes / 2
    in_order = np.searchsorted(np.cumsum(shares)[:-1] * counts.sum(), middle.ravel()).reshape(middle.shape)
    assignment = np.empty_like(in_order)
    np.put_along_axis(assignment, order, in_order, axis=1)
    return assignment


class _State(NamedTuple):
    """An assignment (G), its tiles (P) and class areas (P x K), and its score."""

    assignment: IntArray
    tiles: FloatArray
    sums: FloatArray
    score: int


@dataclass(frozen=True)
class _Search:
    """Search for a balanced assignment of G groups to P parts."""

    counts: FloatArray
    areas: FloatArray
    target: BalanceTarget
    rng: np.random.Generator

    def draws(self) -> Iterator[IntArray]:
        """Random assignments in the wanted shares, some at a time."""
        n_groups = len(self.counts)
        left, step = min(DRAWS, max(_MAX_DRAWN // n_groups, 2 * MAX_BEST)), max(_MAX_CHUNK // n_groups, 1)
        for n in (min(step, left - start) for start in range(0, left, step)):
            order = np.argsort(self.rng.random((n, n_groups)), axis=1, kind="stable")
            yield assign_in_order(order, self.counts, self.target.shares)

    def totals(self, assignment: IntArray) -> tuple[FloatArray, FloatArray]:
        """D x P tiles and D x P x K class areas of the parts of D assignments."""
        member = [(assignment == p).astype(np.float64) for p in range(len(self.target.shares))]
        return np.stack([m @ self.counts for m in member], axis=1), np.stack([m @ self.areas for m in member], axis=1)

    def score(self, assignment: IntArray) -> IntArray:
        """Scores of D assignments."""
        return self.target.score(*self.totals(assignment))

    def state(self, assignment: IntArray) -> _State:
        """One assignment with its totals and score."""
        tiles, sums = self.totals(assignment[None])
        return _State(assignment, tiles[0], sums[0], int(self.target.score(tiles, sums)[0]))

    def improved(self, assignment: IntArray) -> IntArray:
        """Iterated local search: steepest descent; at a minimum a few random moves from the best one, and again."""
        best = now = self.state(assignment)
        failures = 0
        for step in range(_MAX_STEPS_MISSING):
            if step >= _MAX_STEPS and best.score < _MISSING:
                break
            neighbour = self.best_neighbour(now)
            if neighbour.score < now.score:
                now, failures = neighbour, 0
                best = min(best, now, key=lambda state: state.score)
            elif failures == 0:  # other random swaps may improve
                failures = 1
            else:
                moved, goal = best.assignment.copy(), self.rng.integers(0, len(self.target.shares), _PERTURBED)
                moved[self.rng.integers(0, len(moved), _PERTURBED)] = goal
                now, failures = self.state(moved), 0
        return best.assignment

    def best_neighbour(self, now: _State) -> _State:
        """The best assignment with one group moved or two swapped."""
        numbers = np.arange(len(self.target.shares))
        groups = self.movable(now.sums)
        moved = np.repeat(groups, len(numbers))
        first = np.concatenate([moved, groups[self.rng.integers(0, len(groups), _SWAPS)]])
        other = self.rng.integers(0, len(now.assignment), _SWAPS)
        second = np.concatenate([moved, other])
        goal = np.concatenate([np.tile(numbers, len(groups)), now.assignment[other]])
        source, swapped = now.assignment[first], first != second
        change = (numbers == goal[:, None]).astype(np.float64) - (numbers == source[:, None])
        weight = self.counts[first] - np.where(swapped, self.counts[second], 0)
        area = self.areas[first] - np.where(swapped[:, None], self.areas[second], 0)
        tiles, sums = now.tiles + change * weight[:, None], now.sums + change[:, :, None] * area[:, None, :]
        scores = self.target.score(tiles, sums)
        best = int(np.argmin(scores))
        assignment = now.assignment.copy()
        assignment[second[best]], assignment[first[best]] = source[best], goal[best]
        return _State(assignment, tiles[best], sums[best], int(scores[best]))

    def movable(self, sums: FloatArray) -> IntArray:
        """Groups worth moving: those with a class that a part lacks, else all; a random choice of too many."""
        missing = ((sums == 0) & self.target.required).any(axis=0)
        candidates = (self.areas[:, missing] > 0).any(axis=1) | ~missing.any()
        groups = np.flatnonzero(candidates)
        return groups if len(groups) <= _MAX_MOVED else np.sort(self.rng.choice(groups, _MAX_MOVED, replace=False))
