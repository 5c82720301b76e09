"""Files of a map: classes with names and colours, confidence, areas, picture, styles, polygons; table of all maps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from tmcnet.classes import ClassTable
from tmcnet.config import IGNORE, MapsConfig
from tmcnet.errors import InputError
from tmcnet.evaluate import polygons
from tmcnet.evaluate.areas import Counts, measure, read_mapped, write_areas
from tmcnet.evaluate.polygons import raster_style
from tmcnet.evaluate.quicklook import draw_quicklook
from tmcnet.model.model_file import read_test_blocks
from tmcnet.raster.io.gdal_tools import require_tools
from tmcnet.raster.io.reader import label_blocks, read_grid
from tmcnet.raster.io.writer import RasterProfile, write_bytes, write_cog, write_draft, write_table
from tmcnet.readers import read_record, reading

COLUMNS = ("scene", "path", "confidence", "megapixels", "seconds")


class MapRecord(NamedTuple):
    """A map that was made.

    Attributes:
        megapixels: Size of the scene.
        seconds: Time that the prediction took.
        classes: Classes of the network.
        blocks: B x K x K confusion matrices of test blocks that the file of the network holds; None for none.
        made_from: Hash of all that the prediction depends on.
    """

    megapixels: float
    seconds: float
    classes: ClassTable
    blocks: Counts | None = None
    made_from: str = ""

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        classes = [[c.name, c.color] for c in self.classes.classes]
        content = {"megapixels": self.megapixels, "seconds": round(self.seconds, 1), "classes": classes}
        content["made_from"] = self.made_from
        if self.blocks is not None:
            content["blocks"] = self.blocks.tolist()
        write_bytes(path, (json.dumps(content) + "\n").encode())

    @classmethod
    def read(cls, path: Path) -> MapRecord:
        """Read a file of `write`.

        Raises:
            InputError: If it is missing or damaged.
        """
        content = read_record(path)
        with reading(path):
            classes = ClassTable.of((name, color) for name, color in content["classes"])
            blocks = np.array(content["blocks"], np.int64) if "blocks" in content else None
            made_from = str(content.get("made_from", ""))
            return cls(float(content["megapixels"]), float(content["seconds"]), classes, blocks, made_from)

    @classmethod
    def find(cls, paths: MapPaths, made_from: str) -> MapRecord | None:
        """Read the record of a kept prediction; None if it is lost, damaged, or made from something else."""
        try:
            record = cls.read(paths.record)
        except InputError:
            return None
        return record if record.made_from == made_from and paths.prediction.is_file() else None

    def test_blocks(self, scores: Path | None) -> Counts | None:
        """The confusion matrices of the test blocks: from the `tiles.npz` of an evaluation, else those it holds."""
        return self.blocks if scores is None else read_test_blocks(scores)


@dataclass(frozen=True)
class MapStyle:
    """How a map is presented: all that can change without another prediction.

    Attributes:
        classes: Names and colours.
        formats: Whether the coloured copy (`<map>_rgb.tif`) and polygons (`<map>.gpkg`) are wanted.
        blocks: B x K x K confusion matrices of the test blocks of the network; None: areas are not corrected.
        level: Confidence level of the areas.
        confidence: Whether the confidence is written.
    """

    classes: ClassTable
    formats: MapsConfig = field(default_factory=MapsConfig)
    blocks: Counts | None = None
    level: float = 0.95
    confidence: bool = True


class MapPaths(NamedTuple):
    """All files of a map; some are written on request only. The last two are kept for another style of the map."""

    map: Path
    class_names: Path
    style: Path
    picture: Path
    polygons: Path
    areas: Path
    confidence: Path
    coloured: Path
    prediction: Path
    record: Path

    @classmethod
    def of(cls, map_file: Path) -> MapPaths:
        """The files of `<map>.tif`, which are beside it. GDAL reads names of classes from `<map>.tif.aux.xml`."""
        endings = (".qml", ".png", ".gpkg", "_areas.csv", "_confidence.tif", "_rgb.tif")
        sides = [map_file.with_name(f"{map_file.stem}{ending}") for ending in endings]
        kept = [map_file.with_name(f".{map_file.stem}{ending}") for ending in ("_prediction.tif", ".json")]
        return cls(map_file, map_file.with_name(f"{map_file.name}.aux.xml"), *sides, *kept)


def style_map(prediction: Path, style: MapStyle, scene: str, map_file: Path) -> None:
    """Write the files of a map, from the class ids and confidence that `map_scene` predicts.

    - `<map>.tif`, a cloud-optimised GeoTIFF of class ids, with colour table and names of the classes. GeoTIFF cannot
      hold category names; GDAL reads them from `<map>.tif.aux.xml`.
    - `<map>_confidence.tif`, 0 to 100.
    - `<map>_areas.csv`, the areas of the classes (`tmcnet.evaluate.areas.write_areas`).
    - `<map>.png`, a picture with legend and areas; `<map>.qml`, a style of QGIS.
    - Where wanted, `<map>_rgb.tif` and `<map>.gpkg`.
    """
    classes, config, paths = style.classes, style.formats, MapPaths.of(map_file)
    require_tools(["gdal_translate", *(polygons.TOOLS if config.polygons else ())])
    for earlier in (paths.coloured, paths.polygons):
        earlier.unlink(missing_ok=True)  # left by an earlier map
    map_file.parent.mkdir(parents=True, exist_ok=True)
    # averaging ids would invent classes; overviews of the map show the most frequent one
    _write_band(prediction, 0, RasterProfile(1, "uint8", IGNORE, ("class",), classes), "MODE", map_file)
    if style.confidence:
        profile = RasterProfile(1, "uint8", IGNORE, ("confidence in percent",))
        _write_band(prediction, 1, profile, "AVERAGE", paths.confidence)
    if config.rgb:
        write_cog(map_file, paths.coloured, "-expand", "rgb")
    write_bytes(paths.class_names, _categories(classes))
    write_bytes(paths.style, raster_style(classes))
    write_areas(paths.areas, {scene: measure(map_file, len(classes))}, classes.names, style.blocks, style.level)
    draw_quicklook(map_file, classes, paths.areas, paths.picture)
    if config.polygons:
        polygons.write_polygons(map_file, classes, config.minimum_mapping_unit, paths.polygons)


def _write_band(prediction: Path, band: int, profile: RasterProfile, resampling: str, out: Path) -> None:
    """Write a band as a cloud-optimised GeoTIFF whose overviews are resampled in a way that GDAL has."""
    with TemporaryDirectory(prefix=".map_", dir=out.parent) as folder:
        draft = Path(folder) / "band.tif"
        parts = ((box, values[None]) for box, values in label_blocks(prediction, band))
        write_draft(draft, read_grid(prediction), profile, parts)
        write_cog(draft, out, "-co", f"RESAMPLING={resampling}")


def _categories(classes: ClassTable) -> bytes:
    """Return the class names as GDAL's persistent auxiliary metadata, which GIS programs show in legends."""
    root = ElementTree.Element("PAMDataset")
    names = ElementTree.SubElement(ElementTree.SubElement(root, "PAMRasterBand", band="1"), "CategoryNames")
    for c in classes.classes:
        ElementTree.SubElement(names, "Category").text = c.name
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8")
    return text + b"\n"


def list_maps(
    records: Mapping[str, MapRecord], run_name: str, table: Path, blocks: Counts | None, level: float
) -> None:
    """Write the table of the maps of one network, and that of the class areas of all scenes beside it.

    The latter, `<run>_areas.csv`, has the columns of `tmcnet.evaluate.areas.write_areas`; its last rows are the sums
    of all scenes. The table is in the folder of the maps, and paths in it are relative to this folder.
    """
    maps = {scene: MapPaths.of(Path(scene, f"{run_name}.tif")) for scene in records}
    rows = [
        (scene, maps[scene].map, maps[scene].confidence, f"{record.megapixels:.6f}", f"{record.seconds:.1f}")
        for scene, record in records.items()
    ]
    write_table(table, COLUMNS, (dict(zip(COLUMNS, row, strict=True)) for row in rows))
    names, mapped = read_mapped(table.parent / paths.areas for paths in maps.values())
    write_areas(MapPaths.of(table).areas, mapped, names, blocks, level, whole=True)
