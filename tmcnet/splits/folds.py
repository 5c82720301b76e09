"""Divide tiles into folds, each of which is the test part once: cross-validation over blocks."""

from __future__ import annotations

from itertools import chain

import numpy as np

from tmcnet.config import SplitsConfig
from tmcnet.errors import InputError, Problem
from tmcnet.seeding import generator
from tmcnet.splits.balance import Wish, assign
from tmcnet.splits.finish import STRIPS, TEST, TRAIN, VAL, Finished, Finisher, PartArray, group_totals, strips
from tmcnet.splits.groups import Groups
from tmcnet.splits.index import IntArray, TileIndex


def divide_into_folds(
    index: TileIndex, groups: Groups, pairs: IntArray, config: SplitsConfig, where: str
) -> Finished:
    """The division in which the fold `config.fold` is tested.

    Groups with labelled tiles are dealt out to folds of equal size and alike in their class shares. Where fold n is
    the test part, fold n + 1 (1 after the last) is the validation part, and all others are the training part. The
    folds are the same whichever is tested, so every group is tested once. Groups without labels are always in the
    training part, where they serve pre-training.

    Args:
        index: The tiles.
        groups: The groups that are kept together.
        pairs: M x 2 positions of tiles too close to be in different parts.
        config: Number of folds, which of them is tested, draws, seed.
        where: The index file, for messages.

    Raises:
        InputError: If there are fewer groups with labelled tiles than folds.
    """
    n = config.folds or 0
    drawn, counts, areas = group_totals(index, groups, index.labelled)
    if len(drawn) < n:
        what = f"{len(drawn)} {groups.noun} with labelled tiles cannot be divided into {n} folds"
        remedy = "Make `splits.folds` or `splits.block_size` smaller, or add labelled scenes."
        raise InputError(Problem(where, what, remedy))
    equal = [1 / n] * n
    found = assign(counts, areas, Wish.of(equal, areas), config.draws, generator(config.seed, "folds"))
    rng = generator(config.seed, "strips")
    pieces = strips(groups, drawn, counts, np.array(equal), STRIPS, rng)

    def finished(folds: IntArray, tested: int) -> Finished:
        return finish(_parts(folds, drawn, groups.n, n, tested))

    def total(folds: IntArray) -> int:
        return sum(finished(folds, tested).score for tested in range(1, n + 1))

    finish = Finisher.of(index, pairs, config, lambda of_group: of_group[groups.of].astype(np.int8))
    best = found[0]
    if len(pairs):
        best = min(chain(found, pieces), key=total)
    return finished(best, config.fold)


def _parts(folds: IntArray, drawn: IntArray, n_groups: int, n: int, tested: int) -> PartArray:
    """Part of every group where a fold, counted from 1, is tested."""
    parts = np.full(n_groups, TRAIN, np.int8)
    parts[drawn[folds == tested - 1]] = TEST
    parts[drawn[folds == tested % n]] = VAL
    return parts
