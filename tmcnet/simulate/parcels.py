"""The mosaic of fields: blocks between tracks, each cut into strips and parcels of its own direction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from tmcnet.simulate.noise import FloatMap, smooth_noise

BLOCK = 72.0
"""Mean distance of block centres in pixels."""


@dataclass(frozen=True)
class Parcels:
    """Fields and the tracks between their blocks; all maps are H x W.

    Attributes:
        block: Number of the block.
        parcel: Number of the parcel, 0..n-1.
        n: Number of parcels.
        across: Distance in pixels across the direction of ploughing, for furrows.
        track: Whether a farm track runs along this edge of a block.
    """

    block: npt.NDArray[np.int32]
    parcel: npt.NDArray[np.int32]
    n: int
    across: FloatMap
    track: npt.NDArray[np.bool_]


def make_parcels(rng: np.random.Generator, shape: tuple[int, int], track_share: float = 0.3) -> Parcels:
    """Cut the land into parcels.

    Args:
        rng: Source of randomness.
        shape: Height and width in pixels.
        track_share: Share of the edges between blocks along which a track runs.
    """
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    x += 9.0 * smooth_noise(rng, shape, 70.0) + 1.2 * smooth_noise(rng, shape, 14.0)
    y += 9.0 * smooth_noise(rng, shape, 70.0) + 1.2 * smooth_noise(rng, shape, 14.0)
    centres = _centres(rng, shape)
    distance, nearest = cKDTree(centres).query(np.stack([x, y], -1), k=2)
    block, other = nearest[..., 0], nearest[..., 1]
    between = np.hypot(*(centres[block] - centres[other]).transpose(2, 0, 1))
    to_edge = (distance[..., 1] ** 2 - distance[..., 0] ** 2) / (2.0 * np.maximum(between, 1.0))
    low, high = np.minimum(block, other), np.maximum(block, other)
    has_track = rng.random((len(centres), len(centres))) < track_share
    track = (to_edge < 0.75) & has_track[low, high]
    across, key = _strips(rng, x, y, block, len(centres))
    _, parcel = np.unique(key, return_inverse=True)
    parcel = parcel.reshape(shape).astype(np.int32)
    return Parcels(block.astype(np.int32), np.asarray(parcel, dtype=np.int32), int(parcel.max()) + 1, across, track)


def _centres(rng: np.random.Generator, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Block centres x, y on a jittered lattice that reaches beyond the map."""
    rows, cols = (int(np.ceil(side / BLOCK)) + 2 for side in shape)
    lattice = np.stack(np.meshgrid(np.arange(cols) - 0.5, np.arange(rows) - 0.5), -1).reshape(-1, 2)
    return np.asarray((lattice + rng.uniform(-0.42, 0.42, lattice.shape)) * BLOCK)


def _strips(
    rng: np.random.Generator, x: FloatMap, y: FloatMap, block: npt.NDArray[np.int64], n: int
) -> tuple[FloatMap, npt.NDArray[np.int64]]:
    """Distance across the strips and a whole number per parcel."""
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
