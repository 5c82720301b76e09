"""Old import path, until its last importers have moved."""

from tmcnet.raster.io.reader import open_raster

__all__ = ["open_raster"]
