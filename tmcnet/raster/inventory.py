"""The inventory: what the source holds, checked to the last block before any work is done with it."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tmcnet.classes import ClassTable
from tmcnet.config import LabelsConfig, SensorsConfig, SourceConfig
from tmcnet.config.modalities import sensor_key
from tmcnet.errors import InputError, Problem
from tmcnet.raster.atomic import write_bytes
from tmcnet.raster.checks import Inspected, check
from tmcnet.raster.digests import file_digest
from tmcnet.raster.entry import TRAIN, Entry, shorten
from tmcnet.raster.facts import Facts, scan, scan_labels
from tmcnet.raster.ground import pixel_area
from tmcnet.raster.labels import LabelCoder
from tmcnet.raster.opening import open_raster
from tmcnet.raster.records import FurtherRecord, Inventory, Record
from tmcnet.raster.sources import find_entries

GEOREFERENCED = ("demo", "scenes")
"""Layouts whose files are warped to a common grid."""
_SAME_SIZE = 1.25
"""Pixels that differ by less than this factor show the same things."""
_SENSOR_COLUMNS = ("files", "bands", "dtype", "crs", "width", "height", "gsd", "nodata", "min", "max", "valid_share")


def take_inventory(
    source: SourceConfig,
    sensors: SensorsConfig,
    labels: LabelsConfig,
    data_root: Path,
    json_path: Path,
    csv_path: Path,
) -> None:
    """Read every file of the source through once, check it, and write what was found.

    Args:
        source: Section `source` of the config.
        sensors: Section `sensors`.
        labels: Section `labels`.
        data_root: Where relative paths start.
        json_path: The inventory for the next stages.
        csv_path: The inventory for people, one row a scene or tile.

    Raises:
        InputError: If anything about the files must be mended; names all of it, alike problems together.
    """
    entries = find_entries(source, Path(data_root), list(sensors.further))
    classes, encoding = find_classes(source, labels, Path(data_root), entries)
    coder = LabelCoder(labels, classes, encoding) if len(classes) else None
    georeferenced = source.layout in GEOREFERENCED
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        seen = list(pool.map(lambda entry: _inspect(entry, sensors, coder, georeferenced), entries))
        problems = [problem for one in seen for problem in one.problems] + _scale_problems(seen)
        if problems:
            raise InputError(_condense(problems))
        records = list(pool.map(lambda one: _record(one, sensors), seen))
    _warn_of_doubles(seen)
    _warn_of_pixel_sizes(seen)
    Inventory(source.layout, encoding, classes, records).write(json_path)
    write_bytes(csv_path, _table([_row(one, sensors) for one in seen]))


def find_classes(
    source: SourceConfig, labels: LabelsConfig, data_root: Path, entries: Sequence[Entry]
) -> tuple[ClassTable, Literal["ids", "rgb"]]:
    """The classes and how label files are coded.

    Both come from the config; in layout `seed` without classes in the config, from `class_dict.txt` and the number
    of bands of the first label file.

    Raises:
        InputError: If there are labels but no classes.
    """
    if labels.classes:
        return ClassTable.of((c.name, c.color) for c in labels.classes), labels.encoding
    labelled = [entry for entry in entries if entry.label]
    if source.layout == "seed":
        from tmcnet.dataset.layout import read_seed_layout  # imported here: other layouts need no list files

        given = read_seed_layout(data_root).classes
        if given:
            with open_raster(labelled[0].label[0]) as dataset:
                encoding: Literal["ids", "rgb"] = "rgb" if dataset.count >= 3 else "ids"
            return ClassTable.of((name, "#{:02x}{:02x}{:02x}".format(*rgb)) for name, rgb in given), encoding
    if labelled:
        remedy = "Name the classes with their codes" + (
            f", or add {data_root / 'class_dict.txt'}." if source.layout == "seed" else "."
        )
        raise InputError(Problem("config key `labels.classes`", "is empty, but there are labels", remedy))
    return ClassTable(()), labels.encoding


def _inspect(entry: Entry, sensors: SensorsConfig, coder: LabelCoder | None, georeferenced: bool) -> Inspected:
    seen = Inspected(entry)

    def tried(read: Callable[[], Facts]) -> list[Facts]:
        try:
            return [read()]
        except InputError as error:
            seen.problems += error.problems
            return []

    for path in entry.optical:
        seen.optical += tried(partial(scan, path, sensors.optical.nodata))
    for path in entry.sar:
        seen.sar += tried(partial(scan, path, sensors.sar.nodata))
    for name, sensor in sensors.further.items():
        seen.further[name] = [f for path in entry.further[name] for f in tried(partial(scan, path, sensor.nodata))]
    if entry.label and coder is not None:
        seen.label = next(iter(tried(partial(scan_labels, entry.label[0], coder))), None)
    if not seen.problems:
        check(seen, sensors, coder, georeferenced)
    return seen


def _scale_problems(seen: Sequence[Inspected]) -> list[Problem]:
    """One network sees all scenes: each modality must share one scale."""
    found: dict[str, dict[str, list[str]]] = {}
    for one in seen:
        for kind, scale in {"sar": one.scale, **one.scales}.items():
            if scale:
                found.setdefault(kind, {}).setdefault(scale, []).append(one.entry.scene)
    problems = []
    for kind, by_scale in found.items():
        told = "; ".join(f"{scale}: {shorten(names)}" for scale, names in sorted(by_scale.items()))
        what = f"`auto` finds different scales of backscatter ({told})"
        if len(by_scale) > 1:
            remedy = "Declare the scale, or bring the files to one."
            problems.append(Problem(f"config key `{sensor_key(kind)}.scale`", what, remedy))
    return problems


def _condense(problems: Sequence[Problem]) -> list[Problem]:
    """Put files with the same problem on one line."""
    groups: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        groups.setdefault((problem.what, problem.remedy), []).append(problem.where)
    return [
        Problem(where[0] if len(where) == 1 else f"{len(where)} files ({shorten(where)})", what, remedy)
        for (what, remedy), where in groups.items()
    ]


def _warn_of_doubles(seen: Sequence[Inspected]) -> None:
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


def _warn_of_pixel_sizes(seen: Sequence[Inspected]) -> None:
    """A scene on the grid of its only sensor may have pixels of a size that no network has learnt."""
    lone = [one for one in seen if not one.has_both]
    learnt = [_metres(one) for one in seen if lone and one.entry.role == TRAIN]
    for one in lone if learnt else ():
        size = _metres(one)
        if not any(other / _SAME_SIZE < size < other * _SAME_SIZE for other in learnt):
            told = ", ".join(sorted({f"{other:.3g} m" for other in learnt}))
            what = f"pixels of {size:.3g} m; in the scenes that are learnt from: {told}"
            one.warnings.append(f"{what}. Set `align.resolution`, or resample the file")


def _metres(one: Inspected) -> float:
    """Width of a square pixel of that area; NaN, which equals nothing, where the CRS has no such thing."""
    area = pixel_area(one.first.grid)
    return math.nan if area is None else math.sqrt(area)


def _record(one: Inspected, sensors: SensorsConfig) -> Record:
    grid = one.first.grid
    return Record(
        one.entry.scene,
        one.entry.role,
        [str(path) for path in one.entry.optical],
        [str(path) for path in one.entry.sar],
        [str(path) for path in one.entry.label],
        one.entry.fields,
        grid.height,
        grid.width,
        grid.crs,
        grid.pixel_size,
        one.scale,
        _nodata(one.optical, sensors.optical.nodata),
        _nodata(one.sar, sensors.sar.nodata),
        round(one.overlap, 6),
        grid.bounds,
        [file_digest(path) for path in one.entry.files],
        {
            name: FurtherRecord(
                [str(path) for path in one.entry.further[name]],
                one.scales[name],
                round(one.overlaps.get(name, 1.0), 6),
            )
            for name in sensors.further
        },
    )


def _nodata(facts: Sequence[Facts], declared: float | None) -> float | None:
    """The value that means no data; None for none, and for NaN, which always means it."""
    value = declared if declared is not None or not facts else facts[0].nodata
    return None if value is None or math.isnan(value) else value


def _row(one: Inspected, sensors: SensorsConfig) -> dict[str, str]:
    row = {"scene": one.entry.scene, "role": one.entry.role}
    for kind, facts, sensor in (("optical", one.optical, sensors.optical), ("sar", one.sar, sensors.sar)):
        told = _sensor_cells(facts, sensor.nodata) if facts else dict.fromkeys(_SENSOR_COLUMNS, "")
        row |= {f"{kind}_{name}": cell for name, cell in told.items()}
    row |= {
        "sar_scale": one.scale,
        "overlap": f"{one.overlap:.6f}",
        "label_file": str(one.label.path) if one.label else "",
        "label_dtype": one.label.dtype if one.label else "",
        "label_crs": _short_crs(one.label.grid.crs) if one.label else "",
        "label_gsd": f"{one.label.grid.pixel_size:.6g}" if one.label else "",
        "label_share": f"{one.label.labelled_share:.6f}" if one.label else "",
    }
    for name, sensor in sensors.further.items():
        facts = one.further[name]
        told = _sensor_cells(facts, sensor.nodata) if facts else dict.fromkeys(_SENSOR_COLUMNS, "")
        told |= {"scale": one.scales[name], "overlap": f"{one.overlaps.get(name, 1.0):.6f}"}
        row |= {f"{name}_{column}": cell for column, cell in told.items()}
    return row | {f"field_{k}": v for k, v in one.entry.fields.items()} | {"warnings": "; ".join(one.warnings)}


def _sensor_cells(facts: Sequence[Facts], nodata: float | None) -> dict[str, str]:
    first = facts[0]
    cells = (
        ";".join(str(f.path) for f in facts),
        str(sum(f.bands for f in facts)),
        first.dtype,
        _short_crs(first.grid.crs),
        str(first.grid.width),
        str(first.grid.height),
        f"{first.grid.pixel_size:.6g}",
        _told_nodata(first, nodata),
        f"{min(f.low for f in facts):.6g}",
        f"{max(f.high for f in facts):.6g}",
        f"{min(f.valid_share for f in facts):.6f}",
    )
    return dict(zip(_SENSOR_COLUMNS, cells, strict=True))


def _told_nodata(facts: Facts, declared: float | None) -> str:
    value = facts.nodata if declared is None else declared
    return "" if value is None else f"{value:g}"


def _short_crs(crs: str) -> str:
    """An EPSG code, or the name inside WKT."""
    return crs if crs.startswith("EPSG:") or '"' not in crs else crs.split('"')[1]


def _table(rows: Sequence[dict[str, str]]) -> bytes:
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode()
