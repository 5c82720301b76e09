"""Simulate one scene and write its files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tmcnet.config import DemoConfig
from tmcnet.errors import InputError, Problem
from tmcnet.raster.io.atomic import write_bytes
from tmcnet.raster.io.rasters import write_raster
from tmcnet.seeding import generator
from tmcnet.simulate import optical, radar
from tmcnet.simulate.landscape import make_landscape
from tmcnet.simulate.names import scene_names
from tmcnet.simulate.noise import fractal, smooth_noise
from tmcnet.simulate.placement import (
    BORDER,
    Displacement,
    content_of,
    displacement_map,
    make_displacement,
    optical_grid,
    sar_grid,
)


def simulate_scene(config: DemoConfig, name: str, folder: Path) -> None:
    """Simulate one scene and write `optical.tif`, `sar.tif`, `label.tif` and `truth.npz` into `folder`.

    - `optical.tif`: blue, green, red, near infrared; uint16, 0.01 % reflectance; 0 is no data; 10 m, UTM zone 32.
    - `sar.tif`: VV, VH; float32 sigma nought in linear power with speckle; NaN is no data; a grid of its own.
    - `label.tif`: uint8 on the optical grid; 0 void, 1 water, 2 forest, 3 cropland, 4 grassland, 5 road, 6 building.
    - `truth.npz`: `displacement` (H x W x 2, dx and dy: the SAR content of optical pixel p lies at p + displacement
      on the optical grid, in pixels) and `label` (H x W, labels without void). It tells of the ground; edges of what
      rises above it are seen about a quarter of a pixel nearer to the radar, at smaller x (see `radar`).

    The same config and name give the same bytes.

    Args:
        config: Size, speckle, cloud, displacement and seed.
        name: One of `scene_names(config)`.
        folder: Where to; made if missing.

    Raises:
        InputError: If there is no scene of that name.
    """
    names = scene_names(config)
    if name not in names:
        raise InputError(Problem(name, "is no demo scene", f"Use one of {', '.join(names)}."))

    def draw(purpose: str) -> np.random.Generator:
        return generator(config.seed, f"simulate {purpose}", name)

    margin = 2 * BORDER + int(np.ceil(config.displacement))
    land = make_landscape(draw("landscape"), config.size, margin)
    inner = slice(margin, margin + config.size)
    image = optical.render_optical(draw("optical"), land, config.cloud_share, inner)[:, inner, inner]
    image = _cut_swath(draw("swath"), image)
    labels = land.label[inner, inner]
    field = make_displacement(draw("displacement"), config.size, config.displacement)
    grid = optical_grid(draw("place"), config.size)
    write_raster(folder / "optical.tif", image, grid, nodata=0, descriptions=optical.BANDS)
    write_raster(folder / "label.tif", _leave_void(draw("void"), labels), grid, nodata=0, descriptions=["land cover"])
    target = sar_grid(grid, names.index(name), config.displacement)
    at = content_of(target, grid, field) + margin
    sigma = radar.render_sigma(draw("radar"), land)
    seen = np.stack([ndimage.map_coordinates(band, at, order=1, cval=np.nan) for band in sigma])
    sar = radar.add_speckle(draw("speckle"), seen, config.looks)
    write_raster(folder / "sar.tif", sar, target, nodata=float("nan"), descriptions=radar.BANDS)
    _write_truth(folder / "truth.npz", field, labels)


def _cut_swath(rng: np.random.Generator, image: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Cut a corner off one scene in three, as the edge of a swath does; 0 there."""
    size = image.shape[1]
    depth = rng.uniform(0.08, 0.2) * size * (rng.random() < 1 / 3)
    rows, cols = np.mgrid[:size, :size]
    return np.where(cols + 0.25 * rows < depth, 0, image).astype(np.uint16)


def _leave_void(rng: np.random.Generator, labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Labels with void (0) along ragged edges and in a few blobs where nobody has mapped."""
    size = labels.shape[0]
    ragged = 2.0 + 5.0 * smooth_noise(rng, labels.shape, 40.0)
    rows, cols = np.mgrid[:size, :size]
    edges = [rows, size - 1 - cols, size - 1 - rows, cols]
    void = np.min([edges[i] for i in rng.permutation(4)[:2]], axis=0) < ragged
    blobs = fractal(rng, labels.shape, 60.0, 3)
    void |= blobs > np.quantile(blobs, 0.985)
    return np.where(void, 0, labels).astype(np.uint8)


def _write_truth(path: Path, field: Displacement, labels: npt.NDArray[np.uint8]) -> None:
    packed = io.BytesIO()
    np.savez_compressed(packed, displacement=displacement_map(field), label=labels)
    write_bytes(path, packed.getvalue())
