"""What all charts share: colours and markers, a Matplotlib style, and small SVG with values on hover."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from skimage.color import deltaE_ciede2000, rgb2lab

from tmcnet.config import RANDOM_START
from tmcnet.config.training import has_start
from tmcnet.report.names import Series, network_order

# The colours of Okabe and Ito, which colour-blind readers can distinguish, without yellow: too faint for lines.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#6b6b6b"
PART_COLOURS = {"train": "#0072B2", "val": "#E69F00", "test": "#CC79A7", "dropped": "#bdbdbd"}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (5, 1.5, 1, 1.5)), (0, (9, 2)))
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
    "text.parse_math": False,  # a class may be called `$x$`
    "axes.unicode_minus": True,
}

_SVG = "{http://www.w3.org/2000/svg}"
_XLINK_HREF = "{http://www.w3.org/1999/xlink}href"
_PIXELS_PER_INCH = 106
_UNITS_PER_INCH = 72
"""Unit of the coordinates in Matplotlib's SVG."""
_SPOT_RADIUS = 6
"""Radius in these units of the invisible spot whose tooltip works without scripts."""
_MAX_CLASSES_WITH_NUMBERS = 15
_CHARACTERS_PER_INCH, _KEY_CHARACTERS = 12.5, 6
"""Of the text of a legend, and those that the line beside a label takes."""
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_REFERENCE = re.compile(r'(?:url\(|href=")#([^)"]+)')

MIN_COLOUR_DIFFERENCE = 10.0
"""CIEDE2000 difference from which small fields of two colours on a map are distinct at a glance."""
_RECEPTORS = (
    np.eye(3),
    np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
)
"""Linear RGB as seen with all receptors, and without those for long (protanopia), middle (deuteranopia) and short
waves (tritanopia). Machado, G. M., Oliveira, M. M. and Fernandes, L. A. F. (2009): A physiologically-based model for
simulation of color vision deficiency. IEEE TVCG 15, 1291-1298, at full severity."""


class Chart(Figure):
    """A figure that knows the values of its marks in words, which are shown on hover and on arrow keys."""

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height))
        self.readings: list[tuple[Axes, float, float, str]] = []

    def read(self, ax: Axes, x: float, y: float, text: str) -> None:
        """Add the value of a mark, in the order of the arrow keys; x and y in data coordinates."""
        self.readings.append((ax, x, y, text))


class Styles:
    """Colour by start, grey for networks without one, marker and dashes by network: fixed for the whole page."""

    def __init__(self, series: list[Series]) -> None:
        methods = sorted({s.method for s in series}, key=lambda m: (m == RANDOM_START, m))
        networks = sorted({(s.network, s.variant) for s in series}, key=network_order)
        self._colors = {m: OKABE_ITO[i % len(OKABE_ITO)] for i, m in enumerate(methods)}
        self._ranks = {n: i for i, n in enumerate(networks)}

    def of(self, series: Series) -> dict[str, Any]:
        """Keyword arguments for Matplotlib's line plots."""
        rank = self._ranks[series.network, series.variant]
        return {
            "color": self.color(series.method) if has_start(series.network, series.method) else GREY,
            "marker": MARKERS[rank % len(MARKERS)],
            "linestyle": DASHES[rank % len(DASHES)],
        }

    def color(self, method: str) -> str:
        """Colour of a way to start."""
        return self._colors.get(method, GREY)

    def of_methods(self, methods: list[str]) -> dict[str, str]:
        """Colours of pre-training methods; those without a scored run get a colour that is still free."""
        spare = iter(OKABE_ITO[len(self._colors) :] + OKABE_ITO)
        return {m: self._colors[m] if m in self._colors else next(spare) for m in methods}


def look_alike(colors: Mapping[str, str]) -> list[tuple[str, str]]:
    """Names of the pairs of colours (`#rrggbb`) that readers with or without full colour vision may confuse."""
    seen = {name: _seen(color) for name, color in colors.items()}
    return [
        (one, two)
        for one, two in combinations(seen, 2)
        if deltaE_ciede2000(seen[one], seen[two]).min() < MIN_COLOUR_DIFFERENCE
    ]


def _seen(color: str) -> npt.NDArray[np.float64]:
    """A colour as each kind of reader sees it, R x 3, CIELAB."""
    value = np.array(to_rgb(color))
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    seen = np.clip([receptors @ linear for receptors in _RECEPTORS], 0.0, 1.0)
    return np.asarray(rgb2lab(np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)))


