"""Scores, their uncertainty, and whole-scene maps."""
