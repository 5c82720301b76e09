"""Divide tiles into training, validation and test part, or into folds of which each is the test part once.

Tiles that must stay together form a group: a block, a scene, or the tiles with one value of a column. Groups are
assigned to parts so that sizes and class shares come out as wanted (`balance.py`). A guard band between the parts is
then emptied; where it takes tiles, more assignments are tried and judged by what they keep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from tmcnet.config import SplitsConfig
from tmcnet.config.splits import PARTS
from tmcnet.errors import InputError, Problem, format_names
from tmcnet.seeding import generator
from tmcnet.splits.balance import BalanceTarget, assign_in_order, balanced_assignments
from tmcnet.splits.index import BoolArray, FloatArray, IntArray, TileIndex, close_pairs

PartArray = npt.NDArray[np.int8]

TRAIN, VAL, TEST = range(3)
"""Numbers of the parts, as in `PARTS`."""
DROPPED = -1

_TO_DRAW = -2
_STRIPS = 8  # assignments in strips that are tried where tiles are lost to the guard band
_MAX_TRIALS, _MAX_TRIAL_WORK = 300, 10_000_000  # changes tried on the best of them; tiles and pairs judged in all


@dataclass(frozen=True)
class Groups:
    """G groups of tiles that stay together in one part.

    Attributes:
        of: N numbers of groups, one per tile.
        names: Name of each group: a scene or a value of the column; None for blocks.
        places: G x 3 for blocks: number of the scene, row and column of the block's first pixel; else None.
        scenes: Names of these scenes, and of the CRSs in whose pixels ready-made tiles are placed.
        n: Number of groups, G.
        noun: What a group is, for messages.
    """

    of: IntArray
    names: list[str] | None
    places: IntArray | None
    n: int
    noun: str
    scenes: Sequence[str] = ()


@dataclass(frozen=True)
class Division:
    """N tiles divided into parts.

    Attributes:
        part: N; number of the part, or `DROPPED`.
        by_guard: N; tiles dropped for being too close to a tile of another part.
        misaligned: N; tiles dropped for their registration.
        groups: The groups that were kept together.
    """

    part: PartArray
    by_guard: BoolArray
    misaligned: BoolArray
    groups: Groups


def divide(index: TileIndex, config: SplitsConfig, where: str) -> Division:
    """Divide tiles into parts.

    Misaligned tiles are dropped first, and the others divided as if these did not exist. Groups without labels go to
    the training part, where they serve pre-training; with method `given`, so do groups with tiles of a label fraction
    that the source gives. With `config.folds`, fold n is tested, fold n + 1 (1 after the last) validates, all others
    train; the folds are the same whichever is tested. `where` is the index file, for messages.

    Raises:
        InputError: If a part would be empty, or method `given` meets a value that belongs to no part.
    """
    misaligned = _misaligned(index, config)
    groups = group_tiles(index, config)
    fixed = np.full(len(index.tiles), _TO_DRAW, np.int8)
    if config.method == "given":
        fixed = _given_parts(index, config, where)
        of_fractions = groups.of[np.flatnonzero(np.any(list(index.given.values()), axis=0))]
        fixed[np.isin(groups.of, of_fractions) & (fixed == _TO_DRAW)] = TRAIN
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
        raise InputError(Problem(where, what, _ways_to_divide(config)))
    return Division(part, by_guard, misaligned, groups)


def _ways_to_divide(config: SplitsConfig) -> str:
    """What the user can do where no division has labelled tiles in each part."""
    keys = {"block_size": config.method == "blocks", "guard": config.guard, "folds": config.folds}
    names = " or ".join(f"`splits.{key}`" for key, given in keys.items() if given)
    ways = [f"make {names} smaller"] if names else []
    ways += {"blocks": [], "given": ["check `splits.given`"]}.get(config.method, ["set `splits.method: blocks`"])
    text = ", or ".join([*ways, "add labelled scenes"])
    return f"{text[0].upper()}{text[1:]}."


def part_totals(index: TileIndex, part: PartArray) -> tuple[FloatArray, FloatArray]:
    """Labelled tiles (3) and class areas (3 x K) of the parts."""
    members = [np.flatnonzero((part == p) & index.labelled) for p in range(len(PARTS))]
    areas = np.stack([index.area[m].sum(axis=0, dtype=np.int64) for m in members])
    return np.array([len(m) for m in members], np.float64), areas.astype(np.float64)


def in_pixels(config: SplitsConfig, index: TileIndex, where: str) -> SplitsConfig:
    """Config with `block_size` computed from `block_metres`, if that is set.

    Raises:
        InputError: If pixels have no known size or several, or a block would be smaller than a tile.
    """
    if config.block_metres is None:
        return config
    side = index.pixel_side
    if side is None:
        what = "does not give one pixel size in metres for all tiles, which `splits.block_metres` needs"
        remedy = "Set `splits.block_metres` to null and give `splits.block_size` in pixels."
        raise InputError(Problem(where, what, remedy))
    size, tile = round(config.block_metres / side), int(index.window[:, 2:].max())
    if size < tile:
        what = f"({config.block_metres:g} m) is {size} pixels of {side:g} m, less than the {tile} of a tile"
        raise InputError(Problem("config key `splits.block_metres`", what, f"Make it at least {tile * side:g}."))
    return config.model_copy(update={"block_size": size})


def group_tiles(index: TileIndex, config: SplitsConfig) -> Groups:
    """Group tiles by block, scene or value of a column, as `config.method` says; `given` uses blocks."""
    if config.method == "scenes":
        return Groups(index.scene, index.scenes, None, len(index.scenes), "scenes")
    if config.method == "column" and index.column is not None:
        codes, values = pd.factorize(index.column, sort=True)
        names = [str(v) for v in values]
        return Groups(codes.astype(np.int64), names, None, len(names), f"values of `{config.column}`")
    centre, scene, scenes = index.window[:, :2] + index.window[:, 2:] / 2, index.scene, index.scenes
    if index.ground is not None:
        ready_made = index.ground.region >= 0
        centre[ready_made] = index.ground.centre[ready_made]
        scene = np.where(ready_made, len(scenes) + index.ground.region, scene)
        scenes = [*scenes, *index.ground.regions]
    numbers = (centre // config.block_size).astype(np.int64)
    first = numbers.min(axis=0)
    rows, cols = numbers.max(axis=0) - first + 1
    row, col = (numbers - first).T
    unique, of = np.unique((scene * rows + row) * cols + col, return_inverse=True)
    corners = (np.stack([unique // cols % rows, unique % cols], axis=1) + first) * config.block_size
    places = np.column_stack([unique // (rows * cols), corners])
    return Groups(of.astype(np.int64), None, places, len(places), "blocks", scenes)


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
    part = np.full(len(index.tiles), DROPPED, np.int8)
    drawn_from_train = not (config.given.val and config.given.test)
    problems = []
    values = np.asarray(index.column, dtype=object).astype(str)
    for p, name in enumerate(PARTS):
        chosen = np.isin(values, getattr(config.given, name))
        if (part[chosen] != DROPPED).any():
            what = f"values {getattr(config.given, name)} of {name} belong to another part as well"
            problems.append(Problem("config key `splits.given`", what, "Name each value once."))
        part[chosen] = _TO_DRAW if p == TRAIN and drawn_from_train else p
    if unknown := set(values[part == DROPPED]):
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
        target: What is wanted of the parts.
    """

    index: TileIndex
    pairs: IntArray
    target: BalanceTarget

    def apply(self, part: PartArray) -> tuple[PartArray, BoolArray]:
        """Drop unlabelled tiles outside the training part, then tiles too close to another part.

        Training tiles are dropped rather than validation tiles, and these rather than test tiles. Returns the parts
        (N) and flags of the tiles dropped for the guard band (N).
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


def _slots(config: SplitsConfig, fixed_train: int, to_draw: int) -> tuple[list[float], PartArray]:
    """What groups are assigned to: S parts or folds, with the wanted shares of the labelled tiles to draw.

    Also the part of each in the divisions that are made of one assignment (D x S): one division, or as many as folds,
    where each fold is tested once and the next validates.
    """
    if config.folds is not None:
        folds = np.arange(config.folds)
        parts = np.full((config.folds, config.folds), TRAIN, np.int8)
        parts[folds, folds], parts[folds, (folds + 1) % config.folds] = TEST, VAL
        return [1 / config.folds] * config.folds, parts
    given = config.given if config.method == "given" else None
    drawn = [p for p, name in enumerate(PARTS) if p == TRAIN or not (given and getattr(given, name))]
    wanted = {p: config.wanted[p] / sum(config.wanted[q] for q in drawn) for p in drawn}
    if fixed_train and to_draw:
        wanted = {p: min(w * (fixed_train + to_draw) / to_draw, 1) for p, w in wanted.items() if p != TRAIN}
        rest = 1 - sum(wanted.values())
        wanted = {TRAIN: rest, **wanted} if rest > 0.01 else wanted
    return list(wanted.values()), np.array([list(wanted)], np.int8)


def _drawn_parts(groups: Groups, fixed: PartArray, band: GuardBand, config: SplitsConfig, where: str) -> PartArray:
    """Parts (N) with those drawn that are not fixed, balanced in size and class shares after the guard band."""
    index, to_draw = band.index, fixed == _TO_DRAW
    labelled = to_draw & index.labelled
    counts = np.bincount(groups.of[labelled], minlength=groups.n).astype(np.float64)
    columns = [np.bincount(groups.of[labelled], area, groups.n) for area in index.area[labelled].T]
    drawn = np.flatnonzero(counts)
    counts, areas = counts[drawn], np.stack(columns, axis=1).astype(np.float64)[drawn]
    shares, slots = _slots(config, int((index.labelled & (fixed == TRAIN)).sum()), int(labelled.sum()))
    if len(drawn) < len(shares):
        noun = "folds" if config.folds else f"parts ({', '.join(PARTS[p] for p in sorted(slots[0]))})"
        what = f"{len(drawn)} {groups.noun} with labelled tiles cannot be divided into {len(shares)} {noun}"
        raise InputError(Problem(where, what, _ways_to_divide(config)))

    def divisions(assignment: IntArray) -> PartArray:
        of_group = np.full((len(slots), groups.n), TRAIN, np.int8)
        of_group[:, drawn] = slots[:, assignment]
        return np.where(to_draw, of_group[:, groups.of], fixed)

    def score(assignment: IntArray) -> int:
        return sum(band.score(part) for part in divisions(assignment))

    target = BalanceTarget.of(shares, areas)
    purpose = "parts" if config.folds is None else "folds"
    candidates = balanced_assignments(counts, areas, target, generator(config.seed, purpose))
    best = candidates[0]
    if any(band.apply(part)[1].any() for part in divisions(best)):
        rng = generator(config.seed, "guard band")
        best = min([*candidates, *_strips(groups, drawn, counts, target.shares, rng)], key=score)
        if config.folds is None:  # more for the parts that lose more tiles
            tiles, _ = part_totals(index, band.apply(divisions(best)[0])[0])
            kept = tiles[slots[0]] / max(tiles[slots[0]].sum(), 1)
            more = BalanceTarget.of(list(target.shares**2 / np.maximum(kept, 0.1 * target.shares)), areas)
            strips = _strips(groups, drawn, counts, more.shares, rng)
            best = min([best, *strips, *balanced_assignments(counts, areas, more, rng)], key=score)
        work = len(slots) * (int((fixed != DROPPED).sum()) + len(band.pairs))
        best = _searched(best, score, len(shares), min(_MAX_TRIALS, _MAX_TRIAL_WORK // work), rng)
    chosen: PartArray = divisions(best)[config.fold - 1]
    return chosen


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
