"""The inventory: what the source holds, checked to the last block before any work is done with it."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from tmcnet.classes import ClassTable
from tmcnet.config import LabelsConfig, SensorsConfig, SourceConfig
from tmcnet.errors import InputError, Problem, format_names
from tmcnet.hashing import file_digest
from tmcnet.raster.inventory.between_scenes import scale_problems, warn_of_doubles, warn_of_pixel_sizes
from tmcnet.raster.inventory.checks import Inspected, check
from tmcnet.raster.inventory.entry import Entry
from tmcnet.raster.inventory.facts import Facts, scan, scan_labels
from tmcnet.raster.inventory.records import ImageRecord, Inventory, Record
from tmcnet.raster.inventory.seed_layout import read_seed_layout
from tmcnet.raster.inventory.sources import find_entries
from tmcnet.raster.inventory.table import inventory_table
from tmcnet.raster.inventory.virtual import check_crs, with_virtual_files
from tmcnet.raster.io.labels import LabelCoder
from tmcnet.raster.io.reader import open_raster
from tmcnet.raster.io.writer import write_bytes

GEOREFERENCED = ("demo", "scenes")
"""Layouts whose files are warped to a common grid."""
VIRTUAL = "virtual"
"""Folder beside the inventory for the virtual rasters that it names."""


def take_inventory(
    source: SourceConfig,
    sensors: SensorsConfig,
    labels: LabelsConfig,
    data_root: Path,
    json_path: Path,
    csv_path: Path,
) -> None:
    """Read every file of the source through once, check it, and write what was found.

    Mosaics, and files that get their CRS from the config, become virtual rasters in a folder `virtual` beside the
    inventory, which is emptied first; the inventory names these in place of the files.

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
    check_crs(source.crs)
    entries = find_entries(source, Path(data_root), sensors)
    classes, encoding = find_classes(source, labels, Path(data_root), entries)
    coder = LabelCoder(labels, classes, encoding) if len(classes) else None
    inspector = _Inspector(source, sensors, coder, Path(json_path).parent / VIRTUAL)
    inspector.clear()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        seen = list(pool.map(inspector.inspect, entries))
        problems = [problem for one in seen for problem in one.problems] + scale_problems(seen, sensors)
        if problems:
            raise InputError(_condense(problems))
        records = list(pool.map(lambda one: _record(one, sensors), seen))
    warn_of_doubles(seen, source.layout in GEOREFERENCED)
    warn_of_pixel_sizes(seen)
    Inventory(source.layout, encoding, classes, records).write(json_path)
    write_bytes(csv_path, inventory_table(seen, sensors, coder))


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


@dataclass(frozen=True)
class _Inspector:
    """Reads the files of scenes or tiles and checks them."""

    source: SourceConfig
    sensors: SensorsConfig
    coder: LabelCoder | None
    virtual: Path

    def clear(self) -> None:
        """Make an empty folder for virtual rasters."""
        shutil.rmtree(self.virtual, ignore_errors=True)
        self.virtual.mkdir(parents=True)

    def inspect(self, entry: Entry) -> Inspected:
        """Read all files of a scene or tile through; all that is wrong becomes its problems."""
        declared = {kind: sensor.nodata for kind, sensor in self.sensors.items()} | entry.nodata
        try:
            folder = self.virtual / entry.scene
            entry = with_virtual_files(entry, declared, self.source.crs, self.coder, folder)
        except InputError as error:
            return Inspected(entry, problems=list(error.problems))
        seen = Inspected(entry)

        def tried(read: Callable[[], Facts]) -> list[Facts]:
            try:
                return [read()]
            except InputError as error:
                seen.problems += error.problems
                return []

        for kind, files in entry.images.items():
            seen.images[kind] = [facts for path in files for facts in tried(partial(scan, path, declared[kind]))]
        if entry.label and self.coder is not None:
            seen.label = next(iter(tried(partial(scan_labels, entry.label[0], self.coder))), None)
        if not seen.problems:
            check(seen, self.sensors, self.coder, self.source.layout in GEOREFERENCED)
        return seen


def _condense(problems: Sequence[Problem]) -> list[Problem]:
    """Put files with the same problem on one line."""
    groups: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        groups.setdefault((problem.what, problem.remedy), []).append(problem.where)
    return [
        Problem(where[0] if len(where) == 1 else f"{len(where)} files ({format_names(where)})", what, remedy)
        for (what, remedy), where in groups.items()
    ]


def _record(one: Inspected, sensors: SensorsConfig) -> Record:
    grid, entry = one.first.grid, one.entry
    images = {}
    for kind, sensor in sensors.items():
        declared = entry.nodata.get(kind, sensor.nodata)
        images[kind] = ImageRecord(
            [str(path) for path in entry.images[kind]],
            one.scales[kind],
            _nodata(one.images[kind], declared),
            declared,
            round(one.overlaps.get(kind, 1.0), 6),
        )
    return Record(
        entry.scene,
        entry.role,
        images,
        [str(path) for path in entry.label],
        entry.fields,
        grid.height,
        grid.width,
        grid.crs,
        grid.pixel_size,
        grid.bounds,
        [file_digest(path) for path in entry.files],
    )


def _nodata(facts: Sequence[Facts], declared: float | None) -> float | None:
    """The value that means no data; None for none, and for NaN, which always means it."""
    value = declared if declared is not None or not facts else facts[0].nodata
    return None if value is None or math.isnan(value) else value
