"""Old import path, until its last importers have moved."""

from tmcnet.raster.io.radiometry import display_range

__all__ = ["display_range"]
