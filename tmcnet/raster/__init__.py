"""Rasters in and out: inventory, the common grid, co-registration and tiles."""
