"""What is wrong or odd between scenes or tiles, each of which may be sound by itself."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tmcnet.config import SensorConfig, SensorsConfig
from tmcnet.errors import Problem, format_names
from tmcnet.raster.inventory.checks import Inspected, coverage
from tmcnet.raster.inventory.entry import TRAIN
from tmcnet.raster.io.geometry import Grid, pixel_area, reproject_points

_SAME_SIZE = 1.25
"""Pixels that differ by less than this factor show the same things."""
_SHARED = 0.1
"""Share of a footprint from which on another scene on the same ground is told; neighbouring granules of Sentinel-2
share less."""


def scale_problems(seen: Sequence[Inspected], sensors: SensorsConfig) -> list[Problem]:
    """One network sees all scenes: what is detected must agree, and decibels must not stand beside plain numbers."""
    problems = _scales_of_sar(seen, sensors["sar"])
    for name, sensor in sensors.others.items():
        scales = _by_scale((one.entry.scene, one.scales.get(name, "")) for one in seen)
        if sensor.scale == "auto" and len(scales) > 1:
            what = f"`auto` finds different scales of backscatter ({_told(scales)})"
            remedy = "Declare the scale, or bring the files to one."
            problems.append(Problem(f"config key `sensors.{name}.scale`", what, remedy))
    return problems


def _scales_of_sar(seen: Sequence[Inspected], sensor: SensorConfig) -> list[Problem]:
    found = [(one, (one.entry.scene, one.scales.get("sar", ""))) for one in seen]
    detected = _by_scale(pair for one, pair in found if one.entry.scales.get("sar", sensor.scale) == "auto")
    if len(detected) > 1:
        what = f"`auto` finds different scales of backscatter ({_told(detected)})"
        remedy = (
            "Declare the scale, here or in the column `sar_scale` of the sample sheet; or bring the files to one."
        )
        return [Problem("config key `sensors.sar.scale`", what, remedy)]
    scales = _by_scale(pair for _, pair in found)
    if "none" in scales and len(scales) > 1:
        what = f"leaves some scenes as they are while others become decibels ({_told(scales)})"
        remedy = "Correct the column `sar_scale` of the sample sheet, or bring the files to one scale."
        return [Problem("config key `sensors.sar.scale`", what, remedy)]
    return []


def warn_of_doubles(seen: Sequence[Inspected], georeferenced: bool) -> None:
    """Note equal files, and scenes that lie on the ground of another one.

    Args:
        seen: What was read; takes the warnings.
        georeferenced: True for scenes; ready-made tiles are only asked whether they lie on the very same place.
    """
    footprints: dict[Any, str] = {}
    contents: dict[Any, str] = {}
    for one in seen:
        grid = one.first.grid
        if grid.crs:
            bounds = (grid.crs, *(round(value / grid.pixel_size) for value in grid.bounds))
            other = footprints.setdefault(bounds, one.entry.scene)
            if other != one.entry.scene:
                one.warnings.append(f"same footprint as {other}")
        for kind, facts in one.images.items():
            if not facts:
                continue
            other = contents.setdefault((kind, *(f.digest for f in facts)), one.entry.scene)
            if other != one.entry.scene and facts[0].low < facts[0].high:
                one.warnings.append(f"{kind} identical with {other}")
    if georeferenced:
        _warn_of_shared_ground(seen)


def _warn_of_shared_ground(seen: Sequence[Inspected]) -> None:
    boxes = [_degrees(one.first.grid) for one in seen]
    for (first, first_box), (second, box) in itertools.combinations(zip(seen, boxes, strict=True), 2):
        apart = (first_box[2:] < box[:2]) | (box[2:] < first_box[:2])
        if apart.any() or f"same footprint as {first.entry.scene}" in second.warnings:
            continue
        share = coverage(second.first.grid, first.first.grid)
        if max(share, coverage(first.first.grid, second.first.grid)) >= _SHARED:
            second.warnings.append(f"{share:.1%} of it lies on the ground of {first.entry.scene}")


def _degrees(grid: Grid) -> npt.NDArray[np.float64]:
    """West, south, east, north of the rectangle around a raster; all the world where that is not known."""
    along, near, far = np.linspace(0, 1, 9), np.zeros(9), np.ones(9)
    column, row = np.concatenate([along, along, near, far]), np.concatenate([near, far, along, along])
    everywhere = np.array([-math.inf, -math.inf, math.inf, math.inf])
    lon, lat = reproject_points(grid.crs, "EPSG:4326", *(grid.transform @ (column * grid.width, row * grid.height)))
    box = np.array([lon.min(), lat.min(), lon.max(), lat.max()])
    return box if np.isfinite(box).all() and box[2] - box[0] < 180 else everywhere


def warn_of_pixel_sizes(seen: Sequence[Inspected]) -> None:
    """A scene on the grid of its only sensor may have pixels of a size that no network has learnt."""
    lone = [one for one in seen if not one.has_both]
    learnt = [_metres(one) for one in seen if lone and one.entry.role == TRAIN]
    for one in lone if learnt else ():
        size = _metres(one)
        if not any(other / _SAME_SIZE < size < other * _SAME_SIZE for other in learnt):
            told = ", ".join(sorted({f"{other:.3g} m" for other in learnt}))
            what = f"pixels of {size:.3g} m; in the scenes that are learnt from: {told}"
            one.warnings.append(f"{what}. Set `align.resolution`, or resample the file")


def _by_scale(scales: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Scenes by their scale, of pairs of the two; those without are left out."""
    found: dict[str, list[str]] = {}
    for scene, scale in scales:
        if scale:
            found.setdefault(scale, []).append(scene)
    return found


def _told(scales: dict[str, list[str]]) -> str:
    return "; ".join(f"{scale}: {format_names(names)}" for scale, names in sorted(scales.items()))


def _metres(one: Inspected) -> float:
    """Width of a square pixel of that area; NaN, which equals nothing, where the CRS has no such thing."""
    area = pixel_area(one.first.grid)
    return math.nan if area is None else math.sqrt(area)
