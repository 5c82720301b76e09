"""Files: the reader, the writer, and what pixels mean on the ground."""

from tmcnet.raster.io.rasters import Grid, read_float, read_grid, read_labels, write_raster

__all__ = ["Grid", "read_float", "read_grid", "read_labels", "write_raster"]
