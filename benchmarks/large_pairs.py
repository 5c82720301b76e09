"""Speed and memory of co-registration of large pairs that are read from files by windows."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window
from scipy import ndimage

from benchmarks.timing import peak_mib
from tmcnet.config import DemoConfig
from tmcnet.raster.coregister import estimate
from tmcnet.raster.windowed import FileImage
from tmcnet.simulate.scene import simulate_scene

SIZES = (2_000, 8_000)
PIECE = 1024
"""Side of the simulated scene that large ones are pieced together of."""
SHIFT = (9, -14)
"""Columns and rows by which the second image is displaced."""


def run() -> None:
    """Print time and peak memory of the matching alone, a process a size; the files hold four bands and one."""
    print(
        "| side, px | wall s | CPU s | megapixels/s per core | most memory, GiB | found |\n| ---: |" + " ---: |" * 5
    )
    with tempfile.TemporaryDirectory() as folder:
        simulate_scene(DemoConfig(size=PIECE, displacement=0.0), "birch", Path(folder))
        for size in SIZES:
            write_pair(Path(folder), size)
            command = [sys.executable, "-m", "benchmarks.large_pairs", folder]
            print(subprocess.run(command, capture_output=True, text=True, check=True).stdout, end="", flush=True)


def write_pair(folder: Path, size: int) -> None:
    """Large images of copies of the demo scene, the second one inverted, speckled and displaced.

    Every other copy is mirrored from left to right; turned by half a turn the whole is unlike itself.
    """
    with rasterio.open(folder / "optical.tif") as dataset:
        optical = dataset.read([1, 2, 3, 4]).astype(np.float32)
    scaled = np.clip(optical / np.percentile(optical, 99.5, axis=(1, 2), keepdims=True) * 220, 1, 255)
    random = np.random.default_rng(0)
    profile = {"driver": "GTiff", "height": size, "width": size, "dtype": "uint8", "nodata": 0, "tiled": True}
    with (
        rasterio.open(folder / "one.tif", "w", count=4, **profile) as one,
        rasterio.open(folder / "two.tif", "w", count=1, **profile) as two,
    ):
        for row in range(0, size, PIECE):
            for col in range(0, size, PIECE):
                window = Window(col, row, min(PIECE, size - col), min(PIECE, size - row))
                part = slice(0, window.height), slice(0, window.width)
                turned = scaled[:, :, :: 1 - 2 * ((row + col) // PIECE % 2)]
                one.write(turned[:, *part].astype("u1"), window=window)
                moved = ndimage.shift(280 - turned[2], SHIFT[::-1], order=0, mode="reflect")
                speckled = np.clip(moved * random.gamma(8, 1 / 8, moved.shape), 1, 255)
                two.write(speckled[None, *part].astype("u1"), window=window)


def measure(folder: Path) -> None:
    """Print a row of the table for the pair in a folder."""
    wall, cpu = time.perf_counter(), time.process_time()
    images = FileImage(folder / "one.tif"), FileImage(folder / "two.tif")
    found = estimate(*images)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    side = images[0].shape[1]
    memory = peak_mib() / 2**10
    middle = np.array([[side / 2, side / 2]])
    moved = ", ".join(f"{v:.2f}" for v in (found.where(middle) - middle)[0])
    print(f"| {side} | {wall:.0f} | {cpu:.0f} | {side**2 / 1e6 / cpu:.2f} | {memory:.2f} | {found.status}, {moved} |")


if __name__ == "__main__":
    measure(Path(sys.argv[1]))
