"""Geometric augmentation for fine-tuning: one draw moves the images of all modalities and the label together.

Crop, scale, flips and right-angle turns are one map from pixels of the crop to positions in the tile. Images are
sampled bilinearly, labels by the nearest pixel, through the same map, so that the three stay registered and no class
id is ever invented.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tmcnet.config import IGNORE

SCALES = (0.8, 1.25)
"""Range of the scale jitter: a crop shows the tile that much larger."""

SCALED_SHARE = 0.5
"""Share of crops that are scaled at all; the others keep every pixel as it is."""


@dataclass(frozen=True)
class Placement:
    """Where a crop lies in its tile.

    Attributes:
        top: First row of the crop in the tile, in pixels; may be fractional or negative.
        left: First column.
        side: Rows and columns of the tile that the crop covers.
        turns: Right-angle turns.
        flip: Whether the crop is mirrored before it is turned.
    """

    top: float
    left: float
    side: float
    turns: int
    flip: bool


def draw_placement(height: int, width: int, crop: int, random: np.random.Generator) -> Placement:
    """Draw a crop of a tile.

    The crop lies inside the tile where it fits; else it covers the tile and the rest of it is empty.

    Args:
        height: Rows of the tile.
        width: Columns of the tile.
        crop: Rows and columns of the crop.
        random: Generator of this sample.
    """
    scaled = random.random() < SCALED_SHARE
    scale = float(np.exp(random.uniform(*np.log(SCALES)))) if scaled else 1.0
    side = crop / scale
    top, left = (_offset(length, side, scaled, random) for length in (height, width))
    return Placement(top, left, side, int(random.integers(4)), bool(random.integers(2)))


def _offset(length: int, side: float, scaled: bool, random: np.random.Generator) -> float:
    low, high = sorted((0.0, length - side))
    if scaled:
        return float(random.uniform(low, high))
    return float(random.integers(int(low), int(high) + 1))  # whole pixels, so that nothing is interpolated


def take(image: Tensor, placement: Placement, crop: int) -> Tensor:
    """Cut a crop out of an image, bilinearly.

    Args:
        image: C x H x W.
        placement: Where the crop lies.
        crop: Its side in pixels.

    Returns:
        C x crop x crop, 0 (no data) outside the tile.
    """
    grid = _grid(image.shape[-2], image.shape[-1], placement, crop)
    return F.grid_sample(image[None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]


def take_label(label: Tensor, placement: Placement, crop: int) -> Tensor:
    """Cut a crop out of a label, by the nearest pixel.

    Args:
        label: H x W int64.
        placement: Where the crop lies.
        crop: Its side in pixels.

    Returns:
        crop x crop int64, `IGNORE` outside the tile.
    """
    grid = _grid(label.shape[0], label.shape[1], placement, crop)
    # ids are shifted so that the zeros which are sampled outside the tile mean void
    shifted = (label - IGNORE).float()[None, None]
    found = F.grid_sample(shifted, grid, mode="nearest", padding_mode="zeros", align_corners=False)[0, 0]
    return found.round().long() + IGNORE


def _grid(height: int, width: int, placement: Placement, crop: int) -> Tensor:
    """1 x crop x crop x 2 positions (x, y) in -1..1 between the outer edges of the tile."""
    centres = (torch.arange(crop, dtype=torch.float64) + 0.5) / crop * placement.side
    ys = (centres + placement.top) / height * 2 - 1
    xs = (centres + placement.left) / width * 2 - 1
    grid = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1)
    if placement.flip:
        grid = grid.flip(1)
    return torch.rot90(grid, placement.turns, (0, 1)).float()[None]
