"""QGIS styles of maps: layers open with class names and colours.

QGIS reads `<map>.qml` beside `<map>.tif`, and the default style in the table `layer_styles` of a GeoPackage.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from tmcnet.classes import ClassTable

_VERSION = "3.28"
"""First version of QGIS with the elements that are written here."""
_STYLES_TABLE = """
CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    f_table_catalog TEXT(256), f_table_schema TEXT(256), f_table_name TEXT(256), f_geometry_column TEXT(256),
    styleName TEXT(30), styleQML TEXT, styleSLD TEXT, useAsDefault BOOLEAN,
    description TEXT, owner TEXT(30), ui TEXT(30), update_time DATETIME
)
"""
"""The table as QGIS creates it."""


def raster_style(classes: ClassTable) -> bytes:
    """The QML of a raster of class ids."""
    root = _root()
    pipe = SubElement(root, "pipe")
    renderer = SubElement(pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1")
    palette = SubElement(renderer, "colorPalette")
    for c in classes.classes:
        SubElement(palette, "paletteEntry", value=str(c.id), color=c.color, alpha="255", label=c.name)
    return _text(root)


def polygon_style(classes: ClassTable, attribute: str) -> bytes:
    """The QML of polygons without outlines, coloured by the class id in an attribute."""
    root = _root()
    renderer = SubElement(root, "renderer-v2", type="categorizedSymbol", attr=attribute, symbollevels="0")
    categories, symbols = SubElement(renderer, "categories"), SubElement(renderer, "symbols")
    for c in classes.classes:
        key = str(c.id)
        SubElement(categories, "category", symbol=key, value=key, label=c.name, render="true", type="long")
        symbol = SubElement(symbols, "symbol", type="fill", name=key, alpha="1", clip_to_extent="1")
        layer = SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"})
        options = SubElement(layer, "Option", type="Map")
        values = {"color": ",".join(map(str, (*c.rgb, 255))), "style": "solid", "outline_style": "no"}
        for name, value in values.items():
            SubElement(options, "Option", name=name, type="QString", value=value)
    return _text(root)


def add_layer_style(geopackage: Path, layer: str, geometry: str, style: bytes) -> None:
    """Add the default style (QML) of a layer, with its geometry column, to a GeoPackage without styles."""
    named = {"f_table_catalog": "", "f_table_schema": "", "f_table_name": layer, "f_geometry_column": geometry}
    values = {**named, "styleName": layer, "styleQML": style.decode(), "styleSLD": "", "useAsDefault": True}
    contents = {"table_name": "layer_styles", "data_type": "attributes", "identifier": "layer_styles"}
    with closing(sqlite3.connect(geopackage)) as file, file:
        file.execute(_STYLES_TABLE)
        for table, row in (("layer_styles", values), ("gpkg_contents", contents)):
            places = ", ".join("?" * len(row))
            file.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", list(row.values()))


def _root() -> Element:
    return Element("qgis", version=_VERSION, styleCategories="Symbology")


def _text(root: Element) -> bytes:
    indent(root)
    text: bytes = tostring(root, encoding="utf-8")
    return b"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + text + b"\n"
