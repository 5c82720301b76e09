"""Public name of `tmcnet.raster.register`, kept for programs that import it."""

from tmcnet.raster.register import estimate, warp

__all__ = ["estimate", "warp"]
