"""Matplotlib figures as small, self-contained SVG that may stand beside each other in one HTML page."""

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
"""Of the coordinates that Matplotlib writes into SVG."""
_REACH = 6
"""Radius, in the same units, of the spot that shows a reading without any script."""
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
    "text.parse_math": False,  # a class called `$x$` is a name, no formula
    "axes.unicode_minus": True,
}


@dataclass(frozen=True)
class Reading:
    """The value of one mark of a chart, in words, for who points at it or steps to it by keys.

    Attributes:
        axes: Where the mark stands.
        x: In the coordinates of the data.
        y: Likewise.
        text: What is told; complete without the chart.
    """

    axes: Axes
    x: float
    y: float
    text: str


@contextmanager
def canvas(width: float, height: float, rows: int = 1, columns: int = 1, *, share: bool = False) -> Iterator[Figure]:
    """A figure in the report's style, without a display and freed by whoever lets go of it.

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
    """A label for legends: Matplotlib would hide one that starts with an underscore."""
    return f"\u200b{text}" if text.startswith("_") else text


def render(figure: Figure, name: str, readings: Sequence[Reading] = ()) -> Markup:
    """SVG text of a figure, to stand inside an HTML page.

    Ids get the figure's name in front, so that charts on one page do not borrow each other's shapes; dates,
    metadata and the style sheet (which would apply to the whole page) are taken out. Text stays text and is escaped.

    Args:
        figure: What was drawn.
        name: Unique on the page.
        readings: What its marks stand for, in the order in which keys step through them. Each becomes an unseen spot
            with a title, which browsers show as a tooltip.
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
    """Where the marks are is known only now that the figure was laid out."""
    group = ET.SubElement(root, f"{{{_SVG}}}g", {"class": "readings", "fill-opacity": "0"})
    scale = _UNITS_PER_INCH / figure.dpi
    height = figure.get_figheight() * _UNITS_PER_INCH
    for reading in readings:
        x, y = reading.axes.transData.transform((reading.x, reading.y)) * scale
        place = {"cx": f"{x:.1f}", "cy": f"{height - y:.1f}", "r": str(_REACH)}
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
