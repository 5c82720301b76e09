"""Villages with streets and buildings, farmsteads, and the roads between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.draw import polygon
from skimage.graph import route_through_array

from tmcnet.simulate.noise import FloatMap, Mask, Points, densify, distance_to, fractal, smooth_noise
from tmcnet.simulate.surfaces import INDEX

ROUTE_STEP_PX = 4
"""Pixel size, in full pixels, of the cost map on which roads are routed."""


@dataclass(frozen=True)
class Village:
    """A settlement: centre and radius in pixels, and the direction of its streets in radians."""

    x: float
    y: float
    radius: float
    angle: float


@dataclass
class Built:
    """What settlements add to the map; all H x W.

    Attributes:
        ground: Built-up area, gardens included.
        street: Streets.
        roof: Index of the surface of a building, or -1.
        facing: How squarely the walls of a building face the radar, 0..1.
    """

    ground: Mask
    street: Mask
    roof: npt.NDArray[np.int8]
    facing: FloatMap


def place_villages(rng: np.random.Generator, blocked: Mask, size: int, n: int) -> list[Village]:
    """Place `n` villages far apart on free ground; the first is a small town in the middle of the scene.

    The scene has `size` pixels a side and is in the middle of the map.
    """
    height, width = blocked.shape
    margin = np.array([width - size, height - size]) / 2.0
    scale = min(1.0, size / 500.0)
    villages: list[Village] = []

    def clearance(place: Points) -> float:
        """Distance to the nearest village, less a penalty on blocked ground."""
        distance = min((float(np.hypot(place[0] - v.x, place[1] - v.y)) - v.radius for v in villages), default=1e3)
        return distance - 1e4 * bool(blocked[int(place[1]), int(place[0])])

    for i in range(n):
        low, high = (0.25, 0.75) if i == 0 else (0.04, 0.96)
        places = margin + rng.uniform(low, high, (60, 2)) * size
        room = np.array([clearance(place) for place in places])
        x, y = places[int(np.argmax(np.minimum(room, 150.0 * scale)))]
        radius = scale * (rng.uniform(66.0, 88.0) if i == 0 else rng.uniform(24.0, 44.0))
        villages.append(Village(x, y, radius, rng.uniform(0.0, np.pi / 2)))
    return villages


def lay_roads(
    rng: np.random.Generator, villages: list[Village], water: Mask, forest: Mask, terrain: FloatMap
) -> Mask:
    """Map of the roads, H x W.

    Main roads lead from the town, the first of the villages, to three edges of the map. Side roads join each village
    to one or two neighbours, and some villages to the edge.
    """
    height, width = shape = (water.shape[0], water.shape[1])
    cost = _travel_cost(rng, water, forest, terrain)
    centres = np.array([[v.x, v.y] for v in villages])
    ends = np.array(
        [
            [0.0, rng.uniform(0.2, 0.8) * height],
            [width - 1.0, rng.uniform(0.2, 0.8) * height],
            [rng.uniform(0.2, 0.8) * width, 0.0],
            [rng.uniform(0.2, 0.8) * width, height - 1.0],
        ]
    )
    main = [_route(cost, centres[0], end) for end in ends[rng.permutation(4)[:3]]]
    side = [np.empty((0, 2))]
    for i in range(1, len(centres)):
        order = np.argsort(np.hypot(*(centres[:i] - centres[i]).T))
        side += [_route(cost, centres[i], centres[j]) for j in order[: 1 + int(rng.random() < 0.5)]]
    for centre in centres[1:]:
        end = ends[int(np.argmin(np.hypot(*(ends - centre).T)))]
        if rng.random() < 0.5:
            side.append(_route(cost, centre, end + rng.uniform(-40.0, 40.0, 2)))
    on_main = distance_to(np.concatenate(main), shape) < 1.25
    return np.asarray(on_main | (distance_to(np.concatenate(side), shape) < 0.9))


def _travel_cost(rng: np.random.Generator, water: Mask, forest: Mask, terrain: FloatMap) -> FloatMap:
    """Cost of a road per coarse pixel: high for bridges, moderate in woods and on slopes."""
    slope = np.hypot(*np.gradient(terrain))
    cost = 1.0 + 14.0 * water + 0.8 * forest + 1.5 * slope / max(float(slope.max()), 1e-6)
    cost = cost + 0.9 * np.abs(smooth_noise(rng, (water.shape[0], water.shape[1]), 24.0))
    start = ROUTE_STEP_PX // 2
    coarse = ndimage.uniform_filter(cost, ROUTE_STEP_PX)[start::ROUTE_STEP_PX, start::ROUTE_STEP_PX]
    return np.asarray(coarse, dtype=np.float32)


def _route(cost: FloatMap, start: Points, end: Points) -> Points:
    """The cheapest way between two points (x, y in full pixels), smoothed; N x 2 points."""
    last = np.array(cost.shape) - 1
    cells = [tuple(np.clip(point[::-1] // ROUTE_STEP_PX, 0, last).astype(int)) for point in (start, end)]
    path, _ = route_through_array(cost, *cells, fully_connected=True, geometric=True)
    points = (np.array(path, dtype=np.float64)[:, ::-1] + 0.5) * ROUTE_STEP_PX
    points[0], points[-1] = start, end
    return densify(np.asarray(ndimage.gaussian_filter1d(points, 3.0, axis=0, mode="nearest")))


def build(rng: np.random.Generator, villages: list[Village], blocked: Mask, farms: int) -> Built:
    """Build villages and a number of isolated farmsteads on ground that water and roads do not block."""
    shape = (blocked.shape[0], blocked.shape[1])
    built = Built(
        np.zeros(shape, bool), np.zeros(shape, bool), np.full(shape, -1, np.int8), np.zeros(shape, np.float32)
    )
    outline = fractal(rng, shape, 28.0, 3)
    for village in villages:
        _build_village(rng, village, outline, blocked, built)
    for _ in range(farms):
        x, y = rng.uniform(0.03, 0.97, 2) * (shape[1], shape[0])
        angle = rng.uniform(0.0, np.pi / 2)
        for _ in range(int(rng.integers(2, 5))):
            place = np.array([x, y]) + rng.normal(0.0, 4.0, 2)
            _build_house(rng, place, rng.uniform(1.8, 3.2, 2), angle, blocked, built)
    return built


def _build_village(
    rng: np.random.Generator, village: Village, outline: FloatMap, blocked: Mask, built: Built
) -> None:
    """Draw streets on a bent grid inside an irregular outline, and buildings along them."""
    shape = outline.shape
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    dx, dy = x - village.x, y - village.y
    reach = np.hypot(dx, dy) / village.radius + 0.22 * outline
    bend = 0.0035 * dx * dy / max(village.radius / 40.0, 1.0)
    u = dx * np.cos(village.angle) + dy * np.sin(village.angle) + 2.5 * outline
    v = dy * np.cos(village.angle) - dx * np.sin(village.angle) + bend * 0.5
    spacing_u, spacing_v = rng.uniform(17.0, 21.0), rng.uniform(26.0, 36.0)
    ground = reach < 1.0
    lane = (np.abs((u + spacing_u / 2) % spacing_u - spacing_u / 2) < 0.8) | (
        np.abs((v + spacing_v / 2) % spacing_v - spacing_v / 2) < 0.8
    )
    built.ground |= ground & ~blocked
    built.street |= lane & ground & ~blocked
    taken = blocked | built.street
    inside = np.argwhere(ground & ~taken)
    n_sites = int(0.075 * len(inside)) + 3
    sites = inside[rng.integers(0, len(inside), n_sites)] if len(inside) else inside
    for row, col in sites:
        density = 1.15 - reach[row, col]
        if rng.random() > density:
            continue
        large = rng.random() < 0.05 and village.radius > 30.0
        half = rng.uniform(3.0, 5.5, 2) if large else rng.uniform(1.3, 2.7, 2)
        _build_house(rng, np.array([col, row], float), half, village.angle, taken, built, hall=large)


def _build_house(
    rng: np.random.Generator,
    place: Points,
    half: Points,
    angle: float,
    blocked: Mask,
    built: Built,
    hall: bool = False,
) -> None:
    """Draw one building as a turned rectangle of half sides `half`, unless the ground is taken."""
    turn = angle + rng.normal(0.0, 0.06)
    axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    corners = place + np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) * half @ axes
    rows, cols = polygon(corners[:, 1], corners[:, 0], built.roof.shape)
    if len(rows) == 0 or blocked[rows, cols].mean() > 0.25 or (built.roof[rows, cols] >= 0).any():
        return
    free = ~blocked[rows, cols]
    rows, cols = rows[free], cols[free]
    name = "hall" if hall else ("red_roof" if rng.random() < 0.6 else "grey_roof")
    built.roof[rows, cols] = INDEX[name]
    # the radar looks along x: walls across that direction give the strongest double bounce
    built.facing[rows, cols] = max(abs(np.cos(turn)), abs(np.sin(turn))) ** 6 * rng.uniform(0.6, 1.0)
