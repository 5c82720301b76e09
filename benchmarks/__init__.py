"""Measurements; README.md has the figures and the commands."""
