"""The inventory as the next stages read it: one record per scene or tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import TypeAdapter
from pydantic_core import to_json

from tmcnet.classes import ClassTable
from tmcnet.errors import InputError, Problem
from tmcnet.raster.io.reader import Raster
from tmcnet.raster.io.writer import write_bytes
from tmcnet.readers import read_record, reading

GEOREFERENCED = ("demo", "scenes")  # layouts whose files are warped to a common grid


@dataclass(frozen=True)
class ImageRecord:
    """One modality of a scene or tile."""

    raster: Raster  # its files, to be stacked as bands; none where a scene of role `predict` lacks the modality
    scale: str  # `none`, `linear`, `amplitude` or `db`: declared or detected; empty without files
    # value that means no data, declared or the file's; None for none, for NaN, and for files that differ
    nodata: float | None = None
    overlap: float = 1.0  # share of the scene that the files cover; 0 without files
    # share of the pixels of each band that are valid, in its file
    valid_shares: list[float] = field(default_factory=list)
    # the same on a coarse grid over the file (`ValidityMap.cells`); empty for ready-made tiles
    valid_cells: list[str] = field(default_factory=list)
    gap_share: float = 0.0  # share of the scene where it has no data, but another modality has; 0 without files

    @property
    def files(self) -> list[str]:
        """Its files by name; a mosaic by its pattern."""
        return [file.label for file in self.raster.files]


@dataclass(frozen=True)
class SceneRecord:
    """A scene or tile."""

    scene: str
    role: str  # `train` or `predict`
    images: dict[str, ImageRecord]  # its modalities by name, in the order of the config
    label: Raster | None  # the label file, or the tiles of a mosaic; None where there is none
    fields: dict[str, str]  # fields of the pattern or sheet
    height: int  # rows of the optical file with the smallest pixels; without one, of such a SAR file
    width: int  # its columns
    crs: str  # its CRS, `EPSG:...` or WKT; empty for none
    gsd: float  # its pixel size in units of the CRS
    bounds: Sequence[float]  # its left, bottom, right and top
    # SHA-256 of the files, images first; of mosaics every tile. All else may stay the same if pixels change
    digests: list[str]


_RECORDS = TypeAdapter(list[SceneRecord])


def _plain(value: Any) -> object:  # noqa: ANN401 - arrays and transforms
    return value.tolist() if isinstance(value, np.ndarray) else list(value)


@dataclass(frozen=True)
class Inventory:
    """All scenes or tiles of a source."""

    layout: str
    label_encoding: Literal["ids", "rgb"]  # how label files are coded: `ids` or `rgb`
    classes: ClassTable
    records: list[SceneRecord]  # the scenes or tiles, sorted by name

    @classmethod
    def read(cls, path: Path | str) -> Inventory:
        """Read `inventory.json`."""
        content = read_record(path)
        with reading(path):
            return cls.of(content)

    @classmethod
    def of(cls, content: dict[str, Any]) -> Inventory:
        """Build from the content of the file."""
        classes = ClassTable.of((row["name"], row["color"]) for row in content["classes"])
        records = _RECORDS.validate_python(content["entries"])
        return cls(content["layout"], content["label_encoding"], classes, records)

    def write(self, path: Path | str, **more: object) -> None:
        """Write `inventory.json`, with more keys for those who read its content."""
        own = {"layout": self.layout, "label_encoding": self.label_encoding, "classes": self.classes.classes}
        content = own | {"entries": self.records} | more
        write_bytes(path, to_json(content, inf_nan_mode="strings", fallback=_plain) + b"\n")

    def record(self, scene: str) -> SceneRecord:
        """The record of one scene."""
        for record in self.records:
            if record.scene == scene:
                return record
        raise InputError(Problem(f"scene {scene}", "is not in the inventory", "Check its name in the sample sheet."))
