"""Optical-SAR co-registration."""

from tmcnet.raster.register.coregister import estimate, warp

__all__ = ["estimate", "warp"]
