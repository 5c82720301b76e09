"""Villages: streets, gardens and buildings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from skimage.draw import polygon

from tmcnet.simulate.noise import FloatMap, fractal
from tmcnet.simulate.surfaces import INDEX

Mask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Village:
    """A settlement: centre and radius in pixels, and the direction of its streets in radians."""

    x: float
    y: float
    radius: float
    angle: float


@dataclass
class Built:
    """What the settlements add to the map; all H x W.

    Attributes:
        ground: Built-up area, gardens included.
        street: Streets.
        roof: Number of the surface of a building, or -1.
        facing: How squarely the walls of a building face the radar, 0..1.
    """

    ground: Mask
    street: Mask
    roof: npt.NDArray[np.int8]
    facing: FloatMap


def place_villages(rng: np.random.Generator, blocked: Mask, size: int, n: int) -> list[Village]:
    """Find places for `n` villages on dry land, well apart; the first is a small town in the scene's middle part.

    Args:
        rng: Source of randomness.
        blocked: H x W map of water, with its banks.
        size: Side of the scene in the middle of the map.
        n: Number of villages.
    """
    height, width = blocked.shape
    margin = np.array([width - size, height - size]) / 2.0
    scale = min(1.0, size / 500.0)
    villages: list[Village] = []
    for i in range(n):
        low, high = (0.25, 0.75) if i == 0 else (0.04, 0.96)
        places = margin + rng.uniform(low, high, (60, 2)) * size
        room = np.array([_room(place, blocked, villages) for place in places])
        x, y = places[int(np.argmax(np.minimum(room, 150.0 * scale)))]
        radius = scale * (rng.uniform(66.0, 88.0) if i == 0 else rng.uniform(24.0, 44.0))
        villages.append(Village(x, y, radius, rng.uniform(0.0, np.pi / 2)))
    return villages


def _room(place: Points, blocked: Mask, villages: list[Village]) -> float:
    """Distance to the nearest village, less a penalty where the place is wet."""
    distance = min((float(np.hypot(place[0] - v.x, place[1] - v.y)) - v.radius for v in villages), default=1e3)
    return distance - 1e4 * bool(blocked[int(place[1]), int(place[0])])


def build(rng: np.random.Generator, villages: list[Village], blocked: Mask, farms: int) -> Built:
    """Lay out streets and buildings.

    Args:
        rng: Source of randomness.
        villages: The settlements.
        blocked: H x W map of what cannot be built on: water and roads.
        farms: Number of lone farmsteads strewn over the land.
    """
    shape = (blocked.shape[0], blocked.shape[1])
    built = Built(
        np.zeros(shape, bool), np.zeros(shape, bool), np.full(shape, -1, np.int8), np.zeros(shape, np.float32)
    )
    outline = fractal(rng, shape, 28.0, 3)
    for village in villages:
        _lay_out(rng, village, outline, blocked, built)
    for _ in range(farms):
        x, y = rng.uniform(0.03, 0.97, 2) * (shape[1], shape[0])
        angle = rng.uniform(0.0, np.pi / 2)
        for _ in range(int(rng.integers(2, 5))):
            place = np.array([x, y]) + rng.normal(0.0, 4.0, 2)
            _raise(rng, place, rng.uniform(1.8, 3.2, 2), angle, blocked, built)
    return built


def _lay_out(rng: np.random.Generator, village: Village, outline: FloatMap, blocked: Mask, built: Built) -> None:
    """Streets on a bent grid inside an irregular outline, and buildings along them."""
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
    wanted = int(0.075 * len(inside)) + 3
    picks = inside[rng.integers(0, len(inside), wanted)] if len(inside) else inside
    for row, col in picks:
        crowded = 1.15 - reach[row, col]
        if rng.random() > crowded:
            continue
        large = rng.random() < 0.05 and village.radius > 30.0
        half = rng.uniform(3.0, 5.5, 2) if large else rng.uniform(1.3, 2.7, 2)
        _raise(rng, np.array([col, row], float), half, village.angle, taken, built, hall=large)


def _raise(
    rng: np.random.Generator,
    place: Points,
    half: Points,
    angle: float,
    blocked: Mask,
    built: Built,
    hall: bool = False,
) -> None:
    """Draw one building as a turned rectangle unless something stands there already."""
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
    # the radar looks along x: walls across that direction throw the double bounce straight back
    built.facing[rows, cols] = max(abs(np.cos(turn)), abs(np.sin(turn))) ** 6 * rng.uniform(0.6, 1.0)
