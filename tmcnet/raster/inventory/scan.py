"""Read a raster file through once: its metadata, and statistics of its values."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rasterio.io import DatasetReader
from rasterio.windows import Window

from tmcnet.config import IGNORE
from tmcnet.raster.io.geometry import Grid
from tmcnet.raster.io.labels import LabelCoder, Unknown
from tmcnet.raster.io.reader import data_bands, grid_of, open_raster, unify_masks, values_and_mask

_STRIP_VALUES = 4_000_000
_SAMPLE_STEP = 97
_STRIP_SAMPLES = 20_000


@dataclass
class FileSummary:
    """Metadata and statistics of one raster file.

    Attributes:
        path: The file.
        bands: Number of bands that are measurements.
        dtype: Type of the numbers.
        grid: Size and georeference.
        georeferenced: Whether it has a transform.
        nodata: The file's own no-data value.
        low: Smallest valid value; NaN where none is valid.
        high: Largest valid value.
        median: Median of the valid values, from a sample.
        valid_share: Share of pixels valid in all bands.
        nan: Number of values that are NaN.
        infinite: Number of values that are infinite.
        digest: Hash of all values.
        labelled_share: Share of pixels with a class, of label files.
        codes: Pixels by code, of label files.
        unknown: Codes that no class has, of label files.
    """

    path: Path
    bands: int
    dtype: str
    grid: Grid
    georeferenced: bool
    nodata: float | None
    low: float = float("nan")
    high: float = float("nan")
    median: float = float("nan")
    valid_share: float = 0.0
    nan: int = 0
    infinite: int = 0
    digest: str = ""
    labelled_share: float = 0.0
    codes: Counter[int] = field(default_factory=Counter)
    unknown: Unknown = field(default_factory=dict)


def scan_image(path: Path, nodata: float | None) -> FileSummary:
    """Read an image to its last block.

    Args:
        path: The file.
        nodata: Value that means no data, in place of what the file says.

    Raises:
        InputError: If the file cannot be read to its end.
    """
    with open_raster(path) as dataset:
        summary = _metadata(path, dataset)
        digest, samples, valid_pixels = hashlib.sha256(), [], 0
        lows, highs = [], []
        for window in _strips(dataset):
            values, valid = values_and_mask(dataset, window, nodata)
            digest.update(values.tobytes())
            if values.dtype == np.uint8:
                valid = unify_masks(valid)
            if values.dtype.kind == "f":
                summary.nan += int(np.isnan(values).sum())
                summary.infinite += int(np.isinf(values).sum())
                valid = valid & np.isfinite(values)
            valid_pixels += int(valid.all(axis=0).sum())
            good = values[valid]
            if good.size:
                lows.append(float(good.min()))
                highs.append(float(good.max()))
                samples.append(good[:: _SAMPLE_STEP if good.size > _STRIP_SAMPLES else 1][:_STRIP_SAMPLES])
    if lows:
        summary.low, summary.high = min(lows), max(highs)
        summary.median = float(np.median(np.concatenate(samples)))
    summary.valid_share = valid_pixels / (summary.grid.height * summary.grid.width)
    summary.digest = digest.hexdigest()
    return summary


def scan_labels(path: Path, coder: LabelCoder) -> FileSummary:
    """Read a label file to its last block.

    Raises:
        InputError: If the file cannot be read to its end, or has the wrong number of bands.
    """
    with open_raster(path) as dataset:
        coder.check_bands(path, dataset.count)
        summary = _metadata(path, dataset)
        labelled = 0
        for window in _strips(dataset):
            values, valid = values_and_mask(dataset, window, None)
            ids, unknown = coder.encode(values, valid[0])
            labelled += int((ids != IGNORE).sum())
            summary.codes += coder.count(values)
            for code, count in unknown.items():
                summary.unknown[code] = summary.unknown.get(code, 0) + count
    summary.labelled_share = labelled / (summary.grid.height * summary.grid.width)
    return summary


def read_metadata(path: Path) -> FileSummary:
    """Read the metadata of a file, without its values.

    Raises:
        InputError: If the file cannot be opened.
    """
    with open_raster(path) as dataset:
        return _metadata(path, dataset)


def _metadata(path: Path, dataset: DatasetReader) -> FileSummary:
    return FileSummary(
        path,
        len(data_bands(dataset)),
        dataset.dtypes[0],
        grid_of(dataset),
        not dataset.transform.is_identity,
        dataset.nodata,
    )


def _strips(dataset: DatasetReader) -> Iterator[Window]:
    """Windows over the full width that follow the blocks of the file and stay small."""
    block = dataset.block_shapes[0][0]
    rows = max(_STRIP_VALUES // (dataset.width * dataset.count) // block, 1) * block
    for top in range(0, dataset.height, rows):
        yield Window(0, top, dataset.width, min(rows, dataset.height - top))
