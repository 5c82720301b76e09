"""A picture of a map for readers without a GIS: legend with class areas, scale bar and north arrow."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tmcnet.classes import ClassTable
from tmcnet.evaluate.areas import ASSUMPTION, COLUMNS
from tmcnet.raster.io.geometry import Grid, geocentric, pixel_area, reproject_points, round_length
from tmcnet.raster.io.reader import Raster, read_grid
from tmcnet.raster.io.windowed import decimate_ids
from tmcnet.raster.io.writer import write_bytes
from tmcnet.readers import read_rows

MAX_SIDE_PX, MIN_SIDE_PX = 1200, 600
"""Limits of the longer side of the map in the picture; smaller maps are enlarged."""
_MARGIN, _LEGEND, _LINE, _SWATCH = 24, 560, 30, 18
"""Margins, width of the legend, height of its lines and side of its colour fields, in pixels."""
_ARROW = 44
_INK, _PALE, NO_DATA = (32, 32, 32), (110, 110, 110), (238, 238, 238)
_NORTH_DEGREES = 1e-3
"""Distance of the two places that give the direction of north."""


def draw_quicklook(map_file: Path, classes: ClassTable, areas: Path, out: Path) -> None:
    """Draw a map of class ids as a PNG; `areas` is the table of `tmcnet.evaluate.areas.write_areas`."""
    grid, rows = read_grid(map_file), read_rows(areas, COLUMNS)
    picture, metres = _picture(map_file, grid, classes)
    lines = len(classes) + 12
    size = picture.width + _LEGEND + 3 * _MARGIN, max(picture.height, lines * _LINE) + 2 * _MARGIN
    page = Image.new("RGB", size, "white")
    page.paste(picture, (_MARGIN, _MARGIN))
    draw = ImageDraw.Draw(page)
    draw.rectangle((_MARGIN - 1, _MARGIN - 1, _MARGIN + picture.width, _MARGIN + picture.height), outline=_PALE)
    scene = rows[0]["scene"]
    titles = [scene] if scene == map_file.stem else [scene, map_file.stem]
    left = picture.width + 2 * _MARGIN
    top = _draw_legend(draw, left, classes, rows, titles)
    if metres is not None:
        _draw_scale(draw, left, top + _LINE, metres)
        _draw_north(draw, left + _LEGEND - 2 * _ARROW, top + _LINE + _ARROW, north_of(grid))
    content = io.BytesIO()
    page.save(content, "PNG")
    write_bytes(out, content.getvalue())


def paint_classes(ids: NDArray[np.uint8], classes: ClassTable) -> NDArray[np.uint8]:
    """Picture (H x W x 3) of class ids (H x W) in the class colours; void and unknown ids become light grey."""
    lookup = np.full((256, 3), NO_DATA, np.uint8)
    for c in classes.classes:
        lookup[c.id] = c.rgb
    return lookup[ids]


def _picture(map_file: Path, grid: Grid, classes: ClassTable) -> tuple[Image.Image, float | None]:
    """The map in its colours, with pixels that are square on the ground, and their side in metres."""
    step = max(1, -(-max(grid.height, grid.width) // MAX_SIDE_PX))
    ids = decimate_ids(Raster.of(map_file), step)
    across, down = _pixel_sides(grid) or (1.0, 1.0)
    height, width = ids.shape[0] * down / across, float(ids.shape[1])
    factor = min(MAX_SIDE_PX / max(height, width), 1.0)
    factor = max(factor, MIN_SIDE_PX / max(height, width))
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    image = Image.fromarray(paint_classes(ids, classes)).resize(size, Image.Resampling.NEAREST)
    return image, None if pixel_area(grid) is None else across * step / factor


def _pixel_sides(grid: Grid) -> tuple[float, float] | None:
    """Width and height of the pixel at the centre of a map in metres; None without a CRS."""
    if pixel_area(grid) is None:
        return None
    ends = np.array([[-0.5, 0.5, 0, 0], [0, 0, -0.5, 0.5]])
    x, y = grid.transform @ (grid.width / 2 + ends[0], grid.height / 2 + ends[1])
    places = geocentric(*reproject_points(grid.crs, "EPSG:4326", x, y))
    across, down = (float(np.linalg.norm(places[i + 1] - places[i])) for i in (0, 2))
    return across, down


def north_of(grid: Grid) -> NDArray[np.float64]:
    """Direction of north at the centre of a map, as columns and rows of length 1."""
    x, y = grid.transform @ (grid.width / 2, grid.height / 2)
    longitude, latitude = reproject_points(grid.crs, "EPSG:4326", np.array([x]), np.array([y]))
    ends = np.concatenate([latitude - _NORTH_DEGREES, latitude + _NORTH_DEGREES])
    place = np.array(~grid.transform @ reproject_points("EPSG:4326", grid.crs, longitude.repeat(2), ends))
    step: NDArray[np.float64] = (place[:, 1] - place[:, 0]) * (_pixel_sides(grid) or 1.0)
    return step / np.linalg.norm(step)


def _draw_legend(
    draw: ImageDraw.ImageDraw, left: int, classes: ClassTable, areas: list[dict[str, str]], titles: list[str]
) -> int:
    """Draw headings, classes with their areas, and the assumption; return the first row below them."""
    top = _MARGIN
    for title, size in zip(titles, (22, 14), strict=False):
        for line in _wrapped(title, size):
            draw.text((left, top), line, _INK, _font(size))
            top += _LINE
    corrected = bool(areas[0]["percent"])
    unit = "hectares" if areas[0]["mapped_ha"] else "percent of the map"
    level = f", {float(areas[0]['confidence']):.0%} interval" if corrected else ", as mapped"
    draw.text((left, top), f"Area in {unit}{level}", _PALE, _font(16))
    top += _LINE
    for c, row in zip(classes.classes, areas, strict=True):
        draw.rectangle((left, top + 2, left + _SWATCH, top + 2 + _SWATCH), c.rgb, _PALE)
        name, figures = _shortened(c.name, _LEGEND // 2 - 40), _figures(row)
        draw.text((left + _SWATCH + 10, top), name, _INK, _font(16))
        draw.text((left + _LEGEND, top), figures, _INK, _font(16), anchor="ra")
        top += _LINE
    note = f"Corrected for the errors of the map. Assumes that {ASSUMPTION}." if corrected else ""
    note = note or "Not corrected for the errors of the map: its network carries no test scores."
    for line in _wrapped(note, 14):
        draw.text((left, top + 6), line, _PALE, _font(14))
        top += _LINE - 8
    return top


def _figures(row: Mapping[str, str]) -> str:
    """Area and interval of a class as text."""
    unit = "ha" if row["mapped_ha"] else "percent"
    if not row["percent"]:
        return _rounded(row[f"mapped_{unit}"])
    return f"{_rounded(row[unit])} ({_rounded(row[f'{unit}_low'])} to {_rounded(row[f'{unit}_high'])})"


def _rounded(number: str) -> str:
    """Three digits, or whole numbers if larger."""
    value = float(number)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _draw_scale(draw: ImageDraw.ImageDraw, left: int, top: int, metres: float) -> None:
    """A bar of a round length, at most a third as long as the legend is wide."""
    length = round_length(metres * _LEGEND / 2.5)
    right, text = left + length / metres, f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    draw.line([(left, top), (left, top + 10), (right, top + 10), (right, top)], _INK, 2)
    draw.text((left, top + 16), text, _INK, _font(16))


def _draw_north(draw: ImageDraw.ImageDraw, left: int, top: int, north: NDArray[np.float64]) -> None:
    """An arrow to the north around a place, with an N at its tip."""
    side = np.array([-north[1], north[0]])
    centre = np.array([left, top], float)
    corners = [centre + along * _ARROW / 2 * north + aside * _ARROW / 4 * side for along, aside in _ARROW_SHAPE]
    draw.polygon([(float(x), float(y)) for x, y in corners], _INK)
    tip = centre + 0.85 * _ARROW * north
    draw.text((float(tip[0]), float(tip[1])), "N", _INK, _font(16), anchor="mm")


_ARROW_SHAPE = ((1, 0), (-1, 1), (-0.6, 0), (-1, -1))
"""Corners along and across the arrow."""


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _wrapped(text: str, size: int) -> list[str]:
    """Lines that fit the legend; longer words are cut."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _font(size).getlength(longer) <= _LEGEND:
            lines[-1] = longer
        else:
            lines.append(_shortened(word, _LEGEND, size))
    return lines


def _shortened(text: str, width: int, size: int = 16) -> str:
    """Text cut to a width in pixels."""
    if _font(size).getlength(text) <= width:
        return text
    while text and _font(size).getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
