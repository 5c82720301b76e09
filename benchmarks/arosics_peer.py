r"""Register two images with AROSICS; run by a Python that has it, which needs GDAL's own bindings.

`$AROSICS_PYTHON benchmarks/arosics_peer.py optical.tif sar.tif max_shift` prints a JSON object: `global`, the shift
(x, y) of the second image in pixels, or null; `local`, the same at tie points that AROSICS does not mark as outliers,
rows of x, y, dx, dy in pixels; `seconds`, the CPU time of each.

AROSICS needs GDAL 3.8 from version 1.10. With the 3.6 of Debian 12 (package `python3-gdal`) this works:

    /usr/bin/python3 -m venv --system-site-packages /path/to/arosics
    /path/to/arosics/bin/pip install arosics==1.9.2 geoarray==0.16.1 py_tools_ds==0.21.1 \
        'numpy<2' 'pandas<2.2' 'geopandas<0.15' 'scikit-image<0.23'
    export AROSICS_PYTHON=/path/to/arosics/bin/python
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from arosics import COREG, COREG_LOCAL

GRID = 64
"""Distance between tie points in pixels."""
NODATA = -9999
"""No data in the images; in AROSICS's tables, a point without a match."""


def main(optical: str, sar: str, max_shift: str) -> None:
    """Print both results."""
    options = {"max_shift": int(max_shift), "q": True, "CPUs": 1, "ignore_errors": True, "nodata": (NODATA, NODATA)}
    found: dict[str, Any] = {}
    seconds = []
    for name, method in (("global", _global), ("local", _local)):
        began = time.process_time()
        try:
            found[name] = method(optical, sar, options)
        except Exception as error:  # AROSICS raises errors of many libraries, and a failure is a result here
            found[name] = None
            print(f"{name}: {error!r}", file=sys.stderr)
        seconds.append(time.process_time() - began)
    print(json.dumps({**found, "seconds": seconds}))


def _global(optical: str, sar: str, options: dict[str, Any]) -> list[float] | None:
    matcher = COREG(optical, sar, **options)
    matcher.calculate_spatial_shifts()
    if not matcher.success:
        return None
    # AROSICS gives the correction, the inverse of the shift
    return [-float(matcher.x_shift_px), -float(matcher.y_shift_px)]


def _local(optical: str, sar: str, options: dict[str, Any]) -> list[list[float]] | None:
    table = COREG_LOCAL(optical, sar, grid_res=GRID, progress=False, **options).CoRegPoints_table
    kept = table[(table["X_SHIFT_PX"] != NODATA) & ~table["OUTLIER"].astype(bool)]
    rows = [[r.X_IM, r.Y_IM, -r.X_SHIFT_PX, -r.Y_SHIFT_PX] for r in kept.itertuples()]
    return [[float(value) for value in row] for row in rows] or None


if __name__ == "__main__":
    main(*sys.argv[1:])
