"""What a new raster file holds, and how it is laid out on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from rasterio.io import DatasetWriter

from tmcnet.classes import ClassTable
from tmcnet.config import IGNORE

Compression: TypeAlias = Literal["zstd", "deflate", "none"]

_LEVELS: dict[Compression, dict[str, Any]] = {"zstd": {"zstd_level": 1}, "deflate": {}, "none": {}}
"""Level 1 of Zstandard is written several times as fast as deflate, read twice as fast, and as small to a few percent
(benchmarks/README.md); higher levels gain less than they cost."""
TILE = 256
"""Side in pixels of the tiles within a file."""


@dataclass(frozen=True)
class Form:
    """What a raster file holds, but for its pixels.

    Attributes:
        count: Number of bands.
        dtype: Type of the numbers.
        nodata: Value that means no data; None for none.
        descriptions: Names of the bands.
        classes: Classes of a label raster: become its colour table and the tags `CLASS_<id>`.
        compression: How the pixels are compressed; always without loss.
    """

    count: int
    dtype: str
    nodata: float | None = None
    descriptions: Sequence[str] = ()
    classes: ClassTable | None = None
    compression: Compression = "zstd"


def describe(dataset: DatasetWriter, form: Form) -> None:
    """Give a new raster its names of bands, colours and tags; done before the pixels, so that all lies together."""
    if form.classes is not None:
        dataset.write_colormap(1, {c.id: (*c.rgb, 255) for c in form.classes.classes} | {IGNORE: (0, 0, 0, 0)})
        dataset.update_tags(1, **{f"CLASS_{c.id}": c.name for c in form.classes.classes})
    for number, name in enumerate(form.descriptions, start=1):
        dataset.set_band_description(number, name)


def profile(form: Form, height: int, width: int) -> dict[str, Any]:
    """Creation options; the predictor is chosen by the kind of number, as it saves most."""
    dtype = np.dtype(form.dtype)
    options: dict[str, Any] = {
        "driver": "GTiff",
        "count": form.count,
        "height": height,
        "width": width,
        "dtype": dtype.name,
        "nodata": form.nodata,
        "compress": form.compression,
        **_LEVELS[form.compression],
        "photometric": "minisblack",
        "alpha": "unspecified",
        "interleave": "band",
    }
    if form.compression != "none":
        options["predictor"] = 3 if dtype.kind == "f" else 2
    if min(height, width) > TILE:
        options |= {"tiled": True, "blockxsize": TILE, "blockysize": TILE}
    if form.count * height * width * dtype.itemsize > 2**31:
        options["bigtiff"] = "if_safer"
    return options