@contextmanager
def canvas(width: float, height: float, rows: int = 1, columns: int = 1, *, share: bool = False) -> Iterator[Chart]:
    """Open a figure in the report's style, which needs no display; `share` gives all axes the same range.

    Width and height are in inches; 7.5 fills a column of text.
    """
    with mpl.rc_context(STYLE):
        figure = Chart(width, height)
        figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share)
        yield figure


def plain(text: str) -> str:
    """Protect a label for legends: Matplotlib hides labels that start with an underscore."""
    return f"\u200b{text}" if text.startswith("_") else text


def add_legend(figure: Figure, columns: int) -> None:
    """One legend below all axes, each label once; long labels get fewer columns, then several lines."""
    handles: dict[str, Any] = {}
    for ax in figure.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(str(label), handle)
    room = int(figure.get_figwidth() * _CHARACTERS_PER_INCH)
    column = max(map(len, handles), default=0) + _KEY_CHARACTERS
    labels = [fill(label, room - _KEY_CHARACTERS) for label in handles]
    ncols = max(1, min(columns, room // column))
    figure.legend(list(handles.values()), labels, loc="outside lower center", ncols=ncols)


def row_shares(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Confusion matrix (K x K) with rows of sum 1; NaN for classes without pixels."""
    total = matrix.sum(1, keepdims=True)
    return np.asarray(np.divide(matrix, total, out=np.full(matrix.shape, np.nan), where=total > 0))


def plot_confusion(ax: Axes, shares: npt.NDArray[np.float64], names: Sequence[str]) -> None:
    """Draw a confusion matrix of `row_shares` in percent; cells are centred at their column and row."""
    k = len(names)
    edges = np.arange(k + 1) - 0.5
    ax.pcolormesh(edges, edges, shares, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=1)
    for row, col in np.ndindex(k, k):
        if k <= _MAX_CLASSES_WITH_NUMBERS and shares[row, col] >= 0.005:
            color = "white" if shares[row, col] > 0.55 else "#222222"
            ax.text(col, row, f"{100 * shares[row, col]:.0f}", ha="center", va="center", color=color)
    ax.set(aspect="equal", xlabel="predicted", ylabel="truth")
    ax.invert_yaxis()
    ax.set_xticks(np.arange(k), names, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(np.arange(k), names)
    ax.grid(visible=False)


def render(figure: Chart, name: str) -> Markup:
    """Convert a figure to SVG for an HTML page, without dates, metadata and style sheet.

    The name is unique on the page: it makes the ids of the figure's shapes unique. Each reading becomes an invisible
    spot with a title, which browsers show as a tooltip.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    used = set(_REFERENCE.findall(buffer.getvalue()))
    ET.register_namespace("", _SVG.strip("{}"))
    root = ET.fromstring(buffer.getvalue())
    for parent in list(root.iter()):
        for child in [*parent.findall(f"{_SVG}metadata"), *parent.findall(f"{_SVG}style")]:
            parent.remove(child)
    for element in root.iter():
        _shorten(element, used)
    root.set("width", f"{figure.get_figwidth() * _PIXELS_PER_INCH:.0f}")
    root.attrib.pop("height", None)
    if figure.readings:
        _add_spots(root, figure)
    return Markup(ET.tostring(root, encoding="unicode"))


def _shorten(element: ET.Element, used: set[str]) -> None:
    """Remove ids that nothing refers to, and digits that nobody sees."""
    for key, value in list(element.attrib.items()):
        if key == _XLINK_HREF:
            element.set("href", element.attrib.pop(key))
        elif key == "id" and value not in used:
            del element.attrib[key]
        elif key in ("d", "transform", "x", "y", "points"):
            element.set(key, _LONG_NUMBER.sub(lambda m: f"{float(m[0]):.2f}", value))


def _add_spots(root: ET.Element, figure: Chart) -> None:
    """Add the readings; the positions of the marks are final only after the layout by `savefig`."""
    group = ET.SubElement(root, f"{_SVG}g", {"class": "readings", "fill-opacity": "0"})
    scale = _UNITS_PER_INCH / figure.dpi
    height = figure.get_figheight() * _UNITS_PER_INCH
    for ax, *place, text in figure.readings:
        x, y = ax.transData.transform(place) * scale
        spot = ET.SubElement(group, f"{_SVG}circle", cx=f"{x:.1f}", cy=f"{height - y:.1f}", r=str(_SPOT_RADIUS))
        ET.SubElement(spot, f"{_SVG}title").text = text
