"""Bring optical image, SAR image and label of a scene to one grid, registered to each other."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import numpy as np

from tmcnet.classes import ClassTable
from tmcnet.config import IGNORE, AlignConfig, LabelsConfig, SensorsConfig
from tmcnet.raster import alignment_picture, coregister
from tmcnet.raster.atomic import write_bytes
from tmcnet.raster.backscatter import power_to_db, to_power
from tmcnet.raster.gdal_tools import require_tools, stack_files
from tmcnet.raster.io import FloatArray, Grid, read_float, read_grid, write_raster
from tmcnet.raster.labels import LabelCoder
from tmcnet.raster.opening import open_raster
from tmcnet.raster.records import Inventory, Record
from tmcnet.raster.warp import coarser_grid, image_method, shifted_grid, to_dtype, warp_array


def align_scene(
    inventory: Path,
    scene: str,
    sensors: SensorsConfig,
    labels: LabelsConfig,
    align: AlignConfig,
    folder: Path,
) -> None:
    """Write `optical.tif`, `sar.tif`, `label.tif`, `alignment.json` and `alignment.png` of a scene.

    The optical image keeps its grid, or gets `align.resolution`. The second sensor is warped to it as delivered,
    matched, and, where the match is believed, warped once more from the delivered file with the correction built
    in, so that it is resampled only once. Backscatter is averaged in linear power and written in dB, clipped.
    A scene is held in memory as single-precision numbers, a few times over.

    Args:
        inventory: `inventory.json`.
        scene: Name of the scene.
        sensors: Section `sensors` of the config.
        labels: Section `labels`.
        align: Section `align`.
        folder: Where to; is made.

    Raises:
        InputError: If a file cannot be read or written, or GDAL's tools are missing or fail.
    """
    require_tools(("gdalbuildvrt", "gdalwarp"))
    whole = Inventory.read(inventory)
    record = whole.record(scene)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".work-", dir=folder) as name:
        work = Path(name)
        optical, grid = _write_optical(record, sensors, align, folder, work)
        _write_label(record, LabelCoder(labels, whole.classes, whole.label_encoding), whole.classes, grid, folder)
        sar = _Sar(record, sensors, grid, work)
        before = sar.on(grid)
        alignment = coregister.estimate(optical, before, align) if align.enabled else _believed()
        moved = alignment.status == "aligned"
        after = sar.on(shifted_grid(grid, alignment.matrix)) if moved else before
        write_raster(folder / "sar.tif", after, grid, nodata=math.nan, descriptions=sensors.sar.bands)
    write_bytes(folder / "alignment.json", (json.dumps(_plain(alignment.to_dict()), indent=1) + "\n").encode())
    alignment_picture.draw(optical, before, after, alignment, folder / "alignment.png")


def _write_optical(
    record: Record, sensors: SensorsConfig, align: AlignConfig, folder: Path, work: Path
) -> tuple[FloatArray, Grid]:
    """The optical image on the common grid, C x H x W with NaN for no data, and that grid."""
    native = read_grid(record.optical[0])
    grid = coarser_grid(native, align.resolution)
    path = stack_files(record.optical, native, work / "optical.vrt")
    values = read_float(path, nodata=sensors.optical.nodata)
    values = warp_array(values, native, grid, image_method(native, grid), math.nan, work)
    with open_raster(record.optical[0]) as dataset:
        dtype = dataset.dtypes[0]
    written, nodata = to_dtype(values, dtype, record.optical_nodata)
    write_raster(folder / "optical.tif", written, grid, nodata, sensors.optical.bands)
    return values, grid


def _write_label(record: Record, coder: LabelCoder, classes: ClassTable, grid: Grid, folder: Path) -> None:
    """The label on the common grid; void everywhere for a scene without."""
    if record.label:
        ids = coder.read(record.label[0])[None]
        ids = warp_array(ids, read_grid(record.label[0]), grid, "near", IGNORE, folder)
    else:
        ids = np.full((1, grid.height, grid.width), IGNORE, np.uint8)
    write_raster(folder / "label.tif", ids, grid, IGNORE, classes=classes)


class _Sar:
    """The second sensor as delivered, ready to be warped."""

    def __init__(self, record: Record, sensors: SensorsConfig, grid: Grid, work: Path) -> None:
        self._source = read_grid(record.sar[0])
        path = stack_files(record.sar, self._source, work / "sar.vrt")
        self._scale, self._clip = record.sar_scale, sensors.sar.clip_db
        self._power = to_power(read_float(path, nodata=sensors.sar.nodata), self._scale)
        self._method = image_method(self._source, grid)
        self._work = work

    def on(self, grid: Grid) -> FloatArray:
        """C x H x W on a grid, in dB where this is backscatter; NaN for no data."""
        power = warp_array(self._power, self._source, grid, self._method, math.nan, self._work)
        return power_to_db(power, self._scale, self._clip)


def _believed() -> coregister.Alignment:
    """The record of a scene whose georeference is taken as delivered."""
    unmoved = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    return coregister.Alignment("rejected", "none", unmoved, 0, 0, None, "co-registration is switched off")


def _plain(value: object) -> object:
    """What JSON can hold: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
