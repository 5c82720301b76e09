"""Divide tiles into training, validation and test part, or into folds of which each is the test part once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tmcnet.config import SplitsConfig
from tmcnet.errors import InputError, Problem, format_names
from tmcnet.raster.inventory.seed_layout import PARTS
from tmcnet.seeding import generator
from tmcnet.splits.balance import BalanceTarget, assign_in_order, balanced_assignments
from tmcnet.splits.groups import Groups, close_pairs, group_tiles
from tmcnet.splits.index import BoolArray, FloatArray, IntArray, TileIndex

PartArray = npt.NDArray[np.int8]

TRAIN, VAL, TEST = range(3)
"""Numbers of the parts, as in `PARTS`."""
DROPPED = -1

_TO_DRAW = -2
_STRIPS = 8  # assignments in strips that are tried where tiles are lost to the guard band
_MAX_TRIALS, _MAX_TRIAL_WORK = 300, 10_000_000  # changes tried on the best of them; tiles and pairs judged in all


@dataclass(frozen=True)
class Division:
    """N tiles divided into parts.

    Attributes:
        part: N; number of the part, or `DROPPED`.
        by_guard: N; whether the tile was dropped for being too close to a tile of another part.
        misaligned: N; whether the tile was dropped for its registration.
        groups: The groups that were kept together.
    """

    part: PartArray
    by_guard: BoolArray
    misaligned: BoolArray
    groups: Groups


def divide(index: TileIndex, config: SplitsConfig, in_train: BoolArray, where: str) -> Division:
    """Divide tiles into parts.

    Misaligned tiles are dropped first, and the others divided as if these did not exist. Groups without labels go to
    the training part, where they serve pre-training. With `config.folds`, fold n is tested, fold n + 1 (1 after the
    last) validates, all others train; the folds are the same whichever is tested.

    Args:
        index: The tiles.
        config: Method, shares or folds, guard band, seed.
        in_train: N; tiles that have to stay in the training part, with their groups: the source's label fractions.
        where: The index file, for messages.

    Raises:
        InputError: If a part would be empty, or method `given` meets a value that belongs to no part.
    """
    misaligned = _misaligned(index, config)
    groups = group_tiles(index, config)
    fixed = _given_parts(index, config, where)
    if config.method == "given":
        fixed[np.isin(groups.of, groups.of[in_train]) & (fixed == _TO_DRAW)] = TRAIN
    fixed[misaligned] = DROPPED
    pairs = close_pairs(index, groups.of * 8 + fixed - _TO_DRAW, config.guard)
    pairs = pairs[(fixed[pairs] != DROPPED).all(axis=1)]
    areas = index.area[index.labelled & ~misaligned].astype(np.float64)
    band = GuardBand(index, pairs, BalanceTarget.of(list(config.wanted), areas))
    drawn = (fixed == _TO_DRAW).any()
    part, by_guard = band.apply(_drawn_parts(groups, fixed, band, config, where) if drawn else fixed)
    tiles, _ = part_totals(index, part)
    if empty := [name for name, n in zip(PARTS, tiles, strict=True) if n == 0]:
        sizes = ", ".join(f"{name} {int(n)}" for name, n in zip(PARTS, tiles, strict=True))
        what = (
            f"leaves no labelled tile in {' and '.join(empty)} ({sizes}; {int(by_guard.sum())} of {len(part)} tiles "
            f"lost to the guard band of {config.guard} pixels or for overlap; {groups.n} {groups.noun})"
        )
        remedy = "Make `splits.block_size` or `splits.guard` smaller, add labelled scenes, or check `splits.given`."
        raise InputError(Problem(where, what, remedy))
    return Division(part, by_guard, misaligned, groups)


def part_totals(index: TileIndex, part: PartArray) -> tuple[FloatArray, FloatArray]:
    """Labelled tiles (3) and class areas (3 x K) of the parts."""
    members = [np.flatnonzero((part == p) & index.labelled) for p in range(len(PARTS))]
    areas = np.stack([index.area[m].sum(axis=0, dtype=np.int64) for m in members])
    return np.array([len(m) for m in members], np.float64), areas.astype(np.float64)


def _misaligned(index: TileIndex, config: SplitsConfig) -> BoolArray:
    """Tiles (N flags) whose registration is known and worse than `config.max_misalignment` allows."""
    if config.max_misalignment is None or index.misalignment is None:
        return np.zeros(len(index.tiles), bool)
    worse: BoolArray = index.misalignment > config.max_misalignment
    if not (index.labelled & ~worse).any():
        best = float(index.misalignment[index.labelled].min())
        what = f"({config.max_misalignment:g}) leaves no labelled tile: the best of them has {best:.3f} pixels"
        remedy = "Make it larger or null, and look at the `alignment.png` of the scenes."
        raise InputError(Problem("config key `splits.max_misalignment`", what, remedy))
    return worse


def _given_parts(index: TileIndex, config: SplitsConfig, where: str) -> PartArray:
    """Parts (N) from the values of the column; `_TO_DRAW` where parts are drawn."""
    part = np.full(len(index.tiles), _TO_DRAW, np.int8)
    if config.method != "given":
        return part
    part[:] = DROPPED
    drawn_from_train = not (config.given.val and config.given.test)
    problems = []
    values = np.asarray(index.field, dtype=object)
    for p, name in enumerate(PARTS):
        chosen = np.isin(values.astype(str), getattr(config.given, name))
        if (part[chosen] != DROPPED).any():
            what = f"values {getattr(config.given, name)} of {name} belong to another part as well"
            problems.append(Problem("config key `splits.given`", what, "Name each value once."))
        part[chosen] = _TO_DRAW if p == TRAIN and drawn_from_train else p
    unknown = sorted({str(value) for value in values[part == DROPPED]})
    if unknown:
        what = f"`field_{config.column}` has values that belong to no part: {format_names(unknown)}"
        problems.append(Problem(where, what, "Put each into `splits.given`: train, val or test."))
    if problems:
        raise InputError(problems)
    return part


@dataclass(frozen=True)
class GuardBand:
    """The band between parts: what a division loses to it, and how good the rest is.

    Attributes:
        index: The N tiles.
        pairs: M x 2 positions of tiles too close to be in different parts.
        target: What is wanted of the three parts.
    """

    index: TileIndex
    pairs: IntArray
    target: BalanceTarget

    def apply(self, part: PartArray) -> tuple[PartArray, BoolArray]:
        """Drop unlabelled tiles outside the training part, then tiles too close to another part.

        Training tiles are dropped rather than validation tiles, and these rather than test tiles.

        Args:
            part: N numbers of parts.

        Returns:
            N numbers of parts, and N flags of the tiles dropped for the guard band.
        """
        result = part.copy()
        result[(part != TRAIN) & ~self.index.labelled] = DROPPED
        by_guard = np.zeros(len(part), bool)
        a, b = self.pairs[result[self.pairs[:, 0]] != result[self.pairs[:, 1]]].T
        for losing in (VAL, TRAIN):
            for one, other in ((a, b), (b, a)):
                by_guard[one[(result[one] == losing) & (result[other] > losing)]] = True
            result[by_guard] = DROPPED
        return result, by_guard

    def score(self, part: PartArray) -> int:
        """Return the mismatch with the wanted shares after the guard band is applied; smaller is better."""
        tiles, areas = part_totals(self.index, self.apply(part)[0])
        return int(self.target.score(tiles[None], areas[None])[0])


@dataclass(frozen=True)
class _Slots:
    """What groups are assigned to: parts or folds.

    Attributes:
        shares: S wanted shares of the labelled tiles to draw.
        parts: Part of each slot (S), for every division made of one assignment.
        tested: The division that is returned.
        noun: What a slot is, for messages.
    """

    shares: list[float]
    parts: list[PartArray]
    tested: int
    noun: str

    @classmethod
    def of_folds(cls, n: int, tested: int) -> _Slots:
        """Folds of equal size, each tested in one division and validating in the one before."""
        parts = np.full((n, n), TRAIN, np.int8)
        for fold in range(n):
            parts[fold, fold], parts[fold, (fold + 1) % n] = TEST, VAL
        return cls([1 / n] * n, list(parts), tested, "folds")

    @classmethod
    def of_parts(cls, config: SplitsConfig, fixed_train: int, to_draw: int) -> _Slots:
        """Parts to draw, given the numbers of labelled tiles that are fixed in training and that are to be drawn."""
        given = config.given if config.method == "given" else None
        drawn = [p for p, name in enumerate(PARTS) if p == TRAIN or not (given and getattr(given, name))]
        wanted = {p: config.wanted[p] / sum(config.wanted[q] for q in drawn) for p in drawn}
        if fixed_train and to_draw:
            wanted = {p: min(w * (fixed_train + to_draw) / to_draw, 1) for p, w in wanted.items() if p != TRAIN}
            rest = 1 - sum(wanted.values())
            wanted = {TRAIN: rest, **wanted} if rest > 0.01 else wanted
        names = ", ".join(PARTS[p] for p in sorted(wanted))
        return cls(list(wanted.values()), [np.array(list(wanted), np.int8)], 0, f"parts ({names})")


def _drawn_parts(groups: Groups, fixed: PartArray, band: GuardBand, config: SplitsConfig, where: str) -> PartArray:
    """Parts (N) with those drawn that are not fixed, balanced in size and class shares.

    Where tiles are lost to the guard band, more assignments are tried and judged by what they keep.
    """
    index, to_draw = band.index, fixed == _TO_DRAW
    labelled = to_draw & index.labelled
    counts = np.bincount(groups.of[labelled], minlength=groups.n).astype(np.float64)
    columns = [np.bincount(groups.of[labelled], area, groups.n) for area in index.area[labelled].T]
    areas = np.stack(columns, axis=1).astype(np.float64)
    drawn = np.flatnonzero(counts)
    counts, areas = counts[drawn], areas[drawn]
    if config.folds is None:
        fixed_train = int((index.labelled & (fixed == TRAIN)).sum())
        slots = _Slots.of_parts(config, fixed_train, int(labelled.sum()))
    else:
        slots = _Slots.of_folds(config.folds, config.fold - 1)
    if len(drawn) < len(slots.shares):
        what = (
            f"{len(drawn)} {groups.noun} with labelled tiles cannot be divided into {len(slots.shares)} {slots.noun}"
        )
        remedy = "Make `splits.block_size` or `splits.folds` smaller, add labelled scenes, or divide by blocks."
        raise InputError(Problem(where, what, remedy))

    def divisions(assignment: IntArray) -> list[PartArray]:
        of_group = np.full((len(slots.parts), groups.n), TRAIN, np.int8)
        of_group[:, drawn] = [part[assignment] for part in slots.parts]
        return [np.where(to_draw, part[groups.of], fixed) for part in of_group]

    def score(assignment: IntArray) -> int:
        return sum(band.score(part) for part in divisions(assignment))

    target = BalanceTarget.of(slots.shares, areas)
    purpose = "parts" if config.folds is None else "folds"
    found = balanced_assignments(counts, areas, target, generator(config.seed, purpose))
    best = found[0]
    if any(band.apply(part)[1].any() for part in divisions(best)):
        rng = generator(config.seed, "guard band")
        best = min([*found, *_strips(groups, drawn, counts, target.shares, rng)], key=score)
        if config.folds is None:
            more = BalanceTarget.of(_compensated(target.shares, slots.parts[0], band, divisions(best)[0]), areas)
            strips = _strips(groups, drawn, counts, more.shares, rng)
            best = min([best, *strips, *balanced_assignments(counts, areas, more, rng)], key=score)
        work = len(slots.parts) * (int((fixed != DROPPED).sum()) + len(band.pairs))
        trials = min(_MAX_TRIALS, _MAX_TRIAL_WORK // work)
        best = _searched(best, score, len(slots.shares), trials, rng)
    return divisions(best)[slots.tested]


def _compensated(shares: FloatArray, slots: PartArray, band: GuardBand, part: PartArray) -> list[float]:
    """Return the wanted shares with more for the parts (`slots`) that lose more tiles to the guard band."""
    kept = part_totals(band.index, band.apply(part)[0])[0][slots]
    return list(shares * shares / np.maximum(kept / max(kept.sum(), 1), 0.1 * shares))


def _strips(
    groups: Groups, drawn: IntArray, counts: FloatArray, shares: FloatArray, rng: np.random.Generator
) -> IntArray:
    """Assign blocks in strips across scenes, scene by scene: parts in one piece lose least to a guard band."""
    if groups.places is None:
        return np.empty((0, len(drawn)), np.int64)
    scene, row, col = groups.places[drawn].T
    orders = []
    for down, right in rng.integers(-3, 4, (_STRIPS, 2)):
        shuffled = rng.permutation(int(scene.max()) + 1)
        orders.append(np.lexsort((col, row, down * row + right * col, shuffled[scene])))
    return assign_in_order(np.stack(orders), counts, shares)


def _searched(
    start: IntArray, score: Callable[[IntArray], int], n_slots: int, trials: int, rng: np.random.Generator
) -> IntArray:
    """Improve an assignment by random moves and swaps of groups that do not make its score worse."""
    best, best_score = start, score(start)
    for _ in range(trials):
        trial = best.copy()
        one, other = rng.integers(0, len(trial), 2)
        if rng.random() < 0.5:
            trial[one] = rng.integers(n_slots)
        else:
            trial[[one, other]] = trial[[other, one]]
        if (trial != best).any() and (trial_score := score(trial)) <= best_score:
            best, best_score = trial, trial_score
    return best
