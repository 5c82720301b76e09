"""Old import path, until its last importers have moved."""

from tmcnet.raster.io.blocks import block_windows as blocks
from tmcnet.raster.io.blocks import little_cache
from tmcnet.raster.io.reader import float_blocks, is_complete
from tmcnet.raster.io.writer import Draft, Part, write_blocks, write_draft

__all__ = ["Draft", "Part", "blocks", "float_blocks", "is_complete", "little_cache", "write_blocks", "write_draft"]
