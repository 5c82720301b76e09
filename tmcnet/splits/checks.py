"""What must hold for any lists of parts, label fractions and points, whoever made them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tmcnet.config import Budget
from tmcnet.errors import Problem
from tmcnet.splits.groups import close_pairs
from tmcnet.splits.index import BoolArray, IntArray, Names, TileIndex
from tmcnet.splits.lists import MAX_NAMES, PARTS, format_names
from tmcnet.splits.points import Points, file_of, points_of_each_class

ANEW = "Make the splits anew."


@dataclass(frozen=True)
class Lists:
    """Lists of tiles as positions in the index.

    Attributes:
        folder: Where they lie, for messages.
        index: The tiles.
        members: Positions of the tiles of each list, those that the index has.
        dropped: Positions of the tiles that are in no part on purpose.
        guard: Width in pixels of the band that has to be empty between parts.
        points: The points of those lists that have some.
    """

    folder: Path
    index: TileIndex
    members: Mapping[str, IntArray]
    dropped: IntArray
    guard: int
    points: Mapping[str, Points]

    def where(self, name: str) -> str:
        """The file of a list, for messages."""
        return str(self.folder / f"{name}_RGB.txt")


def positions(tiles: pd.Index[Any], names: Sequence[str]) -> IntArray:
    """Positions of names among those of the index; -1 for those that it does not have."""
    found: IntArray = tiles.get_indexer(pd.Index(np.array(names, dtype=object))).astype(np.int64)
    return found


def chains_by_name(names: Iterable[str]) -> list[list[str]]:
    """Lists of each draw of fractions or points that have to be nested, smallest first, ending with `train`."""
    draws: dict[tuple[str, int], list[tuple[Budget, str]]] = {}
    for name in names:
        if subset := Budget.parse_subset(name):
            budget, draw = subset
            draws.setdefault((budget.kind, draw), []).append((budget, name))
    return [[*(name for _, name in sorted(draw)), "train"] for _, draw in sorted(draws.items())]


def problems_of(lists: Lists, chains: Iterable[Sequence[str]], given: Set[str]) -> list[Problem]:
    """Everything wrong with lists: tiles doubled, in two parts, in none, unlabelled, not nested, too close.

    And points: doubled, past the pixels of their class, too many or too few, not nested, in other tiles than listed.

    Args:
        lists: The lists.
        chains: Names of lists that have to contain one another, smallest first.
        given: Label fractions that the source gives; they may be independent draws.
    """
    chains = list(chains)
    of_lists = [*_doubled(lists), *_parts(lists), *_unlabelled(lists), *_nested(lists, chains, given), *_apart(lists)]
    return [*of_lists, *_points(lists), *_points_nested(lists, chains)]


def count(tiles: Iterable[str]) -> str:
    """The first tiles by name, and how many there are."""
    known = sorted(set(tiles))
    return f"{format_names(known)} ({len(known)} in all)"


def _doubled(lists: Lists) -> list[Problem]:
    problems = []
    for name, members in lists.members.items():
        unique, counts = np.unique(members, return_counts=True)
        if (counts > 1).any():
            what = f"names tiles twice: {count(lists.index.tiles[unique[counts > 1]])}"
            problems.append(Problem(lists.where(name), what, ANEW))
    return problems


def _parts(lists: Lists) -> list[Problem]:
    """Tiles in two parts, or in no part though not dropped."""
    where, tiles = str(lists.folder), lists.index.tiles
    parts = {name: lists.members.get(name, np.empty(0, np.int64)) for name in PARTS} | {"dropped": lists.dropped}
    masks = np.zeros((len(parts), len(tiles)), bool)
    for mask, members in zip(masks, parts.values(), strict=True):
        mask[members] = True
    names = list(parts)
    problems = []
    for i, one in enumerate(names):
        for j, other in enumerate(names[i + 1 :], i + 1):
            if len(both := tiles[masks[i] & masks[j]]):
                problems.append(Problem(where, f"tiles are in {one} and in {other}: {count(both)}", ANEW))
    if len(lost := tiles[~masks.any(axis=0)]):
        problems.append(Problem(where, f"tiles are in no part and not among the dropped: {count(lost)}", ANEW))
    return problems


def _unlabelled(lists: Lists) -> list[Problem]:
    """Tiles without labels where labels are needed: everywhere but in the training part."""
    return [
        Problem(lists.where(name), f"names tiles without labels: {count(lists.index.tiles[blind])}", ANEW)
        for name, members in lists.members.items()
        if name != "train" and len(blind := members[~lists.index.labelled[members]])
    ]


def _nested(lists: Lists, chains: Iterable[Sequence[str]], given: Set[str]) -> list[Problem]:
    """Label fractions that leave the training part or do not contain the smaller ones."""
    problems = []
    for chain in chains:
        known = [name for name in chain if name in lists.members]
        for i, small in enumerate(known):
            for large in known[i + 1 :]:
                outside = lists.members[small][~np.isin(lists.members[small], lists.members[large])]
                if len(outside) and not {small, large} <= given:
                    what = f"is not nested in {large}: {count(lists.index.tiles[outside])}"
                    problems.append(Problem(lists.where(small), what, ANEW))
    return problems


def _apart(lists: Lists) -> list[Problem]:
    """Tiles of different parts that overlap, in their scene or on the ground, or are closer than the guard band."""
    part = np.full(len(lists.index.tiles), -1, np.int64)
    for p, name in enumerate(PARTS):
        part[lists.members.get(name, np.empty(0, np.int64))] = p
    pairs = close_pairs(lists.index, part, lists.guard)
    pairs = pairs[(part[pairs] >= 0).all(axis=1)]
    of = np.sort(part[pairs], axis=1)
    return [
        Problem(
            str(lists.folder),
            f"{PARTS[p]} and {PARTS[q]} share pixels or are closer than {lists.guard} pixels: "
            f"{_pairs(lists.index.tiles, chosen)}",
            ANEW,
        )
        for p in range(len(PARTS))
        for q in range(p + 1, len(PARTS))
        if len(chosen := pairs[(of == [p, q]).all(axis=1)])
    ]


def _pairs(tiles: Names, pairs: IntArray) -> str:
    shown = ", ".join(f"{tiles[a]} with {tiles[b]}" for a, b in pairs[:MAX_NAMES])
    return f"{shown} ({len(pairs)} pairs)"


def _points(lists: Lists) -> list[Problem]:
    """Points that do not fit their list, their tile or the number that the list is called by."""
    if not lists.points:
        return []
    index, train = lists.index, lists.members.get("train", np.empty(0, np.int64))
    total = index.area[train].sum(axis=0, dtype=np.int64)
    problems = []
    for name, points in lists.points.items():
        where, named = str(file_of(lists.folder, name)), points.tiles
        if len(odd := np.setxor1d(named, lists.members[name])):
            what = f"and its list do not name the same tiles: {count(index.tiles[odd])}"
            problems.append(Problem(where, what, ANEW))
        if (doubled := points.keys.duplicated()).any():
            problems.append(Problem(where, f"names points twice: {_told(index, points, doubled)}", ANEW))
        if (past := points.pixel >= index.area[points.tile, points.class_id]).any():
            what = f"has points past the last pixel of their class: {_told(index, points, past)}"
            problems.append(Problem(where, what, ANEW))
        wanted = np.minimum(total, points_of_each_class(name) or 0)
        found = points.of_class(len(index.classes))
        wrong = [f"{index.classes[k]} {found[k]} in place of {wanted[k]}" for k in np.flatnonzero(found != wanted)]
        if wrong:
            problems.append(Problem(where, f"has other numbers of points than it should: {', '.join(wrong)}", ANEW))
    return problems


def _points_nested(lists: Lists, chains: Iterable[Sequence[str]]) -> list[Problem]:
    """Points that the larger lists of their draw do not have."""
    problems = []
    for chain in chains:
        known = [name for name in chain if name in lists.points]
        for i, small in enumerate(known):
            for large in known[i + 1 :]:
                outside = ~lists.points[small].keys.isin(lists.points[large].keys)
                if outside.any():
                    what = f"is not nested in {large}: {_told(lists.index, lists.points[small], outside)}"
                    problems.append(Problem(str(file_of(lists.folder, small)), what, ANEW))
    return problems


def _told(index: TileIndex, points: Points, chosen: BoolArray) -> str:
    """The first of some points, and how many there are."""
    names = np.array(index.classes, dtype=object)[points.class_id[chosen]]
    rows = zip(index.tiles[points.tile[chosen]], names, points.pixel[chosen], strict=True)
    shown = ", ".join(f"{tile} {name} {pixel}" for tile, name, pixel in islice(rows, MAX_NAMES))
    return f"{shown} ({int(chosen.sum())} in all)"
