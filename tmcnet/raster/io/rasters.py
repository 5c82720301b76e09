"""Old import path, until its last importers have moved."""

from tmcnet.raster.io.geometry import Box, Grid
from tmcnet.raster.io.reader import (
    BoolArray,
    ByteArray,
    FloatArray,
    inner_window,
    place,
    read_float,
    read_grid,
    read_labels,
    unify_masks,
    values_and_mask,
)
from tmcnet.raster.io.writer import write_raster

__all__ = [
    "BoolArray",
    "Box",
    "ByteArray",
    "FloatArray",
    "Grid",
    "inner_window",
    "place",
    "read_float",
    "read_grid",
    "read_labels",
    "unify_masks",
    "values_and_mask",
    "write_raster",
]
