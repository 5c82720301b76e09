"""Charts of the data: footprints of the scenes, tiles by part, and class shares."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
from markupsafe import Markup

from tmcnet.classes import ClassTable
from tmcnet.report.files import number
from tmcnet.report.palette import GREY, OKABE_ITO, PARTS
from tmcnet.report.svg import Reading, canvas, plain, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_NAMES = 24
"""Scenes with a name beside their footprint; more names overlap."""
_MAX_DEGREES = 360
_MIN_VISIBLE = 0.02
"""Share of the map below which a footprint is marked by a dot."""
_NAME_WIDTH, _NAME_HEIGHT = 0.3, 0.06
"""Shares of the map that a name covers: names that are closer go to different sides of their scenes."""
_MAX_READINGS = 2000
"""Number of tiles with tooltips; more of them are too small to point at."""

Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""


@dataclass(frozen=True)
class Footprint:
    """Bounds of a scene's optical image."""

    scene: str
    role: str
    box: Box


def footprints_by_crs(entries: Sequence[Mapping[str, Any]]) -> dict[str, list[Footprint]]:
    """Footprints of the inventory entries with coordinates, by coordinate reference system, most frequent first."""
    groups: dict[str, list[Footprint]] = {}
    for entry in entries:
        bounds = entry.get("bounds")
        if not entry.get("crs") or not isinstance(bounds, list) or len(bounds) != 4:
            continue
        left, bottom, right, top = map(number, bounds)
        if all(map(math.isfinite, (left, bottom, right, top))):
            found = Footprint(str(entry.get("scene")), str(entry.get("role")), (left, bottom, right, top))
            groups.setdefault(str(entry["crs"]), []).append(found)
    return dict(sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])))


def extent(footprints: Sequence[Footprint]) -> Box:
    """Bounds of all footprints together."""
    lefts, bottoms, rights, tops = zip(*(footprint.box for footprint in footprints), strict=True)
    return min(lefts), min(bottoms), max(rights), max(tops)


def short_crs(crs: str, most: int = 40) -> str:
    """The start of a long WKT."""
    return crs if len(crs) <= most else f"{crs[:most]}…"


def draw_footprints(groups: Mapping[str, Sequence[Footprint]], name: str) -> Markup:
    """Outlines of the optical images, one panel a coordinate reference system."""
    from matplotlib.patches import Patch

    roles = sorted({footprint.role for found in groups.values() for footprint in found})
    colors = dict(zip(roles, [*OKABE_ITO, *[GREY] * len(roles)], strict=False))
    across = min(2, len(groups))
    down = math.ceil(len(groups) / across)
    readings = []
    with canvas(7.6, 3.4 * down + 0.4, down, across) as figure:
        for ax, (crs, found) in zip(figure.axes, groups.items(), strict=False):
            readings += _draw_outlines(ax, found, colors)
            ax.set_title(plain(short_crs(crs)), loc="left")
        for ax in figure.axes[len(groups) :]:
            ax.set_axis_off()
        handles = [Patch(facecolor=colors[role], alpha=0.5, label=plain(role)) for role in roles]
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
        return render(figure, name, readings)


def _draw_outlines(ax: Axes, found: Sequence[Footprint], colors: dict[str, str]) -> list[Reading]:
    from matplotlib.patches import Rectangle

    whole = extent(found)
    unit, sign = (1, "°") if max(map(abs, whole)) <= _MAX_DEGREES else (1000, "km")
    reach = max(whole[2] - whole[0], whole[3] - whole[1])
    readings: list[Reading] = []
    named: list[tuple[float, float]] = []
    for footprint in found:
        left, bottom, right, top = footprint.box
        corner, width, height = (left / unit, bottom / unit), (right - left) / unit, (top - bottom) / unit
        color, middle = colors[footprint.role], (corner[0] + width / 2, corner[1] + height / 2)
        ax.add_patch(Rectangle(corner, width, height, facecolor=color, alpha=0.5, edgecolor="#333333"))
        if right - left < _MIN_VISIBLE * reach:
            ax.plot(*middle, "o", color=color)
        east, north = (
            f"{low / unit:.6g} to {high / unit:.6g} {sign}" for low, high in ((left, right), (bottom, top))
        )
        readings.append(Reading(ax, *middle, f"{footprint.scene}, {footprint.role}: {east} east, {north} north"))
        if len(found) <= _MAX_NAMES:
            crowded = any(
                abs(left - x) < _NAME_WIDTH * reach and abs(top - y) < _NAME_HEIGHT * reach for x, y in named
            )
            place = {"xytext": (-5, -15), "ha": "right"} if crowded else {"xytext": (5, 5), "ha": "left"}
            at = (corner[0], corner[1] + height)
            ax.annotate(footprint.scene, at, textcoords="offset points", fontsize=8.5, **place)
            named.append((left, top))
    _style_map_axes(ax, sign)
    return readings


