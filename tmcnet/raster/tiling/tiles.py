"""Cut scenes into tiles, or convert ready-made tiles, and write the index of the tiles."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tmcnet.classes import ClassTable
from tmcnet.config import IGNORE, LabelsConfig, SensorsConfig, TilesConfig
from tmcnet.errors import InputError, Problem
from tmcnet.hashing import json_digest, pixel_digest
from tmcnet.raster.inventory.records import GEOREFERENCED, Inventory, SceneRecord
from tmcnet.raster.inventory.sample_sheet import TRAIN
from tmcnet.raster.io.blocks import limited_cache
from tmcnet.raster.io.files import BoolArray, ByteArray, FloatArray, pad_to_window
from tmcnet.raster.io.geometry import GROUND, Box, Grid, ground_columns
from tmcnet.raster.io.labels import LabelCoder
from tmcnet.raster.io.radiometry import power_to_db, to_db, to_power
from tmcnet.raster.io.reader import Raster, place_of_tile, read_grid, read_labels
from tmcnet.raster.io.writer import write_bytes, write_raster, write_table
from tmcnet.raster.register.alignment import Residuals
from tmcnet.raster.tiling.speckle import SpeckleFilter, filter_of_tiles
from tmcnet.raster.tiling.unchanged import RECORD, require_same_settings, require_scenes
from tmcnet.raster.tiling.warp import stored_dtype, to_dtype
from tmcnet.readers import read_record, read_rows, reading
from tmcnet.store import RASTERS, TileStore

MAX_TILES_WITH_FILES = 100_000
"""Number of tiles of all scenes above which `tiles.store: auto` writes no files for them."""
_MAX_STRIP_PIXELS = 2_000_000
"""Adjacent tiles are read together up to this number of pixels: most blocks of a file are then read once, and memory
does not grow with the scene."""


@dataclass(frozen=True)
class TileImage:
    """One modality of a tile as its file holds it."""

    values: npt.NDArray[Any]  # C x H x W in the type of the file
    valid: BoolArray  # C x H x W, where there is data
    nodata: float | None  # value that means no data; None for none

    @classmethod
    def of(cls, values: FloatArray, dtype: str, nodata: float | None) -> TileImage:
        """Convert values with NaN for no data to the type of their file (see `to_dtype`)."""
        stored, nodata = to_dtype(values, dtype, nodata)
        return cls(stored, ~np.isnan(values), nodata)


@dataclass(frozen=True)
class CutTile:
    """One tile."""

    name: str
    record: SceneRecord  # the scene or ready-made tile that it comes from
    box: Box  # its window in the scene
    grid: Grid
    images: dict[str, TileImage]  # its modalities in the order of the config
    label: ByteArray  # H x W ids, 255 for void
    folder: Path | None = None  # folder of the rasters of its scene; None for a ready-made tile
    alignment: str = ""  # residual of the registration of its scene in pixels, or empty
    alignment_px: float | None = None  # the same near the tile; None where too few points are near

    @property
    def valid_share(self) -> float:
        """Share of pixels that are valid in all bands of all modalities."""
        return float(np.concatenate([image.valid for image in self.images.values()]).all(axis=0).mean())


def read_ready_made(
    record: SceneRecord, sensors: SensorsConfig, coder: LabelCoder, speckle: SpeckleFilter | None
) -> Iterator[CutTile]:
    """Read a tile that the source comes with: label decoded, backscatter in dB, the SAR image filtered if set."""
    rasters = [image.raster for image in record.images.values()]
    rasters = [*rasters, *([record.label] if record.label else [])] if record.crs else rasters[:1]
    grid, images = place_of_tile([file for raster in rasters for file in raster.files]), {}
    for name, image in record.images.items():
        values, clip_db = image.raster.read_all(), sensors[name].clip_db
        if speckle is not None and name == "sar":
            power = speckle.apply_to_edges(to_power(values, image.scale))
            values = power_to_db(power, image.scale, clip_db)
        else:
            values = to_db(values, image.scale, clip_db)
        images[name] = TileImage.of(values, stored_dtype(name, image), image.nodata)
    size = grid.height, grid.width
    label = np.full(size, IGNORE, np.uint8) if record.label is None else coder.read(record.label)
    yield CutTile(record.scene, record, (0, 0, *size), grid, images, label)


def windows(height: int, width: int, tiles: TilesConfig) -> list[Box]:
    """List the windows of the tiles of a scene, row by row; a scene smaller than a tile is padded."""
    rows = offsets(height, tiles.size, tiles.stride, tiles.edge)
    columns = offsets(width, tiles.size, tiles.stride, tiles.edge)
    return [(row, column, tiles.size, tiles.size) for row in rows for column in columns]


def offsets(length: int, size: int, stride: int, edge: Literal["pad", "shift", "drop"]) -> list[int]:
    """List where tiles begin along one side of a scene."""
    if length <= size:
        return [0]
    firsts = list(range(0, length - size + 1, stride))
    if firsts[-1] + size < length and edge != "drop":
        firsts.append(firsts[-1] + stride if edge == "pad" else length - size)
    return firsts


def scene_strips(record: SceneRecord, scenes_root: Path, tiles: TilesConfig) -> list[Callable[[], Iterator[CutTile]]]:
    """Divide an aligned scene into strips of adjacent tiles of about equal size; each is read when it is called."""
    folder = scenes_root / record.scene
    alignment = read_record(folder / RECORD)
    with reading(folder / RECORD):
        rmse = alignment.get("rmse_px")
        scene_rmse = f"{rmse:.6f}" if rmse is not None and alignment["status"] != "rejected" else ""
        residuals = Residuals.of(alignment)
    grid = read_grid(folder / "optical.tif")

    def read(boxes: Sequence[Box]) -> Iterator[CutTile]:
        row, left, height, _ = boxes[0]
        strip = row, left, height, boxes[-1][1] + boxes[-1][3] - left
        images = {name: read_image(folder / f"{name}.tif", strip) for name in record.images}
        label = read_labels(folder / "label.tif", strip)
        for box in boxes:
            columns = slice(box[1] - left, box[1] - left + box[3])
            cut = {n: TileImage(i.values[..., columns], i.valid[..., columns], i.nodata) for n, i in images.items()}
            name, near = f"{record.scene}_r{row}_c{box[1]}", residuals.near(box)
            yield CutTile(name, record, box, grid.window(box), cut, label[..., columns], folder, scene_rmse, near)

    boxes = windows(grid.height, grid.width, tiles)
    n_tiles = max(_MAX_STRIP_PIXELS // tiles.size**2, 1)
    rows = (list(row) for _, row in groupby(boxes, key=lambda box: box[0]))
    pieces = (row[first : first + n_tiles] for row in rows for first in range(0, len(row), n_tiles))
    return [partial(read, piece) for piece in pieces]


def read_image(path: Path, box: Box) -> TileImage:
    """Read a window of an image, which may reach past the edges, in the type of its file."""
    raster = Raster.of(path)
    with raster.open() as opened:
        (part,) = opened.parts(box)
    nodata = raster.files[0].header.nodata[0]
    values, valid = part.values, part.bands_valid
    if values.dtype.kind in "iu" and values.dtype.itemsize <= 2 and nodata is not None:
        return TileImage(pad_to_window(values, box, nodata), pad_to_window(valid, box, False), nodata)
    return TileImage.of(pad_to_window(part.numbers, box, np.nan), values.dtype.name, nodata)


def cut_window(path: Path, box: Box, target: Path, classes: ClassTable | None) -> None:
    """Write a window of a raster of an aligned scene, as `cut_tiles` does; `classes` are those of a label."""
    grid = read_grid(path).window(box)
    if classes is not None:
        write_raster(target, read_labels(path, box), grid, IGNORE, classes=classes)
        return
    image = read_image(path, box)
    write_raster(target, image.values, grid, image.nodata, Raster.of(path).files[0].header.names)


def resolve_store(tiles: TilesConfig, inventory: Path) -> TilesConfig:
    """Decide where tiles are stored if `tiles.store` is `auto`, from the sizes of all scenes."""
    if tiles.store != "auto":
        return tiles
    whole, count = Inventory.read(inventory), 0
    if whole.layout in GEOREFERENCED:
        count = sum(len(windows(r.height, r.width, tiles)) for r in whole.records if r.role == TRAIN)
    return tiles.model_copy(update={"store": "virtual" if count > MAX_TILES_WITH_FILES else "files"})


def cut_tiles(
    inventory: Path,
    scenes_root: Path,
    sensors: SensorsConfig,
    labels: LabelsConfig,
    tiles: TilesConfig,
    table: Path,
    threads: int,
    settings: str = "",
) -> None:
    """Write the tiles of some scenes of role `train`, and their rows of the index.

    Scenes of the `inventory` are read from `scenes_root`, where all their rasters have one grid. Ready-made tiles are
    read from their own files and keep their size; their labels are decoded, and backscatter is filtered if set and
    converted to dB. A scene without label gives tiles that are void everywhere, for pre-training. For virtual tiles
    only the rows are written; they name the folder of the rasters of their scene. `store: auto` means files (see
    `resolve_store`).

    The CSV `table`, in a folder of `tiles/`, has the rows, with classes by number; the JSON file beside it the number
    of tiles with files and the best valid share of all, and, if given, a hash of the `settings` of the job and of the
    alignment. `threads` strips of tiles are worked on at a time.
    """
    whole = Inventory.read(inventory)
    records = [record for record in whole.records if record.role == TRAIN]
    work: list[Callable[[], Iterable[CutTile]]]
    folders: list[Path] = []
    if whole.layout in GEOREFERENCED:
        folders = [scenes_root / record.scene for record in records]
        require_scenes(folders, (*sensors, "label"), threads)
        work = [strip for record in records for strip in scene_strips(record, scenes_root, tiles)]
    else:
        if tiles.store == "virtual":
            what = f"is `virtual`, but layout `{whole.layout}` has ready-made tiles, whose values are converted"
            raise InputError(Problem("config key `tiles.store`", what, "Set it to `files`."))
        coder = LabelCoder(labels, whole.classes, whole.label_encoding)
        speckle = filter_of_tiles(records, sensors["sar"])
        work = [partial(read_ready_made, record, sensors, coder, speckle) for record in records]
    writer = _Writer(TileStore(table.parent.parent), sensors, whole.classes, tiles)
    rows, shares = [], []
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for some_rows, some_shares in pool.map(lambda part: writer.write_all(part()), work):
            rows += some_rows
            shares += some_shares
    fields = dict.fromkeys(f"field_{name}" for record in records for name in record.fields)
    numbers = [str(c.id) for c in whole.classes.classes]
    _write_index(table, rows, numbers, fields)
    files = sum(not row[RASTERS] for row in rows)
    summary: dict[str, Any] = {
        "files": files,
        "candidates": len(shares),
        "best_valid_share": max(shares, default=0.0),
        "min_valid": tiles.min_valid,
    }
    aligned = [read_record(folder / RECORD).get("settings") for folder in folders]
    if settings and all(aligned):  # scenes of earlier versions do not name theirs
        summary["settings"] = json_digest([settings, *aligned])
    write_bytes(table.with_suffix(".json"), (json.dumps(summary) + "\n").encode())


def merge_index(
    tables: Sequence[Path], inventory: Path | None, labels: LabelsConfig, modalities: Iterable[str], out_root: Path
) -> None:
    """Merge the rows of all scenes, files of `cut_tiles`, into `index.csv`, and write `classes.csv` in `out_root`.

    Tiles of no row are removed. The inventory has the classes of a source whose config names none.

    Raises:
        InputError: If there is no tile, or the scenes were aligned or cut with different settings.
    """
    require_same_settings(table.with_suffix(".json") for table in tables)
    classes = ClassTable.of((c.name, c.color) for c in labels.classes)
    if not labels.classes and inventory is not None:
        classes = Inventory.read(inventory).classes
    rows: list[dict[str, str]] = []
    fields: dict[str, None] = {}
    for table in tables:
        of_table = read_rows(table, ["tile", *(f"share_{c.id}" for c in classes.classes)])
        rows += of_table
        fields |= dict.fromkeys(name for row in of_table[:1] for name in row if name.startswith("field_"))
    if not rows:
        raise InputError(_too_few([read_record(table.with_suffix(".json")) for table in tables]))
    for row in rows:
        row |= {f"share_{c.name}": row.pop(f"share_{c.id}") for c in classes.classes}
    own = {row["tile"] for row in rows if not row[RASTERS]}
    for kind in (*modalities, "label"):
        for path in TileStore(out_root).own_file(kind, "any").parent.glob("*.tif"):
            if path.stem not in own:  # of earlier runs, and would be taken for a tile of this one
                path.unlink()
    _write_index(out_root / "index.csv", rows, classes.names, fields)
    classes.write(out_root / "classes.csv")


def _too_few(summaries: Sequence[Mapping[str, Any]]) -> Problem:
    count = sum(summary["candidates"] for summary in summaries)
    best = max((summary["best_valid_share"] for summary in summaries), default=0)
    remedy = "Lower it, or `tiles.size` if scenes are smaller"
    remedy += "; or check overlap and no data in inventory.csv, and the roles of the scenes."
    best_share = f"the best of {count} has {best:.2f}" if count else "no scene has the role train"
    limits = sorted({f"({summary['min_valid']:g}) " for summary in summaries})
    what = f"{''.join(limits)}is reached by no tile: {best_share}"
    return Problem("config key `tiles.min_valid`", what, remedy)


@dataclass(frozen=True)
class _Writer:
    store: TileStore
    sensors: SensorsConfig
    classes: ClassTable
    tiles: TilesConfig

    def write_all(self, tiles: Iterable[CutTile]) -> tuple[list[dict[str, str]], list[float]]:
        """Write tiles; return their rows of the index, and the valid shares of all, dropped ones included."""
        rows, shares = [], []
        with limited_cache():  # one for all files: making one per file takes time
            for tile in tiles:
                shares.append(share := tile.valid_share)
                if share < self.tiles.min_valid or share == 0:
                    continue
                rasters = ""
                if self.tiles.store == "virtual" and tile.folder is not None:
                    rasters = os.path.relpath(tile.folder, self.store.root)
                else:
                    self._write(tile)
                rows.append(_index_row(tile, share, self.classes, rasters))
        return rows, shares

    def _write(self, tile: CutTile) -> None:
        grid = tile.grid if tile.grid.crs else None
        for name, image in tile.images.items():
            path = self.store.own_file(name, tile.name)
            write_raster(path, image.values, grid, image.nodata, self.sensors[name].bands)
        write_raster(self.store.own_file("label", tile.name), tile.label, grid, IGNORE, classes=self.classes)


def _index_row(tile: CutTile, valid_share: float, classes: ClassTable, rasters: str) -> dict[str, str]:
    """Make the row of a tile in the index; `rasters` is the folder of its scene for a virtual tile, else empty."""
    counts = np.bincount(tile.label.ravel(), minlength=IGNORE + 1)[:IGNORE]
    labelled = int(counts.sum())
    shares = {f"share_{c.id}": f"{counts[c.id] / max(labelled, 1):.6f}" for c in classes.classes}
    optical, sar, *others = (image.values for image in tile.images.values())
    return {
        "tile": tile.name,
        "scene": tile.record.scene,
        "role": tile.record.role,
        **dict(zip(("row", "col", "height", "width"), map(str, tile.box), strict=True)),
        "crs": tile.grid.crs,
        **ground_columns(tile.grid),
        "valid_share": f"{valid_share:.6f}",
        "label_share": f"{labelled / tile.label.size:.6f}",
        **shares,
        "alignment": tile.alignment,
        "alignment_px": "" if tile.alignment_px is None else f"{tile.alignment_px:.3f}",
        "digest": pixel_digest(optical, sar, tile.label, *others),
        RASTERS: rasters,
        **{f"field_{name}": value for name, value in tile.record.fields.items()},
    }


def _write_index(path: Path, rows: Sequence[dict[str, str]], classes: Iterable[str], fields: Iterable[str]) -> None:
    """Write rows of the index as CSV, sorted by tile, with a column for each class and each field of the source."""
    first = ("tile", "scene", "role", "row", "col", "height", "width", "crs", *GROUND)
    shares = ("valid_share", "label_share", *(f"share_{name}" for name in classes))
    columns = [*first, *shares, "alignment", "alignment_px", "digest", RASTERS, *fields]
    ordered = sorted(rows, key=lambda row: row["tile"])
    write_table(path, columns, ordered)
