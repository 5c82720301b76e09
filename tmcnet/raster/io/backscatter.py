"""Old import path, until its last importers have moved."""

from tmcnet.raster.io.radiometry import power_to_db, to_db, to_power

__all__ = ["power_to_db", "to_db", "to_power"]
