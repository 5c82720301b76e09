"""Charts of the data: where the parts lie and what classes they hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from tmcnet.report.blocks import Figure, plural
from tmcnet.report.palette import PARTS
from tmcnet.report.results import Results
from tmcnet.report.svg import Reading, canvas, plain, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_SCENES = 12
_MOST_READINGS = 2000
"""Tiles that can be pointed at; more of them are too small to be met."""


def split_maps(results: Results, name: str) -> Figure | None:
    """Windows of the tiles of each scene, coloured by part; None for ready-made tiles, which have no common scene."""
    index = results.index
    if index.empty or not {"scene", "row", "col", "height", "width"} <= set(index.columns):
        return None
    counts = index.groupby("scene").size()
    scenes = list(counts[counts > 1].index[:_MOST_SCENES])
    if not scenes:
        return None
    across = min(4, len(scenes))
    down = math.ceil(len(scenes) / across)
    with canvas(min(8.4, 2.6 * across + 0.4), 2.5 * down + 0.5, down, across) as figure:
        for ax, scene in zip(figure.axes, scenes, strict=False):
            _draw_scene(ax, index[index["scene"] == scene], results.part_of)
            ax.set_title(plain(scene), loc="left")
        for ax in figure.axes:
            ax.set_axis_off()
        from matplotlib.patches import Patch

        used = {results.part_of.get(t, "dropped") for t in index["tile"]}
        handles = [Patch(color=c, label=p) for p, c in PARTS.items() if p in used]
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
        svg = render(figure, name, _tiles(figure.axes, [index[index["scene"] == s] for s in scenes], results.part_of))
    more = f" The first {len(scenes)} of {len(counts)} scenes." if len(counts) > len(scenes) else ""
    caption = f"Where the tiles of each part lie; north is up, grey tiles belong to no part.{more}"
    return Figure(name, svg, caption, f"Maps of {plural(len(scenes), 'scene')}: tiles coloured by part.")


def _tiles(axes: Sequence[Axes], scenes: Sequence[pd.DataFrame], part_of: dict[str, str]) -> list[Reading]:
    if sum(map(len, scenes)) > _MOST_READINGS:
        return []
    return [
        Reading(
            ax,
            tile["col"] + tile["width"] / 2,
            tile["row"] + tile["height"] / 2,
            f"{tile['tile']}: {part_of.get(tile['tile'], 'dropped')}",
        )
        for ax, tiles in zip(axes, scenes, strict=False)
        for tile in tiles.to_dict("records")
    ]


def _draw_scene(ax: Axes, tiles: pd.DataFrame, part_of: dict[str, str]) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    for part, color in PARTS.items():
        chosen = tiles[[part_of.get(t, "dropped") == part for t in tiles["tile"]]]
        windows = chosen[["col", "row", "width", "height"]].to_numpy(float)
        boxes = [Rectangle((col, row), width, height) for col, row, width, height in windows]
        collection = PatchCollection(boxes, facecolor=color, edgecolor="white", linewidth=0.6)
        ax.add_collection(collection)
    ax.set_xlim(tiles["col"].min(), (tiles["col"] + tiles["width"]).max())
    ax.set_ylim((tiles["row"] + tiles["height"]).max(), tiles["row"].min())
    ax.set_aspect("equal")


def class_shares(results: Results, shares: dict[str, dict[str, float]], name: str) -> Figure:
    """Class shares of each part as stacked bars."""
    with canvas(7.5, 1.2 + 0.45 * len(shares) + 0.22 * math.ceil(len(results.classes) / 3)) as figure:
        ax = figure.axes[0]
        left = dict.fromkeys(shares, 0.0)
        readings = []
        for land_cover in results.classes.classes:
            values = [share.get(land_cover.name, 0.0) for share in shares.values()]
            label = plain(land_cover.name)
            ax.barh(
                list(shares), values, left=list(left.values()), color=land_cover.color, label=label, edgecolor="white"
            )
            readings += [
                Reading(ax, left[part] + v / 2, row, f"{part}: {land_cover.name} {100 * v:.1f} %")
                for row, (part, v) in enumerate(zip(shares, values, strict=True))
                if v > 0
            ]
            left = {part: left[part] + v for part, v in zip(shares, values, strict=True)}
        ax.set_xlim(0, 1)
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
        ax.invert_yaxis()
        ax.set_xlabel("share of the labelled pixels")
        ax.grid(axis="y", visible=False)
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        svg = render(figure, name, readings)
    text = "; ".join(
        f"{part}: " + ", ".join(f"{n} {100 * v:.0f} %" for n, v in share.items()) for part, share in shares.items()
    )
    return Figure(name, svg, "Class shares of each part.", f"Stacked bars of class shares. {text}.")
