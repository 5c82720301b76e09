"""Read the files of a scene through once: their metadata, and statistics of their values, for the checks."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from rasterio.enums import ColorInterp

from tmcnet.config import IGNORE
from tmcnet.errors import Problem
from tmcnet.raster.inventory.fill import LATTICE_PX, Lattice, Reals
from tmcnet.raster.inventory.sample_sheet import Entry
from tmcnet.raster.io.files import BoolArray, FileWindow, FloatArray, Header, RasterFile, joined
from tmcnet.raster.io.geometry import Box, Grid, finest
from tmcnet.raster.io.labels import LabelCoder, Unknown
from tmcnet.raster.io.metadata import category_names
from tmcnet.raster.io.opening import open_raster
from tmcnet.raster.io.reader import Raster, place_of_tile
from tmcnet.raster.io.validity import ValidityMap

_STRIP_VALUES = 4_000_000
_SAMPLE_STEP = 97
_STRIP_SAMPLES = 20_000
_FILE, _HEADERS = TypeAdapter(RasterFile), TypeAdapter(tuple[Header, ...])
_UNKNOWN: FloatArray = np.full(1, np.nan, np.float32)


@dataclass
class FileSummary:
    """Metadata and statistics of one raster file, or of a mosaic."""

    file: RasterFile
    # smallest valid number of each band; NaN where none is valid
    low: FloatArray = field(default_factory=lambda: _UNKNOWN)
    high: FloatArray = field(default_factory=lambda: _UNKNOWN)  # largest valid number
    median: FloatArray = field(default_factory=lambda: _UNKNOWN)  # median of the valid numbers, from a sample
    valid_share: float = 0.0  # share of pixels valid in all bands
    valid_shares: list[float] = field(default_factory=list)  # share of pixels valid in each band
    valid_cells: list[str] = field(default_factory=list)  # the same on a coarse grid (`ValidityMap.cells`)
    nan: int = 0  # number of values that are NaN
    infinite: int = 0  # number of values that are infinite
    digest: str = ""  # hash of all values
    labelled_share: float = 0.0  # share of pixels with a class, of label files
    codes: Counter[int] = field(default_factory=Counter)  # pixels by code, of label files
    unknown: Unknown = field(default_factory=Counter)  # codes that no class has, of label files
    # h x w, whether every n-th pixel has a class, of label files; and n
    labelled: tuple[BoolArray, int] | None = None

    @property
    def header(self) -> Header:
        """What it says about itself."""
        return self.file.header

    @property
    def grid(self) -> Grid:
        """Size and georeference."""
        return self.file.header.grid

    @property
    def label(self) -> str:
        """Its name for people."""
        return self.file.label

    def to_dict(self) -> dict[str, Any]:
        """What comparisons between scenes need, for `Inventory.write`."""
        values = {name: getattr(self, name) for name in ("file", "digest", "low", "high", "median")}
        return values | {"headers": self.file.tiles}

    @classmethod
    def of(cls, values: dict[str, Any]) -> FileSummary:
        """Build from the values of `to_dict` as they are read from JSON."""
        low, high, median = (np.array(values[name], np.float32) for name in ("low", "high", "median"))
        file = _FILE.validate_python(values["file"])
        vars(file)["tiles"] = _HEADERS.validate_python(values["headers"])  # so that no file is opened again
        return cls(file, low, high, median, digest=values["digest"])

    @property
    def name(self) -> str:
        """Its path without folders."""
        return self.file.label.rpartition("/")[2]

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest valid number of all bands; NaN where none is valid."""
        return float(np.fmin.reduce(self.low)), float(np.fmax.reduce(self.high))

    @property
    def nodata(self) -> float | None:
        """The declared value of no data, else the first tag of its bands."""
        return next((tag for tag in self.file.no_data if tag is not None), None)


