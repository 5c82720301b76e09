"""Speed of reading tiles in random order, as a training does: from their own files and as windows of the scene."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.tiling import PREDICTORS, write_scene
from tmcnet.raster.io import writer
from tmcnet.raster.io.geometry import Box
from tmcnet.raster.io.reader import read_float, read_labels
from tmcnet.raster.tiling.tiles import cut_window

SIDE, TILE, COUNT, REPEATS = 4096, 256, 150, 3
BLOCKS = (256, 128, 64)
"""Sides of the blocks of the scene; the last is the project's."""


def run() -> None:
    """Print tiles per second of CPU time, the best of some repetitions in turn; and the size of the scenes."""
    random = np.random.default_rng(0)
    places = {
        "on blocks of 256": random.integers(0, SIDE // TILE - 1, (COUNT, 2)) * TILE,
        "on blocks of 128": random.integers(0, SIDE // 128 - 2, (COUNT, 2)) * 128,
        "anywhere": random.integers(0, SIDE - TILE, (COUNT, 2)),
    }
    boxes = {name: [(int(row), int(col), TILE, TILE) for row, col in found] for name, found in places.items()}
    with tempfile.TemporaryDirectory() as name:
        scenes = {block: _scene(Path(name) / str(block), block) for block in BLOCKS}
        own = _own_files(scenes[BLOCKS[-1]], Path(name) / "tiles", boxes["anywhere"])
        work: dict[tuple[str, str], list[tuple[Path, Box | None]]]
        work = {("own files", "anywhere"): [(folder, None) for folder in own]}
        for block, folder in scenes.items():
            work |= {
                (f"blocks of {block}", place): [(folder, box) for box in found] for place, found in boxes.items()
            }
        rates: dict[tuple[str, str], list[float]] = {key: [] for key in work}
        for _ in range(REPEATS):
            for key, tiles in work.items():
                rates[key].append(_rate(tiles))
        print("| stored as | tiles begin | tiles/s | MB |\n| --- | --- | ---: | ---: |")
        for (form, place), found in rates.items():
            size = "" if form == "own files" else f"{_megabytes(scenes[int(form.split()[-1])]):.1f}"
            print(f"| {form} | {place} | {max(found):.0f} | {size} |", flush=True)


def _scene(folder: Path, block: int) -> Path:
    """Write a scene with blocks of some side, and return the folder of its rasters."""
    before, writer.SCENE_BLOCK_PX = writer.SCENE_BLOCK_PX, block
    try:
        write_scene(folder, SIDE)
    finally:
        writer.SCENE_BLOCK_PX = before
    return folder / "scenes" / "a"


def _own_files(scene: Path, out: Path, boxes: Sequence[Box]) -> list[Path]:
    """Write tiles as `tiles.store: files` does, and return a folder for each."""
    for number, box in enumerate(boxes):
        (out / str(number)).mkdir(parents=True)
        for kind in PREDICTORS:
            cut_window(scene / f"{kind}.tif", box, out / str(number) / f"{kind}.tif", None)
    return [out / str(number) for number in range(len(boxes))]


def _rate(tiles: Sequence[tuple[Path, Box | None]]) -> float:
    began = time.thread_time()
    for folder, box in tiles:
        for kind in ("optical", "sar"):
            read_float(folder / f"{kind}.tif", box)
        read_labels(folder / "label.tif", box)
    return len(tiles) / (time.thread_time() - began)


def _megabytes(folder: Path) -> float:
    return sum((folder / f"{kind}.tif").stat().st_size for kind in PREDICTORS) / 1e6
