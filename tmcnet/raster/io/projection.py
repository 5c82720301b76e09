"""Old import path, until its last importers have moved."""

from tmcnet.raster.io.geometry import reproject_points

__all__ = ["reproject_points"]
