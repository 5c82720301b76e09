"""Bring optical image, SAR image and label of a scene to one grid, registered to each other."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tmcnet.classes import ClassTable
from tmcnet.config import IGNORE, AlignConfig, LabelsConfig, SensorConfig, SensorsConfig
from tmcnet.errors import InputError, Problem
from tmcnet.raster import alignment_picture, coregister, further
from tmcnet.raster.alignment import Alignment, unmoved
from tmcnet.raster.atomic import write_bytes
from tmcnet.raster.backscatter import power_to_db, to_power
from tmcnet.raster.digests import RECORD, scene_digests
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

    Further modalities are warped to the same grid as delivered, to `<name>.tif`; they are not matched.

    The optical image keeps its grid, or gets `align.resolution`. The second sensor is warped to it as delivered,
    matched, and, where the match is believed, warped once more from the delivered file with the correction built
    in, so that it is resampled only once. Backscatter is averaged in linear power and written in dB, clipped.
    Where only one sensor exists the scene lies on its grid, and the raster of the other is NaN throughout.
    A scene is held in memory as single-precision numbers, a few times over.

    Args:
        inventory: `inventory.json`.
        scene: Name of the scene.
        sensors: Section `sensors` of the config.
        labels: Section `labels`.
        align: Section `align`.
        folder: Where to; is made.

    Raises:
        InputError: If a file cannot be read or written, if `align.resolution` leaves nothing of the scene, or if
            GDAL's tools are missing or fail.
    """
    require_tools()
    whole = Inventory.read(inventory)
    record = whole.record(scene)
    grid = _common_grid(record, align)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".work-", dir=folder) as name:
        work = Path(name)
        optical = _write_optical(record, sensors, grid, folder, work)
        _write_label(record, LabelCoder(labels, whole.classes, whole.label_encoding), whole.classes, grid, folder)
        sar = _Sar(record, sensors, grid, work) if record.sar else None
        before = sar.on(grid) if sar else _no_data(sensors.sar, grid)
        alignment = _register(record, optical, before, align)
        after = sar.corrected(grid, alignment) if sar and alignment.status == "aligned" else before
        write_raster(folder / "sar.tif", after, grid, nodata=math.nan, descriptions=sensors.sar.bands)
        further.write_aligned(record, sensors.further, grid, folder, work)
    told = _plain(alignment.to_dict() | {"digests": scene_digests(folder, sensors.further)})
    write_bytes(folder / RECORD, (json.dumps(told, indent=1) + "\n").encode())
    alignment_picture.draw(optical, before, after, alignment, folder / "alignment.png")


def _common_grid(record: Record, align: AlignConfig) -> Grid:
    native = read_grid((record.optical or record.sar)[0])
    grid = coarser_grid(native, align.resolution)
    if min(grid.width, grid.height) < 2 <= min(native.width, native.height):
        what = f"is {align.resolution:g}, which leaves {grid.width} x {grid.height} pixels of scene {record.scene}"
        remedy = "It is in units of the scene's CRS: warp a scene in degrees to the CRS of the others first."
        raise InputError(Problem("config key `align.resolution`", what, remedy))
    return grid


def _write_optical(record: Record, sensors: SensorsConfig, grid: Grid, folder: Path, work: Path) -> FloatArray:
    """The optical image on the common grid, C x H x W with NaN for no data."""
    if not record.optical:
        values = _no_data(sensors.optical, grid)
        write_raster(folder / "optical.tif", values, grid, math.nan, sensors.optical.bands)
        return values
    native = read_grid(record.optical[0])
    path = stack_files(record.optical, native, work / "optical.vrt")
    values = read_float(path, nodata=sensors.optical.nodata)
    values = warp_array(values, native, grid, image_method(native, grid), math.nan, work)
    with open_raster(record.optical[0]) as dataset:
        dtype = dataset.dtypes[0]
    written, nodata = to_dtype(values, dtype, record.optical_nodata)
    write_raster(folder / "optical.tif", written, grid, nodata, sensors.optical.bands)
    return values


def _no_data(sensor: SensorConfig, grid: Grid) -> FloatArray:
    """What stands for a sensor that is missing: C x H x W of NaN."""
    return np.full((len(sensor.bands), grid.height, grid.width), np.nan, np.float32)


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

    def on(self, grid: Grid, nodes: npt.NDArray[np.float64] | None = None) -> FloatArray:
        """C x H x W on a grid, in dB where this is backscatter; NaN for no data."""
        power = warp_array(self._power, self._source, grid, self._method, math.nan, self._work, nodes)
        return power_to_db(power, self._scale, self._clip)

    def corrected(self, grid: Grid, alignment: Alignment) -> FloatArray:
        """The same with a correction built in, resampled once from what was delivered."""
        if alignment.matrix is None:
            return self.on(grid, np.array(alignment.nodes))
        return self.on(shifted_grid(grid, alignment.matrix))


def _register(record: Record, optical: FloatArray, sar: FloatArray, align: AlignConfig) -> Alignment:
    if not record.sar:
        return unmoved("single_sensor", "only the optical image exists, so there is nothing to register")
    if not record.optical:
        return unmoved("single_sensor", "only the second sensor exists; the scene lies on its grid as delivered")
    if not align.enabled:
        return unmoved("rejected", "co-registration is switched off")
    return coregister.estimate(optical, sar, align)


def _plain(value: object) -> object:
    """What JSON can hold: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
