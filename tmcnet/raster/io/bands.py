"""Bands of files by name: the descriptions that files have, and single bands as virtual rasters."""

from __future__ import annotations

from pathlib import Path

from tmcnet.raster.io.files import open_raster
from tmcnet.raster.io.gdal_tools import run_tool


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
