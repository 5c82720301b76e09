"""Register a SAR image to an optical one on the same grid: by how much does the georeference err?

Coarse to fine: shift, rotation and scale of the whole image at low resolution, then control points on a regular grid
at higher and higher resolution, each time with the image warped by what is known already. A correction is only given
where enough control points agree with their neighbours, where it tells points that it was not fitted to, and where
the images are more alike after it than before; otherwise the georeference stands, and the record says why.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tmcnet.config import AlignConfig
from tmcnet.raster.io.windowed import ArrayImage, Displaced, Image, PointMap, Reduced, as_image, in_memory
from tmcnet.raster.register.affine_fit import IDENTITY, Array
from tmcnet.raster.register.agreement import Found, by_neighbours, doubts
from tmcnet.raster.register.alignment import Alignment, Status, unmoved
from tmcnet.raster.register.control_points import Window, control_grid, correlations, match, pooled
from tmcnet.raster.register.deformation import AffineMap, largest_displacement, on_lattice
from tmcnet.raster.register.matching import FloatArray, Matches, locate
from tmcnet.raster.register.model_choice import BENDING, Choice, Evidence, choose
from tmcnet.raster.register.overview import enlarged, overview

NEGLIGIBLE = 0.5
"""A displacement below this many pixels everywhere is left alone."""
SMALL = 3.0
"""Up to this many pixels a correction that does not make the images more alike is left out, beyond it rejected."""
MOST_LEFT = 2.2
"""What leaves more than so many pixels at points left out of its fit does not tell them (root mean square): of pairs
that belong together at most 1.8 are left, of the best stranger 2.7 (benchmarks/README.md)."""
AGREEMENT = 2.0
"""Largest residual in pixels of a control point that agrees with the others; relief makes up much of it."""
MIN_RATIO = 1.1
"""A match counts as reliable when its peak stands out this many times over the second-best one."""
MIN_PEAK = 0.06
"""Least correlation of a reliable match."""
ROUND_TRIP = 1.5
"""Largest distance in pixels by which a point may miss its origin when matched there and back."""
OVERVIEW = 256
"""Side in pixels to which the images are reduced for the first, global match."""
FIRST = 512
"""Side in pixels to which they are reduced for the first control points."""
STEP = 4
"""From one level to the next the resolution grows by this factor at most."""
AGAIN = 2
"""Models that bend are matched so many times more at full resolution."""
POOLED = 0.5
"""A match told by the surfaces of neighbours as well weighs so much beside one of its own."""
CONSISTENT = 0.75
"""Where a match and that of the surfaces around it differ by more than so many pixels, neither is believed."""
HELD = 2400
"""Images of up to so many pixels a side are held in memory."""


@dataclass(frozen=True)
class _Level:
    """One step from coarse to fine: reduction, largest shift in reduced pixels, agreement in full ones."""

    scale: int
    reach: int
    agreement: float


class _Pair:
    """Both images at any resolution; copies that are small enough are held in memory. And how many threads match."""

    def __init__(self, one: Image, two: Image, threads: int) -> None:
        self.threads = threads
        self._copies = {1: (one, two)}
        side = max(one.shape[1:])
        self._held = 1
        while side / self._held > HELD:
            self._held *= 2

    def reduced(self, scale: int) -> tuple[Image, Image]:
        """Both images reduced by a power of two; made of a copy in memory rather than of the files again."""
        if scale not in self._copies:
            finer = self._held if scale > self._held else 1
            one, two = (Reduced(image, scale // finer) for image in self.reduced(finer))
            held = scale >= self._held
            self._copies[scale] = (in_memory(one), in_memory(two)) if held else (one, two)
        return self._copies[scale]


def estimate(
    reference: FloatArray | Image, moving: FloatArray | Image, config: AlignConfig | None = None, threads: int = 1
) -> Alignment:
    """Estimate where the content of each optical pixel lies in the SAR image.

    Args:
        reference: Optical image, C x H x W or H x W, any units; NaN is no data. Or an image read by windows.
        moving: SAR image on the same grid, B x H x W or H x W, backscatter in dB; NaN is no data. Values that are
            never negative are taken for amplitudes or powers.
        config: Search range, models, spacing and side of the windows, and what it takes to believe a correction.
        threads: How many threads match; the result does not depend on it.

    Returns:
        The correction with its evidence, or the reason why there is none.

    Raises:
        ValueError: If the two images differ in height or width.
    """
    config = config or AlignConfig()
    one, two = as_image(reference), as_image(moving)
    if one.shape[1:] != two.shape[1:]:
        raise ValueError(f"the images must share one grid, but are {one.shape[1:]} and {two.shape[1:]} pixels")
    pair = _Pair(one, two, threads)
    levels = _levels(one.shape[1:], config)
    small = np.concatenate([in_memory(image).array for image in pair.reduced(levels[0].scale)])
    if np.isfinite(small).all(axis=0).mean() < 0.02 or min(one.shape[1:]) < config.template:
        return unmoved("rejected", "the images hardly overlap, or are smaller than the window that is matched")
    try:
        found, choice = _followed(pair, levels, config)
    except _NotBelievedError as refusal:
        return _rejected(str(refusal), refusal.found)
    return _decide(pair, found, choice, config)


class _NotBelievedError(Exception):
    """Why control points are not believed, and the points."""

    def __init__(self, reason: str, found: Found) -> None:
        super().__init__(reason)
        self.found = found


def _followed(pair: _Pair, levels: list[_Level], config: AlignConfig) -> tuple[Found, Choice]:
    """The control points at full resolution and the model through them, found level by level."""
    where: PointMap = AffineMap(_first_look(pair, levels[0], config))
    by_chance = _agreeing_by_chance(pair, levels[0], config)
    for level in levels:
        found, choice = _followed_once(pair, where, level, config, by_chance)
        where, by_chance = choice.where, 0
    for _ in range(AGAIN):
        if choice.model not in BENDING:
            break
        # what bends within a window is blurred by it, and straightened now
        found, choice = _followed_once(pair, choice.where, levels[-1], config, by_chance, pool=True)
    return found, choice


def _followed_once(
    pair: _Pair, where: PointMap, level: _Level, config: AlignConfig, by_chance: int, pool: bool = False
) -> tuple[Found, Choice]:
    shape = pair.reduced(1)[0].shape[1:]
    found = _refined(pair.reduced(level.scale), where, level, config, pair.threads, pool)
    n, agreeing = len(found.source), int(found.agree.sum())
    print(f"reduced by {level.scale}: {agreeing} of {n} control points agree", file=sys.stderr, flush=True)
    reason = doubts(found, config, shape, by_chance)
    if reason:
        raise _NotBelievedError(reason, found)
    return found, choose(_evidence(found, shape, level, config), config.models)


def _levels(shape: tuple[int, ...], config: AlignConfig) -> list[_Level]:
    """From low resolution with a wide search to full resolution with a narrow one."""
    scale = 2 if min(shape) >= 4 * config.template else 1
    while max(shape) / scale > FIRST:
        scale *= 2
    wide = _Level(scale, int(np.clip(config.max_shift / scale + 4, 8, 14)), 1.5 * max(AGREEMENT, scale))
    levels = [wide]
    while scale > 1:
        scale = max(1, scale // STEP)
        levels.append(_Level(scale, 6, AGREEMENT if scale == 1 else 1.5 * scale))
    return levels if len(levels) > 1 else [wide, _Level(1, 6, AGREEMENT)]


def _first_look(pair: _Pair, level: _Level, config: AlignConfig) -> Array:
    scale = level.scale
    while max(pair.reduced(level.scale)[0].shape[1:]) * level.scale / scale > OVERVIEW:
        scale *= 2
    found = overview(*pair.reduced(scale), int(np.ceil(config.max_shift / scale)) + 2)
    return enlarged(found, scale)


def _agreeing_by_chance(pair: _Pair, level: _Level, config: AlignConfig) -> int:
    """Control points that agree where nothing can be right: with the SAR image turned by half a turn."""
    one, two = pair.reduced(level.scale)
    turned = ArrayImage(np.ascontiguousarray(in_memory(two).array[:, ::-1, ::-1]))
    shift = overview(one, turned, int(np.ceil(config.max_shift / level.scale)) + 2, turned=False)
    known = AffineMap(enlarged(shift, level.scale))
    return int(_refined((one, turned), known, level, config, pair.threads).agree.sum())


def _refined(
    images: tuple[Image, Image], where: PointMap, level: _Level, config: AlignConfig, threads: int, pool: bool = False
) -> Found:
    """Match control points after warping by what is known, there and back, and see which agree.

    With `pool`, points whose own match is not reliable get that of the surfaces around them as well, and those whose
    own match is another one get none.
    """
    one, two = images
    scale, middle = level.scale, (level.scale - 1) / 2.0
    known = Displaced(two, lambda places: (where(places * scale + middle) - middle) / scale)
    grid = control_grid(one.shape[1:], max(8, config.spacing // scale))
    surfaces = correlations(one, known, grid, Window(config.template, level.reach), threads)
    good, step, weight = _both_ways(*surfaces)
    if pool:
        wide, wide_step, wide_weight = _both_ways(*(pooled(each, grid) for each in surfaces))
        differ = good & wide & (np.hypot(*(step - wide_step).T) > CONSISTENT)
        step[~good], weight[~good] = wide_step[~good], POOLED * wide_weight[~good]
        good = (good | wide) & ~differ
    source = grid[good].astype(np.float64) * scale + middle
    full = one.shape[1] * scale, one.shape[2] * scale
    return by_neighbours(source, where(source + scale * step[good]), weight[good], full, level.agreement)


def _both_ways(there: FloatArray, back: FloatArray) -> tuple[npt.NDArray[np.bool_], Array, Array]:
    """Of each point whether its match is reliable, by how much it is displaced, N x 2, and its weight."""
    one, two = locate(there), locate(back)
    miss = np.hypot(one.dx + two.dx, one.dy + two.dy)
    good = _reliable(one) & _reliable(two) & (np.nan_to_num(miss, nan=np.inf) < ROUND_TRIP)
    step = np.stack([one.dx - two.dx, one.dy - two.dy], axis=1).astype(np.float64) / 2.0
    return good, step, np.minimum(one.peak, two.peak).astype(np.float64) ** 2


def _reliable(matches: Matches) -> npt.NDArray[np.bool_]:
    return np.isfinite(matches.dx) & (matches.ratio >= MIN_RATIO) & (matches.peak >= MIN_PEAK)


def _evidence(found: Found, shape: tuple[int, int], level: _Level, config: AlignConfig) -> Evidence:
    window = float(config.template * level.scale)
    # on the way a model need only lead the next level; only the last one is judged where no window overlaps
    buffer = window if level.scale == 1 else 0.0
    source, target, weight = (part[found.agree] for part in (found.source, found.target, found.weight))
    return Evidence(source, target, weight, shape, 2.0 * window, buffer, 2.0 * level.agreement)


def _rejected(reason: str, found: Found) -> Alignment:
    return _left_alone("rejected", reason, found, None)


def _left_alone(status: Status, reason: str, found: Found, error: float | None) -> Alignment:
    counts = len(found.source), int(found.agree.sum())
    return Alignment(status, "none", IDENTITY.tolist(), *counts, error, reason, found.rows())


def _decide(pair: _Pair, found: Found, choice: Choice, config: AlignConfig) -> Alignment:
    """Take the model chosen, if it does good."""
    shape, error = pair.reduced(1)[0].shape[1:], choice.error_of_none
    if choice.model == "none" and error > MOST_LEFT:
        return _rejected(f"control points are displaced by {error:.1f} pixels, in a way that no model tells", found)
    if choice.model == "none":
        reason = f"no correction tells points left out clearly better than none ({error:.2f} pixels)"
        return _left_alone("already_aligned", reason, found, error)
    largest = largest_displacement(choice.where, shape)
    if largest < NEGLIGIBLE:
        reason = f"the largest displacement found is {largest:.2f} pixels, nothing to correct"
        return _left_alone("already_aligned", reason, found, error)
    if choice.error > MOST_LEFT:
        return _rejected(f"the best correction leaves {choice.error:.1f} pixels at points left out of its fit", found)
    gain, better = _improvement(pair, choice.where, config)
    if gain <= 0.0 or better < 0.5:
        if largest < SMALL:
            reason = f"a correction by up to {largest:.1f} pixels does not make the images more alike"
            return _left_alone("already_aligned", reason, found, error)
        return _rejected("the images are not more alike after the correction than before", found)
    n, agreeing = len(found.source), int(found.agree.sum())
    reason = (
        f"the {choice.model.replace('_', '-')} model leaves {choice.error:.2f} pixels at points left out, none "
        f"{error:.2f}; likeness rose by {gain:.3f}"
    )
    matrix = None if choice.matrix is None else choice.matrix.tolist()
    nodes = on_lattice(choice.where, shape).tolist() if matrix is None else []
    return Alignment("aligned", choice.model, matrix, n, agreeing, choice.error, reason, found.rows(), nodes)


def _improvement(pair: _Pair, where: PointMap, config: AlignConfig) -> tuple[float, float]:
    """Median gain in correlation of the windows by the correction, and the share of windows that gained."""
    one, two = pair.reduced(2)
    after = Displaced(two, lambda places: (where(places * 2.0 + 0.5) - 0.5) / 2.0)
    grid = control_grid(one.shape[1:], config.spacing)
    window = Window(config.template // 2, 1)
    still = [match(one, image, grid, window, pair.threads)[0].still for image in (after, two)]
    gain = still[0] - still[1]
    gain = gain[np.isfinite(gain)]
    return (float(np.median(gain)), float((gain > 0).mean())) if gain.size else (0.0, 0.0)


def warp(image: FloatArray, where: PointMap) -> FloatArray:
    """Bring the content of a displaced image to where it belongs, with linear interpolation.

    Args:
        image: C x H x W with NaN for no data.
        where: From the pixels (x, y) wanted to those of the image.
    """
    moved = Displaced(ArrayImage(image), where)
    return moved.read(0, 0, *image.shape[1:])
