"""Export of tiles and splits in the seed layout, which users of the published code read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tmcnet.config import IGNORE
from tmcnet.config.splits import PARTS
from tmcnet.errors import InputError, Problem, format_names
from tmcnet.raster.inventory.seed_layout import KINDS, write_class_dict
from tmcnet.raster.io.reader import read_grid, read_labels
from tmcnet.raster.io.writer import write_raster
from tmcnet.raster.tiling.tiles import cut_window
from tmcnet.splits.files import TilePoints, keep_points, points_file, points_per_class, read_list, verified_list
from tmcnet.splits.index import IntArray
from tmcnet.splits.points import read_tile_points
from tmcnet.store import TileStore


def export_seed_layout(tiles_root: Path, splits_folder: Path, out: Path, others: Sequence[str] = ()) -> None:
    """Write tiles and splits as a folder in the seed layout.

    Files are hard links if the file system allows it, else copies; those of virtual tiles are cut. Lists have file
    names with extension. For lists of points, labels with only these points are written into a separate folder such
    as `trainP10_lbl`. Other modalities, which the published layout does not have, get folders and lists of their
    names, such as `train_dem` and `train_dem.txt`, which its readers ignore.

    Raises:
        InputError: If `out` holds something already, a list was changed since the splits were made, or a list, a
            listed tile or a file of points is missing or damaged.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(Problem(str(out), "is there already and not empty", "Remove it or choose another folder."))
    lists = sorted(path for word in KINDS.values() for path in splits_folder.glob(f"*_{word}.txt"))
    if not lists:
        raise InputError(
            Problem(str(splits_folder), "holds no lists such as train_RGB.txt", "Make the splits first.")
        )
    for name in sorted({path.name.rsplit("_", 1)[0] for path in lists}):
        verified_list(splits_folder, name)
    store = TileStore(tiles_root)
    sources = _sources(store, splits_folder, others)
    points = _points(store, splits_folder, lists)
    out.mkdir(parents=True, exist_ok=True)
    classes = store.classes
    for target, (kind, tile) in sources.items():
        path = out / target
        path.parent.mkdir(exist_ok=True)
        window = store.window(tile)
        if window is None:
            _link(store.path(kind, tile), path)
        else:
            cut_window(store.path(kind, tile), window, path, classes if kind == "label" else None)
    for name, of_tile in points.items():
        for tile, some in of_tile.items():
            _write_sparse(store, tile, some, out / f"{name}_{KINDS['label']}" / f"{tile}.tif")
    for path in lists:
        text = "".join(f"{tile}.tif\n" for tile in read_list(path))
        (out / path.name).write_text(text, encoding="utf-8")
        name = path.name.removesuffix(f"_{KINDS['optical']}.txt")
        for kind in others if name != path.name else ():
            (out / f"{name}_{kind}.txt").write_text(text, encoding="utf-8")
    write_class_dict(out / "class_dict.txt", store.classes)


def _sources(store: TileStore, splits_folder: Path, others: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Kind and tile by path below the new folder, for every tile of every part."""
    sources: dict[str, tuple[str, str]] = {}
    problems = []
    for kind, word in {**KINDS, **{name: name for name in others}}.items():
        for part in PARTS:
            path = splits_folder / f"{part}_{KINDS.get(kind, KINDS['optical'])}.txt"
            tiles = read_list(path) if path.is_file() else []
            missing = [tile for tile in tiles if not store.path(kind, tile).is_file()]
            if missing:
                what = f"has no file for tiles of {path.name}: {format_names(missing)}"
                problems.append(Problem(str(store.root / kind), what, "Run the tiling stage again, then the splits."))
            sources.update({f"{part}_{word}/{tile}.tif": (kind, tile) for tile in tiles})
    if problems:
        raise InputError(problems)
    return sources


def _points(store: TileStore, splits_folder: Path, lists: list[Path]) -> dict[str, TilePoints]:
    """The points by tile of each list that has points."""
    points: dict[str, TilePoints] = {}
    for path in lists:
        name = path.name.removesuffix(f"_{KINDS['label']}.txt")
        if points_per_class(name):
            points[name] = read_tile_points(points_file(splits_folder, name), read_list(path), store.classes.names)
    return points


def _write_sparse(store: TileStore, tile: str, points: IntArray, target: Path) -> None:
    source, window = store.path("label", tile), store.window(tile)
    sparse = keep_points(read_labels(source, window), points, tile)
    grid = read_grid(source)
    write_raster(target, sparse, grid.window(window) if window else grid, nodata=IGNORE, classes=store.classes)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
