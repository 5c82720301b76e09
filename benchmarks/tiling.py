"""Speed and memory of cutting a large scene into tiles, compared with `gdal_retile.py` on the same rasters."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window
from scipy import ndimage

from benchmarks.memory import peak_mib
from tmcnet.classes import ClassTable
from tmcnet.config import LabelsConfig, SensorConfig, SensorsConfig, TilesConfig
from tmcnet.raster.inventory.records import ImageRecord, Inventory, SceneRecord
from tmcnet.raster.io.reader import Raster
from tmcnet.raster.io.writer import RasterProfile
from tmcnet.raster.tiling.grid import RECORD, scene_digests
from tmcnet.raster.tiling.tiles import cut_tiles, merge_index

SIDE = 10_000
"""Rows and columns of the scene that both tools cut."""
SIDES = (5_000, 10_000, 20_000)
"""Sides of the scenes whose memory is compared."""
TILES = (512, 256)
PIECE = 1024
"""Side of the simulated ground that large scenes are composed of."""
SENSORS = SensorsConfig(
    optical=SensorConfig(bands=["blue", "green", "red", "nir"], kind="reflectance"),
    sar=SensorConfig(bands=["vv"], kind="backscatter", scale="db"),
)
CLASSES = ClassTable.of([("one", "#0000ff"), ("two", "#00ff00"), ("three", "#ff0000")])
PREDICTORS = {"optical": 2, "sar": 3, "label": 2}
FORMS = (["COMPRESS=DEFLATE"], ["COMPRESS=ZSTD", "ZSTD_LEVEL=1"])
"""Compression by `gdal_retile.py`: its usual one, and that of tiles here."""


def run() -> None:
    """Print both tables; every measurement is a separate process."""
    sides = SIDES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_scene(folder, min(SIDE, max(sides)))
        print(f"{min(SIDE, max(sides))} pixels a side, {len(os.sched_getaffinity(0))} cores\n")
        print("wall s (CPU s)\n")
        print("| tiles | threads | gdal_retile.py, deflate | gdal_retile.py, zstd | here, zstd | times faster |")
        print("| ---: |" + " ---: |" * 5)
        for size in TILES:
            for threads in (1, len(os.sched_getaffinity(0))):
                theirs = [retile_all(folder, form, size, threads) for form in FORMS]
                ours = timed(worker(folder, size, threads, "files"))
                ratios = ", ".join(f"{spent.wall / ours.wall:.2f}" for spent in theirs)
                print(f"| {size} | {threads} | {theirs[0]} | {theirs[1]} | {ours} | {ratios} |", flush=True)
    print("\n| side, px | tiles | wall s | peak memory, MiB |\n| ---: | --- | ---: | ---: |")
    for side in sides:
        with tempfile.TemporaryDirectory() as name:
            write_scene(Path(name), side)
            for store in ("files", "virtual"):
                began = time.perf_counter()
                command = worker(Path(name), TILES[0], len(os.sched_getaffinity(0)), store)
                peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
                print(f"| {side} | {store} | {time.perf_counter() - began:.0f} | {peak} |", flush=True)


@dataclass(frozen=True)
class Spent:
    """Time that a process took, in seconds."""

    wall: float
    cpu: float

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.wall + other.wall, self.cpu + other.cpu)

    def __str__(self) -> str:
        return f"{self.wall:.1f} ({self.cpu:.1f})"


def timed(command: list[str]) -> Spent:
    """Run a command and wait for it."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Spent(time.perf_counter() - began, cpu)


def retile_all(folder: Path, form: Sequence[str], size: int, threads: int) -> Spent:
    """Cut all three rasters with `gdal_retile.py`."""
    return sum((retile(folder, kind, form, size, threads) for kind in PREDICTORS), Spent(0, 0))


def retile(folder: Path, kind: str, form: Sequence[str], size: int, threads: int) -> Spent:
    """Cut one raster with `gdal_retile.py`; its threads only compress."""
    target = folder / "retiled"
    target.mkdir()
    options = [*form, f"PREDICTOR={PREDICTORS[kind]}", "INTERLEAVE=BAND", f"NUM_THREADS={threads}"]
    if size > 256:
        options += ["TILED=YES", "BLOCKXSIZE=256", "BLOCKYSIZE=256"]
    chosen = [part for option in options for part in ("-co", option)]
    raster = str(folder / "scenes" / "a" / f"{kind}.tif")
    spent = timed(["gdal_retile.py", "-q", "-ps", str(size), str(size), *chosen, "-targetDir", str(target), raster])
    shutil.rmtree(target)
    return spent


def worker(folder: Path, size: int, threads: int, store: str) -> list[str]:
    """The command that cuts the scene with this package: all three rasters, with index, hashes and shares."""
    return [sys.executable, "-m", "benchmarks.tiling", str(folder), str(size), str(threads), store]


def cut(folder: Path, size: int, threads: int, store: str) -> None:
    """Cut the scene of a folder, and print the peak memory."""
    tiles = TilesConfig.model_validate({"size": size, "stride": size, "edge": "pad", "min_valid": 0, "store": store})
    out = folder / "tiles"
    inventory, table = folder / "inventory.json", out / "index" / "a.csv"
    cut_tiles(inventory, folder / "scenes", SENSORS, LabelsConfig(), tiles, table, threads)
    merge_index([table], inventory, LabelsConfig(), SENSORS, out)
    shutil.rmtree(out)
    print(f"{peak_mib():.0f}")


def write_scene(folder: Path, side: int) -> None:
    """Write an aligned scene of shifted copies of one simulated ground, smooth with noise, as `align_scene` does."""
    random = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(random.normal(size=(4, PIECE, PIECE)), (0, 12, 12), mode="wrap")
    smooth /= smooth.std()
    ground = {
        "optical": np.clip(smooth * 600 + 2500 + random.normal(size=smooth.shape) * 25, 1, 65535).astype("u2"),
        "sar": (smooth[:1] * 3 - 12 + random.gamma(4, 0.4, (1, PIECE, PIECE))).astype("f4"),
        "label": np.digitize(smooth[:1], (-0.5, 0.5)).astype("u1"),
    }
    empty = {"optical": 0, "sar": float("nan"), "label": 255}
    place = from_origin(500_000, 5_400_000, 10, 10)
    scene = folder / "scenes" / "a"
    scene.mkdir(parents=True)
    for kind, values in ground.items():
        options = RasterProfile(len(values), values.dtype.name, empty[kind]).creation_options(side, side)
        with rasterio.open(scene / f"{kind}.tif", "w", **options, crs="EPSG:32633", transform=place) as dataset:
            for row in range(0, side, PIECE):
                for col in range(0, side, PIECE):
                    rows, cols = min(PIECE, side - row), min(PIECE, side - col)
                    turned = np.roll(values, (row // PIECE * 37, col // PIECE * 53), (1, 2))
                    dataset.write(turned[:, :rows, :cols], window=Window(col, row, cols, rows))
    alignment = {"status": "rejected", "rmse_px": None, "digests": scene_digests(scene, SENSORS)}
    (scene / RECORD).write_text(json.dumps(alignment))
    bounds = (500_000, 5_400_000 - 10 * side, 500_000 + 10 * side, 5_400_000)
    images = {"optical": ImageRecord(Raster.of("a"), "none", 0.0), "sar": ImageRecord(Raster.of("a"), "db")}
    record = SceneRecord("a", "train", images, None, {}, side, side, "EPSG:32633", 10.0, bounds, [])
    Inventory("scenes", "ids", CLASSES, [record]).write(folder / "inventory.json")


if __name__ == "__main__":
    cut(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
