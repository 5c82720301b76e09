"""Run GDAL's command-line tools: separate processes, with their own GDAL beside the one inside rasterio."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from tmcnet.errors import InputError, Problem
from tmcnet.raster.io.blocks import progress_logger

TOOLS = ("gdalwarp", "gdal_translate")
_MISLEADING = ("PROJ_LIB", "PROJ_DATA", "GDAL_DATA", "GDAL_DRIVER_PATH")
"""Set by rasterio for its own GDAL; with them the tools would read another version's tables."""
_PERCENT_DONE = re.compile(r"(?:^|\s|\.\.\.)(\d+)\.+$")  # the last number of GDAL's progress bar

_MAX_LINES = 8  # of what GDAL says, in a message


def require_tools(names: Sequence[str] = TOOLS) -> None:
    """Check that GDAL's tools are installed, before any work is done; the message says how to install them."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        remedy = "Install GDAL's tools: `apt-get install gdal-bin` (or `conda install -c conda-forge gdal`)."
        raise InputError(Problem(", ".join(missing), "not found on the PATH", remedy))


def run_tool(name: str, *arguments: str | Path | float, step: str = "") -> str:
    """Run one of GDAL's tools and return what it printed; its progress is logged under the name of a `step`."""
    require_tools([name])
    environment = {key: value for key, value in os.environ.items() if key not in _MISLEADING}
    command = [name, *(repr(float(a)) if isinstance(a, float) else str(a) for a in arguments)]
    with TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment) as process:
            printed = _read(process.stdout, step)
        errors.seek(0)
        said = (errors.read() or printed).partition(" with the following drivers")[0].splitlines()
    lines = list(
        dict.fromkeys(" ".join(line.split()) for line in said if line.strip())
    )  # one may come for each pixel
    message = " ".join(lines[-_MAX_LINES:])
    if process.returncode != 0:
        message = message or f"exit status {process.returncode}"
        full = any("no space left" in line.lower() or {"disk", "full"} <= set(line.lower().split()) for line in lines)
        remedy = "Free some space on the disk." if full else "Check the file named in the message."
        raise InputError(Problem(" ".join(command), f"GDAL says: {message}".rstrip("."), remedy))
    return printed


def _read(pipe: IO[str] | None, step: str = "") -> str:
    """Read a tool's output as it comes: GDAL draws its progress as `0...10...20`, without line ends."""
    if pipe is None:
        return ""
    if not step:
        return pipe.read()
    printed, log = "", progress_logger(step)
    while letter := pipe.read(1):
        printed += letter
        if letter == "." and (done := _PERCENT_DONE.search(printed)):
            log(f"{done[1]}%")
    return printed
