"""The ground itself: one surface per pixel, with terrain and field structure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tmcnet.simulate.network import lakes, river_distance, road_lines, travel_cost
from tmcnet.simulate.noise import FloatMap, distance_to, fractal, smooth_noise, standardise
from tmcnet.simulate.parcels import Parcels, make_parcels
from tmcnet.simulate.settlements import build, place_villages
from tmcnet.simulate.surfaces import CODES, INDEX

Mask = npt.NDArray[np.bool_]

CROPS = ("ripe_grain", "maize", "green_crop", "bare_soil", "stubble")


@dataclass(frozen=True)
class Landscape:
    """A landscape seen from above, on a grid of 10 m; all maps are H x W.

    Attributes:
        surface: Number of the surface of each pixel.
        parcel: Number of the parcel of each pixel.
        n_parcels: Number of parcels.
        across: Distance across the furrows in pixels.
        terrain: Height of the terrain in metres.
        facing: How squarely a building faces the radar, 0..1.
    """

    surface: npt.NDArray[np.int8]
    parcel: npt.NDArray[np.int32]
    n_parcels: int
    across: FloatMap
    terrain: FloatMap
    facing: FloatMap

    @property
    def label(self) -> npt.NDArray[np.uint8]:
        """Label codes 1..6, H x W."""
        return CODES[self.surface]


def make_landscape(rng: np.random.Generator, size: int, margin: int) -> Landscape:
    """Make a landscape of `size` pixels a side with `margin` more on all sides.

    Every class occurs within the middle `size` pixels.
    """
    side = size + 2 * margin
    shape = (side, side)
    bank = river_distance(rng, shape, size)
    terrain = 60.0 * standardise(fractal(rng, shape, 220.0, 4) + 0.9 * np.tanh(bank / 90.0))
    lake = lakes(rng, shape, size)
    river = bank < 0
    parcels = make_parcels(rng, shape)
    surface = _fields(rng, parcels, bank)
    forest = _woods(rng, shape, terrain, bank)
    wet = river | lake
    blocked = wet | (bank < 14.0)
    villages = place_villages(rng, blocked, size, max(2, round(size / 110)))
    near = np.min([np.hypot(*_offsets(shape, v.x, v.y)) / v.radius for v in villages], axis=0)
    forest &= near + 0.3 * fractal(rng, shape, 24.0, 3) > 1.3
    surface[forest] = _kinds(rng, parcels, ("conifers", "broadleaf"), 110.0, shape)[forest]
    cost = travel_cost(rng, wet, forest, terrain)
    main, side_roads = road_lines(rng, cost, np.array([[v.x, v.y] for v in villages]), shape)
    road = (distance_to(main, shape) < 1.25) | (distance_to(side_roads, shape) < 0.9)
    built = build(rng, villages, wet | road, farms=round((size / 110) ** 2 * 0.8))
    surface[built.ground] = INDEX["garden"]
    surface[parcels.track & ~forest] = INDEX["gravel"]
    surface[lake] = INDEX["turbid_water"] if rng.random() < 0.5 else INDEX["algal_water"]
    surface[river] = INDEX["clear_water"]
    cloudy_water = wet & (smooth_noise(rng, shape, 90.0) > 0.45)
    surface[cloudy_water] = INDEX["algal_water"]
    surface[built.street | road] = INDEX["asphalt"]
    roof = built.roof >= 0
    surface[roof] = built.roof[roof]
    return Landscape(surface, parcels.parcel, parcels.n, parcels.across, terrain.astype(np.float32), built.facing)


def _offsets(shape: tuple[int, int], x: float, y: float) -> tuple[FloatMap, FloatMap]:
    """Distance of every pixel from a place along x and along y."""
    rows, cols = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    return cols - np.float32(x), rows - np.float32(y)


def _fields(rng: np.random.Generator, parcels: Parcels, bank: FloatMap) -> npt.NDArray[np.int8]:
    """Crops and grass by parcel; grass gathers along the river and in some blocks."""
    counts = np.maximum(np.bincount(parcels.parcel.ravel(), minlength=parcels.n), 1)
    to_river = np.bincount(parcels.parcel.ravel(), bank.ravel(), parcels.n) / counts
    block = np.zeros(parcels.n, dtype=np.int64)
    block[parcels.parcel.ravel()] = parcels.block.ravel()
    leaning = rng.normal(0.0, 0.22, int(parcels.block.max()) + 1)[block]
    grass = rng.random(parcels.n) < 0.24 + leaning + 0.55 * np.exp(-np.maximum(to_river, 0.0) / 28.0)
    crop = rng.choice([INDEX[name] for name in CROPS], parcels.n, p=[0.26, 0.22, 0.2, 0.16, 0.16])
    meadow = np.where(rng.random(parcels.n) < 0.6, INDEX["meadow"], INDEX["pasture"])
    return np.where(grass, meadow, crop).astype(np.int8)[parcels.parcel]


def _woods(rng: np.random.Generator, shape: tuple[int, int], terrain: FloatMap, bank: FloatMap) -> Mask:
    """Large woods on the heights, copses in the fields and a gallery of trees along the river."""
    large = fractal(rng, shape, 120.0, 6, 0.6) + 0.35 * standardise(terrain)
    copses = fractal(rng, shape, 30.0, 3)
    gallery = (bank < 3.5) & (smooth_noise(rng, shape, 20.0) > 0.1)
    return np.asarray((large > np.quantile(large, 0.79)) | (copses > 2.35) | gallery)


def _kinds(
    rng: np.random.Generator, parcels: Parcels, names: tuple[str, str], scale: float, shape: tuple[int, int]
) -> npt.NDArray[np.int8]:
    """One of two surfaces everywhere: stands follow a smooth field, broken up along some parcels."""
    broken = rng.normal(0.0, 0.5, parcels.n).astype(np.float32)[parcels.parcel]
    first = smooth_noise(rng, shape, scale) + broken > 0
    return np.where(first, INDEX[names[0]], INDEX[names[1]]).astype(np.int8)
