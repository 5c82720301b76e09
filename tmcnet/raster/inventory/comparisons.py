"""Comparisons between the scenes of a source: scales, tags, values, ground and pixels that differ or are alike."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tmcnet.config import SensorConfig, SensorsConfig
from tmcnet.errors import Problem, format_names
from tmcnet.raster.inventory.descriptions import Statement, band_order, statements
from tmcnet.raster.inventory.ground import coverage
from tmcnet.raster.inventory.sample_sheet import TRAIN
from tmcnet.raster.inventory.scan import FileSummary, Inspection
from tmcnet.raster.io.files import numpy_type
from tmcnet.raster.io.geometry import Grid, pixel_area, reproject_points
from tmcnet.raster.io.products import WITH_OFFSET, WITHOUT_OFFSET, level_by_name, meaning_by_name
from tmcnet.raster.io.radiometry import to_db

Pair: TypeAlias = tuple[Inspection, Inspection, float]  # two scenes; share of the second on the ground of the first

_MAX_MEDIAN_RATIO = 2.5
"""Scenes on the same ground whose medians differ by more are noted: seasons mostly stay below, factors do not."""
_MAX_MEDIAN_DIFFERENCE_DB = 6.0
_MAX_UNIT_RATIO = 15.0  # medians on any ground that differ by a larger factor are in different units
_MAX_TILE_RATIO = 1000.0  # largest reflectances of tiles that differ by a larger factor are in different units
_MIN_NUMBER = 50.0  # largest value of pictures and per cents, which shares of 1 are no part of
_MIN_MEDIAN_WITH_OFFSET = 900  # numbers of Sentinel-2; with the offset in them, half of the pixels were below -0.01
_MIN_LANDSAT_MEDIAN = 5000  # numbers of reflectance in Landsat Collection 2 from -0.06 on; 0 is 7273
_NOT_LANDSAT = WITHOUT_OFFSET[0], math.inf  # smaller numbers of an unknown product
_MAX_PIXEL_RATIO = 1.25  # pixels whose sizes differ by less than this factor show the same things
_HEIGHTS = {"": "m", "m": "m", "ft": "ft", "cm": "cm", "km": "km"}  # units of elevation; slopes have others
_MIN_SHARED = 0.1
"""Share of a footprint from which another scene on the same ground is noted; adjacent granules share less."""


def scale_problems(scenes: Sequence[Inspection], sensors: SensorsConfig) -> Iterator[Problem]:
    """Yield scales that differ between scenes: one network sees them all, in decibels or as plain numbers."""
    for name, sensor in sensors.items():
        where, column = f"config key `sensors.{name}.scale`", f"the column `{name}_scale` of the sample sheet"
        detected = [s for s in scenes if (s.entry.scale(name) or sensor.scale) == "auto"]
        if len(scales := _scenes_by_scale(detected, name)) > 1:
            what = f"`auto` finds different scales of backscatter ({_format_scales(scales)})"
            yield Problem(where, what, f"Declare the scale, here or in {column}; or bring the files to one.")
        elif "none" in (scales := _scenes_by_scale(scenes, name)) and len(scales) > 1:
            what = f"leaves some scenes as they are while others become decibels ({_format_scales(scales)})"
            yield Problem(where, what, f"Correct {column}, or bring the files to one scale.")


def _scenes_by_scale(scenes: Sequence[Inspection], name: str) -> dict[str, list[str]]:
    scenes_of: dict[str, list[str]] = {}
    for scene in scenes:
        if scale := scene.scales.get(name):
            scenes_of.setdefault(scale, []).append(scene.entry.scene)
    return scenes_of


def _format_scales(scales: dict[str, list[str]]) -> str:
    return "; ".join(f"{scale}: {format_names(names)}" for scale, names in sorted(scales.items()))


def warn_of_duplicates(scenes: Sequence[Inspection], pairs: Sequence[Pair]) -> None:
    """Add warnings for equal files, also of one scene, and for scenes on the ground of another."""
    footprints: dict[Any, str] = {}
    contents: dict[Any, str] = {}
    for scene in scenes:
        if (grid := scene.grid).crs:
            bounds = (grid.crs, *(round(value / grid.pixel_size) for value in grid.bounds))
            other = footprints.setdefault(bounds, scene.entry.scene)
            if other != scene.entry.scene:
                scene.warnings.append(f"same footprint as {other}")
        for name, files in scene.images.items():
            if not files:
                continue
            other = contents.setdefault((name, *(file.digest for file in files)), scene.entry.scene)
            if other != scene.entry.scene and (files[0].low < files[0].high).any():
                scene.warnings.append(f"{name} identical with {other}")
        of_scene: dict[str, str] = {}
        for file in itertools.chain(*scene.images.values()):
            if file.digest in of_scene and (file.low < file.high).any():
                scene.warnings.append(f"{file.name} holds the same numbers as {of_scene[file.digest]}")
            of_scene.setdefault(file.digest, file.name)
    for first, second, share in pairs:
        if f"same footprint as {first.entry.scene}" not in second.warnings:
            second.warnings.append(f"{share:.1%} of it is on the ground of {first.entry.scene}")


def pairs_on_shared_ground(scenes: Sequence[Inspection]) -> Iterator[Pair]:
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


def warn_of_legends(scenes: Sequence[Inspection]) -> None:
    """Add warnings for labels that give a code the colour, or the name, that another code has in the first of them.

    Programs that save a picture of few colours number these anew in each file.
    """
    for place, kind in enumerate(("colour", "name")):
        first: dict[str, str] = {}
        origin = ""
        for scene in scenes:
            own = {code: given[place] for code, given in scene.legend.items() if given[place]}
            first, origin = (first, origin) if first else (own, scene.entry.scene)
            for code, meaning in own.items():
                others = [other for other, its in first.items() if its == meaning]
                if others and code in first and code not in others:
                    what = f"code {code} of the label has the {kind} of code {others[0]} in {origin}"
                    scene.warnings.append(f"{what}: check that codes mean the same")


def _pixel_metres(scene: Inspection) -> float:
    """Width of a square pixel of equal area; NaN, which equals nothing, where the CRS has no such thing."""
    area = pixel_area(scene.grid)
    return math.nan if area is None else math.sqrt(area)


def warn_of_differences(scenes: Sequence[Inspection], pairs: Sequence[Pair], sensors: SensorsConfig) -> None:
    """Add warnings for scenes whose tags differ from others, or whose medians do on the same ground."""
    for name, sensor in sensors.items():
        having = [scene for scene in scenes if scene.images[name]]
        _warn_of_other_tags(having, name)
        _warn_of_other_order(having, name)
        _warn_of_other_bands(having, name, sensor)
        if sensor.kind == "reflectance":
            _warn_of_products(having, name)
            _warn_of_levels(having, name)
    for first, second, _ in pairs:
        for name, sensor in sensors.items():
            if not first.images[name] or not second.images[name] or sensor.kind == "elevation":
                continue
            medians = [_median(scene, name, sensor) for scene in (first, second)]
            low, high = sorted(medians)
            decibels = second.scales[name] != "none" and high - low > _MAX_MEDIAN_DIFFERENCE_DB
            if decibels or (second.scales[name] == "none" and high > _MAX_MEDIAN_RATIO * low > 0):
                what = f"the median of {name} is {medians[1]:.4g}, that of {first.entry.scene} {medians[0]:.4g}"
                second.warnings.append(f"{what}: check scale, offset and no data")
    for name, sensor in sensors.items():
        if sensor.kind != "elevation":
            _warn_of_other_units([scene for scene in scenes if scene.images[name]], name, sensor)


def warn_of_unlike_tiles(tiles: Sequence[Inspection], sensors: SensorsConfig) -> None:
    """Add warnings for ready-made tiles whose numbers or pixels are of another kind than those of most tiles."""
    for name, sensor in sensors.items():
        _warn_of_other_tags(tiles, name)
        _warn_of_other_order(tiles, name)
        _warn_of_other_bands(tiles, name, sensor)
        least, most = (
            pick.reduce([np.concatenate([getattr(file, end) for file in tile.images[name]]) for tile in tiles])
            for pick, end in ((np.fmin, "low"), (np.fmax, "high"))
        )
        for number in np.flatnonzero(least == most):
            what = f"{name} band {sensor.bands[number]} is {least[number]:g} in all tiles"
            tiles[0].warnings.append(f"{what}: leave it out of `sensors.{name}.bands`")
        kinds = [_kind_of_numbers(tile.images[name][0].header.dtype) for tile in tiles]
        highs = np.array([max(file.range[1] for file in tile.images[name]) for tile in tiles])
        ((usual, _),) = Counter(kinds).most_common(1)
        typical = float(np.median(known)) if (known := highs[np.isfinite(highs)]).size else math.nan
        for tile, kind, high in zip(tiles, kinds, highs.tolist(), strict=True):
            low, far = min(high, typical), max(high, typical)
            differ = far > _MAX_TILE_RATIO * low > 0 or (0 < low <= 1 and far >= _MIN_NUMBER)
            if kind != usual or (sensor.kind == "reflectance" and differ):
                what = f"{name} has {kind} up to {high:.4g}, most tiles have {usual}, typically up to {typical:.4g}"
                tile.warnings.append(f"{what}: check that they mean the same")
    pixels = [(grid.crs, grid.pixel_size) for grid in (tile.grid for tile in tiles)]
    sizes: dict[str, list[float]] = {}
    for crs, size in pixels:
        sizes.setdefault(crs, []).append(size)
    usual_sizes = {crs: float(np.median(of_crs)) for crs, of_crs in sizes.items() if crs}
    for tile, (crs, size) in zip(tiles, pixels, strict=True):
        usual_size = usual_sizes.get(crs, size)
        if not usual_size / _MAX_PIXEL_RATIO < size < usual_size * _MAX_PIXEL_RATIO:
            tile.warnings.append(f"pixels of {size:.4g} units of the CRS; those of most tiles have {usual_size:.4g}")


def _kind_of_numbers(dtype: str) -> str:
    kind = numpy_type(dtype).kind
    return "numbers of 8 bits" if dtype == "uint8" else "whole numbers" if kind in "iu" else "real numbers"


def _warn_of_other_tags(scenes: Sequence[Inspection], name: str) -> None:
    scaling = {s.entry.scene: [sorted(set(file.header.tags)) for file in s.images[name]] for s in scenes}
    tagged = {s.entry.scene: all(file.nodata is not None for file in s.images[name]) for s in scenes}
    first = next(iter(scaling), "")
    others = format_names(other for other, has in tagged.items() if has)
    for scene in scenes:
        if scaling[scene.entry.scene] != scaling[first]:
            scene.warnings.append(f"{name} has other tags for scale and offset than {first}; they are applied")
        if others and not tagged[scene.entry.scene]:
            scene.warnings.append(f"{name} has no value of no data; these scenes have one: {others}")


def _warn_of_other_order(scenes: Sequence[Inspection], name: str) -> None:
    """Add warnings for scenes with the bands of the first in another order, by descriptions or names of files."""
    orders = {scene.entry.scene: order for scene in scenes if (order := band_order(scene.images[name]))}
    for scene in scenes if orders else ():
        first, base = next(iter(orders.items()))
        if (order := orders.get(scene.entry.scene, base)) != base and sorted(order) == sorted(base):
            what = f"the bands of {name} are {', '.join(order)}, those of {first} {', '.join(base)}"
            scene.warnings.append(f"{what}: bring them to one order")


def _warn_of_other_bands(scenes: Sequence[Inspection], name: str, sensor: SensorConfig) -> None:
    """Add warnings for scenes whose files say that bands are others, or in other units, than earlier scenes say."""
    known: dict[tuple[int, Statement], tuple[str, str]] = {}  # scene and text of what is said of a band
    for scene in scenes:
        for n, statement in enumerate(statements(scene.images[name], scene.entry.scene)):
            unit = "" if sensor.kind == "backscatter" else statement.unit  # each scene has a scale of its own there
            unit = _HEIGHTS.get(unit, "") if sensor.kind == "elevation" else unit
            own, text = statement._replace(text="", unit=unit), f"{statement.text} {statement.unit}".strip()
            others = (said for (k, other), said in known.items() if k == n and own.contradicts(other))
            if clash := next(others, None):
                own_text = f"{text} ({', '.join(sorted(own.colours))})" if clash[1] == text else text
                what = f"{name} has {own_text} where {clash[0]} has {clash[1]}"
                scene.warnings.append(f"{what}: use the same bands and units")
            known.setdefault((n, own), (scene.entry.scene, text))


def _warn_of_products(scenes: Sequence[Inspection], name: str) -> None:
    """Add warnings for scenes whose numbers, by the names of the products, mean other values than those of others."""
    bands = [
        [(meaning, file.name) for meaning, file in _meanings(scene.images[name]) for _ in file.low]
        for scene in scenes
    ]
    known = {(n, meaning): file for of_scene in bands for n, (meaning, file) in enumerate(of_scene) if meaning}
    for scene, of_scene in zip(scenes, bands, strict=True):
        for number, (meaning, file) in enumerate(of_scene):
            if meaning is None or meaning == _NOT_LANDSAT:
                continue
            scale, offset = meaning
            others = {other: name for (n, other), name in known.items() if n == number and other != meaning}
            if unlike := next((file for other, file in others.items() if other[0] != scale), ""):
                what = f"its numbers mean {scale:g} * number {offset:+g}, unlike those of {unlike}"
                values = f"`{name}_scale_factor` {scale:g}"
                # without an offset that of the metadata, if there is one, stays in use
                values += f" and `{name}_add_offset` {offset:g}" if offset else ""
            elif meaning == WITH_OFFSET and WITHOUT_OFFSET in others:
                what = f"it contains the offset of Sentinel-2 since baseline 04.00, {others[WITHOUT_OFFSET]} does not"
                values = f"`{name}_add_offset` {offset / scale:g}"
            else:
                continue
            scene.warnings.append(f"{file}: by its name {what}: give {values} in the sample sheet")
            break


def _warn_of_levels(scenes: Sequence[Inspection], name: str) -> None:
    """Add warnings for scenes with reflectance at another place than the first: below or above the atmosphere."""
    paths = {s.entry.scene: [path for file in s.images[name] for path in file.header.files] for s in scenes}
    levels = {scene: next(filter(None, map(level_by_name, of_scene)), "") for scene, of_scene in paths.items()}
    first = next((scene for scene, level in levels.items() if level), "")
    for scene in scenes:
        if (level := levels[scene.entry.scene]) not in ("", levels.get(first)):
            what = f"{name} is a product of reflectance at the {level}, that of {first} at the {levels[first]}"
            scene.warnings.append(f"{what}: use products of one level")


def _meanings(files: Sequence[FileSummary]) -> list[tuple[tuple[float, float] | None, FileSummary]]:
    """What the numbers of the files of a scene mean, and these; an offset that was removed already is none."""
    found = [(_meaning(file), file) for file in files]
    medians = [np.fmin.reduce(file.median) for meaning, file in found if meaning == WITH_OFFSET]
    if any(0 < median < _MIN_MEDIAN_WITH_OFFSET for median in medians):
        return [(WITHOUT_OFFSET if meaning == WITH_OFFSET else meaning, file) for meaning, file in found]
    return found


def _meaning(file: FileSummary) -> tuple[float, float] | None:
    """Scale and offset from the numbers of a file to its values, by its name; None if unknown, or declared."""
    header = file.header
    if any(header.product_offsets):
        return WITHOUT_OFFSET  # it is added
    if file.file.scaling is not None or header.is_tagged or numpy_type(header.dtype).kind not in "iu":
        return None
    named = [meaning for path in header.files if (meaning := meaning_by_name(path))]
    if named and header.dtype != "uint8":
        return named[0]
    return _NOT_LANDSAT if np.fmax.reduce(file.median) < _MIN_LANDSAT_MEDIAN else None


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
