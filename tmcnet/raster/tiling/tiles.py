"""Cut scenes into tiles, or take ready-made tiles over, and index them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from tmcnet.classes import ClassTable
from tmcnet.config import IGNORE, LabelsConfig, SensorsConfig, TilesConfig
from tmcnet.errors import InputError, Problem
from tmcnet.raster.inventory.records import GEOREFERENCED, Inventory, Record
from tmcnet.raster.inventory.sample_sheet import TRAIN
from tmcnet.raster.io.atomic import write_bytes
from tmcnet.raster.io.labels import LabelCoder
from tmcnet.raster.io.rasters import Box, read_grid, write_raster
from tmcnet.raster.io.streaming import little_cache
from tmcnet.raster.tiling.cutting import ReadyMade, SceneStrip, Tile, scene_strips
from tmcnet.raster.tiling.grid import require_scenes
from tmcnet.raster.tiling.second_sensor import speckle_of_tiles
from tmcnet.raster.tiling.tile_index import index_table, tile_row
from tmcnet.store import TileStore


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
    and taken whole; their labels are decoded, their backscatter is filtered where wanted and brought to dB. Tiles of
    an earlier run are removed first. A scene without label gives tiles that are void everywhere, for pre-training.
    Where tiles are virtual, the index alone is written; it names the folder of the rasters of each tile's scene.

    Args:
        inventory: `inventory.json`.
        scenes_root: Folder of the aligned scenes.
        sensors: Section `sensors` of the config.
        labels: Section `labels`.
        tiles: Section `tiles`.
        out_root: Folder `tiles/`.
        threads: How many strips of tiles are worked on at a time.

    Raises:
        InputError: If a file cannot be read or written, a scene's raster is missing or not the one that
            `alignment.json` speaks of, no tile is valid enough, ready-made tiles shall be virtual, or a speckle
            filter is wanted of what is no backscatter.
    """
    whole = Inventory.read(inventory)
    records = [record for record in whole.records if record.role == TRAIN]
    work: list[SceneStrip | ReadyMade]
    if whole.layout in GEOREFERENCED:
        require_scenes((scenes_root / record.scene for record in records), (*sensors, "label"), threads)
        work = [part for record in records for part in _strips(record, scenes_root, tiles)]
    else:
        _require_files(tiles, whole.layout)
        coder = LabelCoder(labels, whole.classes, whole.label_encoding)
        speckle = speckle_of_tiles(records, sensors)
        work = [ReadyMade(record, sensors, coder, speckle) for record in records]
    writer = _Writer(TileStore(out_root), sensors, whole.classes, tiles)
    writer.clear()
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        done = pool.map(lambda part: writer.write_all(part.read()), work)
        rows, shares = [], []
        for some, seen in done:
            rows += some
            shares += seen
    if not rows:
        best = f"the best of {len(shares)} has {max(shares):.2f}" if shares else "no scene has the role train"
        what = f"({tiles.min_valid:g}) is reached by no tile: {best}"
        remedy = "Lower it; or check overlap and no data in inventory.csv, and the roles of the scenes."
        raise InputError(Problem("config key `tiles.min_valid`", what, remedy))
    index = index_table(sorted(rows, key=lambda row: row["tile"]), whole.classes, records)
    write_bytes(writer.store.index, index)
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


def _strips(record: Record, scenes_root: Path, tiles: TilesConfig) -> list[SceneStrip]:
    grid = read_grid(scenes_root / record.scene / "optical.tif")
    return scene_strips(record, scenes_root, windows(grid.height, grid.width, tiles))


def _require_files(tiles: TilesConfig, layout: str) -> None:
    if tiles.store == "virtual":
        what = f"is `virtual`, but layout `{layout}` has ready-made tiles, whose labels and backscatter are converted"
        raise InputError(Problem("config key `tiles.store`", what, "Set it to `files`."))


@dataclass(frozen=True)
class _Writer:
    """Writes tiles that are valid enough."""

    store: TileStore
    sensors: SensorsConfig
    classes: ClassTable
    tiles: TilesConfig

    def clear(self) -> None:
        """Remove the tiles of an earlier run; they would be taken for tiles of this one."""
        for kind in (*self.sensors, "label"):
            for path in self.store.own_file(kind, "any").parent.glob("*.tif"):
                path.unlink()

    def write_all(self, found: Iterable[Tile]) -> tuple[list[dict[str, str]], list[float]]:
        """Write tiles; their rows of the index, and the valid shares of all, also of those left out."""
        rows, shares = [], []
        with little_cache():  # one for all files; each would make its own otherwise, which takes its time
            for tile in found:
                shares.append(share := tile.valid_share)
                if share < self.tiles.min_valid or share == 0:
                    continue
                rasters = ""
                if self.tiles.store == "virtual" and tile.folder is not None:
                    rasters = os.path.relpath(tile.folder, self.store.root)
                else:
                    self._write(tile)
                rows.append(tile_row(tile, share, self.classes, rasters))
        return rows, shares

    def _write(self, tile: Tile) -> None:
        grid = tile.grid if tile.grid.crs else None
        optical, sar, label = (self.store.own_file(kind, tile.name) for kind in ("optical", "sar", "label"))
        write = partial(write_raster, grid=grid, compression=self.tiles.compression)
        write(optical, tile.optical.values, nodata=tile.optical.nodata, descriptions=self.sensors["optical"].bands)
        write(sar, tile.sar, nodata=math.nan, descriptions=self.sensors["sar"].bands)
        for name, image in tile.further.items():
            bands = self.sensors.others[name].bands
            write(self.store.own_file(name, tile.name), image, nodata=math.nan, descriptions=bands)
        write(label, tile.label, nodata=IGNORE, classes=self.classes)
