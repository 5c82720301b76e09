"""Simulate one scene: its place on the map, the misregistration of its SAR image, the two images, and its files.

As in real SAR images, objects above the ground appear shifted towards the sensor: walls shine a pixel before their
houses, and slopes and wood edges are bright on the near side and dark on the far one. Matching to the optical image
therefore finds an average shift of a quarter of a pixel to smaller x. The truth of a scene refers to the ground.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from affine import Affine
from scipy import ndimage

from tmcnet.config import DemoConfig
from tmcnet.errors import InputError, Problem
from tmcnet.raster.io.geometry import Grid, reproject_points
from tmcnet.raster.io.writer import write_bytes, write_raster
from tmcnet.seeding import generator
from tmcnet.simulate.landscape import (
    BUILDING,
    CROPLAND,
    FOREST,
    GRASSLAND,
    INDEX,
    WATER,
    Landscape,
    column,
    make_landscape,
)
from tmcnet.simulate.noise import FloatMap, Points, fractal, smooth_noise, standardise

OPTICAL_CRS = "EPSG:32632"
OPTICAL_PIXEL_M = 10.0
SAR_GRIDS = (("EPSG:3035", 8.0), ("EPSG:32633", 9.0), ("EPSG:3035", 12.0), ("EPSG:32631", 8.0))
"""CRS and pixel size in metres of the SAR images, in turn."""
SAR_MARGIN_PX = 16
"""Margin of the SAR image around the optical one, in optical pixels, in addition to the displacement."""
LATTICE_STEP_PX = 8
"""Coordinates are computed every 8 pixels and interpolated between, with an error below 0.01 pixels."""
OPTICAL_BANDS = ("blue", "green", "red", "nir")
SAR_BANDS = ("VV", "VH")
HAZE = np.array([3.0, 1.9, 1.2, 0.5], dtype=np.float32)
"""Path radiance per band at haze 1, in percent reflectance; it falls with the wavelength."""


def simulate_scene(
    config: DemoConfig,
    name: str,
    folder: Path,
    cloud_share: float = 0.15,
    displacement: float = 6.0,
    looks: float = 4.0,
) -> None:
    """Simulate one scene of `config.scene_names` and write `optical.tif`, `sar.tif`, `label.tif` and `truth.npz`.

    - `optical.tif`: blue, green, red, near infrared; uint16, 0.01 % reflectance; 0 is no data; 10 m, UTM zone 32.
    - `sar.tif`: VV, VH; float32 sigma nought in linear power with speckle; NaN is no data; on another grid.
    - `label.tif`: uint8 on the optical grid; 0 void, 1 water, 2 forest, 3 cropland, 4 grassland, 5 road, 6 building.
    - `truth.npz`: `displacement` (H x W x 2, dx and dy: the SAR content of optical pixel p is at p + displacement
      on the optical grid, in pixels) and `label` (H x W, labels without void). It refers to the ground; the SAR image
      shows edges of what rises above it about a quarter of a pixel nearer to the radar.

    The same arguments give the same bytes. Clouds cover about `cloud_share` of the scene, the SAR image is
    misregistered by at most `displacement` optical pixels, and more `looks` have less speckle.

    Raises:
        InputError: If there is no scene of that name.
    """
    names = config.scene_names
    if name not in names:
        raise InputError(Problem(name, "is no demo scene", f"Use one of {', '.join(names)}."))

    def rng(purpose: str) -> np.random.Generator:
        return generator(config.seed, f"simulate {purpose}", name)

    margin = 2 * SAR_MARGIN_PX + int(np.ceil(displacement))
    land = make_landscape(rng("landscape"), config.size, margin)
    inner = slice(margin, margin + config.size)
    image = render_optical(rng("optical"), land, cloud_share, inner)[:, inner, inner]
    image = _cut_swath(rng("swath"), image)
    labels = land.label[inner, inner]
    field = make_displacement(rng("displacement"), config.size, displacement)
    grid = optical_grid(rng("place"), config.size)
    write_raster(folder / "optical.tif", image, grid, nodata=0, descriptions=OPTICAL_BANDS)
    write_raster(folder / "label.tif", _add_void(rng("void"), labels), grid, nodata=0, descriptions=["land cover"])
    target = sar_grid(grid, names.index(name), displacement)
    at = sar_to_ground(target, grid, field) + margin
    sigma = render_sigma(rng("radar"), land)
    seen = np.stack([ndimage.map_coordinates(band, at, order=1, cval=np.nan) for band in sigma])
    sar = add_speckle(rng("speckle"), seen, looks)
    write_raster(folder / "sar.tif", sar, target, nodata=float("nan"), descriptions=SAR_BANDS)
    truth = io.BytesIO()
    np.savez_compressed(truth, displacement=displacement_map(field), label=labels)
    write_bytes(folder / "truth.npz", truth.getvalue())


@dataclass(frozen=True)
class Displacement:
    """A smooth field: the content of optical pixel p is at p + at(p) on the common grid.

    Attributes:
        matrix: 2 x 3, affine part in pixels, of x, y relative to the centre in units of half the side.
        waves: W x 6: amplitude in x and in y, wave vector in radians per pixel (x, y), phase in x and in y.
        size: Side of the scene in pixels.
        gain: Factor on the whole field.
    """

    matrix: Points
    waves: Points
    size: int
    gain: float = 1.0

    def at(self, x: Points, y: Points) -> tuple[Points, Points]:
        """Displacement in x and y, in pixels, at positions in optical pixels (centres at whole numbers)."""
        half = (self.size - 1) / 2.0
        u, v = (x - half) / half, (y - half) / half
        dx = self.matrix[0, 0] * u + self.matrix[0, 1] * v + self.matrix[0, 2]
        dy = self.matrix[1, 0] * u + self.matrix[1, 1] * v + self.matrix[1, 2]
        for ax, ay, kx, ky, px, py in self.waves:
            dx = dx + ax * np.sin(kx * x + ky * y + px)
            dy = dy + ay * np.sin(kx * x + ky * y + py)
        return self.gain * dx, self.gain * dy


def make_displacement(rng: np.random.Generator, size: int, largest: float) -> Displacement:
    """A displacement of at most `largest` pixels within a scene of `size` pixels a side.

    It has a shift with some rotation and scale, and waves below half a pixel that no affine model can follow.
    """
    direction = rng.uniform(0.0, 2.0 * np.pi)
    shift = 0.8 * largest * np.array([np.cos(direction), np.sin(direction)])
    rotation, scale = 0.11 * largest * rng.choice([-1, 1], 2) * rng.uniform(0.5, 1.0, 2)
    matrix = np.array([[scale, -rotation, shift[0]], [rotation, scale, shift[1]]])
    amplitude = min(0.16, 0.04 * largest) * rng.uniform(0.6, 1.0, (3, 2))
    heading = rng.uniform(0.0, 2.0 * np.pi, 3)
    wavenumber = 2.0 * np.pi / (size * rng.uniform(0.5, 1.2, 3))
    vectors = np.column_stack([wavenumber * np.cos(heading), wavenumber * np.sin(heading)])
    waves = np.column_stack([amplitude, vectors, rng.uniform(0.0, 2.0 * np.pi, (3, 2))])
    field = Displacement(matrix, waves, size)
    greatest = float(np.hypot(*displacement_map(field).transpose(2, 0, 1)).max())
    return replace(field, gain=largest / greatest if greatest > 0 else 0.0)


def displacement_map(field: Displacement) -> npt.NDArray[np.float32]:
    """The field at every optical pixel: H x W x 2, dx and dy in pixels."""
    y, x = np.mgrid[: field.size, : field.size].astype(np.float64)
    return np.stack(field.at(x, y), -1).astype(np.float32)


def optical_grid(rng: np.random.Generator, size: int) -> Grid:
    """A random place within UTM zone 32 north, on whole tens of metres."""
    left = 10.0 * np.rint(rng.uniform(35e3, 65e3))
    top = 10.0 * np.rint(rng.uniform(525e3, 585e3))
    transform = Affine(OPTICAL_PIXEL_M, 0.0, float(left), 0.0, -OPTICAL_PIXEL_M, float(top))
    return Grid(OPTICAL_CRS, transform, size, size)


def sar_grid(optical: Grid, number: int, largest: float) -> Grid:
    """The grid of SAR image `number`: it covers the optical image with a margin."""
    crs, pixel = SAR_GRIDS[number % len(SAR_GRIDS)]
    reach = SAR_MARGIN_PX + int(np.ceil(largest))
    edge = np.linspace(-reach, optical.width + reach, 33)
    x, y = reproject_points(optical.crs, crs, *(optical.transform @ tuple(np.meshgrid(edge, edge))))
    left, top = np.floor(x.min() / pixel) * pixel, np.ceil(y.max() / pixel) * pixel
    width, height = int(np.ceil((x.max() - left) / pixel)), int(np.ceil((top - y.min()) / pixel))
    return Grid(crs, Affine(pixel, 0.0, float(left), 0.0, -pixel, float(top)), width, height)


def sar_to_ground(sar: Grid, optical: Grid, field: Displacement) -> Points:
    """Position on the ground that each SAR pixel shows, in optical pixels: 2 x H x W, rows then columns."""
    cols = np.arange(0, sar.width + LATTICE_STEP_PX, LATTICE_STEP_PX) + 0.5
    rows = np.arange(0, sar.height + LATTICE_STEP_PX, LATTICE_STEP_PX) + 0.5
    x, y = reproject_points(sar.crs, optical.crs, *(sar.transform @ tuple(np.meshgrid(cols, rows))))
    col, row = ~optical.transform @ (x, y)
    seen_x, seen_y = col - 0.5, row - 0.5
    true_x, true_y = seen_x, seen_y
    for _ in range(6):  # fixed-point iteration; the field varies slowly, so each round gains two digits
        dx, dy = field.at(true_x, true_y)
        true_x, true_y = seen_x - dx, seen_y - dy
    at = np.mgrid[: sar.height, : sar.width] / LATTICE_STEP_PX
    return np.stack([ndimage.map_coordinates(part, at, order=1) for part in (true_y, true_x)])


def _cut_swath(rng: np.random.Generator, image: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Set a corner of one scene in three to 0, as at the edge of a swath."""
    size = image.shape[1]
    depth = rng.uniform(0.08, 0.2) * size * (rng.random() < 1 / 3)
    rows, cols = np.mgrid[:size, :size]
    return np.where(cols + 0.25 * rows < depth, 0, image).astype(np.uint16)


def _add_void(rng: np.random.Generator, labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Set labels to void (0) along ragged edges and in a few unmapped patches."""
    size = labels.shape[0]
    ragged = 2.0 + 5.0 * smooth_noise(rng, labels.shape, 40.0)
    rows, cols = np.mgrid[:size, :size]
    edges = [rows, size - 1 - cols, size - 1 - rows, cols]
    void = np.min([edges[i] for i in rng.permutation(4)[:2]], axis=0) < ragged
    patches = fractal(rng, labels.shape, 60.0, 3)
    void |= patches > np.quantile(patches, 0.985)
    return np.where(void, 0, labels).astype(np.uint8)


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
