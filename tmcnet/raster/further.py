"""Further modalities of a scene or tile: brought to its grid as delivered, without matching."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tmcnet.config import SensorConfig
from tmcnet.raster.backscatter import power_to_db, to_db, to_power
from tmcnet.raster.gdal_tools import stack_files
from tmcnet.raster.io import Box, FloatArray, Grid, read_float, read_grid, write_raster
from tmcnet.raster.records import FurtherRecord, Record
from tmcnet.raster.warp import image_method, warp_array


def write_aligned(record: Record, sensors: Mapping[str, SensorConfig], grid: Grid, folder: Path, work: Path) -> None:
    """Write `<name>.tif` of every further modality of a scene on its common grid, NaN for no data.

    The georeference is believed. Backscatter is averaged in linear power and written in dB, clipped. A modality that
    a scene to be predicted lacks is NaN throughout.

    Args:
        record: The scene.
        sensors: Its further modalities by name.
        grid: The common grid.
        folder: Where to.
        work: Folder for temporary files.

    Raises:
        InputError: If a file cannot be read.
    """
    for name, sensor in sensors.items():
        found = record.further[name]
        values = np.full((len(sensor.bands), grid.height, grid.width), np.nan, np.float32)
        if found.files:
            values = _warped(found, sensor, grid, work / f"{name}.vrt")
        write_raster(folder / f"{name}.tif", values, grid, math.nan, sensor.bands)


def _warped(found: FurtherRecord, sensor: SensorConfig, grid: Grid, stack: Path) -> FloatArray:
    source = read_grid(found.files[0])
    power = to_power(read_float(stack_files(found.files, source, stack), nodata=sensor.nodata), found.scale)
    warped = warp_array(power, source, grid, image_method(source, grid), math.nan, stack.parent)
    return power_to_db(warped, found.scale, sensor.clip_db)


def read_aligned(record: Record, folder: Path, box: Box) -> dict[str, FloatArray]:
    """A window of every further modality of an aligned scene, C x H x W each, NaN for no data."""
    return {name: read_float(folder / f"{name}.tif", box) for name in record.further}


def read_ready_made(record: Record, sensors: Mapping[str, SensorConfig]) -> dict[str, FloatArray]:
    """Every further modality of a ready-made tile, C x H x W each, backscatter in dB, NaN for no data."""
    return {
        name: to_db(read_float(found.files, nodata=sensors[name].nodata), found.scale, sensors[name].clip_db)
        for name, found in record.further.items()
    }