@dataclass
class Inspection:
    """A scene or tile whose files have been read through."""

    entry: Entry  # its name and files
    rasters: dict[str, Raster] = field(default_factory=dict)  # the files of each modality as they are read
    label_raster: Raster | None = None  # the label file as it is read
    # summaries of the files of each modality; empty where the scene has none
    images: dict[str, list[FileSummary]] = field(default_factory=dict)
    # decimated images of each modality, one for each group of files on one grid
    lattices: dict[str, list[Lattice]] = field(default_factory=dict)
    label: FileSummary | None = None  # summary of the label file
    # declared or detected scale of each modality; empty without files, or where it cannot be detected
    scales: dict[str, str] = field(default_factory=dict)
    # share of the scene that each modality covers; 0 without files
    overlaps: dict[str, float] = field(default_factory=dict)
    # share of the scene where a modality has no data, but another one has
    gaps: dict[str, float] = field(default_factory=dict)
    label_overlap: float = 1.0  # share of the scene that the label file covers
    labelled_share: float = 0.0  # share of the scene that has a class
    # names of the classes when label features that give codes were first read; empty where features name their class
    label_names: list[str] = field(default_factory=list)
    # colour and name of each code of a label, empty where it gives none
    legend: dict[str, list[str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)  # errors, which stop the workflow
    warnings: list[str] = field(default_factory=list)  # oddities, which are listed in the inventory

    def to_dict(self) -> dict[str, Any]:
        """What comparisons between scenes need, for `Inventory.write`."""
        scales = {name: {"scale": self.entry.scale(name)} for name in self.images}
        return {
            "entry": {"scene": self.entry.scene, "role": self.entry.role, "declared": scales},
            "images": {name: [file.to_dict() for file in files] for name, files in self.images.items()},
            "scales": self.scales,
            "legend": self.legend,
            "problems": [astuple(problem) for problem in self.problems],
            "warnings": self.warnings,
        }

    @classmethod
    def of(cls, values: dict[str, Any]) -> Inspection:
        """Build from the values of `to_dict` as they are read from JSON."""
        return cls(
            Entry(images={}, **values["entry"]),
            images={name: [FileSummary.of(file) for file in files] for name, files in values["images"].items()},
            scales=values["scales"],
            legend=values["legend"],
            problems=[Problem(*problem) for problem in values["problems"]],
            warnings=values["warnings"],
        )

    @property
    def reference(self) -> str:
        """The modality that defines the grid of the scene: `optical`, where there is one, else `sar`."""
        return "optical" if self.images["optical"] else "sar"

    @property
    def grid(self) -> Grid:
        """Grid of the file of the reference modality with the smallest pixels, or the place of a ready-made tile."""
        files = self.images[self.reference]
        if all(file.grid.crs and file.header.georeferenced for file in files):
            return finest([file.grid for file in files])
        return place_of_tile([file.file for file in self.files])

    @property
    def files(self) -> list[FileSummary]:
        """Summaries of all files: images, label."""
        return [file for files in self.images.values() for file in files] + ([self.label] if self.label else [])

    @property
    def has_both(self) -> bool:
        """Whether there are optical and SAR files."""
        return bool(self.images["optical"] and self.images["sar"])


def scan_images(raster: Raster, with_cells: bool) -> tuple[list[FileSummary], list[Lattice]]:
    """Read an image to its last blocks: a summary of each file, and decimated images of each group on one grid.

    The summaries have coarse maps of the valid pixels `with_cells`.
    """
    summaries: list[FileSummary] = []
    lattices = []
    for layer in raster.layers():  # validity of 8-bit files depends on all that are read together
        step = -(-max(layer.shape[1:]) // LATTICE_PX)
        statistics = [_Statistics(file, step, with_cells) for file in layer.files]
        with layer.open() as opened:
            for box in _strips(layer):
                for one, part in zip(statistics, opened.parts(box), strict=True):
                    one.add(box, part)
        of_layer, stored = zip(*(one.finish() for one in statistics), strict=True)
        summaries += of_layer
        has_bytes = all(file.header.dtype == "uint8" for file in layer.files)
        lattices.append(Lattice(step, joined(stored), has_bytes))
    return summaries, lattices


class _Statistics:
    def __init__(self, file: RasterFile, step: int, with_cells: bool) -> None:
        self.summary = FileSummary(file)
        header = file.header
        self._step = step
        self._digest = hashlib.sha256()
        self._cells = ValidityMap(header.count, header.grid.height, header.grid.width) if with_cells else None
        self._valid: Any = 0
        self._samples: list[FloatArray] = []
        self._stored: list[Reals] = []
        self._valid_pixels = 0

    def add(self, box: Box, part: FileWindow) -> None:
        """Add a strip."""
        summary, values = self.summary, part.values
        self._digest.update(np.ascontiguousarray(values).data)
        if values.dtype.kind in "fc":
            summary.nan += int(np.count_nonzero(np.isnan(values)))
            summary.infinite += int(np.count_nonzero(np.isinf(values)))
        numbers = part.numbers
        is_short = values.dtype.kind in "iu" and values.dtype.itemsize <= 2
        is_plain = is_short and not part.is_scaled  # the numbers are the values as stored
        valid = part.bands_valid if is_plain else ~np.isnan(numbers)
        if self._cells:
            self._cells.add(box, valid)
        self._valid += np.array([np.count_nonzero(band) for band in valid])
        self._valid_pixels += int(np.count_nonzero(valid.all(axis=0)))
        flat = numbers.reshape(len(numbers), -1)
        summary.low = np.fmin(summary.low, np.fmin.reduce(flat, axis=1))
        summary.high = np.fmax(summary.high, np.fmax.reduce(flat, axis=1))
        step = max(min(_SAMPLE_STEP, flat.shape[1] // 256), 1)
        self._samples.append(flat[:, ::step][:, :_STRIP_SAMPLES].copy())
        places = np.s_[:, -box[0] % self._step :: self._step, :: self._step]
        if is_plain:
            self._stored.append(np.ascontiguousarray(numbers[places]))
            return
        stored = np.abs(values[places]) if values.dtype.kind == "c" else values[places]
        stored = stored.astype(np.float32 if is_short else np.float64)
        stored[~part.bands_valid[places]] = np.nan
        self._stored.append(stored)

    def finish(self) -> tuple[FileSummary, Reals]:
        """The summary of all strips, and every n-th pixel as stored (see `Lattice`)."""
        summary = self.summary
        samples = np.sort(joined(self._samples, axis=1))  # NaN comes last
        known = np.count_nonzero(~np.isnan(samples), axis=1)
        middle = [(band[(n - 1) // 2] + band[n // 2]) / 2 for band, n in zip(samples, known, strict=True)]
        summary.median = np.array(middle, np.float32)
        pixels = summary.grid.height * summary.grid.width
        summary.valid_share, summary.valid_shares = self._valid_pixels / pixels, (self._valid / pixels).tolist()
        summary.valid_cells = self._cells.cells if self._cells else []
        summary.digest = self._digest.hexdigest()
        return summary, joined(self._stored, axis=1)


def scan_labels(file: RasterFile, coder: LabelCoder) -> FileSummary:
    """Read a label file to its last block."""
    raster, summary = Raster((file,)), FileSummary(file)
    coder.check_bands(file.label, file.header.count)
    labelled, rows = 0, []
    step = -(-max(raster.shape[1:]) // LATTICE_PX)
    with raster.open() as opened:
        for box in _strips(raster):
            (part,) = opened.parts(box)
            ids, unknown = coder.encode(part.codes, part.valid[0], part.mask)
            known = ids != IGNORE
            labelled += int(np.count_nonzero(known))
            rows.append(known[-box[0] % step :: step, ::step].copy())
            summary.codes += coder.count(part.codes)
            summary.unknown += unknown
    summary.labelled_share = labelled / (summary.grid.height * summary.grid.width)
    summary.labelled = joined(rows), step
    return summary


def label_legend(label: FileSummary) -> dict[str, list[str]]:
    """Colour and name that a label file gives its codes, by its palette and its category names; empty without any."""
    path = label.file.paths[0]
    with open_raster(path, remote=label.file.remote) as dataset:
        colours = dataset.colormap(1) if dataset.colorinterp[0] is ColorInterp.palette else {}
        has_names = dataset.driver in ("ENVI", "HFA") or any(file.endswith(".aux.xml") for file in dataset.files)
    names = dict(enumerate(category_names(path))) if has_names else {}
    codes = [code for code in label.codes if code in colours or names.get(code)]
    return {str(code): [str(colours.get(code, "")), names.get(code, "")] for code in codes}


def _strips(raster: Raster) -> Iterator[Box]:
    """Windows over the full width that follow the blocks of the files and stay small."""
    bands, height, width = raster.shape
    block = max(file.header.block_rows for file in raster.files)
    rows = max(_STRIP_VALUES // (width * bands) // block, 1) * block
    for top in range(0, height, rows):
        yield top, 0, min(rows, height - top), width
