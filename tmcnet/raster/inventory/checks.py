"""Checks of the input: problems within one scene or tile and between them, with file, config key and remedy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tmcnet.config import SensorConfig, SensorsConfig
from tmcnet.errors import Problem, format_names
from tmcnet.raster.inventory.sample_sheet import TRAIN, Entry
from tmcnet.raster.inventory.scan import FileSummary
from tmcnet.raster.io.geometry import Grid, pixel_area, reproject_points
from tmcnet.raster.io.labels import LabelCoder
from tmcnet.raster.io.radiometry import detect_scale

_PROBES_PER_SIDE = 33
_MIN_OVERLAP = 0.5
"""Share of the scene that every modality and the label must cover."""
_MAX_PIXEL_RATIO = 1.25
"""Pixels whose sizes differ by less than this factor show the same things."""
_MIN_SHARED = 0.1
"""Share of a footprint from which another scene on the same ground is noted; adjacent granules of Sentinel-2 share
less."""


@dataclass
class Inspection:
    """A scene or tile whose files have been read through.

    Attributes:
        entry: Its name and files.
        images: Summaries of the files of each modality; empty where the scene has none.
        label: Summary of the label file.
        scales: Declared or detected scale of each modality; empty without files, or where it cannot be detected.
        overlaps: Share of the scene that each modality covers; 0 without files.
        label_overlap: Share of the scene that the label covers.
        problems: Errors, which stop the workflow.
        warnings: Oddities, which are listed in the inventory.
    """

    entry: Entry
    images: dict[str, list[FileSummary]] = field(default_factory=dict)
    label: FileSummary | None = None
    scales: dict[str, str] = field(default_factory=dict)
    overlaps: dict[str, float] = field(default_factory=dict)
    label_overlap: float = 1.0
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def reference(self) -> str:
        """The modality that defines the grid of the scene: `optical`, where there is one, else `sar`."""
        return "optical" if self.images["optical"] else "sar"

    @property
    def grid(self) -> Grid:
        """Grid of the first file of the reference modality."""
        return self.images[self.reference][0].grid

    @property
    def files(self) -> list[FileSummary]:
        """Summaries of all files: images, label."""
        return [file for files in self.images.values() for file in files] + ([self.label] if self.label else [])

    @property
    def has_both(self) -> bool:
        """Whether there are optical and SAR files."""
        return bool(self.images["optical"] and self.images["sar"])


def check_scene(scene: Inspection, sensors: SensorsConfig, coder: LabelCoder | None, georeferenced: bool) -> None:
    """Add the problems and warnings of a scene or tile whose files could be read.

    Args:
        scene: The files; problems, warnings, scales and overlaps are added to it.
        sensors: Section `sensors` of the config.
        coder: The label codes.
        georeferenced: True for scenes, which are warped; false for ready-made tiles, which must match in pixels.
    """
    for name, sensor in sensors.items():
        files = scene.images[name]
        if not files:
            without = "without it" if sensors.others else "with one sensor"
            scene.warnings.append(f"no {name} image: mapped {without}")
            continue
        _check_bands(scene, name, sensor)
        for file in files:
            if file.infinite:
                scene.warnings.append(f"{file.path.name}: {file.infinite} infinite values, taken as no data")
            if file.valid_share == 0:
                _report_empty_file(scene, name, file, georeferenced)
    if scene.label is not None and scene.label.unknown and coder is not None:
        scene.problems.append(coder.problem(scene.label.path, scene.label.unknown))
    for name, sensor in sensors.items():
        scene.scales[name] = _check_scale(scene, name, sensor)
    if not georeferenced:
        _check_sizes(scene)
    elif _check_georeference(scene):
        _check_stacks(scene)
        _check_overlap(scene)


def _check_bands(scene: Inspection, name: str, sensor: SensorConfig) -> None:
    files = scene.images[name]
    count = sum(file.bands for file in files)
    if count != len(sensor.bands):
        what = f"{'has' if len(files) == 1 else 'have'} {count} band(s), but `sensors.{name}.bands` names "
        what += f"{len(sensor.bands)}: {', '.join(sensor.bands)}"
        where = ", ".join(str(file.path) for file in files)
        scene.problems.append(Problem(where, what, "Give one name for each band."))


def _report_empty_file(scene: Inspection, name: str, file: FileSummary, georeferenced: bool) -> None:
    if not georeferenced:
        # one empty tile of hundreds is left out later, by `tiles.min_valid`
        scene.warnings.append(f"{file.path.name}: no data everywhere")
        return
    remedy = f"Replace the file, or correct `sensors.{name}.nodata`; the file's own value is {file.nodata}."
    scene.problems.append(Problem(str(file.path), "has no pixel that is valid in all bands", remedy))


def _check_scale(scene: Inspection, name: str, sensor: SensorConfig) -> str:
    """Scale of a modality: declared in the sample sheet, else in the config, else detected; empty if unknown."""
    files, of_sheet, key = scene.images[name], scene.entry.scales.get(name), f"sensors.{name}"
    if not files:
        return ""
    valid = [file for file in files if np.isfinite(file.low)]
    declared = of_sheet or sensor.scale
    if declared != "auto":
        source = f"{name}_scale" if of_sheet else f"{key}.scale"
        remedy = f"Declare `db` if these are decibels, or the value of no data as `{key}.nodata`."
        for file in valid:
            if declared in ("linear", "amplitude") and file.low < 0:
                what = f"`{source}: {declared}` cannot be: the smallest value is {file.low:g}"
                scene.problems.append(Problem(str(file.path), what, remedy))
        return declared
    if sensor.kind != "backscatter" or not valid:
        return "none"
    low, high = min(file.low for file in valid), max(file.high for file in valid)
    scale = detect_scale(valid[0].dtype, low, high, float(np.median([file.median for file in valid])))
    if scale is None:
        what = f"the scale of the backscatter cannot be detected from its values ({low:g} to {high:g})"
        remedy = f"Declare `{key}.scale` as linear, amplitude, db or none; and `{key}.nodata` if one is missing."
        scene.problems.append(Problem(str(valid[0].path), what, remedy))
    return scale or ""


def _check_sizes(tile: Inspection) -> None:
    if len({(file.grid.height, file.grid.width) for file in tile.files}) > 1:
        sizes = ", ".join(f"{file.path.name} {file.grid.width} x {file.grid.height}" for file in tile.files)
        remedy = "Tiles are taken pixel by pixel: bring them to one grid, or use `source.layout: scenes`."
        what = f"differs in size from its fellows: {sizes}"
        tile.problems.append(Problem(str(tile.files[0].path), what, remedy))


def _check_georeference(scene: Inspection) -> bool:
    """Whether all files have CRS and transform; adds a problem for each that has not."""
    without = [file for file in scene.files if not file.grid.crs or not file.georeferenced]
    for file in without:
        missing = {"CRS": not file.grid.crs, "geotransform": not file.georeferenced}
        what = f"has no {' and '.join(name for name, lacks in missing.items() if lacks)}"
        remedy = "Scenes are warped to a common grid: assign it (`gdal_translate -a_srs EPSG:... -a_ullr ...`)"
        remedy += ", or set `source.crs`." if file.georeferenced else "."
        scene.problems.append(Problem(str(file.path), what, remedy))
    return not without


def _check_stacks(scene: Inspection) -> None:
    for name, files in scene.images.items():
        for file in files[1:]:
            differs = {"CRS": file.grid.crs != files[0].grid.crs, "type of numbers": file.dtype != files[0].dtype}
            if any(differs.values()):
                other = " and ".join(what for what, different in differs.items() if different)
                what = f"is stacked with {files[0].path.name} but has another {other}"
                scene.problems.append(Problem(str(file.path), what, f"Bring the {name} files of a scene to one."))


def _check_overlap(scene: Inspection) -> None:
    covering = {name: files for name, files in scene.images.items() if files and name != scene.reference}
    covering |= {"label": [scene.label]} if scene.label else {}
    for name, files in scene.images.items():
        scene.overlaps[name] = min((coverage(scene.grid, file.grid) for file in files), default=0.0)
    scene.label_overlap = coverage(scene.grid, scene.label.grid) if scene.label else 0.0
    for name, files in covering.items():
        share = scene.label_overlap if name == "label" else scene.overlaps[name]
        if share < _MIN_OVERLAP:
            reference = scene.images[scene.reference][0].path.name
            what = f"covers {share:.0%} of {reference}; at least {_MIN_OVERLAP:.0%} is needed"
            remedy = f"Check that this is the {name} of scene {scene.entry.scene}, and its CRS."
            scene.problems.append(Problem(str(files[0].path), what, remedy))
        elif share < 1:
            scene.warnings.append(f"{name} covers {share:.1%} of the {scene.reference} image")


def coverage(reference: Grid, other: Grid) -> float:
    """Share of the footprint of one raster that is inside another, from 33 x 33 probes."""
    along = (np.arange(_PROBES_PER_SIDE) + 0.5) / _PROBES_PER_SIDE
    x, y = np.meshgrid(along, along)
    x, y = reference.transform @ (x * reference.width, y * reference.height)
    if reference.crs != other.crs:
        x, y = reproject_points(reference.crs, other.crs, x, y)
    column, row = ~other.transform @ (x, y)
    return float(np.mean((column >= 0) & (column <= other.width) & (row >= 0) & (row <= other.height)))


def scale_problems(scenes: Sequence[Inspection], sensors: SensorsConfig) -> list[Problem]:
    """Find scales that differ between scenes: one network sees them all, in decibels or as plain numbers."""
    problems = []
    for name, sensor in sensors.items():
        where, column = f"config key `sensors.{name}.scale`", f"the column `{name}_scale` of the sample sheet"
        detected = [s for s in scenes if s.entry.scales.get(name, sensor.scale) == "auto"]
        if len(scales := _scenes_by_scale(detected, name)) > 1:
            what = f"`auto` finds different scales of backscatter ({_format_scales(scales)})"
            here = f", here or in {column};" if name == "sar" else ","
            problems.append(Problem(where, what, f"Declare the scale{here} or bring the files to one."))
        elif "none" in (scales := _scenes_by_scale(scenes, name)) and len(scales) > 1:
            what = f"leaves some scenes as they are while others become decibels ({_format_scales(scales)})"
            problems.append(Problem(where, what, f"Correct {column}, or bring the files to one scale."))
    return problems


def _scenes_by_scale(scenes: Sequence[Inspection], name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for scene in scenes:
        if scale := scene.scales.get(name):
            found.setdefault(scale, []).append(scene.entry.scene)
    return found


def _format_scales(scales: dict[str, list[str]]) -> str:
    return "; ".join(f"{scale}: {format_names(names)}" for scale, names in sorted(scales.items()))


def warn_of_duplicates(scenes: Sequence[Inspection], georeferenced: bool) -> None:
    """Add warnings for equal files, and for scenes on the ground of another one.

    Args:
        scenes: All scenes or tiles; warnings are added to them.
        georeferenced: True for scenes; of ready-made tiles only equal footprints are found.
    """
    footprints: dict[Any, str] = {}
    contents: dict[Any, str] = {}
    for scene in scenes:
        if scene.grid.crs:
            bounds = (scene.grid.crs, *(round(value / scene.grid.pixel_size) for value in scene.grid.bounds))
            other = footprints.setdefault(bounds, scene.entry.scene)
            if other != scene.entry.scene:
                scene.warnings.append(f"same footprint as {other}")
        for name, files in scene.images.items():
            if not files:
                continue
            other = contents.setdefault((name, *(file.digest for file in files)), scene.entry.scene)
            if other != scene.entry.scene and files[0].low < files[0].high:
                scene.warnings.append(f"{name} identical with {other}")
    if georeferenced:
        _warn_of_shared_ground(scenes)


def _warn_of_shared_ground(scenes: Sequence[Inspection]) -> None:
    boxes = [_degree_box(scene.grid) for scene in scenes]
    for (first, first_box), (second, box) in itertools.combinations(zip(scenes, boxes, strict=True), 2):
        disjoint = (first_box[2:] < box[:2]) | (box[2:] < first_box[:2])
        if disjoint.any() or f"same footprint as {first.entry.scene}" in second.warnings:
            continue
        share = coverage(second.grid, first.grid)
        if max(share, coverage(first.grid, second.grid)) >= _MIN_SHARED:
            second.warnings.append(f"{share:.1%} of it is on the ground of {first.entry.scene}")


def _degree_box(grid: Grid) -> npt.NDArray[np.float64]:
    """West, south, east, north of the rectangle around a raster; the whole world where that is not known."""
    along, near, far = np.linspace(0, 1, 9), np.zeros(9), np.ones(9)
    column, row = np.concatenate([along, along, near, far]), np.concatenate([near, far, along, along])
    lon, lat = reproject_points(grid.crs, "EPSG:4326", *(grid.transform @ (column * grid.width, row * grid.height)))
    box = np.array([lon.min(), lat.min(), lon.max(), lat.max()])
    known = np.isfinite(box).all() and box[2] - box[0] < 180
    return box if known else np.array([-math.inf, -math.inf, math.inf, math.inf])


def warn_of_pixel_sizes(scenes: Sequence[Inspection]) -> None:
    """Add warnings for scenes of one sensor, mapped on its grid, whose pixel size occurs in no training scene."""
    lone = [scene for scene in scenes if not scene.has_both]
    trained = [_pixel_metres(scene) for scene in scenes if lone and scene.entry.role == TRAIN]
    for scene in lone if trained else ():
        size = _pixel_metres(scene)
        if not any(other / _MAX_PIXEL_RATIO < size < other * _MAX_PIXEL_RATIO for other in trained):
            sizes = ", ".join(sorted({f"{other:.3g} m" for other in trained}))
            what = f"pixels of {size:.3g} m; in the training scenes: {sizes}"
            scene.warnings.append(f"{what}. Set `align.resolution`, or resample the file")


def _pixel_metres(scene: Inspection) -> float:
    """Width of a square pixel of equal area; NaN, which equals nothing, where the CRS has no such thing."""
    area = pixel_area(scene.grid)
    return math.nan if area is None else math.sqrt(area)
