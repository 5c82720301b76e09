"""Class probabilities of whole scenes: overlapping windows, blended smoothly, one row of windows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tmcnet.config import MapsConfig
from tmcnet.evaluate import blending
from tmcnet.evaluate.predict import Probabilities, probabilities
from tmcnet.evaluate.trained import Trained
from tmcnet.raster.io import Grid, read_float, read_grid


@dataclass(frozen=True)
class SceneImages:
    """The two images of a scene, on one grid.

    Attributes:
        name: Name of the scene.
        optical: The optical image.
        sar: The SAR image.
    """

    name: str
    optical: Path
    sar: Path


@dataclass(frozen=True)
class Strip:
    """Finished rows of a scene.

    Attributes:
        top: First row.
        probabilities: K x rows x W float32.
        valid: rows x W; False where no band of either sensor holds data.
    """

    top: int
    probabilities: Probabilities
    valid: NDArray[np.bool_]


def predict_scene(trained: Trained, scene: SceneImages, config: MapsConfig) -> Iterator[Strip]:
    """Class probabilities of a scene from top to bottom, in strips that never overlap and leave no row out.

    Every row of windows is read, predicted and added to a buffer of one window's height; the rows that no further
    window touches are divided by the sum of their weights and handed out.

    Args:
        trained: The network.
        scene: The images.
        config: Window, overlap, batch size and rotations.
    """
    grid = read_grid(scene.optical)
    height, width = (blending.extent(length, config.window) for length in (grid.height, grid.width))
    lefts = blending.starts(grid.width, config.window, config.overlap)
    tops = blending.starts(grid.height, config.window, config.overlap)
    across = blending.total(grid.width, config.window, config.overlap)
    down = blending.total(grid.height, config.window, config.overlap)
    weights = np.outer(blending.taper(height, config.overlap), blending.taper(width, config.overlap))

    buffer = np.zeros((len(trained.classes), height, grid.width), np.float32)
    for top, following in zip(tops, [*tops[1:], grid.height], strict=True):
        optical, sar, valid = _read_rows(trained, scene, grid, top, height)
        for left, found in _predict_windows(trained, optical, sar, lefts, width, config):
            buffer[..., left : left + width] += found * weights
        done = following - top
        finished = buffer[:, :done] / (down[top:following, None] * across)
        yield Strip(top, finished, valid[:done])
        buffer[:, : height - done] = buffer[:, done:].copy()
        buffer[:, height - done :] = 0


def _read_rows(
    trained: Trained, scene: SceneImages, grid: Grid, top: int, height: int
) -> tuple[torch.Tensor, torch.Tensor, NDArray[np.bool_]]:
    """Normalised bands of both sensors over the full width, and where either of them holds any data."""
    box = (top, 0, height, grid.width)
    optical, sar = read_float(scene.optical, box), read_float(scene.sar, box)
    valid = np.asarray(np.isfinite(optical).any(axis=0) | np.isfinite(sar).any(axis=0))
    scaling = trained.normalisation
    images = scaling.apply(optical, "optical"), scaling.apply(sar, "sar")
    return torch.from_numpy(images[0]), torch.from_numpy(images[1]), valid


def _predict_windows(
    trained: Trained,
    optical: torch.Tensor,
    sar: torch.Tensor,
    lefts: Sequence[int],
    width: int,
    config: MapsConfig,
) -> Iterator[tuple[int, Probabilities]]:
    """First column and probabilities (K x h x w) of each window of a row."""
    for first in range(0, len(lefts), config.batch_size):
        batch = lefts[first : first + config.batch_size]
        windows_o, windows_s = (torch.stack([x[..., left : left + width] for left in batch]) for x in (optical, sar))
        found = probabilities(trained.network, windows_o, windows_s, config.rotations)
        yield from zip(batch, found.cpu().numpy(), strict=True)
