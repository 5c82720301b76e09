"""The inventory as the next stages read it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tmcnet.classes import ClassTable
from tmcnet.config import SensorsConfig
from tmcnet.errors import InputError, Problem
from tmcnet.raster.io.atomic import write_bytes


@dataclass(frozen=True)
class FurtherRecord:
    """What the inventory knows of a further modality of a scene or tile.

    Attributes:
        files: Its files, to be stacked as bands; empty where a scene to be predicted has none. A mosaic is the one
            virtual raster of its tiles.
        scale: `none`, `linear`, `amplitude` or `db`: declared or detected; empty without files.
        overlap: Share of the scene that they cover; 0 without files.
    """

    files: list[str]
    scale: str
    overlap: float


@dataclass(frozen=True)
class Record:
    """What the inventory knows of a scene or tile.

    Attributes:
        scene: Its name.
        role: `train` or `predict`.
        optical: Optical files, to be stacked as bands; empty where a scene to be predicted has none. A mosaic is the
            one virtual raster of its tiles.
        sar: Files of the second sensor, likewise.
        label: The label file; empty where there is none.
        fields: Fields of the pattern or sheet.
        height: Rows of the first optical file; without one, of the first file of the second sensor.
        width: Its columns.
        crs: Its CRS, `EPSG:...` or WKT; empty for none.
        gsd: Its pixel size in units of the CRS.
        sar_scale: `none`, `linear`, `amplitude` or `db`: declared or detected; empty without the second sensor.
        optical_nodata: Value that means no data; None for none and for NaN.
        sar_nodata: Likewise.
        overlap: Share of the optical footprint that the second sensor covers; 0 where either is missing.
        bounds: Left, bottom, right, top of the file that height and width are of.
        digests: SHA-256 of the files: optical, second sensor, label, further modalities; of mosaics every tile.
            Nothing else here need change with the pixels.
        declared_nodata: Value that means no data, by sensor, as the sample sheet says it; the text of a number.
        further: The further modalities by name, in the order of the config.
    """

    scene: str
    role: str
    optical: list[str]
    sar: list[str]
    label: list[str]
    fields: dict[str, str]
    height: int
    width: int
    crs: str
    gsd: float
    sar_scale: str
    optical_nodata: float | None
    sar_nodata: float | None
    overlap: float
    bounds: Sequence[float]
    digests: list[str]
    declared_nodata: dict[str, str] = field(default_factory=dict)
    further: dict[str, FurtherRecord] = field(default_factory=dict)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Record:
        """Build from what `to_dict` gives."""
        further = {name: FurtherRecord(**told) for name, told in values.get("further", {}).items()}
        return cls(**{**values, "further": further})

    def to_dict(self) -> dict[str, Any]:
        """As plain values; `further` only where there is any."""
        return {key: value for key, value in asdict(self).items() if key != "further" or value}

    def declared(self, kind: Literal["optical", "sar"], sensors: SensorsConfig) -> float | None:
        """Value that means no data, in place of what the files say: that of the sample sheet, else of the config."""
        of_scene = self.declared_nodata.get(kind)
        sensor = sensors["optical"] if kind == "optical" else sensors["sar"]
        return sensor.nodata if of_scene is None else float(of_scene)


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
        try:
            content = json.loads(Path(path).read_text())
            classes = ClassTable.of((row["name"], row["color"]) for row in content["classes"])
            records = [Record.of(entry) for entry in content["entries"]]
            return cls(content["layout"], content["label_encoding"], classes, records)
        except (OSError, ValueError, KeyError, TypeError) as error:
            what = f"is no inventory that can be read ({error})"
            raise InputError(Problem(str(path), what, "Remove it; the inventory is then taken anew.")) from None

    def write(self, path: Path | str) -> None:
        """Write `inventory.json`."""
        content = {
            "layout": self.layout,
            "label_encoding": self.label_encoding,
            "classes": [{"id": c.id, "name": c.name, "color": c.color} for c in self.classes.classes],
            "entries": [record.to_dict() for record in self.records],
        }
        write_bytes(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())

    def record(self, scene: str) -> Record:
        """The record of one scene.

        Raises:
            InputError: If there is no such scene.
        """
        for record in self.records:
            if record.scene == scene:
                return record
        raise InputError(Problem(f"scene {scene}", "is not in the inventory", "Check its name in the sample sheet."))
