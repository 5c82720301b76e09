"""Tiles as a data set: the seed layout, the splits, band statistics, views and loading."""
