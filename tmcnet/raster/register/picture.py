"""Draw a co-registration: checkerboards of the two images before and after, tie points and residuals."""

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

from tmcnet.raster.io.files import FloatArray
from tmcnet.raster.io.radiometry import display_range
from tmcnet.raster.io.windowed import Image, as_image, decimate
from tmcnet.raster.io.writer import write_bytes
from tmcnet.raster.register.alignment import Alignment

MAX_PANEL_PX = 900  # larger images are decimated to this side
SQUARES = 9  # squares of the checkerboard along the longer side
INLIER_COLOUR, OUTLIER_COLOUR = "#ffd400", "#ff3d7f"
_PNG_LEVEL = 3  # compression of the PNG: written five times as fast as at the default, and not larger


def draw(
    reference: FloatArray | Image,
    before: FloatArray | Image,
    after: FloatArray | Image,
    alignment: Alignment,
    path: Path,
) -> None:
    """Draw a co-registration as a PNG; for a scene with one sensor only, its image.

    Images are C x H x W or H x W with NaN for no data, or read by windows. The first three bands of the optical
    `reference` are shown as blue, green and red; with fewer, the first one. `before` and `after` are the SAR image on
    the same grid as delivered and corrected.
    """
    step = max(1, -(-max(as_image(reference).shape[1:]) // MAX_PANEL_PX))
    optical = decimate(as_image(reference), step)
    single = alignment.status == "single_sensor"
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(7.0, 6.0) if single else (13.0, 12.5), layout="constrained")
        if single:
            image = decimate(as_image(after), step)[:1] if np.isnan(optical).all() else optical
            _panels(figure, [_colours(image)])
        else:
            images = (after,) if before is after else (before, after)
            sar = [_colours(decimate(as_image(image), step)[:1]) for image in images]
            shown = _colours(optical)
            grey = np.repeat(0.25 + 0.6 * shown.mean(axis=2, keepdims=True), 3, axis=2)
            axes = _panels(figure, [_checkerboard(shown, sar[0]), _checkerboard(shown, sar[-1]), grey, grey], rows=2)
            for axis, title in zip(axes, ("As delivered", "Corrected"), strict=False):
                axis.set_title(f"{title}: optical and SAR")
            _draw_displacements(axes[2], alignment, step)
            _draw_residuals(axes[3], alignment, step)
        figure.suptitle(fill(f"{alignment.status.replace('_', ' ')}: {alignment.reason}", 110))
        picture = BytesIO()
        FigureCanvasAgg(figure).print_png(picture, pil_kwargs={"compress_level": _PNG_LEVEL})
    write_bytes(path, picture.getvalue())


def _panels(figure: Figure, images: Sequence[FloatArray], rows: int = 1) -> list[Axes]:
    # the layout would measure ticks although they are not drawn
    without_ticks: dict[str, Sequence[float]] = {"xticks": [], "yticks": []}
    axes = list(figure.subplots(rows, len(images) // rows, squeeze=False, subplot_kw=without_ticks).flat)
    for axis, image in zip(axes, images, strict=True):
        axis.imshow(image, interpolation="nearest")
        axis.set_axis_off()
    return axes


def _colours(image: FloatArray) -> FloatArray:
    """H x W x 3 in 0..1 from C x H x W, each band stretched to its display range; no data is black."""
    chosen = image[[2, 1, 0]] if len(image) >= 3 else image[[0, 0, 0]]
    shown = np.zeros_like(chosen, dtype=np.float32)
    for target, band in zip(shown, chosen, strict=True):
        valid = np.isfinite(band)
        if valid.any():
            low, high = display_range(band[valid])
            target[valid] = np.clip((band[valid] - low) / (high - low), 0.0, 1.0)
    return shown.transpose(1, 2, 0)


def _checkerboard(first: FloatArray, second: FloatArray) -> FloatArray:
    """Alternate squares of two pictures: lines that cross their edges show misregistration."""
    height, width = first.shape[:2]
    side = max(1, -(-max(height, width) // SQUARES))
    rows, cols = np.mgrid[:height, :width] // side
    return np.where(((rows + cols) % 2 == 0)[..., None], first, second)


def _draw_displacements(axis: Axes, alignment: Alignment, step: int) -> None:
    """Tie points as magnified arrows from the optical to the SAR position, with a scale."""
    if not alignment.points:
        axis.set_title("No reliable tie points")
        return
    x, y, dx, dy, inlier = np.array(alignment.points).T
    length = max(float(np.median(np.hypot(dx, dy))), 0.25)
    right, bottom = axis.get_xlim()[1], axis.get_ylim()[0]
    magnification = 0.05 * max(right, bottom) / length
    for flag, colour, name in ((1, INLIER_COLOUR, "inliers"), (0, OUTLIER_COLOUR, "outliers")):
        chosen = inlier == flag
        label = f"{int(chosen.sum())} {name}"
        style = {"angles": "xy", "scale_units": "xy", "scale": 1.0, "width": 0.0022, "color": colour, "label": label}
        tip_x, tip_y = dx[chosen] * magnification, dy[chosen] * magnification
        arrows = axis.quiver(x[chosen] / step, y[chosen] / step, tip_x, tip_y, **style)
    key = float(f"{length:.1g}")
    place = {"labelpos": "E", "coordinates": "axes", "color": INLIER_COLOUR, "labelcolor": "white"}
    axis.quiverkey(arrows, 0.06, 0.03, key * magnification, f"{key:g} px", **place)
    axis.set_title(f"{len(x)} tie points, displacements magnified {magnification * step:.0f} times")
    axis.legend(loc="upper right", fontsize=8, framealpha=0.85)


def _draw_residuals(axis: Axes, alignment: Alignment, step: int) -> None:
    points = np.array([p for p in alignment.points if p[4]]).reshape(-1, 5)
    if not len(points):
        axis.set_title("No inliers")
        return
    source, target = points[:, :2], points[:, :2] + points[:, 2:4]
    residual = np.hypot(*(target - alignment.where(source)).T)
    size = float(np.clip(40_000 / len(points), 12, 120))
    top = max(float(np.quantile(residual, 0.95)), 0.5)
    style = {"c": residual, "s": size, "cmap": "viridis", "vmin": 0.0, "vmax": top}
    dots = axis.scatter(*(source / step).T, **style, edgecolors="black", linewidths=0.4)
    axis.figure.colorbar(dots, ax=axis, shrink=0.8, extend="max", label="pixels")
    axis.set_title(f"Residuals at {len(points)} inliers: median {np.median(residual):.2f} px")
