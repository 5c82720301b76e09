"""Run GDAL's command-line tools: a process of its own, with its own GDAL beside the one inside rasterio."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from tmcnet.errors import InputError, Problem
from tmcnet.raster.io.opening import open_raster
from tmcnet.raster.io.progress import teller
from tmcnet.raster.io.rasters import Grid, data_bands

TOOLS = ("gdalbuildvrt", "gdalwarp", "gdal_translate")
_MISLEADING = ("PROJ_LIB", "PROJ_DATA", "GDAL_DATA", "GDAL_DRIVER_PATH")
"""Set by rasterio for its own GDAL; with them the tools would read another version's tables."""
_DONE = re.compile(r"(?:^|\s|\.\.\.)(\d+)\.+$")
"""The last number that GDAL's progress has come to."""


def require_tools(names: Sequence[str] = TOOLS) -> None:
    """Ask for GDAL's tools before any work is done.

    Raises:
        InputError: If one is missing; says how to install them all.
    """
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        remedy = "Install GDAL's tools: `apt-get install gdal-bin` (or `conda install -c conda-forge gdal`)."
        raise InputError(Problem(", ".join(missing), "not found on the PATH", remedy))


def run_tool(name: str, *arguments: str | Path | float, watched: str = "") -> str:
    """Run one of GDAL's tools.

    Args:
        name: `gdalwarp`, say.
        arguments: What follows it on the command line.
        watched: What is being done, in words: how much of it is done is said every few seconds, for a tool that
            tells. Empty: nothing is said.

    Returns:
        What it printed.

    Raises:
        InputError: If the tool is missing, or fails; carries GDAL's own words then.
    """
    require_tools([name])
    environment = {key: value for key, value in os.environ.items() if key not in _MISLEADING}
    command = [name, *(repr(float(a)) if isinstance(a, float) else str(a) for a in arguments)]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as process,
        ThreadPoolExecutor(1) as pool,
    ):
        errors = pool.submit(_read, process.stderr)
        printed = _read(process.stdout, watched)
    if process.returncode != 0:
        said = " ".join(errors.result().split()) or f"exit status {process.returncode}"
        remedy = "Check the file named in the message; free some space if the disk is full."
        raise InputError(Problem(" ".join(command), f"GDAL says: {said}".rstrip("."), remedy))
    return printed


def _read(pipe: IO[str] | None, watched: str = "") -> str:
    """All that a tool prints, read as it comes: GDAL draws its progress as `0...10...20`, without ends of lines."""
    if pipe is None:
        return ""
    if not watched:
        return pipe.read()
    printed, tell = "", teller(watched)
    while letter := pipe.read(1):
        printed += letter
        if letter == "." and (done := _DONE.search(printed)):
            tell(f"{done[1]}%")
    return printed


def stack_files(paths: Sequence[Path | str], grid: Grid, vrt: Path) -> Path:
    """Make one raster of several files, band after band, on the grid of the first.

    Files with other pixel sizes (the 20 m bands of Sentinel-2, say) are interpolated bilinearly.

    Args:
        paths: The files, all in one CRS.
        grid: Grid of the first.
        vrt: Where to put the virtual raster.

    Returns:
        `vrt`, or the file itself where there is only one.
    """
    if len(paths) == 1:
        return Path(paths[0])
    extent = ("-te", *grid.bounds, "-tr", grid.transform.a, -grid.transform.e)
    files = [
        file
        for number, path in enumerate(paths)
        for file in _single_bands(Path(path).resolve(), vrt.with_name(f"{vrt.stem}_{number}"))
    ]
    run_tool("gdalbuildvrt", "-q", "-strict", "-separate", "-r", "bilinear", *extent, vrt, *files)
    return vrt


def _single_bands(path: Path, name: Path) -> list[Path]:
    """A file of one band itself, or a virtual raster for each of its bands: GDAL before 3.8 stacks only the first."""
    with open_raster(path) as dataset:
        bands = data_bands(dataset)
    if len(bands) == 1:
        return [path]
    singles = [name.with_name(f"{name.name}_{band}.vrt") for band in bands]
    for band, single in zip(bands, singles, strict=True):
        run_tool("gdalbuildvrt", "-q", "-strict", "-b", str(band), single, path)
    return singles
