"""Pictures that stand with a run in MLflow: the confusion matrix, and a few of the maps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tmcnet.classes import ClassTable
from tmcnet.report.pictures import paint_classes
from tmcnet.report.svg import canvas
from tmcnet.report.thinning import read_thinned_classes

_LONGEST = 600


def confusion_picture(matrix: list[list[int]], names: list[str]) -> Image.Image:
    """Confusion matrix as a picture: rows are true classes and sum to 100 %.

    Args:
        matrix: K x K counts of pixels, rows truth.
        names: The K classes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    counts = np.array(matrix, dtype=float)
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(3.0 + 0.45 * len(names), 12.0)
    with canvas(side, side - 0.8) as figure:
        drawn = FigureCanvasAgg(figure)
        axes = figure.axes[0]
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        for row, col in np.ndindex(shares.shape):
            color = "white" if shares[row, col] > 55 else "#222222"
            axes.text(col, row, f"{shares[row, col]:.0f}", ha="center", va="center", color=color)
        axes.set_xticks(np.arange(len(names)), names, rotation=40, ha="right")
        axes.set_yticks(np.arange(len(names)), names)
        axes.set(xlabel="predicted", ylabel="truth", title="% of each true class")
        axes.grid(visible=False)
        drawn.draw()
        return Image.fromarray(np.asarray(drawn.buffer_rgba())).convert("RGB")


def map_pictures(maps: dict[str, Path], classes: ClassTable) -> Iterator[tuple[str, Image.Image]]:
    """Maps in the colours of their classes, thinned to what a screen shows, by scene."""
    for scene, path in maps.items():
        ids = read_thinned_classes(path, _LONGEST)
        if ids is not None:
            yield scene, Image.fromarray(paint_classes(ids, classes))
