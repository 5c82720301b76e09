"""Files of the tiles below a results folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tmcnet.classes import ClassTable
from tmcnet.readers import read_columns, reading

RASTERS = "rasters"
"""Column of the index: the folder of the rasters that a tile is a window of, relative to the folder of the index.

Empty for a tile with its own files."""


@dataclass(frozen=True)
class TileStore:
    """The folder `tiles/`: an index, a class table, and one GeoTIFF per tile and kind, unless tiles are virtual.

    A virtual tile is a window of the rasters of its aligned scene. Either kind is read as
    `read_float(store.path("optical", tile), store.window(tile))`.
    """

    root: Path

    @property
    def index(self) -> Path:
        """The table of all tiles."""
        return self.root / "index.csv"

    @property
    def pixel_metres(self) -> float | None:
        """Ground sampling distance in metres, of the first tile; None for tiles without CRS."""
        with reading(self.index):
            for _, side in read_columns(self.index, ["tile"], ["pixel_metres"]):
                return float(side) if side else None
            raise ValueError("it has no rows")

    @property
    def classes(self) -> ClassTable:
        """The class table."""
        return ClassTable.read(self.root / "classes.csv")

    def own_file(self, kind: str, tile: str) -> Path:
        """The file of a tile that is not virtual; `kind` is `optical`, `sar`, `label` or another modality."""
        return self.root / kind / f"{tile}.tif"

    def path(self, kind: str, tile: str) -> Path:
        """The raster that holds a tile: its own file or that of its scene."""
        if tile not in self._virtual:
            return self.own_file(kind, tile)
        folder, _ = self._virtual[tile]
        return folder / f"{kind}.tif"

    def window(self, tile: str) -> tuple[int, int, int, int] | None:
        """Window of a virtual tile in its raster: row, col, height, width; None if it has its own file."""
        return self._virtual[tile][1] if tile in self._virtual else None

    @cached_property
    def _virtual(self) -> dict[str, tuple[Path, tuple[int, int, int, int]]]:
        """Folder and window of each virtual tile, from the index."""
        places: dict[str, tuple[Path, tuple[int, int, int, int]]] = {}
        folders: dict[str, Path] = {}
        with reading(self.index):
            for tile, rasters, *window in self._columns(RASTERS, "row", "col", "height", "width"):
                if rasters:
                    folder = folders.setdefault(rasters, self.root / rasters)
                    row, col, height, width = map(int, window)
                    places[tile] = folder, (row, col, height, width)
        return places

    @cached_property
    def _digests(self) -> dict[str, str]:
        """Hash of the pixels of each tile, from the index; empty for an index without."""
        return {cells[0]: cells[1] for cells in self._columns("digest")}

    def _columns(self, *names: str) -> Iterable[tuple[str, ...]]:
        """Name of each tile and these cells of the index; nothing if there is no index."""
        return read_columns(self.index, ["tile"], names) if self.index.is_file() else ()

    @cached_property
    def _written(self) -> int:
        """When the index was written, after the tiles; in nanoseconds."""
        return self.index.stat().st_mtime_ns

    def digest(self, tile: str) -> str:
        """Hash of the pixels of a tile, from the index; empty if the index has none."""
        return self._digests.get(tile, "")

    def touched(self, kinds: Iterable[str], tile: str) -> tuple[int, ...]:
        """Times in nanoseconds of the rasters of a tile that were touched after the index was written.

        The time of the last change of name, owner or content counts: it cannot be set, and is new in a copy.
        """
        files = [self.path(kind, tile) for kind in kinds] if self.index.is_file() else []
        times = [file.stat().st_ctime_ns for file in files if file.is_file()]
        return tuple(time for time in times if time > self._written)

    def missing(self, kinds: Iterable[str], tiles: Sequence[str]) -> list[Path]:
        """Return the rasters of tiles that do not exist; own files are found by listing their folders.

        A listing is one request for a folder, where asking for each of a million tiles takes minutes on a network.
        """
        lost: list[Path] = []
        own = [tile for tile in tiles if tile not in self._virtual]
        shared = dict.fromkeys(self._virtual[tile][0] for tile in tiles if tile in self._virtual)
        for kind in kinds:
            folder = self.root / kind
            names = set(os.listdir(folder)) if own and folder.is_dir() else set()  # noqa: PTH208 - names are enough
            lost += [self.own_file(kind, tile) for tile in own if f"{tile}.tif" not in names]
            lost += [path for scene in shared if not (path := scene / f"{kind}.tif").is_file()]
        return lost
