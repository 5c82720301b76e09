"""Open a raster, and say which file it was when something goes wrong."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from tmcnet.errors import InputError, Problem

# Broken files are reported as `InputError`; rasterio's own log lines would only say it twice.
logging.getLogger("rasterio").setLevel(logging.CRITICAL)
# Tiles without a georeference are ordinary input here; where one is needed, the inventory asks for it.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)


@contextmanager
def open_raster(path: Path | str) -> Iterator[DatasetReader]:
    """Open a raster for reading; whatever goes wrong while it is open is told with the name of the file.

    Raises:
        InputError: If the file is missing, is no raster, or breaks off.
    """
    try:
        with rasterio.open(path) as dataset:
            if dataset.driver == "PNG":
                _require_png_end(Path(path))
            yield dataset
    except RasterioError as error:
        what = "does not exist" if not Path(path).exists() else f"cannot be read ({_reason(error)})"
        raise InputError(Problem(str(path), what, "Check the path, or fetch the file again.")) from None


def _require_png_end(path: Path) -> None:
    """GDAL fills the missing rows of a PNG that breaks off with zeros, and says nothing."""
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, 64), 2)  # a few stray bytes may follow the last chunk
        if b"IEND" not in file.read():
            raise RasterioError("the PNG breaks off before its end")


def _reason(error: Exception) -> str:
    """GDAL's own words where rasterio hides them behind `See previous exception`."""
    return str(error.__cause__ or error).strip().rstrip(".")
