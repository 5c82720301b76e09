"""What a user or a job does with a file, for the table of bad input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tmcnet.classes import ClassTable
from tmcnet.config import SourceConfig, SplitsConfig, load_overlays
from tmcnet.dataset.normalise import Normalisation
from tmcnet.errors import InputError, Problem
from tmcnet.evaluate.map_files import MapRecord
from tmcnet.raster.inventory.records import Inventory
from tmcnet.raster.inventory.seed_layout import read_class_dict, read_seed_layout
from tmcnet.raster.inventory.sources import find_entries
from tmcnet.raster.tiling.unchanged import read_digests
from tmcnet.splits.files import read_list, read_manifest
from tmcnet.splits.index import read_index
from tmcnet.splits.points import read_points
from tmcnet.store import TileStore

READERS: dict[str, Callable[[Path], object]] = {
    "classes.csv": ClassTable.read,
    "normalisation.json": Normalisation.read,
    "map.json": MapRecord.read,
    "inventory.json": Inventory.read,
    "alignment.json": read_digests,
    "manifest.json": lambda path: read_manifest(path.parent),
    "index.csv": lambda path: read_index(path, SplitsConfig()),
    "tiles/index.csv": lambda path: TileStore(path.parent).pixel_metres,
    "points.csv": lambda path: read_points(path, ["a"]),
    "train_RGB.txt": read_list,
}
"""Readers of the project's own files by the name of the file."""


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def config(folder: Path, content: str | bytes) -> None:
    load_overlays([write(folder / "mine.yaml", content)])


def sheet(folder: Path, content: str | bytes) -> None:
    for name in ("a_o", "a_s", "a_l", "b_l"):
        (folder / f"{name}.tif").touch()
    path = write(folder / "scenes.csv", content)
    find_entries(SourceConfig(layout="scenes", sheet=str(path)), folder, ["optical", "sar"])


def class_dict(folder: Path, content: str | bytes) -> None:
    problems: list[Problem] = []
    read_class_dict(write(folder / "class_dict.txt", content), problems)
    if problems:
        raise InputError(problems)


def seed_list(folder: Path, content: str | bytes) -> None:
    for word in ("RGB", "SAR", "lbl"):
        write(folder / f"train_{word}" / "a.tif", b"")
        write(folder / f"train_{word}.txt", content)
    read_seed_layout(folder)


def record(folder: Path, name: str, content: bytes | None) -> None:
    path = folder / name
    if content is not None:
        write(path, content)
    READERS[name](path)
