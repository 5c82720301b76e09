"""Raster files: the one reader (values with NaN for no data), the one writer, and the place of pixels on the ground.

`opening.py` opens files, `files.py` reads one file, `reader.py` stacks of them, `writer.py` writes. `geometry.py`
has grids and coordinates, `labels.py` decodes label files, `vector.py` rasterises vector labels, `radiometry.py`
converts backscatter, `validity.py` says where there is data, `blocks.py` and `windowed.py` limit memory,
`gdal_tools.py` runs GDAL.
"""

from tmcnet.raster.io.geometry import Grid
from tmcnet.raster.io.reader import Raster, read_float, read_grid, read_labels
from tmcnet.raster.io.writer import write_raster

__all__ = ["Grid", "Raster", "read_float", "read_grid", "read_labels", "write_raster"]
