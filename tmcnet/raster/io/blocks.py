"""Work on a raster block by block, so that memory does not grow with the scene, with progress in the job's log."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import rasterio

from tmcnet.raster.io.geometry import Box

Values = TypeVar("Values")

TILE_SIDE_PX = 256  # side of the tiles within a file
MAX_BLOCK_VALUES = 8_000_000
"""Numbers of a raster that are held at a time, about; each takes some 20 bytes while it is processed."""
CACHE_BYTES = 256 * 2**20  # file blocks that GDAL may hold; by default it takes a share of the machine's memory
LOG_INTERVAL_S = 10.0  # minimum time between two lines on the same step


def limited_cache() -> rasterio.Env:
    """A context in which the size of GDAL's cache does not depend on the machine."""
    return rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES)


def block_windows(height: int, width: int, bands: int) -> list[Box]:
    """Windows that cover a raster, row by row, each a multiple of a file's tiles or cut off by the edge."""
    columns = min(max(MAX_BLOCK_VALUES // (bands * TILE_SIDE_PX**2), 1) * TILE_SIDE_PX, width)
    rows = max(MAX_BLOCK_VALUES // (bands * columns * TILE_SIDE_PX), 1) * TILE_SIDE_PX
    return [
        (row, column, min(rows, height - row), min(columns, width - column))
        for row in range(0, height, rows)
        for column in range(0, width, columns)
    ]


def log_line(line: str) -> None:
    """Write a line to the log."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def log_duration(step: str) -> Iterator[None]:
    """Log how long a step took, once it is done."""
    began = time.monotonic()
    yield
    log_line(f"{step}: {time.monotonic() - began:.1f} s")


def progress_logger(step: str) -> Callable[[str], None]:
    """A function that logs the state of a step, at most once every few seconds."""
    last = time.monotonic()

    def log(state: str) -> None:
        nonlocal last
        if time.monotonic() - last >= LOG_INTERVAL_S:
            last = time.monotonic()
            log_line(f"{step}: {state}")

    return log


def share_logger(step: str) -> Callable[[float], None]:
    """A function that logs the share of a step that is done and the time left, at most once every few seconds."""
    began, log = time.monotonic(), progress_logger(step)

    def log_share(share: float) -> None:
        left = (time.monotonic() - began) * (1 / share - 1) if share else math.inf
        log(f"{share:.0%}, {left:.0f} s left" if left < 120 else f"{share:.0%}, {left / 60:.0f} min left")

    return log_share


def log_progress(parts: Iterable[tuple[Box, Values]], pixels: int, step: str) -> Iterator[tuple[Box, Values]]:
    """Pass on windows and what belongs to them; every few seconds log the share of the raster that is done."""
    log, done = share_logger(step), 0
    for box, values in parts:
        yield box, values
        done += box[2] * box[3]
        log(done / pixels)
