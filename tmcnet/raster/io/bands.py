"""Bands of files by name, and single bands and windows of files as virtual rasters."""

from __future__ import annotations

from pathlib import Path

from tmcnet.raster.io.files import open_raster
from tmcnet.raster.io.gdal_tools import run_tool
from tmcnet.raster.io.geometry import Box


def band_names(path: Path) -> list[str]:
    """Descriptions of the bands of a file; empty text for bands without one.

    Raises:
        InputError: If it cannot be opened.
    """
    with open_raster(path) as dataset:
        return [name or "" for name in dataset.descriptions]


def write_band(path: Path, number: int, target: Path) -> None:
    """Write a virtual raster of one band of a file, counted from 1; values, tags and no data stay as they are."""
    run_tool("gdal_translate", "-q", "-of", "VRT", "-b", number, path.resolve(), target)


def write_window(path: Path, box: Box, target: Path) -> None:
    """Write a virtual raster of a window of a file; values, tags and no data stay as they are."""
    row, column, height, width = box
    run_tool("gdal_translate", "-q", "-of", "VRT", "-srcwin", column, row, width, height, path.resolve(), target)
