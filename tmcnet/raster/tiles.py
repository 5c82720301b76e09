"""Cut scenes into tiles, or take ready-made tiles over, and index them."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from tmcnet.classes import ClassTable
from tmcnet.config import IGNORE, LabelsConfig, SensorsConfig, TilesConfig
from tmcnet.errors import InputError, Problem
from tmcnet.raster.atomic import write_bytes
from tmcnet.raster.backscatter import to_db
from tmcnet.raster.digests import KINDS, RECORD, pixel_digest, require_scenes
from tmcnet.raster.entry import TRAIN
from tmcnet.raster.further import read_aligned, read_ready_made
from tmcnet.raster.ground import GROUND, ground_columns
from tmcnet.raster.inventory import GEOREFERENCED
from tmcnet.raster.io import Box, ByteArray, FloatArray, Grid, read_float, read_grid, read_labels
from tmcnet.raster.io import write_raster as write
from tmcnet.raster.labels import LabelCoder
from tmcnet.raster.opening import open_raster
from tmcnet.raster.records import Inventory, Record
from tmcnet.raster.residuals import Residuals
from tmcnet.raster.warp import to_dtype
from tmcnet.store import TileStore


@dataclass(frozen=True)
class Tile:
    """One tile as it is written.

    Attributes:
        name: Its name.
        record: The scene or ready-made tile it comes from.
        box: Its window in the scene.
        grid: Where its pixels lie.
        optical: C x H x W, NaN for no data.
        dtype: Type of the optical numbers in the file.
        optical_nodata: Value that means no data there.
        sar: C x H x W, NaN for no data.
        label: H x W ids, 255 for void.
        alignment: Residual of the registration of its scene in pixels, or empty.
        alignment_px: Residual of the registration at the tile in pixels; None where too few points tell.
        further: C x H x W of each further modality, NaN for no data.
    """

    name: str
    record: Record
    box: Box
    grid: Grid
    optical: FloatArray
    dtype: str
    optical_nodata: float | None
    sar: FloatArray
    label: ByteArray
    alignment: str = ""
    alignment_px: float | None = None
    further: dict[str, FloatArray] = field(default_factory=dict)

    @property
    def valid_share(self) -> float:
        """Share of pixels that are valid in all bands of all modalities."""
        images = (self.optical, self.sar, *self.further.values())
        return float(np.logical_and.reduce([~np.isnan(image).any(axis=0) for image in images]).mean())


def make_tiles(
    inventory: Path,
    scenes_root: Path,
    sensors: SensorsConfig,
    labels: LabelsConfig,
    tiles: TilesConfig,
    out_root: Path,
    threads: int,
) -> None:
    """Write the tiles of all scenes with role `train`, `index.csv` and `classes.csv`.

    Scenes are read from `scenes_root`, where they lie on one grid. Ready-made tiles are read from their own files
    and taken whole; their labels are decoded and their backscatter brought to dB. Tiles of an earlier run are
    removed first. A scene without label gives tiles that are void everywhere, for pre-training.

    Args:
        inventory: `inventory.json`.
        scenes_root: Folder of the aligned scenes.
        sensors: Section `sensors` of the config.
        labels: Section `labels`.
        tiles: Section `tiles`.
        out_root: Folder `tiles/`.
        threads: How many tiles are worked on at a time.

    Raises:
        InputError: If a file cannot be read or written, a scene's raster is missing or not the one that
            `alignment.json` speaks of, or no tile is valid enough.
    """
    whole = Inventory.read(inventory)
    records = [record for record in whole.records if record.role == TRAIN]
    work: list[_SceneRow | _ReadyMade]
    if whole.layout in GEOREFERENCED:
        require_scenes((scenes_root / record.scene for record in records), (*KINDS, *sensors.further))
        work = [part for record in records for part in _scene_rows(record, scenes_root, tiles)]
    else:
        coder = LabelCoder(labels, whole.classes, whole.label_encoding)
        work = [_ReadyMade(record, sensors, coder) for record in records]
    store = TileStore(out_root)
    _clear(store, (*KINDS, *sensors.further))
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        done = pool.map(lambda part: _write_all(part.read(), sensors, whole.classes, tiles, store), work)
        rows, shares = [], []
        for some, seen in done:
            rows += some
            shares += seen
    if not rows:
        best = f"the best of {len(shares)} has {max(shares):.2f}" if shares else "no scene has the role train"
        what = f"({tiles.min_valid:g}) is reached by no tile: {best}"
        remedy = "Lower it; or check overlap and no data in inventory.csv, and the roles of the scenes."
        raise InputError(Problem("config key `tiles.min_valid`", what, remedy))
    write_bytes(store.index, _table(sorted(rows, key=lambda row: row["tile"]), whole.classes, records))
    whole.classes.write(out_root / "classes.csv")


def windows(height: int, width: int, tiles: TilesConfig) -> list[Box]:
    """Windows of the tiles of a scene, row by row.

    Args:
        height: Rows of the scene.
        width: Its columns.
        tiles: Size, stride and what happens at the far edges. A scene smaller than a tile is padded.
    """
    rows = offsets(height, tiles.size, tiles.stride, tiles.edge)
    columns = offsets(width, tiles.size, tiles.stride, tiles.edge)
    return [(row, column, tiles.size, tiles.size) for row in rows for column in columns]


def offsets(length: int, size: int, stride: int, edge: Literal["pad", "shift", "drop"]) -> list[int]:
    """Where tiles begin along one side of a scene."""
    if length <= size:
        return [0]
    found = list(range(0, length - size + 1, stride))
    if found[-1] + size < length and edge != "drop":
        found.append(found[-1] + stride if edge == "pad" else length - size)
    return found


@dataclass(frozen=True)
class _SceneRow:
    """The tiles of one scene that begin at the same row."""

    record: Record
    folder: Path
    boxes: Sequence[Box]
    alignment: str
    residuals: Residuals

    def read(self) -> list[Tile]:
        return [self._tile(box) for box in self.boxes]

    def _tile(self, box: Box) -> Tile:
        optical = self.folder / "optical.tif"
        dtype, nodata = _kind_of_number(optical)
        return Tile(
            f"{self.record.scene}_r{box[0]}_c{box[1]}",
            self.record,
            box,
            read_grid(optical).window(box),
            read_float(optical, box),
            dtype,
            nodata,
            read_float(self.folder / "sar.tif", box),
            read_labels(self.folder / "label.tif", box),
            self.alignment,
            self.residuals.near(box),
            read_aligned(self.record, self.folder, box),
        )


@dataclass(frozen=True)
class _ReadyMade:
    """A tile that the source comes with."""

    record: Record
    sensors: SensorsConfig
    coder: LabelCoder

    def read(self) -> list[Tile]:
        record = self.record
        dtype, _ = _kind_of_number(Path(record.optical[0]))
        grid = read_grid(record.optical[0])
        sar = read_float(record.sar, nodata=self.sensors.sar.nodata)
        return [
            Tile(
                record.scene,
                record,
                (0, 0, grid.height, grid.width),
                grid,
                read_float(record.optical, nodata=self.sensors.optical.nodata),
                dtype,
                record.optical_nodata,
                to_db(sar, record.sar_scale, self.sensors.sar.clip_db),
                self.coder.read(record.label[0]),
                further=read_ready_made(record, self.sensors.further),
            )
        ]


def _scene_rows(record: Record, scenes_root: Path, tiles: TilesConfig) -> list[_SceneRow]:
    folder = scenes_root / record.scene
    grid = read_grid(folder / "optical.tif")
    boxes = windows(grid.height, grid.width, tiles)
    alignment = json.loads((folder / RECORD).read_text())
    rmse = alignment.get("rmse_px")
    told = f"{rmse:.6f}" if rmse is not None and alignment["status"] != "rejected" else ""
    rows = sorted({box[0] for box in boxes})
    residuals = Residuals.of(alignment)
    return [_SceneRow(record, folder, [box for box in boxes if box[0] == row], told, residuals) for row in rows]


def _kind_of_number(path: Path) -> tuple[str, float | None]:
    with open_raster(path) as dataset:
        return dataset.dtypes[0], dataset.nodata


def _clear(store: TileStore, kinds: Sequence[str]) -> None:
    """Remove the tiles of an earlier run; they would be taken for tiles of this one."""
    for kind in kinds:
        folder = store.path(kind, "any").parent
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("*.tif"):
            path.unlink()


def _write_all(
    found: Sequence[Tile], sensors: SensorsConfig, classes: ClassTable, tiles: TilesConfig, store: TileStore
) -> tuple[list[dict[str, str]], list[float]]:
    """Write tiles that are valid enough; their rows of the index, and the valid shares of all."""
    shares = [tile.valid_share for tile in found]
    rows = []
    for tile, share in zip(found, shares, strict=True):
        if share < tiles.min_valid or share == 0:
            continue
        grid = tile.grid if tile.grid.crs else None
        values, nodata = to_dtype(tile.optical, tile.dtype, tile.optical_nodata)
        write(store.path("optical", tile.name), values, grid, nodata, sensors.optical.bands)
        write(store.path("sar", tile.name), tile.sar, grid, math.nan, sensors.sar.bands)
        for name, image in tile.further.items():
            write(store.path(name, tile.name), image, grid, math.nan, sensors.further[name].bands)
        write(store.path("label", tile.name), tile.label, grid, IGNORE, classes=classes)
        rows.append(_row(tile, share, classes))
    return rows, shares


def _row(tile: Tile, valid_share: float, classes: ClassTable) -> dict[str, str]:
    row, column, height, width = tile.box
    counts = np.bincount(tile.label.ravel(), minlength=IGNORE + 1)[:IGNORE]
    labelled = int(counts.sum())
    shares = {f"share_{c.name}": f"{counts[c.id] / max(labelled, 1):.6f}" for c in classes.classes}
    return {
        "tile": tile.name,
        "scene": tile.record.scene,
        "role": tile.record.role,
        "row": str(row),
        "col": str(column),
        "height": str(height),
        "width": str(width),
        "crs": tile.grid.crs,
        **ground_columns(tile.grid),
        "valid_share": f"{valid_share:.6f}",
        "label_share": f"{labelled / tile.label.size:.6f}",
        **shares,
        "alignment": tile.alignment,
        "alignment_px": "" if tile.alignment_px is None else f"{tile.alignment_px:.3f}",
        "digest": pixel_digest(tile.optical, tile.sar, tile.label, *tile.further.values()),
        **{f"field_{name}": value for name, value in tile.record.fields.items()},
    }


def _table(rows: Sequence[dict[str, str]], classes: ClassTable, records: Sequence[Record]) -> bytes:
    fields = dict.fromkeys(f"field_{name}" for record in records for name in record.fields)
    first = ("tile", "scene", "role", "row", "col", "height", "width", "crs", *GROUND)
    shares = ("valid_share", "label_share", *(f"share_{name}" for name in classes.names))
    columns = [*first, *shares, "alignment", "alignment_px", "digest", *fields]
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode()
