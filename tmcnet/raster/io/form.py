"""Old import path, until its last importers have moved."""

from tmcnet.raster.io.writer import Form

__all__ = ["Form"]
