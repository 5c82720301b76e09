"""The ground of a scene: fields, water, woods and settlements, as one surface per pixel with terrain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from tmcnet.simulate.noise import FloatMap, Mask, densify, distance_to, fractal, smooth_noise, standardise
from tmcnet.simulate.settlements import build, lay_roads, place_villages
from tmcnet.simulate.surfaces import CODES, INDEX

CROPS = ("ripe_grain", "maize", "green_crop", "bare_soil", "stubble")
BLOCK_PX = 72.0
"""Mean distance of the centres of field blocks."""


@dataclass(frozen=True)
class Landscape:
    """A landscape on a grid of 10 m; all maps are H x W.

    Attributes:
        surface: Index of the surface of each pixel.
        parcel: Index of the parcel of each pixel.
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


@dataclass(frozen=True)
class Parcels:
    """Fields and the tracks between their blocks; all maps are H x W.

    Attributes:
        block: Index of the block.
        parcel: Index of the parcel, 0..n-1.
        n: Number of parcels.
        across: Distance in pixels across the direction of ploughing, for furrows.
        track: Whether a farm track runs along this edge of a block.
    """

    block: npt.NDArray[np.int32]
    parcel: npt.NDArray[np.int32]
    n: int
    across: FloatMap
    track: Mask


def make_landscape(rng: np.random.Generator, size: int, margin: int) -> Landscape:
    """Make a landscape of `size` pixels a side with `margin` more on all sides.

    Every class occurs within the middle `size` pixels.
    """
    side = size + 2 * margin
    shape = (side, side)
    bank = _river_distance(rng, shape, size)
    terrain = 60.0 * standardise(fractal(rng, shape, 220.0, 4) + 0.9 * np.tanh(bank / 90.0))
    lake = _lakes(rng, shape, size)
    river = bank < 0
    parcels = _make_parcels(rng, shape)
    surface = _crops_and_grass(rng, parcels, bank)
    forest = _woods(rng, shape, terrain, bank)
    wet = river | lake
    villages = place_villages(rng, wet | (bank < 14.0), size, max(2, round(size / 110)))
    rows, cols = np.mgrid[:side, :side].astype(np.float32)
    near = np.min([np.hypot(cols - np.float32(v.x), rows - np.float32(v.y)) / v.radius for v in villages], axis=0)
    forest &= near + 0.3 * fractal(rng, shape, 24.0, 3) > 1.3
    surface[forest] = _tree_species(rng, parcels, shape)[forest]
    road = lay_roads(rng, villages, wet, forest, terrain)
    built = build(rng, villages, wet | road, farms=round((size / 110) ** 2 * 0.8))
    surface[built.ground] = INDEX["garden"]
    surface[parcels.track & ~forest] = INDEX["gravel"]
    surface[lake] = INDEX["turbid_water"] if rng.random() < 0.5 else INDEX["algal_water"]
    surface[river] = INDEX["clear_water"]
    algal = wet & (smooth_noise(rng, shape, 90.0) > 0.45)
    surface[algal] = INDEX["algal_water"]
    surface[built.street | road] = INDEX["asphalt"]
    roof = built.roof >= 0
    surface[roof] = built.roof[roof]
    return Landscape(surface, parcels.parcel, parcels.n, parcels.across, terrain.astype(np.float32), built.facing)


def _river_distance(rng: np.random.Generator, shape: tuple[int, int], size: int) -> FloatMap:
    """Signed distance to the bank of a meandering river through the scene in pixels, negative in the water."""
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
    # sliding along the course bends the sine waves into meanders that lean over
    slide = swing * (
        13.0 * np.sin(2.0 * np.pi * s / 131.0 + phases[3]) + 2.0 * np.sin(2.0 * np.pi * s / 47.0 + phases[4])
    )
    line = centre + (s + slide)[:, None] * direction + np.asarray(lateral)[:, None] * normal
    width = rng.uniform(3.2, 6.0) + 1.1 * smooth_noise(rng, shape, 40.0)
    return np.asarray(distance_to(densify(line), shape) - np.maximum(width, 2.0), dtype=np.float32)


def _lakes(rng: np.random.Generator, shape: tuple[int, int], size: int) -> Mask:
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


