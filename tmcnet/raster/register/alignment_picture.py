"""A picture of a co-registration: checkerboards of the two images before and after, control points and residuals."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from textwrap import fill

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tmcnet.raster.io.atomic import write_bytes
from tmcnet.raster.io.display import display_range
from tmcnet.raster.io.rasters import FloatArray
from tmcnet.raster.io.windowed import Image, as_image, decimate
from tmcnet.raster.register.alignment import Alignment

PANEL = 900
"""Most pixels along the side of a panel; larger images are decimate."""
SQUARES = 9
"""Squares of the checkerboard along the longer side."""
AGREES, DIFFERS = "#ffd400", "#ff3d7f"


def draw(
    reference: FloatArray | Image,
    before: FloatArray | Image,
    after: FloatArray | Image,
    alignment: Alignment,
    path: Path,
) -> None:
    """Draw what co-registration did, as a PNG; of a scene with one sensor only, its image.

    Args:
        reference: Optical image, C x H x W or H x W; NaN is no data. Or an image read by windows. Of three bands or
            more the first three are shown as blue, green and red; otherwise the first.
        before: SAR image on the same grid as delivered, B x H x W or H x W.
        after: SAR image on the same grid as corrected.
        alignment: What was found.
        path: Where to write.
    """
    step = max(1, -(-max(as_image(reference).shape[1:]) // PANEL))
    optical = decimate(as_image(reference), step)
    single = alignment.status == "single_sensor"
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(7.0, 6.0) if single else (13.0, 12.5), layout="constrained")
        if single:
            alone = decimate(as_image(after), step)[:1] if np.isnan(optical).all() else optical
            _panels(figure, [_colours(alone)])
        else:
            sar = [_colours(decimate(as_image(image), step)[:1]) for image in (before, after)]
            shown = _colours(optical)
            grey = np.repeat(0.25 + 0.6 * shown.mean(axis=2, keepdims=True), 3, axis=2)
            axes = _panels(figure, [*(_checkerboard(shown, image) for image in sar), grey, grey], rows=2)
            for axis, title in zip(axes, ("As delivered", "As corrected"), strict=False):
                axis.set_title(f"{title}: optical and SAR in turn")
            _arrows(axes[2], alignment, step)
            _residuals(axes[3], alignment, step)
        figure.suptitle(fill(f"{alignment.status.replace('_', ' ')}: {alignment.reason}", 110))
        picture = BytesIO()
        FigureCanvasAgg(figure).print_png(picture)
    write_bytes(path, picture.getvalue())


def _panels(figure: Figure, images: Sequence[FloatArray], rows: int = 1) -> list[Axes]:
    """One panel an image (H x W x 3), in so many rows."""
    axes = list(figure.subplots(rows, len(images) // rows, squeeze=False).flat)
    for axis, image in zip(axes, images, strict=True):
        axis.imshow(image, interpolation="nearest")
        axis.set_axis_off()
    return axes


def _colours(image: FloatArray) -> FloatArray:
    """H x W x 3 in 0..1 of C x H x W, each band stretched to its display range; no data is black."""
    chosen = image[[2, 1, 0]] if len(image) >= 3 else image[[0, 0, 0]]
    shown = np.zeros_like(chosen, dtype=np.float32)
    for target, band in zip(shown, chosen, strict=True):
        valid = np.isfinite(band)
        if valid.any():
            low, high = display_range(band[valid])
            target[valid] = np.clip((band[valid] - low) / (high - low), 0.0, 1.0)
    return shown.transpose(1, 2, 0)


def _checkerboard(first: FloatArray, second: FloatArray) -> FloatArray:
    """Squares of two pictures in turn, so that lines which cross from one to the other show how well they meet."""
    height, width = first.shape[:2]
    side = max(1, -(-max(height, width) // SQUARES))
    rows, cols = np.mgrid[:height, :width] // side
    return np.where(((rows + cols) % 2 == 0)[..., None], first, second)


def _arrows(axis: Axes, alignment: Alignment, step: int) -> None:
    """Control points as arrows from the optical to the SAR position, lengthened to be seen, with a scale."""
    if not alignment.points:
        axis.set_title("No control point could be matched reliably")
        return
    x, y, dx, dy, agrees = np.array(alignment.points).T
    typical = float(np.median(np.hypot(dx, dy)))
    longest = max(typical, 0.25)
    right, bottom = axis.get_xlim()[1], axis.get_ylim()[0]
    stretch = 0.05 * max(right, bottom) / longest
    for wanted, colour, name in ((1, AGREES, "agree"), (0, DIFFERS, "do not agree")):
        chosen = agrees == wanted
        label = f"{int(chosen.sum())} {name}"
        style = {"angles": "xy", "scale_units": "xy", "scale": 1.0, "width": 0.0022, "color": colour, "label": label}
        tip_x, tip_y = dx[chosen] * stretch, dy[chosen] * stretch
        arrows = axis.quiver(x[chosen] / step, y[chosen] / step, tip_x, tip_y, **style)
    key = float(f"{longest:.1g}")
    place = {"labelpos": "E", "coordinates": "axes", "color": AGREES, "labelcolor": "white"}
    axis.quiverkey(arrows, 0.06, 0.03, key * stretch, f"{key:g} px", **place)
    axis.set_title(f"{len(x)} control points, arrows {stretch * step:.0f} times enlarged")
    axis.legend(loc="upper right", fontsize=8, framealpha=0.85)


def _residuals(axis: Axes, alignment: Alignment, step: int) -> None:
    """What is left at agreeing control points after the correction, as coloured dots."""
    points = np.array([p for p in alignment.points if p[4]]).reshape(-1, 5)
    if not len(points):
        axis.set_title("No control point agrees with its neighbours")
        return
    source, found = points[:, :2], points[:, :2] + points[:, 2:4]
    left = np.hypot(*(found - alignment.where(source)).T)
    size = float(np.clip(40_000 / len(points), 12, 120))
    style = {"c": left, "s": size, "cmap": "viridis", "vmin": 0.0, "vmax": max(float(np.quantile(left, 0.95)), 0.5)}
    dots = axis.scatter(*(source / step).T, **style, edgecolors="black", linewidths=0.4)
    axis.figure.colorbar(dots, ax=axis, shrink=0.8, extend="max", label="pixels")
    axis.set_title(f"Left after correction at {len(points)} points: median {np.median(left):.2f} px")
