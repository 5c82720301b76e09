"""Old import path, until its last importers have moved."""

from tmcnet.raster.io.writer import write_bytes

__all__ = ["write_bytes"]
