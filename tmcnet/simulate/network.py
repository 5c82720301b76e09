"""Rivers, lakes and roads."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.graph import route_through_array

from tmcnet.simulate.noise import FloatMap, densify, distance_to, fractal, smooth_noise

Mask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float64]

COARSE = 4
"""Routes are searched on a map this many times coarser."""


def river_distance(rng: np.random.Generator, shape: tuple[int, int], size: int) -> FloatMap:
    """Signed distance to the bank of a meandering river in pixels, negative in the water.

    Args:
        rng: Source of randomness.
        shape: Height and width of the map.
        size: Side of the scene in the middle of the map, through which the river is led.
    """
    angle = rng.uniform(0.0, 2.0 * np.pi)
    direction = np.array([np.cos(angle), np.sin(angle)])
    normal = np.array([-direction[1], direction[0]])
    centre = np.array(shape[::-1]) / 2.0 + normal * rng.uniform(-0.2, 0.2) * size
    s = np.arange(-max(shape), max(shape), 1.0)
    swing = min(1.0, size / 500.0)
    phases = rng.uniform(0.0, 2.0 * np.pi, 6)
    lateral = swing * sum(
        amplitude * np.sin(2.0 * np.pi * s / wavelength + phase)
        for amplitude, wavelength, phase in zip((55.0, 26.0, 11.0), (560.0, 210.0, 97.0), phases[:3], strict=True)
    )
    # sliding along its own course bends the sine waves into meanders that lean over
    slide = swing * (
        13.0 * np.sin(2.0 * np.pi * s / 131.0 + phases[3]) + 2.0 * np.sin(2.0 * np.pi * s / 47.0 + phases[4])
    )
    line = centre + (s + slide)[:, None] * direction + np.asarray(lateral)[:, None] * normal
    width = rng.uniform(3.2, 6.0) + 1.1 * smooth_noise(rng, shape, 40.0)
    return np.asarray(distance_to(densify(line), shape) - np.maximum(width, 2.0), dtype=np.float32)


def lakes(rng: np.random.Generator, shape: tuple[int, int], size: int) -> Mask:
    """A few lakes and ponds of irregular outline."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    outline = fractal(rng, shape, 36.0, 3)
    water = np.zeros(shape, dtype=bool)
    for radius in rng.permutation([0.055, 0.03, 0.02, 0.013])[: rng.integers(2, 5)] * min(size, 900):
        margin = (np.array(shape) - size) / 2.0
        row, col = margin + rng.uniform(0.08, 0.92, 2) * size
        stretch = rng.uniform(0.6, 1.0)
        tilt = rng.uniform(0.0, np.pi)
        u = (x - col) * np.cos(tilt) + (y - row) * np.sin(tilt)
        v = (y - row) * np.cos(tilt) - (x - col) * np.sin(tilt)
        water |= np.hypot(u, v / stretch) < radius * (1.0 + 0.28 * outline)
    return water


def travel_cost(rng: np.random.Generator, water: Mask, forest: Mask, height: FloatMap) -> FloatMap:
    """What a road builder pays per coarse pixel: bridges are dear, woods and slopes less so."""
    slope = np.hypot(*np.gradient(height))
    cost = 1.0 + 14.0 * water + 0.8 * forest + 1.5 * slope / max(float(slope.max()), 1e-6)
    cost = cost + 0.9 * np.abs(smooth_noise(rng, (water.shape[0], water.shape[1]), 24.0))
    return np.asarray(
        ndimage.uniform_filter(cost, COARSE)[COARSE // 2 :: COARSE, COARSE // 2 :: COARSE], dtype=np.float32
    )


def route(cost: FloatMap, start: Points, end: Points) -> Points:
    """The cheapest way between two points (x, y in full pixels), smoothed; N x 2 points."""
    rows, cols = cost.shape
    cells = []
    for x, y in (start, end):
        cells.append((int(np.clip(y // COARSE, 0, rows - 1)), int(np.clip(x // COARSE, 0, cols - 1))))
    path, _ = route_through_array(cost, cells[0], cells[1], fully_connected=True, geometric=True)
    points = (np.array(path, dtype=np.float64)[:, ::-1] + 0.5) * COARSE
    points[0], points[-1] = start, end
    return densify(np.asarray(ndimage.gaussian_filter1d(points, 3.0, axis=0, mode="nearest")))


def road_lines(
    rng: np.random.Generator, cost: FloatMap, villages: Points, shape: tuple[int, int]
) -> tuple[Points, Points]:
    """Main roads and side roads.

    Each village is joined to the nearest one already on the net; some are joined once more, and main roads run
    on to the edges of the map.

    Args:
        rng: Source of randomness.
        cost: Map of `travel_cost`.
        villages: N x 2 array of x, y; the first is the largest.
        shape: Height and width of the map.
    """
    height, width = shape
    ends = np.array(
        [
            [0.0, rng.uniform(0.2, 0.8) * height],
            [width - 1.0, rng.uniform(0.2, 0.8) * height],
            [rng.uniform(0.2, 0.8) * width, 0.0],
            [rng.uniform(0.2, 0.8) * width, height - 1.0],
        ]
    )
    main = [route(cost, villages[0], end) for end in ends[rng.permutation(4)[:3]]]
    side = []
    for i in range(1, len(villages)):
        order = np.argsort(np.hypot(*(villages[:i] - villages[i]).T))
        side += [route(cost, villages[i], villages[j]) for j in order[: 1 + int(rng.random() < 0.5)]]
    for village in villages[1:]:
        end = ends[int(np.argmin(np.hypot(*(ends - village).T)))]
        if rng.random() < 0.5:
            side.append(route(cost, village, end + rng.uniform(-40.0, 40.0, 2)))
    return np.concatenate(main), np.concatenate(side) if side else np.empty((0, 2))
