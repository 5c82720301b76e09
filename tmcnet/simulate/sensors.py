"""Images of a landscape: reflectance with texture, relief, haze and cloud; backscatter with layover and speckle.

As in real SAR images, objects above the ground appear shifted towards the sensor: walls shine a pixel before their
houses, and slopes and wood edges are bright on the near side and dark on the far one. Matching to the optical image
therefore finds an average shift of a quarter of a pixel to smaller x. The truth of a scene refers to the ground.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tmcnet.simulate.landscape import Landscape
from tmcnet.simulate.noise import FloatMap, fractal, smooth_noise, standardise
from tmcnet.simulate.surfaces import BUILDING, CROPLAND, FOREST, GRASSLAND, INDEX, WATER, column

OPTICAL_BANDS = ("blue", "green", "red", "nir")
SAR_BANDS = ("VV", "VH")
HAZE = np.array([3.0, 1.9, 1.2, 0.5], dtype=np.float32)
"""Path radiance per band at haze 1, in percent reflectance; it falls with the wavelength."""


def render_optical(
    rng: np.random.Generator, land: Landscape, cloud_share: float, inner: slice
) -> npt.NDArray[np.uint16]:
    """Render the optical image as digital numbers of 0.01 % reflectance; 4 x H x W, never 0.

    Clouds cover about `cloud_share` of the rows and columns `inner`.
    """
    shape = land.surface.shape
    reflectance = column("reflectance").T[:, land.surface] * _brightness(rng, land) * _relief(land)
    reflectance[3] *= 1.0 + 0.10 * rng.standard_normal(land.n_parcels).astype(np.float32)[land.parcel]
    reflectance = ndimage.gaussian_filter(reflectance, (0, 0.55, 0.55))
    haze = 0.45 + 0.30 * fractal(rng, shape, 260.0, 3)
    reflectance += HAZE[:, None, None] * np.maximum(haze, 0.0)
    if cloud_share > 0:
        reflectance = _cloud(rng, reflectance, cloud_share, inner)
    reflectance *= 1.0 + 0.012 * rng.standard_normal(reflectance.shape).astype(np.float32)
    return np.asarray(np.clip(np.rint(reflectance * 100.0), 1, 12000), dtype=np.uint16)


def render_sigma(rng: np.random.Generator, land: Landscape) -> FloatMap:
    """Render backscatter without speckle on the landscape's grid: sigma nought in linear power, 2 x H x W.

    The sensor looks along x, from the left.
    """
    shape = land.surface.shape
    code = land.label
    sigma_db = column("backscatter").T[:, land.surface]
    moisture = rng.standard_normal(land.n_parcels).astype(np.float32)[land.parcel]
    field = (code == CROPLAND) | (code == GRASSLAND)
    sigma_db += np.where(field, 1.0 * moisture + 0.5 * fractal(rng, shape, 60.0, 3), 0.0)
    sigma_db += np.where(code == FOREST, 0.7 * fractal(rng, shape, 12.0, 3), 0.0)
    sigma_db += np.where(code == WATER, 2.2 * smooth_noise(rng, shape, 120.0), 0.0)
    sigma_db += _slopes(land)
    sigma = ndimage.gaussian_filter(10.0 ** (sigma_db / 10.0), (0, 0.5, 0.5))
    return np.asarray(sigma + _walls(rng, land), dtype=np.float32)


def add_speckle(rng: np.random.Generator, sigma: FloatMap, looks: float) -> FloatMap:
    """Multiply by gamma-distributed speckle of mean 1 and variance 1 / `looks`."""
    return np.asarray(sigma * rng.gamma(looks, 1.0 / looks, sigma.shape), dtype=np.float32)


def _brightness(rng: np.random.Generator, land: Landscape) -> FloatMap:
    """Brightness factor: variation between parcels, within parcels, and along furrows."""
    shape = land.surface.shape
    between = rng.standard_normal(land.n_parcels).astype(np.float32)[land.parcel]
    patches = fractal(rng, shape, 18.0, 3)
    grain = ndimage.gaussian_filter(rng.standard_normal(shape).astype(np.float32), 0.7) / np.float32(0.4)
    code = land.label
    mixed = np.where(code == FOREST, grain, 0.55 * patches + 0.45 * grain)
    roofs = standardise(smooth_noise(rng, shape, 2.5))
    between = np.where(code == BUILDING, roofs, np.where(code == WATER, 0.0, between))
    bare = np.isin(land.surface, [INDEX["bare_soil"], INDEX["stubble"], INDEX["maize"]])
    period = (4.0 + 3.0 * rng.random(land.n_parcels)).astype(np.float32)[land.parcel]
    furrows = np.where(bare, 0.035, 0.008) * np.sin(2.0 * np.pi * land.across / period)
    factor = 1.0 + column("spread")[land.surface] * between + column("texture")[land.surface] * mixed + furrows
    edge = ndimage.morphological_gradient(land.parcel, size=2) > 0
    factor = np.where(edge & (code == CROPLAND), factor * 0.9, factor)
    return np.asarray(np.clip(factor, 0.3, 2.5), dtype=np.float32)


def _relief(land: Landscape) -> FloatMap:
    """Shading by a sun in the south-east, of the terrain and of the edges of woods and houses."""
    top = land.terrain + 0.55 * column("height")[land.surface]
    dy, dx = np.gradient(ndimage.gaussian_filter(top, 0.6) / 10.0)
    return np.asarray(np.clip(1.0 - 0.30 * (dx + 1.2 * dy), 0.55, 1.35), dtype=np.float32)


def _cloud(rng: np.random.Generator, reflectance: FloatMap, share: float, inner: slice) -> FloatMap:
    """Add clouds, and their shadows to the north-west of them."""
    shape = (reflectance.shape[1], reflectance.shape[2])
    field = fractal(rng, shape, 150.0, 6, 0.55)
    threshold = float(np.quantile(field[inner, inner], 1.0 - share))
    opacity = np.clip((field - threshold + 0.16) / 0.5, 0.0, 1.0)
    shadow = ndimage.shift(opacity, (-rng.uniform(14.0, 24.0), -rng.uniform(10.0, 20.0)), order=1, mode="nearest")
    shaded = reflectance * (1.0 - 0.62 * np.clip(1.3 * ndimage.gaussian_filter(shadow, 1.5), 0.0, 1.0))
    tops = np.array([62.0, 61.0, 60.0, 63.0], dtype=np.float32)[:, None, None]
    tops = tops * (0.80 + 0.25 * opacity + 0.05 * fractal(rng, shape, 24.0, 3))
    return np.asarray(shaded * (1.0 - opacity) + tops * opacity, dtype=np.float32)


def _slopes(land: Landscape) -> FloatMap:
    """Backscatter change in dB on slopes and wood edges: positive towards the sensor, negative behind."""
    top = land.terrain + 0.8 * column("height")[land.surface] * (land.label == FOREST)
    facing = np.gradient(ndimage.gaussian_filter(top, 0.7) / 10.0, axis=1)
    return np.asarray(np.clip(3.2 * facing, -6.0, 4.0), dtype=np.float32)


def _walls(rng: np.random.Generator, land: Landscape) -> npt.NDArray[np.float64]:
    """Double bounce in front of buildings and its layover one pixel nearer to the sensor; linear power."""
    house = land.label == BUILDING
    front = house & ~np.roll(house, 1, axis=1)
    strength = np.where(front, land.facing * rng.gamma(2.0, 0.5, house.shape), 0.0)
    corner = 0.55 * np.roll(strength, -1, axis=1) + strength
    layover = 0.8 * np.roll(corner, -1, axis=1)
    bounce = ndimage.gaussian_filter(corner + layover, 0.5)
    return np.stack([0.55 * bounce, 0.10 * bounce])
