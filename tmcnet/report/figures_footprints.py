"""Chart of where the scenes lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tmcnet.report.blocks import Figure, plural
from tmcnet.report.files import number
from tmcnet.report.palette import GREY, OKABE_ITO
from tmcnet.report.results import Results
from tmcnet.report.svg import Reading, canvas, plain, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_NAMES = 24
_MOST_SYSTEMS = 4
_DEGREES = 360
_VISIBLE = 0.02
"""Share of the map below which a footprint is marked by a dot."""
_NAME_WIDTH, _NAME_HEIGHT = 0.3, 0.06
"""Shares of the map that a name covers: names closer than that stand on different sides of their scenes."""

Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""


def footprints(results: Results, name: str) -> Figure | None:
    """Outlines of the optical images, one panel a coordinate system; None where no image says where it lies."""
    groups: dict[str, list[tuple[str, str, Box]]] = {}
    for entry in results.entries:
        if (box := _box(entry)) is not None:
            groups.setdefault(str(entry["crs"]), []).append((str(entry.get("scene")), str(entry.get("role")), box))
    shown = dict(sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))[:_MOST_SYSTEMS])
    if not shown:
        return None
    roles = sorted({role for found in groups.values() for _, role, _ in found})
    colors = dict(zip(roles, [*OKABE_ITO, *[GREY] * len(roles)], strict=False))
    across = min(2, len(shown))
    down = math.ceil(len(shown) / across)
    readings = []
    with canvas(7.6, 3.4 * down + 0.4, down, across) as figure:
        for ax, (crs, found) in zip(figure.axes, shown.items(), strict=False):
            readings += _draw(ax, found, colors)
            ax.set_title(plain(_short(crs)), loc="left")
        for ax in figure.axes[len(shown) :]:
            ax.set_axis_off()
        from matplotlib.patches import Patch

        handles = [Patch(facecolor=colors[role], alpha=0.5, label=plain(role)) for role in roles]
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
        svg = render(figure, name, readings)
    return Figure(name, svg, _caption(results, groups, shown), _alt(shown))


def _caption(results: Results, groups: dict[str, Any], shown: dict[str, Any]) -> str:
    text = "Footprints of the optical images, by role, in their own reference systems; dots mark the smallest."
    nowhere = len(results.entries) - sum(map(len, groups.values()))
    if nowhere:
        text += f" {plural(nowhere, 'image')} without coordinates not shown."
    if len(groups) > len(shown):
        text += f" The {len(shown)} commonest of {len(groups)} reference systems."
    return text


def _alt(shown: dict[str, list[tuple[str, str, Box]]]) -> str:
    parts = []
    for crs, found in shown.items():
        left, bottom, right, top = _extent([box for _, _, box in found])
        parts.append(
            f"{plural(len(found), 'footprint')} in {_short(crs)}, from {left:.6g} to {right:.6g} east and from "
            f"{bottom:.6g} to {top:.6g} north"
        )
    return f"Map of {'; '.join(parts)}."


def _box(entry: dict[str, Any]) -> Box | None:
    """Bounds of an entry that has a reference system."""
    bounds = entry.get("bounds")
    if not entry.get("crs") or not isinstance(bounds, list) or len(bounds) != 4:
        return None
    left, bottom, right, top = map(number, bounds)
    return (left, bottom, right, top) if all(map(math.isfinite, (left, bottom, right, top))) else None


def _extent(boxes: Sequence[Box]) -> Box:
    lefts, bottoms, rights, tops = zip(*boxes, strict=True)
    return min(lefts), min(bottoms), max(rights), max(tops)


def _draw(ax: Axes, found: list[tuple[str, str, Box]], colors: dict[str, str]) -> list[Reading]:
    from matplotlib.patches import Rectangle

    extent = _extent([box for _, _, box in found])
    degrees = max(map(abs, extent)) <= _DEGREES
    unit, sign = (1, "°") if degrees else (1000, "km")
    reach = max(extent[2] - extent[0], extent[3] - extent[1])
    readings: list[Reading] = []
    named: list[tuple[float, float]] = []
    for scene, role, (left, bottom, right, top) in found:
        corner, width, height = (left / unit, bottom / unit), (right - left) / unit, (top - bottom) / unit
        ax.add_patch(Rectangle(corner, width, height, facecolor=colors[role], alpha=0.5, edgecolor="#333333"))
        if right - left < _VISIBLE * reach:
            ax.plot(corner[0] + width / 2, corner[1] + height / 2, "o", color=colors[role])
        east, north = (
            f"{low / unit:.6g} to {high / unit:.6g} {sign}" for low, high in ((left, right), (bottom, top))
        )
        where = f"{east} east, {north} north"
        readings.append(Reading(ax, corner[0] + width / 2, corner[1] + height / 2, f"{scene}, {role}: {where}"))
        if len(found) <= _MOST_NAMES:
            place = (corner[0], corner[1] + height)
            crowded = any(
                abs(left - x) < _NAME_WIDTH * reach and abs(top - y) < _NAME_HEIGHT * reach for x, y in named
            )
            offset = (-5, -15) if crowded else (5, 5)
            side = "right" if crowded else "left"
            ax.annotate(scene, place, xytext=offset, textcoords="offset points", fontsize=8.5, ha=side)
            named.append((left, top))
    ax.autoscale_view()
    ax.margins(0.08)
    ax.set_aspect("equal", adjustable="datalim")
    ax.ticklabel_format(useOffset=False, style="plain")
    ax.locator_params(nbins=5)
    ax.set_xlabel(f"east ({sign})")
    ax.set_ylabel(f"north ({sign})")
    return readings


def _short(crs: str, most: int = 40) -> str:
    return crs if len(crs) <= most else f"{crs[:most]}…"
