"""The common grid, tiles and their index."""
