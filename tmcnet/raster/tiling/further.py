"""Further modalities of a scene or tile: brought to its grid as delivered, without matching."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tmcnet.config import SensorConfig
from tmcnet.raster.inventory.records import ImageRecord, Record
from tmcnet.raster.io.backscatter import power_to_db, to_db, to_power
from tmcnet.raster.io.form import Form
from tmcnet.raster.io.gdal_tools import stack_files
from tmcnet.raster.io.progress import step, watched
from tmcnet.raster.io.rasters import Box, FloatArray, Grid, read_float, read_grid
from tmcnet.raster.io.streaming import Part, float_blocks, write_blocks, write_draft
from tmcnet.raster.io.windowed import FileImage
from tmcnet.raster.tiling.warp import image_method, warp


def write_aligned(
    record: Record, sensors: Mapping[str, SensorConfig], grid: Grid, folder: Path, threads: int
) -> None:
    """Write `<name>.tif` of every further modality of a scene on its common grid, NaN for no data.

    The georeference is believed. Backscatter is averaged in linear power and written in dB, clipped. A modality that
    a scene to be predicted lacks is NaN throughout.

    Args:
        record: The scene.
        sensors: Its further modalities by name.
        grid: The common grid.
        folder: Where to; files on the way are there as well.
        threads: How many threads resample and compress.

    Raises:
        InputError: If a file cannot be read or written.
    """
    for name, sensor in sensors.items():
        target, form = folder / f"{name}.tif", Form(len(sensor.bands), "float32", math.nan, sensor.bands)
        found = record.images[name]
        if not found.files:
            write_blocks(target, grid, form, ())
            continue
        with step(name), tempfile.TemporaryDirectory(prefix=".work-", dir=folder) as work:
            parts = watched(_warped(found, sensor, grid, Path(work), threads), grid.height * grid.width, name)
            write_blocks(target, grid, form, parts, threads)


def _warped(found: ImageRecord, sensor: SensorConfig, grid: Grid, work: Path, threads: int) -> Iterator[Part]:
    source = read_grid(found.files[0])
    path = stack_files(found.files, source, work / "stack.vrt")
    form = Form(FileImage(path).shape[0], "float32", math.nan)
    read = ((box, to_power(values, found.scale)) for box, values in float_blocks(path, found.declared_nodata))
    draft = write_draft(work / "power.tif", source, form, read)
    warped = warp(draft, grid, work / "warped.tif", image_method(source, grid), threads=threads)
    for box, power in float_blocks(warped.path):
        yield box, power_to_db(power, found.scale, sensor.clip_db)


def read_aligned(names: Iterable[str], folder: Path, box: Box) -> dict[str, FloatArray]:
    """A window of every further modality of an aligned scene, C x H x W each, NaN for no data."""
    return {name: read_float(folder / f"{name}.tif", box) for name in names}


def read_ready_made(record: Record, sensors: Mapping[str, SensorConfig]) -> dict[str, FloatArray]:
    """Every further modality of a ready-made tile, C x H x W each, backscatter in dB, NaN for no data."""
    return {
        name: to_db(read_float(found.files, nodata=found.declared_nodata), found.scale, sensor.clip_db)
        for name, sensor in sensors.items()
        for found in (record.images[name],)
    }
