"""The scenes or tiles of a source: found by name, read through once, checked, recorded for the next stages."""
