"""Speed and memory of `align_scene` on large scenes.

`python -m benchmarks.large_pairs 20000` measures other sizes than the default, `python -m benchmarks.large_pairs 8000
refined_lee` with a speckle filter.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.windows import Window
from scipy import ndimage

from benchmarks.memory import peak_mib
from tmcnet.classes import ClassTable
from tmcnet.config import AlignConfig, ClassConfig, DemoConfig, LabelsConfig, SensorConfig, SensorsConfig
from tmcnet.raster.inventory.records import ImageRecord, Inventory, SceneRecord
from tmcnet.raster.io.reader import Raster, read_grid
from tmcnet.raster.tiling.grid import align_scene
from tmcnet.simulate.scene import simulate_scene

SIZES = (2_000, 8_000)
PIECE = 1024
"""Side of the simulated scene that large scenes are composed of."""
SHIFT = (9, -14)
"""Columns and rows by which the content of the SAR image is displaced."""
OFF_GRID = (0.3, -0.4)
"""Columns and rows between the grids of SAR and optical image, so that SAR must be resampled."""
COLUMNS = ("side, px", "wall s", "CPU s", "Mpx/s", "Mpx/CPU s", "process, GiB", "with GDAL's tools, GiB", "found")
LABELS = LabelsConfig(
    void=[0], classes=[ClassConfig(name=f"class {code}", codes=[code], color="#808080") for code in range(1, 7)]
)


def run(sizes: Sequence[int] = SIZES, speckle: str = "none") -> None:
    """Print time and peak memory, one process per size; four bands of uint16, one of float32, and a label."""
    print(f"| {' | '.join(COLUMNS)} |\n|{' ---: |' * len(COLUMNS)}")
    with tempfile.TemporaryDirectory() as folder:
        simulate_scene(DemoConfig(size=PIECE), "birch", Path(folder), displacement=0.0)
        for size in sizes:
            write_scene(Path(folder), size)
            code = f"from benchmarks.large_pairs import measure; measure({folder!r}, {speckle!r})"
            print(subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout)


def write_scene(folder: Path, size: int) -> None:
    """Write a large scene of copies of the demo scene, its SAR image inverted, speckled and displaced.

    Every other copy is mirrored from left to right, so that the whole differs from itself rotated by 180 degrees.
    """
    with rasterio.open(folder / "optical.tif") as dataset, rasterio.open(folder / "label.tif") as labels:
        optical, label, crs, transform = dataset.read(), labels.read(), dataset.crs, dataset.transform
    bright = np.clip(optical[2] / np.percentile(optical[2], 99.5), 0.0, 1.0)
    random = np.random.default_rng(0)
    profile = {"driver": "GTiff", "height": size, "width": size, "tiled": True, "compress": "deflate", "zlevel": 1}
    profile |= {"crs": crs, "transform": transform}
    sar_profile = profile | {"transform": transform @ Affine.translation(*OFF_GRID), "dtype": "float32"}
    with (
        rasterio.open(folder / "one.tif", "w", count=4, dtype="uint16", nodata=0, **profile) as one,
        rasterio.open(folder / "two.tif", "w", count=1, **sar_profile) as two,
        rasterio.open(folder / "three.tif", "w", count=1, dtype="uint8", **profile) as three,
    ):
        for row in range(0, size, PIECE):
            for col in range(0, size, PIECE):
                window = Window(col, row, min(PIECE, size - col), min(PIECE, size - row))
                turn = 1 - 2 * ((row + col) // PIECE % 2)
                part = slice(0, window.height), slice(0, window.width)
                moved = ndimage.shift(1.1 - bright[:, ::turn], SHIFT[::-1], order=0, mode="reflect")
                power = 0.1 * moved**2 * random.gamma(8, 1 / 8, moved.shape)
                one.write(optical[:, :, ::turn][:, *part], window=window)
                two.write(power[None, *part].astype("f4"), window=window)
                three.write(label[:, :, ::turn][:, *part], window=window)
    _write_inventory(folder)


def _write_inventory(folder: Path) -> None:
    files = [str(folder / f"{name}.tif") for name in ("one", "two", "three")]
    grid = read_grid(files[0])
    optical, sar, label = map(Raster.of, files)
    images = {"optical": ImageRecord(optical, "none", 0.0), "sar": ImageRecord(sar, "linear")}
    size = grid.height, grid.width
    record = SceneRecord("large", "train", images, label, {}, *size, grid.crs, 10.0, grid.bounds, [])
    classes = ClassTable.of((c.name, c.color) for c in LABELS.classes)
    Inventory("scenes", "ids", classes, [record]).write(folder / "inventory.json")


def measure(folder: str, speckle: str) -> None:
    """Print a row of the table for the scene in a folder."""
    sensors = SensorsConfig(
        optical=SensorConfig(bands=["blue", "green", "red", "nir"], kind="reflectance"),
        sar=SensorConfig(bands=["vv"], kind="backscatter", scale="linear", speckle=speckle),
    )
    root, out = Path(folder), Path(folder) / "scene"
    began, watch = time.perf_counter(), _Memory()
    threads = len(os.sched_getaffinity(0))
    align_scene(root / "inventory.json", "large", sensors, LABELS, AlignConfig(), out, threads)
    wall, together = time.perf_counter() - began, watch.stop()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(one.ru_utime + one.ru_stime for one in used)
    found = _found(out / "alignment.json")
    side = read_grid(out / "optical.tif").width
    speed = [f"{side**2 / 1e6 / seconds:.2f}" for seconds in (wall, cpu)]
    memory = [f"{mib / 2**10:.2f}" for mib in (peak_mib(), max(together, peak_mib()))]
    print("|", " | ".join([str(side), f"{wall:.0f}", f"{cpu:.0f}", *speed, *memory, found]), "|", end="")


def _found(record: Path) -> str:
    """Status and shift of the registration."""
    alignment = json.loads(record.read_text())
    matrix = alignment["matrix"]
    return alignment["status"] + (f", {matrix[0][2]:.2f}, {matrix[1][2]:.2f}" if matrix else "")


class _Memory:
    """Measures the peak memory of this process and its child processes together."""

    def __init__(self) -> None:
        self._most, self._done = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """Return the peak in MiB."""
        self._done.set()
        self._thread.join()
        return self._most

    def _watch(self) -> None:
        me = Path("/proc/self")
        while not self._done.wait(0.05):
            started = " ".join(path.read_text() for path in me.glob("task/*/children")).split()
            folders = [me, *(Path("/proc", pid) for pid in started)]
            self._most = max(self._most, sum(_held_mib(folder) for folder in folders))


def _held_mib(process: Path) -> float:
    try:
        return int((process / "status").read_text().partition("VmRSS:")[2].split()[0]) / 2**10
    except (OSError, IndexError):  # it has just ended
        return 0.0


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    filters = [word for word in sys.argv[1:] if not word.isdigit()]
    run(numbers or SIZES, *filters)
