"""The inventory as the next stages read it: one record per scene or tile."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tmcnet.classes import ClassTable
from tmcnet.errors import InputError, Problem
from tmcnet.raster.io.reader import Raster
from tmcnet.raster.io.writer import write_bytes
from tmcnet.readers import read_record, reading

GEOREFERENCED = ("demo", "scenes")
"""Layouts whose files are warped to a common grid."""


@dataclass(frozen=True)
class ImageRecord:
    """One modality of a scene or tile.

    Attributes:
        raster: Its files, to be stacked as bands; none where a scene of role `predict` lacks the modality.
        scale: `none`, `linear`, `amplitude` or `db`: declared or detected; empty without files.
        nodata: Value that means no data, declared or the file's; None for none, for NaN, and for files that differ.
        overlap: Share of the scene that the files cover; 0 without files.
        valid_shares: Share of the pixels of each band that are valid, in its file.
        valid_cells: The same on a coarse grid over the file (`ValidityMap.cells`); empty for ready-made tiles.
    """

    raster: Raster
    scale: str
    nodata: float | None = None
    overlap: float = 1.0
    valid_shares: list[float] = field(default_factory=list)
    valid_cells: list[str] = field(default_factory=list)

    @property
    def files(self) -> list[str]:
        """Its files by name; a mosaic by its pattern."""
        return [file.label for file in self.raster.files]


@dataclass(frozen=True)
class Record:
    """A scene or tile.

    Attributes:
        scene: Its name.
        role: `train` or `predict`.
        images: Its modalities by name, in the order of the config.
        label: The label file, or the tiles of a mosaic; None where there is none.
        fields: Fields of the pattern or sheet.
        height: Rows of the optical file with the smallest pixels; without one, of such a SAR file.
        width: Its columns.
        crs: Its CRS, `EPSG:...` or WKT; empty for none.
        gsd: Its pixel size in units of the CRS.
        bounds: Its left, bottom, right and top.
        digests: SHA-256 of the files, images first; of mosaics every tile. All else may stay the same if pixels
            change.
    """

    scene: str
    role: str
    images: dict[str, ImageRecord]
    label: Raster | None
    fields: dict[str, str]
    height: int
    width: int
    crs: str
    gsd: float
    bounds: Sequence[float]
    digests: list[str]

    @classmethod
    def of(cls, values: dict[str, Any]) -> Record:
        """Build from plain values as `to_dict` gives them."""
        images = {
            name: ImageRecord(**image | {"raster": Raster.from_dict(image["raster"])})
            for name, image in values["images"].items()
        }
        label = values["label"]
        return cls(**values | {"images": images, "label": None if label is None else Raster.from_dict(label)})

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        values = asdict(self)
        for name, image in self.images.items():
            values["images"][name]["raster"] = image.raster.to_dict()
        return values | {"label": None if self.label is None else self.label.to_dict()}


@dataclass(frozen=True)
class Inventory:
    """All scenes or tiles of a source.

    Attributes:
        layout: Layout of the source.
        label_encoding: How label files are coded: `ids` or `rgb`.
        classes: The classes.
        records: The scenes or tiles, sorted by name.
    """

    layout: str
    label_encoding: Literal["ids", "rgb"]
    classes: ClassTable
    records: list[Record]

    @classmethod
    def read(cls, path: Path | str) -> Inventory:
        """Read `inventory.json`.

        Raises:
            InputError: If the file cannot be read or is no inventory of this version.
        """
        content = read_record(path)
        with reading(path):
            classes = ClassTable.of((row["name"], row["color"]) for row in content["classes"])
            records = [Record.of(entry) for entry in content["entries"]]
            return cls(content["layout"], content["label_encoding"], classes, records)

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "layout": self.layout,
            "label_encoding": self.label_encoding,
            "classes": [{"id": c.id, "name": c.name, "color": c.color} for c in self.classes.classes],
            "entries": [record.to_dict() for record in self.records],
        }

    def write(self, path: Path | str) -> None:
        """Write `inventory.json`."""
        write_bytes(path, (json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n").encode())

    def record(self, scene: str) -> Record:
        """The record of one scene.

        Raises:
            InputError: If there is no such scene.
        """
        for record in self.records:
            if record.scene == scene:
                return record
        raise InputError(Problem(f"scene {scene}", "is not in the inventory", "Check its name in the sample sheet."))
