"""Class probabilities of whole scenes: overlapping windows, blended smoothly, one row of windows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tmcnet.config import MapsConfig
from tmcnet.config.modalities import only_modality
from tmcnet.evaluate import blending
from tmcnet.evaluate.blending import Span
from tmcnet.evaluate.predict import Probabilities, probabilities
from tmcnet.evaluate.trained import Trained
from tmcnet.raster.io.geometry import Grid
from tmcnet.raster.io.reader import read_float, read_grid


@dataclass(frozen=True)
class SceneImages:
    """The images of a scene, on one grid.

    Attributes:
        name: Name of the scene.
        images: The image of each modality by name.
    """

    name: str
    images: dict[str, Path]

    @property
    def grid(self) -> Grid:
        """The grid of all images."""
        return read_grid(next(iter(self.images.values())))


@dataclass(frozen=True)
class Strip:
    """Finished rows of a scene.

    Attributes:
        top: First row.
        probabilities: K x rows x W float32.
        valid: rows x W; False where no band of what the network looks at holds data. Of networks that take all
            modalities, optical and SAR alone count: a DEM beyond the imagery holds too little to map by.
    """

    top: int
    probabilities: Probabilities
    valid: NDArray[np.bool_]


def predict_scene(trained: Trained, scene: SceneImages, config: MapsConfig) -> Iterator[Strip]:
    """Class probabilities of a scene from top to bottom, in strips that never overlap and leave no row out.

    Every window of a row is read, predicted and added to a buffer of one window's height; the rows that no later
    window touches are handed out.

    Args:
        trained: The network.
        scene: The images.
        config: Window, overlap, batch size and test-time copies.
    """
    grid = scene.grid
    down = blending.spans(grid.height, config.window, config.overlap)
    across = blending.spans(grid.width, config.window, config.overlap)
    buffer = np.zeros((len(trained.classes), down[0].size, grid.width), np.float32)
    valid = np.zeros((down[0].size, grid.width), bool)
    for row, following in zip(down, [*(span.start for span in down[1:]), grid.height], strict=True):
        fall = blending.taper(row, config.overlap)[:, None]
        for window, found in _predict_row(trained, scene, row, across, config):
            place = slice(row.size), slice(window.span.start, window.span.stop)
            buffer[:, *place] += found * (fall * blending.taper(window.span, config.overlap))
            valid[place] = window.valid
        done, left = following - row.start, row.stop - following
        yield Strip(row.start, buffer[:, :done].copy(), valid[:done].copy())
        buffer[:, :left] = buffer[:, done : row.size].copy()
        buffer[:, left:] = 0


@dataclass(frozen=True)
class _Window:
    """What a window shows: normalised bands of all modalities, and where those that are looked at hold data."""

    span: Span
    images: dict[str, torch.Tensor]
    valid: NDArray[np.bool_]


def _read(trained: Trained, scene: SceneImages, row: Span, span: Span) -> _Window:
    box = (row.start, span.start, row.size, span.size)
    scaling, only = trained.normalisation, only_modality(trained.run.network)
    images = {name: read_float(scene.images[name], box) for name in scaling}
    used = ("optical", "sar") if only is None else (only,)
    valid = np.logical_or.reduce([np.isfinite(images[name]).any(axis=0) for name in used])
    scaled = {name: torch.from_numpy(scaling.apply(image, name)) for name, image in images.items()}
    return _Window(span, scaled, valid)


def _predict_row(
    trained: Trained, scene: SceneImages, row: Span, across: Sequence[Span], config: MapsConfig
) -> Iterator[tuple[_Window, Probabilities]]:
    """Each window of a row with its probabilities, K x h x w; the last one may be narrower and then goes alone."""
    for _, group in groupby(across, key=lambda span: span.size):
        alike = list(group)
        for first in range(0, len(alike), config.batch_size):
            windows = [_read(trained, scene, row, span) for span in alike[first : first + config.batch_size]]
            images = {name: torch.stack([w.images[name] for w in windows]) for name in windows[0].images}
            found = probabilities(trained.network, images, config.test_time)
            yield from zip(windows, found.cpu().numpy(), strict=True)
