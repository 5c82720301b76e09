"""Old import path, until its last importers have moved."""

from tmcnet.raster.io.geometry import GROUND, ground_columns

__all__ = ["GROUND", "ground_columns"]
