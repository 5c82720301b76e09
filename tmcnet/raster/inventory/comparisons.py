"""Comparisons between the scenes of a source: scales, tags, values, ground and pixels that differ or are alike."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tmcnet.config import SensorConfig, SensorsConfig
from tmcnet.errors import Problem, format_names
from tmcnet.raster.inventory.checks import Inspection, coverage
from tmcnet.raster.inventory.sample_sheet import TRAIN
from tmcnet.raster.io.geometry import Grid, pixel_area, reproject_points
from tmcnet.raster.io.radiometry import to_db

_MAX_MEDIAN_RATIO = 2.5
"""Scenes on the same ground whose medians differ by more are noted: seasons mostly stay below, factors do not."""
_MAX_MEDIAN_DIFFERENCE_DB = 6.0
_MAX_UNIT_RATIO = 15.0  # medians on any ground that differ by a larger factor are in different units
_BASELINE = re.compile(r"_N(\d{4})_")  # processing baseline in the names of Sentinel-2 products
_MAX_PIXEL_RATIO = 1.25  # pixels whose sizes differ by less than this factor show the same things
_MIN_SHARED = 0.1
"""Share of a footprint from which another scene on the same ground is noted; adjacent granules share less."""


def scale_problems(scenes: Sequence[Inspection], sensors: SensorsConfig) -> list[Problem]:
    """Find scales that differ between scenes: one network sees them all, in decibels or as plain numbers."""
    problems = []
    for name, sensor in sensors.items():
        where, column = f"config key `sensors.{name}.scale`", f"the column `{name}_scale` of the sample sheet"
        detected = [s for s in scenes if s.entry.scales.get(name, sensor.scale) == "auto"]
        if len(scales := _scenes_by_scale(detected, name)) > 1:
            what = f"`auto` finds different scales of backscatter ({_format_scales(scales)})"
            problems.append(
                Problem(where, what, f"Declare the scale, here or in {column}; or bring the files to one.")
            )
        elif "none" in (scales := _scenes_by_scale(scenes, name)) and len(scales) > 1:
            what = f"leaves some scenes as they are while others become decibels ({_format_scales(scales)})"
            problems.append(Problem(where, what, f"Correct {column}, or bring the files to one scale."))
    return problems


def _scenes_by_scale(scenes: Sequence[Inspection], name: str) -> dict[str, list[str]]:
    scenes_of: dict[str, list[str]] = {}
    for scene in scenes:
        if scale := scene.scales.get(name):
            scenes_of.setdefault(scale, []).append(scene.entry.scene)
    return scenes_of


def _format_scales(scales: dict[str, list[str]]) -> str:
    return "; ".join(f"{scale}: {format_names(names)}" for scale, names in sorted(scales.items()))


def warn_of_duplicates(scenes: Sequence[Inspection], georeferenced: bool) -> None:
    """Add warnings for equal files and, if georeferenced, for scenes on the ground of another one."""
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
            if other != scene.entry.scene and (files[0].low < files[0].high).any():
                scene.warnings.append(f"{name} identical with {other}")
    for first, second, share in _pairs_on_shared_ground(scenes) if georeferenced else ():
        if f"same footprint as {first.entry.scene}" not in second.warnings:
            second.warnings.append(f"{share:.1%} of it is on the ground of {first.entry.scene}")


def _pairs_on_shared_ground(scenes: Sequence[Inspection]) -> Iterator[tuple[Inspection, Inspection, float]]:
    """Yield pairs of scenes, and the share of the second that is on the ground of the first."""
    boxes = [_degree_box(scene.grid) for scene in scenes]
    for (first, first_box), (second, box) in itertools.combinations(zip(scenes, boxes, strict=True), 2):
        disjoint = (first_box[2:] < box[:2]) | (box[2:] < first_box[:2])
        if not disjoint.any():
            share = coverage(second.grid, first.grid)
            if max(share, coverage(first.grid, second.grid)) >= _MIN_SHARED:
                yield first, second, share


def _degree_box(grid: Grid) -> npt.NDArray[np.float64]:
    """West, south, east, north of the rectangle around a raster; the whole world where that is not known."""
    along, near, far = np.linspace(0, 1, 9), np.zeros(9), np.ones(9)
    column, row = np.concatenate([along, along, near, far]), np.concatenate([near, far, along, along])
    lon, lat = reproject_points(grid.crs, "EPSG:4326", *(grid.transform @ (column * grid.width, row * grid.height)))
    box = np.array([lon.min(), lat.min(), lon.max(), lat.max()])
    usable = np.isfinite(box).all() and box[2] - box[0] < 180
    return box if usable else np.array([-math.inf, -math.inf, math.inf, math.inf])


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


def warn_of_differences(scenes: Sequence[Inspection], sensors: SensorsConfig) -> None:
    """Add warnings for scenes whose tags differ from others, or whose medians do on the same ground."""
    for name in sensors:
        having = [scene for scene in scenes if scene.images[name]]
        _warn_of_other_tags(having, name)
        _warn_of_baselines(having, name)
    for first, second, _ in _pairs_on_shared_ground(scenes):
        for name, sensor in sensors.items():
            if not first.images[name] or not second.images[name] or sensor.kind == "elevation":
                continue
            medians = [_median(scene, name, sensor) for scene in (first, second)]
            if _are_apart(*medians, decibels=second.scales[name] != "none"):
                what = f"the median of {name} is {medians[1]:.4g}, that of {first.entry.scene} {medians[0]:.4g}"
                second.warnings.append(f"{what}: check scale, offset and no data")
    for name, sensor in sensors.items():
        if sensor.kind != "elevation":
            _warn_of_other_units([scene for scene in scenes if scene.images[name]], name, sensor)


def _warn_of_other_tags(scenes: Sequence[Inspection], name: str) -> None:
    scaling = {s.entry.scene: [sorted(set(file.file.header.scaling)) for file in s.images[name]] for s in scenes}
    tagged = {s.entry.scene: all(file.nodata is not None for file in s.images[name]) for s in scenes}
    first = next(iter(scaling), "")
    for scene in scenes:
        if scaling[scene.entry.scene] != scaling[first]:
            scene.warnings.append(f"{name} has other tags for scale and offset than {first}; they are applied")
        if any(tagged.values()) and not tagged[scene.entry.scene]:
            others = format_names(other for other, has in tagged.items() if has)
            scene.warnings.append(f"{name} has no value of no data; these scenes have one: {others}")


def _warn_of_baselines(scenes: Sequence[Inspection], name: str) -> None:
    """Sentinel-2 numbers contain an offset since baseline 04.00, which tags or the config must give."""
    without: dict[bool, list[tuple[Inspection, str]]] = {False: [], True: []}
    for scene in scenes:
        for file in scene.images[name]:
            if (found := _BASELINE.search(file.file.paths[0])) and not file.file.header.has_scaling:
                without[found[1] >= "0400"].append((scene, file.name))
    if without[False] and without[True]:
        older = without[False][0][1]
        for scene, newer in without[True]:
            what = f"{newer}: by its name it contains the offset of Sentinel-2 since baseline 04.00, {older} does not"
            scene.warnings.append(f"{what}: give `{name}_add_offset` in the sample sheet")


def _warn_of_other_units(scenes: Sequence[Inspection], name: str, sensor: SensorConfig) -> None:
    """Add warnings for scenes, on any ground, whose values differ from others as units and types of numbers do."""
    medians = {scene.entry.scene: _median(scene, name, sensor) for scene in scenes}
    known = sorted(median for median in medians.values() if math.isfinite(median))
    typical = known[(len(known) - 1) // 2] if known else math.nan
    first = next((scene for scene, median in medians.items() if median == typical), "")
    for scene in scenes:
        median = medians[scene.entry.scene]
        known_to_differ = any(text.startswith(f"the median of {name} ") for text in scene.warnings)
        if scene.scales[name] != "none" or not math.isfinite(median) or known_to_differ:
            continue
        low, high = sorted((abs(median), abs(typical)))
        signs = sensor.kind == "backscatter" and median * typical < 0
        if signs or high > _MAX_UNIT_RATIO * low > 0:
            what = f"the median of {name} is {median:.4g}, that of {first} {typical:.4g}"
            scene.warnings.append(f"{what}: check that both have the same unit")


def _median(scene: Inspection, name: str, sensor: SensorConfig) -> float:
    """Median of the medians of the bands, as the network gets them."""
    medians = np.concatenate([file.median for file in scene.images[name]])
    decibels = to_db(medians[np.isfinite(medians)], scene.scales[name], sensor.clip_db)
    return float(np.median(decibels)) if decibels.size else math.nan


def _are_apart(one: float, other: float, *, decibels: bool) -> bool:
    if decibels or not one > 0 or not other > 0:
        return decibels and abs(one - other) > _MAX_MEDIAN_DIFFERENCE_DB
    return max(one, other) / min(one, other) > _MAX_MEDIAN_RATIO
