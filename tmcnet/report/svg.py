"""Matplotlib figures as small SVG that can share one HTML page."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_PIXELS_PER_INCH = 106
_UNITS_PER_INCH = 72
"""Unit of the coordinates in Matplotlib's SVG."""
_SPOT_RADIUS = 6
"""Radius in these units of the invisible spot whose tooltip works without scripts."""
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")

STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica"],
    "font.size": 10.5,
    "axes.titlesize": 11,
    "axes.labelsize": 10.5,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "tmcnet",
    "text.parse_math": False,  # a class may be called `$x$`
    "axes.unicode_minus": True,
}


@dataclass(frozen=True)
class Reading:
    """The value of one mark of a chart in words, shown on hover and on arrow keys.

    Attributes:
        axes: Axes of the mark.
        x: Position in data coordinates.
        y: Position in data coordinates.
        text: The value with its context; complete without the chart.
    """

    axes: Axes
    x: float
    y: float
    text: str


@contextmanager
def canvas(width: float, height: float, rows: int = 1, columns: int = 1, *, share: bool = False) -> Iterator[Figure]:
    """Open a figure in the report's style; it needs no display.

    Args:
        width: Width in inches; 7.5 fills a column of text.
        height: Height in inches.
        rows: Rows of axes.
        columns: Columns of axes.
        share: Give all axes the same range.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share)
        yield figure


def plain(text: str) -> str:
    """Protect a label for legends: Matplotlib hides labels that start with an underscore."""
    return f"\u200b{text}" if text.startswith("_") else text


def render(figure: Figure, name: str, readings: Sequence[Reading] = ()) -> Markup:
    """Convert a figure to SVG for an HTML page.

    Ids start with the figure's name, so that charts on one page do not share shapes. Dates, metadata and the style
    sheet (which would apply to the whole page) are removed. Text stays text and is escaped.

    Args:
        figure: The figure.
        name: Unique on the page.
        readings: Values of its marks, in the order of the arrow keys. Each becomes an invisible spot with a title,
            which browsers show as a tooltip.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    ET.register_namespace("", _SVG)
    root = ET.fromstring(buffer.getvalue())
    _drop(root, {f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"})
    prefix = re.sub(r"[^A-Za-z0-9-]", "-", name)
    used = _references(root)
    for element in root.iter():
        _clean(element, prefix, used)
    width, _ = figure.get_size_inches()
    root.set("width", f"{width * _PIXELS_PER_INCH:.0f}")
    root.attrib.pop("height", None)
    if readings:
        _add_spots(root, figure, readings)
    return Markup(ET.tostring(root, encoding="unicode"))


def _add_spots(root: ET.Element, figure: Figure, readings: Sequence[Reading]) -> None:
    """Add the readings; the positions of the marks are final only after the layout by `savefig`."""
    group = ET.SubElement(root, f"{{{_SVG}}}g", {"class": "readings", "fill-opacity": "0"})
    scale = _UNITS_PER_INCH / figure.dpi
    height = figure.get_figheight() * _UNITS_PER_INCH
    for reading in readings:
        x, y = reading.axes.transData.transform((reading.x, reading.y)) * scale
        place = {"cx": f"{x:.1f}", "cy": f"{height - y:.1f}", "r": str(_SPOT_RADIUS)}
        spot = ET.SubElement(group, f"{{{_SVG}}}circle", place)
        ET.SubElement(spot, f"{{{_SVG}}}title").text = reading.text


def _drop(parent: ET.Element, tags: set[str]) -> None:
    for child in list(parent):
        if child.tag in tags:
            parent.remove(child)
        else:
            _drop(child, tags)


def _references(root: ET.Element) -> set[str]:
    found = set()
    for element in root.iter():
        for value in element.attrib.values():
            found.update(_REFERENCE.findall(value))
            if value.startswith("#"):
                found.add(value[1:])
    return found


def _clean(element: ET.Element, prefix: str, used: set[str]) -> None:
    for key, value in list(element.attrib.items()):
        if key == f"{{{_XLINK}}}href":
            del element.attrib[key]
            element.set("href", f"#{prefix}-{value[1:]}" if value.startswith("#") else value)
        elif key == "id" and value in used:
            element.set("id", f"{prefix}-{value}")
        elif key == "id":
            del element.attrib[key]
        elif "url(#" in value:
            element.set(key, _REFERENCE.sub(rf"url(#{prefix}-\1)", value))
        elif key in ("d", "transform", "x", "y", "points"):
            element.set(key, _LONG_NUMBER.sub(lambda m: f"{float(m[0]):.2f}", value))