def _style_map_axes(ax: Axes, unit: str) -> None:
    ax.autoscale_view()
    ax.margins(0.08)
    ax.set_aspect("equal", adjustable="datalim")
    ax.ticklabel_format(useOffset=False, style="plain")
    ax.locator_params(nbins=5)
    ax.set_xlabel(f"east ({unit})")
    ax.set_ylabel(f"north ({unit})")


def draw_splits(scenes: Mapping[str, pd.DataFrame], part_of: Mapping[str, str], name: str) -> Markup:
    """Windows of the tiles of each scene, coloured by part.

    Args:
        scenes: Rows of the tile index by scene.
        part_of: Part of each tile; other tiles count as dropped.
        name: Unique on the page.
    """
    from matplotlib.patches import Patch

    across = min(4, len(scenes))
    down = math.ceil(len(scenes) / across)
    drawn = sum(map(len, scenes.values()))
    readings: list[Reading] = []
    with canvas(min(8.4, 2.6 * across + 0.4), 2.5 * down + 0.5, down, across) as figure:
        for ax, (scene, tiles) in zip(figure.axes, scenes.items(), strict=False):
            parts = [part_of.get(tile, "dropped") for tile in tiles["tile"]]
            _draw_tiles(ax, tiles, parts)
            ax.set_title(plain(scene), loc="left")
            if drawn <= _MAX_READINGS:
                readings += _tile_readings(ax, tiles, parts)
        for ax in figure.axes:
            ax.set_axis_off()
        used = {part_of.get(tile, "dropped") for tiles in scenes.values() for tile in tiles["tile"]}
        handles = [Patch(color=color, label=part) for part, color in PARTS.items() if part in used]
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
        return render(figure, name, readings)


def _draw_tiles(ax: Axes, tiles: pd.DataFrame, parts: Sequence[str]) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    for part, color in PARTS.items():
        chosen = tiles[[other == part for other in parts]]
        windows = chosen[["col", "row", "width", "height"]].to_numpy(float)
        boxes = [Rectangle((col, row), width, height) for col, row, width, height in windows]
        ax.add_collection(PatchCollection(boxes, facecolor=color, edgecolor="white", linewidth=0.6))
    ax.set_xlim(tiles["col"].min(), (tiles["col"] + tiles["width"]).max())
    ax.set_ylim((tiles["row"] + tiles["height"]).max(), tiles["row"].min())
    ax.set_aspect("equal")


def _tile_readings(ax: Axes, tiles: pd.DataFrame, parts: Sequence[str]) -> list[Reading]:
    return [
        Reading(ax, t["col"] + t["width"] / 2, t["row"] + t["height"] / 2, f"{t['tile']}: {part}")
        for t, part in zip(tiles.to_dict("records"), parts, strict=True)
    ]


def draw_class_shares(classes: ClassTable, shares: Mapping[str, Mapping[str, float]], name: str) -> Markup:
    """Class shares of each part as stacked bars."""
    with canvas(7.5, 1.2 + 0.45 * len(shares) + 0.22 * math.ceil(len(classes) / 3)) as figure:
        ax = figure.axes[0]
        left = dict.fromkeys(shares, 0.0)
        readings = []
        for one in classes.classes:
            values = {part: share.get(one.name, 0.0) for part, share in shares.items()}
            ax.barh(
                list(values),
                list(values.values()),
                left=list(left.values()),
                color=one.color,
                edgecolor="white",
                label=plain(one.name),
            )
            readings += [
                Reading(ax, left[part] + value / 2, row, f"{part}: {one.name} {100 * value:.1f} %")
                for row, (part, value) in enumerate(values.items())
                if value > 0
            ]
            left = {part: left[part] + value for part, value in values.items()}
        ax.set_xlim(0, 1)
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
        ax.invert_yaxis()
        ax.set_xlabel("share of the labelled pixels")
        ax.grid(axis="y", visible=False)
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        return render(figure, name, readings)
