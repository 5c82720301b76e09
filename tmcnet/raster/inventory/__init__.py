"""The inventory of the source: which scenes or tiles there are, what their files hold, and whether they are sound.

`sources.py` finds scenes by name (with `sample_sheet.py` and `seed_layout.py`), `rasters.py` opens them, `scan.py`
reads files through, `checks.py` reports problems, `inventory.py` writes the result, `records.py` is what others read.
"""
