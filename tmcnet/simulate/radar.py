"""What the SAR sensor sees: backscatter, bright walls, layover and radar shadow, before speckle.

As in real images, what rises above the ground is seen nearer to the sensor than it stands: walls shine a pixel
before their houses, slopes and wood edges are bright on the near side and dark on the far one. Whatever is matched to
an optical image is drawn a quarter of a pixel that way, to smaller x, on average over a scene. The truth of a scene
tells of the ground.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tmcnet.simulate.landscape import Landscape
from tmcnet.simulate.noise import FloatMap, fractal, smooth_noise
from tmcnet.simulate.surfaces import BUILDING, CROPLAND, FOREST, WATER, column

BANDS = ("VV", "VH")


def render_sigma(rng: np.random.Generator, land: Landscape) -> FloatMap:
    """Backscatter without speckle on the grid of the landscape: sigma nought, linear power, 2 x H x W.

    The sensor looks along x, from the left.
    """
    shape = land.surface.shape
    code = land.label
    sigma_db = column("backscatter").T[:, land.surface]
    moisture = rng.standard_normal(land.n_parcels).astype(np.float32)[land.parcel]
    field = (code == CROPLAND) | (code == CROPLAND + 1)
    sigma_db += np.where(field, 1.0 * moisture + 0.5 * fractal(rng, shape, 60.0, 3), 0.0)
    sigma_db += np.where(code == FOREST, 0.7 * fractal(rng, shape, 12.0, 3), 0.0)
    sigma_db += np.where(code == WATER, 2.2 * smooth_noise(rng, shape, 120.0), 0.0)
    sigma_db += _slopes(land)
    sigma = ndimage.gaussian_filter(10.0 ** (sigma_db / 10.0), (0, 0.5, 0.5))
    return np.asarray(sigma + _walls(rng, land), dtype=np.float32)


def _slopes(land: Landscape) -> FloatMap:
    """Brightening of slopes and wood edges that face the sensor and darkening of those behind, in dB."""
    top = land.terrain + 0.8 * column("height")[land.surface] * (land.label == FOREST)
    facing = np.gradient(ndimage.gaussian_filter(top, 0.7) / 10.0, axis=1)
    return np.asarray(np.clip(3.2 * facing, -6.0, 4.0), dtype=np.float32)


def _walls(rng: np.random.Generator, land: Landscape) -> npt.NDArray[np.float64]:
    """Double bounce in front of buildings, laid over what lies a pixel nearer to the sensor; linear power."""
    house = land.label == BUILDING
    front = house & ~np.roll(house, 1, axis=1)
    strength = np.where(front, land.facing * rng.gamma(2.0, 0.5, house.shape), 0.0)
    corner = 0.55 * np.roll(strength, -1, axis=1) + strength
    laid_over = 0.8 * np.roll(corner, -1, axis=1)
    bounce = ndimage.gaussian_filter(corner + laid_over, 0.5)
    return np.stack([0.55 * bounce, 0.10 * bounce])


def add_speckle(rng: np.random.Generator, sigma: FloatMap, looks: float) -> FloatMap:
    """Multiply by gamma speckle of mean 1 and variance 1 / `looks`."""
    return np.asarray(sigma * rng.gamma(looks, 1.0 / looks, sigma.shape), dtype=np.float32)
