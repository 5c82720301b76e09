"""What can be wrong with one scene or tile, told with file, config field and remedy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tmcnet.config import SensorConfig, SensorsConfig
from tmcnet.errors import Problem
from tmcnet.raster.inventory.entry import Entry
from tmcnet.raster.inventory.facts import Facts
from tmcnet.raster.io.geometry import Grid, reproject_points
from tmcnet.raster.io.labels import LabelCoder
from tmcnet.raster.io.radiometry import detect_scale

_PROBES = 33
_MIN_OVERLAP = 0.5


@dataclass
class Inspected:
    """A scene or tile whose files have been read through.

    Attributes:
        entry: Its names.
        images: Facts of the files of each modality; empty where the scene has none.
        label: Facts of the label file.
        scales: Declared or detected scale of each modality; empty without files, or where it cannot be detected.
        overlaps: Share of the scene that each modality covers; 0 without files.
        label_overlap: Share of the scene that the label covers.
        problems: What must be mended.
        warnings: What should be looked at.
    """

    entry: Entry
    images: dict[str, list[Facts]] = field(default_factory=dict)
    label: Facts | None = None
    label_overlap: float = 1.0
    scales: dict[str, str] = field(default_factory=dict)
    overlaps: dict[str, float] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def first(self) -> Facts:
        """The file whose grid the scene takes: an optical one, where there is one."""
        return (self.images["optical"] or self.images["sar"])[0]

    @property
    def files(self) -> list[Facts]:
        """Facts of all files: images, label."""
        return [one for facts in self.images.values() for one in facts] + ([self.label] if self.label else [])

    @property
    def has_both(self) -> bool:
        """Whether there are optical and SAR files."""
        return bool(self.images["optical"] and self.images["sar"])


def check(seen: Inspected, sensors: SensorsConfig, coder: LabelCoder | None, georeferenced: bool) -> None:
    """Note all problems and warnings of a scene or tile whose files could be read.

    Args:
        seen: What was read; takes what is found.
        sensors: Section `sensors` of the config.
        coder: The label codes.
        georeferenced: True for scenes, which are warped; false for ready-made tiles, which must match in pixels.
    """
    for kind, sensor in sensors.items():
        facts = seen.images[kind]
        if not facts:
            seen.warnings.append(f"no {kind} image: mapped {'without it' if sensors.others else 'with one sensor'}")
            continue
        seen.problems += _bands(kind, facts, sensor)
        for one in facts:
            if one.infinite:
                seen.warnings.append(f"{one.path.name}: {one.infinite} infinite values, taken as no data")
            if one.valid_share == 0:
                _no_data(seen, kind, one, georeferenced)
    if seen.label is not None and seen.label.unknown and coder is not None:
        seen.problems.append(coder.problem(seen.label.path, seen.label.unknown))
    for kind, sensor in sensors.items():
        seen.scales[kind], problems = _scale(kind, seen.images[kind], sensor, seen.entry.scales.get(kind, ""))
        seen.problems += problems
    if georeferenced:
        _check_places(seen)
    else:
        seen.problems += _sizes(seen)


def _bands(kind: str, facts: Sequence[Facts], sensor: SensorConfig) -> list[Problem]:
    count = sum(one.bands for one in facts)
    if count == len(sensor.bands):
        return []
    files = ", ".join(str(one.path) for one in facts)
    what = f"{'has' if len(facts) == 1 else 'have'} {count} band(s), but `sensors.{kind}.bands` names "
    return [Problem(files, f"{what}{len(sensor.bands)}: {', '.join(sensor.bands)}", "Name one band per band.")]


def _no_data(seen: Inspected, kind: str, facts: Facts, georeferenced: bool) -> None:
    if not georeferenced:
        # one empty tile of hundreds is left out later, by `tiles.min_valid`
        seen.warnings.append(f"{facts.path.name}: no data everywhere")
        return
    remedy = f"Replace the file, or correct `sensors.{kind}.nodata`; the file's own value is {facts.nodata}."
    seen.problems.append(Problem(str(facts.path), "has no pixel that is valid in all bands", remedy))


def _scale(kind: str, facts: Sequence[Facts], sensor: SensorConfig, of_scene: str = "") -> tuple[str, list[Problem]]:
    """The scale of a scene: what the sample sheet declares (`of_scene`), else the config, else what is detected."""
    key = f"sensors.{kind}"
    if not facts:
        return "", []
    valid = [one for one in facts if np.isfinite(one.low)]
    declared = of_scene or sensor.scale
    if declared != "auto":
        negative = [one for one in valid if declared in ("linear", "amplitude") and one.low < 0]
        remedy = f"Declare `db` if these are decibels, or the value of no data as `{key}.nodata`."
        told = f"`{'sar_scale' if of_scene else f'{key}.scale'}: {declared}` cannot be: the smallest value is"
        return declared, [Problem(str(one.path), f"{told} {one.low:g}", remedy) for one in negative]
    if sensor.kind != "backscatter" or not valid:
        return "none", []
    low, high = min(one.low for one in valid), max(one.high for one in valid)
    scale = detect_scale(valid[0].dtype, low, high, float(np.median([one.median for one in valid])))
    if scale is not None:
        return scale, []
    what = f"the scale of the backscatter cannot be told from its values ({low:g} to {high:g})"
    remedy = f"Declare `{key}.scale` as linear, amplitude, db or none; and `{key}.nodata` if one is missing."
    return "", [Problem(str(valid[0].path), what, remedy)]


def _sizes(seen: Inspected) -> list[Problem]:
    files = seen.files
    sizes = {(one.grid.height, one.grid.width) for one in files}
    if len(sizes) == 1:
        return []
    told = ", ".join(f"{one.path.name} {one.grid.width} x {one.grid.height}" for one in files)
    remedy = "Tiles are taken pixel by pixel: bring them to one grid, or use `source.layout: scenes`."
    return [Problem(str(files[0].path), f"differs in size from its fellows: {told}", remedy)]


def _check_places(seen: Inspected) -> None:
    lost = [one for one in seen.files if not one.grid.crs or not one.georeferenced]
    for one in lost:
        lacks = " and ".join(
            [*(["CRS"] if not one.grid.crs else []), *([] if one.georeferenced else ["geotransform"])]
        )
        remedy = "Scenes are warped to a common grid: assign it (`gdal_translate -a_srs EPSG:... -a_ullr ...`)"
        remedy += ", or set `source.crs`." if one.georeferenced else "."
        seen.problems.append(Problem(str(one.path), f"has no {lacks}", remedy))
    if lost:
        return
    for kind, facts in seen.images.items():
        for one in facts[1:]:
            same = {"CRS": one.grid.crs == facts[0].grid.crs, "type of numbers": one.dtype == facts[0].dtype}
            if not all(same.values()):
                other = " and ".join(name for name, equal in same.items() if not equal)
                what = f"is stacked with {facts[0].path.name} but has another {other}"
                seen.problems.append(Problem(str(one.path), what, f"Bring the {kind} files of a scene to one."))
    _check_overlap(seen)


def _check_overlap(seen: Inspected) -> None:
    grid, reference = seen.first.grid, "optical" if seen.images["optical"] else "sar"
    shares = []
    for kind, facts in seen.images.items():
        seen.overlaps[kind] = min((coverage(grid, one.grid) for one in facts), default=0.0)
        shares += [(kind, facts[0], seen.overlaps[kind])] if facts and kind != reference else []
    seen.label_overlap = coverage(grid, seen.label.grid) if seen.label else 0.0
    shares += [("label", seen.label, seen.label_overlap)] if seen.label else []
    for kind, one, share in shares:
        if share < _MIN_OVERLAP:
            what = f"covers {share:.0%} of {seen.first.path.name}; at least {_MIN_OVERLAP:.0%} is needed"
            remedy = f"Check that this is the {kind} of scene {seen.entry.scene}, and its CRS."
            seen.problems.append(Problem(str(one.path), what, remedy))
        elif share < 1:
            seen.warnings.append(f"{kind} covers {share:.1%} of the {reference} image")


def coverage(reference: Grid, other: Grid) -> float:
    """Share of the footprint of one raster that lies inside another, from 33 x 33 probes."""
    x, y = np.meshgrid((np.arange(_PROBES) + 0.5) / _PROBES, (np.arange(_PROBES) + 0.5) / _PROBES)
    x, y = reference.transform @ (x * reference.width, y * reference.height)
    if reference.crs != other.crs:
        x, y = reproject_points(reference.crs, other.crs, x, y)
    column, row = ~other.transform @ (x, y)
    return float(np.mean((column >= 0) & (column <= other.width) & (row >= 0) & (row <= other.height)))
