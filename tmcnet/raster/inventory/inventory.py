"""Take the inventory: read every file of the source to its last block and check it, before other work starts."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from tmcnet.classes import ClassTable
from tmcnet.config import Config, LabelsConfig, SensorsConfig, SourceConfig
from tmcnet.errors import InputError, Problem, collecting, format_names
from tmcnet.hashing import bytes_digest, file_digest
from tmcnet.memory import keep_freed_memory, no_garbage_search
from tmcnet.raster.inventory.checks import check_scene
from tmcnet.raster.inventory.comparisons import (
    pairs_on_shared_ground,
    scale_problems,
    warn_of_differences,
    warn_of_duplicates,
    warn_of_legends,
    warn_of_pixel_sizes,
    warn_of_unlike_tiles,
)
from tmcnet.raster.inventory.fill import exact
from tmcnet.raster.inventory.rasters import check_crs, find_rasters
from tmcnet.raster.inventory.records import GEOREFERENCED, ImageRecord, Inventory, SceneRecord
from tmcnet.raster.inventory.sample_sheet import Entry, is_vector
from tmcnet.raster.inventory.scan import FileSummary, Inspection, label_legend, scan_images, scan_labels
from tmcnet.raster.inventory.seed_layout import read_seed_layout
from tmcnet.raster.inventory.sources import find_entries, label_names
from tmcnet.raster.io.files import RasterFile
from tmcnet.raster.io.geometry import Grid, finest
from tmcnet.raster.io.labels import LabelCoder
from tmcnet.raster.io.opening import open_raster, reused_files
from tmcnet.raster.io.reader import Raster
from tmcnet.raster.io.vector import rasterise_labels, read_label_features
from tmcnet.raster.io.writer import write_table
from tmcnet.raster.names import remote_stamps
from tmcnet.readers import read_record, reading

LABELS = "labels"  # folder beside the inventory for the rasters of vector labels, which it names
_MAX_CODES = 30
_DIGEST = 12  # digits of the hash in the name of a rasterised label
_IMAGE_COLUMNS = (
    *("files", "tiles", "bands", "dtype", "crs", "width", "height", "gsd", "nodata"),
    *("min", "max", "nan", "infinite", "valid_share", "gap_share"),
)
_LABEL_COLUMNS = ("file", "dtype", "crs", "gsd", "overlap", "share", "scene_share", "codes")


@no_garbage_search()
def inspect_scenes(
    source: SourceConfig,
    sensors: SensorsConfig,
    labels: LabelsConfig,
    data_root: Path,
    names: Collection[str] | None,
    out: Path,
    threads: int = 1,
) -> None:
    """Read every file of some scenes (None: all) through once, check it, and write what was found.

    Problems are part of the result: `take_inventory` reports those of all scenes together. Vector labels become
    rasters on the grids of their scenes, in a folder `labels` beside that of `out`, an inventory of these scenes with
    what is compared between scenes.
    """
    check_crs(source.crs)
    entries = find_entries(source, Path(data_root), sensors)
    classes, encoding = find_classes(source, labels, Path(data_root), entries)
    coder = LabelCoder(labels, classes, encoding) if len(classes) else None
    chosen = [entry for entry in entries if names is None or entry.scene in names]
    georeferenced = source.layout in GEOREFERENCED
    folder = out.parent.parent / LABELS
    for path in folder.glob("*.tif"):
        if path.stem[: -_DIGEST - 1] in {entry.scene for entry in chosen}:
            path.unlink()
    if not georeferenced:
        keep_freed_memory()  # arrays of tiles are small, and made anew for each
    inspector = _Inspector(source, sensors, labels, coder, folder)
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        inspected = list(pool.map(inspector.inspect, chosen))
    scenes = [scene for scene, _ in inspected]
    sound = [scene for scene in scenes if not scene.problems]
    records = [record for _, record in inspected if record]
    Inventory(source.layout, encoding, classes, records).write(
        out,
        inspections=[scene.to_dict() for scene in scenes],
        label_names={scene.entry.scene: scene.label_names for scene in sound if scene.label_names},
        rows=[_row(scene, sensors, coder) for scene in sound],
    )


@no_garbage_search()
def take_inventory(
    paths: Sequence[Path], sensors: SensorsConfig, labels: LabelsConfig, json_path: Path, csv_path: Path
) -> None:
    """Merge the files of `inspect_scenes` at `paths`, compare the scenes with each other, and write the inventory.

    The JSON file is for the next stages; the CSV file for people (see `_write_csv`). Errors name all files,
    equal problems together; scenes with problems are then inspected again next time.
    """
    contents = [read_record(path) for path in paths]
    inventories: list[Inventory] = []
    by_file: list[list[Inspection]] = []
    for path, content in zip(paths, contents, strict=True):
        with reading(path):
            inventories.append(Inventory.of(content))
            by_file.append([Inspection.of(values) for values in content["inspections"]])
    scenes = [scene for inspected in by_file for scene in inspected]
    problems = [problem for scene in scenes for problem in scene.problems]
    if problems := [*problems, *scale_problems(scenes, sensors)]:
        for path, inspected in zip(paths, by_file, strict=True):
            if any(scene.problems for scene in inspected):
                path.unlink()
        raise InputError(_group_equal(problems))
    first = inventories[0]
    pairs = list(pairs_on_shared_ground(scenes)) if first.layout in GEOREFERENCED else []
    warn_of_duplicates(scenes, pairs)
    if first.layout in GEOREFERENCED:
        warn_of_differences(scenes, pairs, sensors)
    else:
        warn_of_unlike_tiles(scenes, sensors)
        _warn_by_records(scenes, [record for inventory in inventories for record in inventory.records])
    warn_of_pixel_sizes(scenes)
    warn_of_legends(scenes)
    classes = ClassTable.of((c.name, c.color) for c in labels.classes) if labels.classes else first.classes
    records = [record for inventory in inventories for record in inventory.records]
    names_of = {scene: names for content in contents for scene, names in content.get("label_names", {}).items()}
    Inventory(first.layout, first.label_encoding, classes, records).write(json_path, label_names=names_of)
    rows = [row for content in contents for row in content["rows"]]
    _write_csv(csv_path, rows, scenes)


def _warn_by_records(tiles: Sequence[Inspection], records: Sequence[SceneRecord]) -> None:
    """Add warnings for ready-made tiles without place beside others, and for quality masks that take nothing out."""
    some_placed = any(record.crs for record in records)
    for tile, record in zip(tiles, records, strict=True):
        if some_placed and not record.crs:
            what = "no file has CRS and transform, as those of other tiles"
            tile.warnings.append(f"{what}: this tile may show the ground of tiles in other parts")
    if not some_placed and all(tile.images["optical"][0].header.georeferenced for tile in tiles):
        what = "images have transforms but no CRS, so that tiles that share ground are not known"
        tiles[0].warnings.append(f"{what}: assign it (`gdal_edit.py -a_srs EPSG:...`)")
    for name in records[0].images:
        images = [record.images[name] for record in records]
        if all(min(image.valid_shares) == 1 and image.raster.files[0].quality for image in images):
            what = f"no quality mask takes a pixel out of any {name} tile"
            tiles[0].warnings.append(f"{what}: check `sensors.{name}.mask_codes` and `mask_bits`")


def find_classes(
    source: SourceConfig, labels: LabelsConfig, data_root: Path, entries: Sequence[Entry]
) -> tuple[ClassTable, Literal["ids", "rgb"]]:
    """Find the classes and how label files are coded; labels without classes are an error."""
    if labels.classes:
        return ClassTable.of((c.name, c.color) for c in labels.classes), labels.encoding
    labelled = [entry for entry in entries if entry.label]
    given = read_seed_layout(data_root).classes if source.layout == "seed" else None
    if given:
        with open_raster(labelled[0].label[0]) as dataset:
            encoding: Literal["ids", "rgb"] = "rgb" if dataset.count >= 3 else "ids"
        return ClassTable.of((name, "#{:02x}{:02x}{:02x}".format(*rgb)) for name, rgb in given), encoding
    if labelled:
        remedy = "Name the classes with their codes"
        remedy += f", or add {data_root / 'class_dict.txt'}." if source.layout == "seed" else "."
        raise InputError(Problem("config key `labels.classes`", "is empty, but there are labels", remedy))
    return ClassTable(()), labels.encoding


@dataclass(frozen=True)
class _Inspector:
    source: SourceConfig
    sensors: SensorsConfig
    labels: LabelsConfig
    coder: LabelCoder | None
    folder: Path

    def inspect(self, entry: Entry) -> tuple[Inspection, SceneRecord | None]:
        """Read all files of a scene or tile through; errors become its problems, and leave it without a record."""
        scene = Inspection(entry)
        with collecting(scene.problems), reused_files(alone=entry.files == entry.members_of_all):
            self._inspect(scene)
        return scene, None if scene.problems else _record(scene)

    def _inspect(self, scene: Inspection) -> None:
        entry, georeferenced = scene.entry, self.source.layout in GEOREFERENCED
        scene.rasters, scene.label_raster = find_rasters(entry, self.sensors, self.source, self.coder)
        for name, raster in scene.rasters.items():
            scene.images[name] = []
            with collecting(scene.problems):
                scene.images[name], scene.lattices[name] = scan_images(raster, georeferenced)
        with collecting(scene.problems):
            if entry.label and is_vector(entry.label[0]) and not scene.problems:
                self._rasterise_label(scene)
            if scene.label_raster is not None and self.coder is not None:
                scene.label = scan_labels(scene.label_raster.files[0], self.coder)
                scene.legend = label_legend(scene.label)
        if not scene.problems:
            check_scene(scene, self.sensors, self.coder, georeferenced)
            scene.warnings += self._names_of_other_codes(scene)
        scene.lattices.clear()  # images in memory are only for the checks
        if scene.label:
            scene.label.labelled = None

    def _names_of_other_codes(self, scene: Inspection) -> Iterator[str]:
        """Say which codes a label calls by the name of a class that has other codes in the config."""
        codes_of = {c.name.casefold(): c.codes for c in self.labels.classes}
        for code, (_, name) in scene.legend.items():
            codes = codes_of.get(name.casefold(), [])
            if codes and int(code) not in codes:
                what = f"the label calls code {code} `{name}`, but `labels.classes` gives this class the codes"
                yield f"{what} {', '.join(map(str, codes))}"

    def _rasterise_label(self, scene: Inspection) -> None:
        """Bring a vector label to the grid of the scene, as a raster named after its content."""
        path, grid = scene.entry.label[0], scene.grid
        _require_usable(scene.entry, self.source, grid)
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / f"{scene.entry.scene}.tif"
        warnings, by_name = rasterise_labels(path, self.labels, grid, draft)
        scene.warnings += warnings
        raster = draft.with_stem(f"{scene.entry.scene}-{file_digest(draft)[:_DIGEST]}")
        draft.replace(raster)
        scene.label_raster = Raster((RasterFile((str(raster),), str(path)),))
        if not by_name:
            scene.label_names = label_names(self.folder.parent, scene.entry.scene, self.labels)


def _require_usable(entry: Entry, source: SourceConfig, grid: Grid) -> None:
    """Refuse a vector label of images without CRS, and several files of one scene."""
    path = entry.label[0]
    if source.layout not in GEOREFERENCED or not grid.crs:
        remedy = "Use `source.layout: scenes` with georeferenced images, or label rasters."
        raise InputError(Problem(str(path), "is a vector file, but the images are not georeferenced", remedy))
    if path in entry.members:
        what = f"matches {len(entry.members[path])} vector files"
        raise InputError(Problem(str(path), what, "Merge them to one (`ogrmerge.py`)."))


def vector_label_problems(entries: Sequence[Entry], config: Config) -> list[Problem]:
    """What is wrong with the vector labels of scenes, found before the inventory reads all files through.

    Of the images, only the headers are read.
    """

    def problems_of(entry: Entry) -> list[Problem]:
        problems: list[Problem] = []
        with collecting(problems):
            images, _ = find_rasters(entry, config.sensors, config.source, None)
            grid = finest([file.header.grid for file in images["optical"].files or images["sar"].files])
            _require_usable(entry, config.source, grid)
            read_label_features(entry.label[0], config.labels, grid)
        return problems

    labelled = [entry for entry in entries if entry.label and is_vector(entry.label[0])]
    try:
        find_classes(config.source, config.labels, Path(config.data_root), labelled)
    except InputError as error:
        return error.problems
    with ThreadPoolExecutor(config.compute.raster_threads) as pool:
        return _group_equal([problem for problems in pool.map(problems_of, labelled) for problem in problems])


def _group_equal(problems: Sequence[Problem]) -> list[Problem]:
    groups: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        groups.setdefault((problem.what, problem.remedy), []).append(problem.where)
    return [
        Problem(where[0] if len(where) == 1 else f"{len(where)} files ({format_names(where)})", what, remedy)
        for (what, remedy), where in groups.items()
    ]


def _record(scene: Inspection) -> SceneRecord:
    grid, entry = scene.grid, scene.entry
    images = {}
    for name, files in scene.images.items():
        nodata, overlap = _nodata(files), round(scene.overlaps.get(name, 1.0), 6)
        nodata = None if nodata is None or math.isnan(nodata) else nodata
        shares = [share for file in files for share in file.valid_shares]
        cells = [cells for file in files for cells in file.valid_cells]
        gap = scene.gaps.get(name, 0.0)
        images[name] = ImageRecord(scene.rasters[name], scene.scales[name], nodata, overlap, shares, cells, gap)
    place = grid.height, grid.width, grid.crs, grid.pixel_size, grid.bounds
    # files known by name, then any other that GDAL reads
    known = set(map(str, entry.files))
    tiles = (tile for files in scene.images.values() for file in files for tile in file.file.tiles)
    read = [Path(name) for tile in tiles for name in tile.files if name not in known]
    by_path = {path.absolute(): path for path in (*entry.files, *(path for path in read if path.is_file()))}
    digests = [*map(file_digest, by_path.values()), *map(bytes_digest, remote_stamps(entry.members_of_all))]
    return SceneRecord(entry.scene, entry.role, images, scene.label_raster, entry.fields, *place, digests)


def _nodata(files: Sequence[FileSummary]) -> float | None:
    """Value that means no data, declared or of the files; None where they differ."""
    nodata = [file.nodata for file in files]
    return nodata[0] if len(set(map(repr, nodata))) == 1 else None


def _write_csv(path: Path, rows: Sequence[dict[str, str]], scenes: Sequence[Inspection]) -> None:
    """Write the inventory as CSV, one row per scene or tile.

    Files of a stack are separated by `;`. `tiles` counts the files of mosaics. `nan` and `infinite` count values;
    shares are between 0 and 1: `overlap` of the optical footprint that the SAR image covers, `label_overlap` and
    `<modality>_overlap` of the scene that the label and other modalities cover; `<modality>_gap_share` of the scene
    where the modality has no data, but another one has; `label_share` of the label file
    and `label_scene_share` of the scene that has a class. `label_codes` counts pixels by code.
    """
    fields = dict.fromkeys(name for row in rows for name in row)
    noted = (row | {"warnings": "; ".join(scene.warnings)} for row, scene in zip(rows, scenes, strict=True))
    write_table(path, [*fields, "warnings"], noted)


def _row(scene: Inspection, sensors: SensorsConfig, coder: LabelCoder | None) -> dict[str, str]:
    cells = {name: _image_cells(scene, name) for name in sensors}
    overlap = scene.overlaps.get("sar", 1.0) if scene.has_both else 0.0
    row = {"scene": scene.entry.scene, "role": scene.entry.role} | cells.pop("optical") | cells.pop("sar")
    row |= {"sar_scale": scene.scales["sar"], "overlap": f"{overlap:.6f}"} | _label_cells(scene, coder)
    for name, others in cells.items():
        row |= others | {f"{name}_scale": scene.scales[name]}
        row[f"{name}_overlap"] = f"{scene.overlaps.get(name, 1.0):.6f}"
    return row | {f"field_{name}": value for name, value in scene.entry.fields.items()}


def _image_cells(scene: Inspection, name: str) -> dict[str, str]:
    files = scene.images[name]
    if not files:
        return {f"{name}_{column}": "" for column in _IMAGE_COLUMNS}
    nodata, grid = _nodata(files), scene.rasters[name].grid
    tiles = sum(len(file.file.paths) for file in files if len(file.file.paths) > 1)
    headers = [file.header for file in files]
    names, types = ";".join(file.label for file in files), ";".join(dict.fromkeys(h.dtype for h in headers))
    low, high = np.fmin.reduce([file.range[0] for file in files]), np.fmax.reduce([file.range[1] for file in files])
    cells = [names, str(tiles or ""), str(sum(header.count for header in headers)), types]
    cells += [_short_crs(grid.crs), str(grid.width), str(grid.height), f"{grid.pixel_size:.6g}"]
    cells += ["" if nodata is None else exact(nodata), f"{low:.6g}", f"{high:.6g}"]
    cells += [str(sum(file.nan for file in files)), str(sum(file.infinite for file in files))]
    cells += [f"{min(file.valid_share for file in files):.6f}", f"{scene.gaps.get(name, 0.0):.6f}"]
    return {f"{name}_{column}": cell for column, cell in zip(_IMAGE_COLUMNS, cells, strict=True)}


def _label_cells(scene: Inspection, coder: LabelCoder | None) -> dict[str, str]:
    label = scene.label
    if label is None or coder is None:
        return {f"label_{column}": "" for column in _LABEL_COLUMNS}
    most = sorted(label.codes.most_common(_MAX_CODES))
    codes = "; ".join(f"{coder.format_code(code)}: {count}" for code, count in most)
    more = len(label.codes) - len(most)
    shares = scene.label_overlap, label.labelled_share, scene.labelled_share
    cells = [label.file.label, label.file.header.dtype, _short_crs(label.grid.crs), f"{label.grid.pixel_size:.6g}"]
    cells += [*(f"{share:.6f}" for share in shares), codes + (f"; and {more} more" if more else "")]
    return {f"label_{column}": cell for column, cell in zip(_LABEL_COLUMNS, cells, strict=True)}


def _short_crs(crs: str) -> str:
    return crs if crs.startswith("EPSG:") or '"' not in crs else crs.split('"')[1]