def _make_parcels(rng: np.random.Generator, shape: tuple[int, int]) -> Parcels:
    """Cut the land into blocks, with tracks along 30 % of their edges, and the blocks into strips and parcels."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    x += 9.0 * smooth_noise(rng, shape, 70.0) + 1.2 * smooth_noise(rng, shape, 14.0)
    y += 9.0 * smooth_noise(rng, shape, 70.0) + 1.2 * smooth_noise(rng, shape, 14.0)
    # centres of blocks on a jittered lattice that extends beyond the map
    rows, cols = (int(np.ceil(side / BLOCK_PX)) + 2 for side in shape)
    lattice = np.stack(np.meshgrid(np.arange(cols) - 0.5, np.arange(rows) - 0.5), -1).reshape(-1, 2)
    centres = (lattice + rng.uniform(-0.42, 0.42, lattice.shape)) * BLOCK_PX
    distance, nearest = cKDTree(centres).query(np.stack([x, y], -1), k=2)
    block, other = nearest[..., 0], nearest[..., 1]
    between = np.hypot(*(centres[block] - centres[other]).transpose(2, 0, 1))
    to_edge = (distance[..., 1] ** 2 - distance[..., 0] ** 2) / (2.0 * np.maximum(between, 1.0))
    has_track = rng.random((len(centres), len(centres))) < 0.3
    track = (to_edge < 0.75) & has_track[np.minimum(block, other), np.maximum(block, other)]
    across, key = _strips(rng, x, y, block, len(centres))
    parcel = np.unique(key, return_inverse=True)[1].reshape(shape).astype(np.int32)
    return Parcels(block.astype(np.int32), parcel, int(parcel.max()) + 1, across, track)


def _strips(
    rng: np.random.Generator, x: FloatMap, y: FloatMap, block: npt.NDArray[np.int64], n: int
) -> tuple[FloatMap, npt.NDArray[np.int64]]:
    """Cut each of `n` blocks into strips and these into parcels: distance across the strips, and a key per parcel."""
    angle = rng.uniform(0.0, np.pi, 1) + rng.choice([0.0, np.pi / 2], n) + rng.normal(0.0, 0.28, n)
    width = np.exp(rng.uniform(np.log(9.0), np.log(30.0), n))
    length = width * rng.uniform(1.8, 4.5, n)
    phase = rng.uniform(0.0, 100.0, n)
    cos, sin = np.cos(angle)[block], np.sin(angle)[block]
    across, along = cos * x + sin * y, cos * y - sin * x
    u = across / width[block] + phase[block]
    # a wave makes neighbouring strips unequally wide; its slope stays below one, so strips stay in order
    strip = np.floor(u + 0.30 * np.sin(u * 2.1)).astype(np.int64)
    shift = rng.uniform(0.0, 1.0, 997)[(strip + 31 * block) % 997]
    piece = np.floor(along / length[block] + shift).astype(np.int64)
    key = (block * 4096 + strip % 4096) * 4096 + piece % 4096
    return across.astype(np.float32), key


def _crops_and_grass(rng: np.random.Generator, parcels: Parcels, bank: FloatMap) -> npt.NDArray[np.int8]:
    """Surface of each parcel; grass is more common along the river and in some blocks."""
    counts = np.maximum(np.bincount(parcels.parcel.ravel(), minlength=parcels.n), 1)
    to_river = np.bincount(parcels.parcel.ravel(), bank.ravel(), parcels.n) / counts
    block = np.zeros(parcels.n, dtype=np.int64)
    block[parcels.parcel.ravel()] = parcels.block.ravel()
    preference = rng.normal(0.0, 0.22, int(parcels.block.max()) + 1)[block]
    grass = rng.random(parcels.n) < 0.24 + preference + 0.55 * np.exp(-np.maximum(to_river, 0.0) / 28.0)
    crop = rng.choice([INDEX[name] for name in CROPS], parcels.n, p=[0.26, 0.22, 0.2, 0.16, 0.16])
    meadow = np.where(rng.random(parcels.n) < 0.6, INDEX["meadow"], INDEX["pasture"])
    return np.where(grass, meadow, crop).astype(np.int8)[parcels.parcel]


def _woods(rng: np.random.Generator, shape: tuple[int, int], terrain: FloatMap, bank: FloatMap) -> Mask:
    """Large woods on the heights, copses in the fields and a gallery of trees along the river."""
    large = fractal(rng, shape, 120.0, 6, 0.6) + 0.35 * standardise(terrain)
    copses = fractal(rng, shape, 30.0, 3)
    gallery = (bank < 3.5) & (smooth_noise(rng, shape, 20.0) > 0.1)
    return np.asarray((large > np.quantile(large, 0.79)) | (copses > 2.35) | gallery)


def _tree_species(rng: np.random.Generator, parcels: Parcels, shape: tuple[int, int]) -> npt.NDArray[np.int8]:
    """Conifers or broadleaf everywhere, by a smooth field with steps between some parcels."""
    steps = rng.normal(0.0, 0.5, parcels.n).astype(np.float32)[parcels.parcel]
    conifers = smooth_noise(rng, shape, 110.0) + steps > 0
    return np.where(conifers, INDEX["conifers"], INDEX["broadleaf"]).astype(np.int8)
