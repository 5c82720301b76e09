"""Old import path, until its last importers have moved."""

from tmcnet.raster.io.blocks import log_duration as step
from tmcnet.raster.io.blocks import log_line as say
from tmcnet.raster.io.blocks import log_progress as watched

__all__ = ["say", "step", "watched"]
