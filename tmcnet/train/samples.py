"""Labelled batches for fine-tuning, each a function of the seed and the step alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tmcnet.config import IGNORE, FinetuneSettings, SensorsConfig
from tmcnet.config.base import only_modality
from tmcnet.config.data import SensorKind
from tmcnet.dataset.loading import TileDataset
from tmcnet.dataset.photometric import change_by_sensor
from tmcnet.errors import InputError, Problem
from tmcnet.evaluate.metrics import Counts
from tmcnet.seeding import generator
from tmcnet.train.loop import indices_of_step

MAX_CLASS_WEIGHT = 10.0
"""Maximum weight of a class relative to the average pixel."""
SCALED_SHARE = 0.5
"""Share of crops that are scaled; the others are not interpolated."""
SCALE_RANGE = (0.8, 1.25)
"""Range of the scale jitter: magnification of the tile in a crop."""
MAX_PIXEL_ERROR = 1e-6
"""Distance to a whole pixel that counts as rounding."""
PASTED_SIDES = (0.3, 0.8)
"""Range of the sides of a pasted rectangle (CutMix), as shares of those of the crop."""


class Crop(NamedTuple):
    """An augmented crop of a labelled tile.

    Attributes:
        images: C x S x S of each modality.
        label: S x S int64, `IGNORE` for void.
        tile: Number of the tile in its dataset.
        placement: Place of the crop in the tile.
        hidden: The modality that it lacks, or None.
        pasted: Another crop, and the rows and columns of it that were pasted over this one; None: nothing was.
    """

    images: dict[str, Tensor]
    label: Tensor
    tile: int
    placement: Placement
    hidden: str | None
    pasted: tuple[Crop, slice, slice] | None = None


class Batch(NamedTuple):
    """Augmented crops of labelled tiles.

    Attributes:
        names: Their tiles.
        images: N x C x S x S of each modality.
        label: N x S x S int64, `IGNORE` for void.
        crops: The crops that the batch is made of.
    """

    names: list[str]
    images: dict[str, Tensor]
    label: Tensor
    crops: list[Crop]


@dataclass(frozen=True)
class BatchBuilder:
    """Make the batch of a step. With sparse labels, every crop contains at least one labelled pixel.

    Attributes:
        tiles: The labelled tiles of the run.
        config: Batch size, crop size and modality dropout.
        sensors: Kinds of the sensors, which decide the photometric augmentation.
        network: Name of the network.
        seed: Seed of all draws.
        share: Places in the batch that this process makes; None: all. A place does not depend on their number.
    """

    tiles: TileDataset
    config: FinetuneSettings
    sensors: SensorsConfig
    network: str
    seed: int
    share: range | None = None

    def __call__(self, step: int) -> Batch:
        """Return the batch of a step, counted from 0."""
        chosen = indices_of_step(len(self.tiles), self.config.batch_size, self.seed, step)
        places = range(len(chosen)) if self.share is None else self.share
        crops = [self._sample(chosen, place, generator(self.seed, "finetune", step, place)) for place in places]
        stacked = {name: torch.stack([crop.images[name] for crop in crops]) for name in self.sensors}
        names = [self.tiles.names[crop.tile] for crop in crops]
        return Batch(names, stacked, torch.stack([crop.label for crop in crops]), crops)

    def _sample(self, chosen: Sequence[int], place: int, random: np.random.Generator) -> Crop:
        """Return the crop of a place in the batch; with `cutmix`, a part of a crop of the next tile may cover it."""
        crop = self._crop(chosen[place], random)
        if self.config.cutmix == 0 or random.random() >= self.config.cutmix:
            return crop
        other = self._crop(chosen[(place + 1) % len(chosen)], random)
        size = self.config.crop_size
        sides = [round(size * random.uniform(*PASTED_SIDES)) for _ in range(2)]
        rows, columns = (slice(at, at + side) for side, at in ((s, random.integers(0, size - s + 1)) for s in sides))
        for mine, pasted in ((crop.label, other.label), *((crop.images[n], other.images[n]) for n in self.sensors)):
            mine[..., rows, columns] = pasted[..., rows, columns]
        return crop._replace(pasted=(other, rows, columns))

    def _crop(self, index: int, random: np.random.Generator) -> Crop:
        """Return an augmented crop of a tile."""
        tile, size = self.tiles[index], self.config.crop_size
        placement = draw_placement(tile.truth.shape[0], tile.truth.shape[1], size, random)
        if self.tiles.points is not None:
            placement = over_a_point(placement, tile.truth, size, random)
        rows, columns = placement.covers(tile.size)
        inside = replace(placement, top=placement.top - rows.start, left=placement.left - columns.start)
        images = {
            name: take(self._change(tile.images[name][:, rows, columns], sensor.kind, random), inside, size)
            for name, sensor in self.sensors.items()
        }
        hidden = self._hidden_modality(random)
        if hidden is not None:
            images[hidden].zero_()
        return Crop(images, take_label(tile.truth[rows, columns], inside, size), index, placement, hidden)

    def _change(self, image: Tensor, kind: SensorKind, random: np.random.Generator) -> Tensor:
        """Apply the photometric augmentation of pre-training; no data (0 in all bands) stays no data."""
        has_data = (image != 0).any(dim=0)
        changed = change_by_sensor(image, kind, random, self.tiles.normalisation.clip, self.config.photometric)
        return changed * has_data

    def _hidden_modality(self, random: np.random.Generator) -> str | None:
        """Return a random modality to set to no data with probability `modality_dropout`, else None."""
        hides, which = random.random() < self.config.modality_dropout, int(random.random() * len(self.sensors))
        return list(self.sensors)[which] if hides and only_modality(self.network) is None else None


def over_a_point(placement: Placement, label: Tensor, crop: int, random: np.random.Generator) -> Placement:
    """Move a crop so that it contains a random labelled pixel of a label (H x W); scale, turns and flip stay.

    A crop that shrinks the tile skips pixels. It is shifted by up to half of its own pixels to centre one on the
    labelled pixel, and may reach past an edge of the tile by as much.
    """
    labelled = torch.nonzero(label != IGNORE)
    row, col = (int(i) for i in labelled[int(random.integers(len(labelled)))])
    top, left = (
        _offset_over(pixel, length, placement.side, crop, random)
        for pixel, length in zip((row, col), label.shape, strict=True)
    )
    return replace(placement, top=top, left=left)


def _offset_over(pixel: int, length: int, side: float, crop: int, random: np.random.Generator) -> float:
    """Return the first row (or column) of a crop with a pixel centred on the given one of the tile."""
    low, high = sorted((0.0, length - side))
    first = random.uniform(max(low, pixel + 1 - side), min(high, pixel))
    centre, step = pixel + 0.5, side / crop
    return centre - (math.floor((centre - first) / step) + 0.5) * step


def class_counts(tiles: TileDataset, classes: int) -> Counts:
    """Count the labelled pixels of each class over all tiles.

    Raises:
        InputError: If no pixel is labelled, or a label has ids that are not classes.
    """
    counts = np.zeros(256, dtype=np.int64)
    problems = []
    for index, name in enumerate(tiles.names):
        of_tile = np.bincount(tiles[index].truth.numpy().ravel(), minlength=256)
        if of_tile[classes:IGNORE].any():
            foreign = [int(i) for i in np.flatnonzero(of_tile[:IGNORE]) if i >= classes]
            problems.append(Problem(name, f"its label has ids {foreign}; there are {classes} classes", "Tile again."))
        counts += of_tile
    if not problems and counts[:classes].sum() == 0:
        remedy = "Check the labels, or take a larger label fraction."
        problems.append(Problem(str(tiles.store.root), "no pixel of the chosen tiles is labelled", remedy))
    if problems:
        raise InputError(problems)
    return np.asarray(counts[:classes])


def class_weights(counts: Counts) -> Tensor:
    """Return weights by the inverse square root of the frequency of K classes; the average labelled pixel weighs 1.

    They are at most `MAX_CLASS_WEIGHT`, and 1 for classes without pixels.
    """
    shares = counts / counts.sum()
    weights = np.ones(len(counts))
    seen = shares > 0
    weights[seen] = shares[seen] ** -0.5
    weights[seen] /= (shares[seen] * weights[seen]).sum()
    return torch.from_numpy(np.minimum(weights, MAX_CLASS_WEIGHT)).float()


@dataclass(frozen=True)
class Placement:
    """Position and orientation of a crop in its tile.

    Attributes:
        top: First row of the crop in the tile, in pixels; may be fractional or negative.
        left: First column.
        side: Rows and columns of the tile that the crop covers, in pixels.
        turns: Right-angle turns.
        flip: Whether the crop is mirrored before it is turned.
    """

    top: float
    left: float
    side: float
    turns: int
    flip: bool

    def whole_pixels(self, crop: int) -> tuple[int, int] | None:
        """First row and column of a crop that needs no interpolation, else None."""
        top, left = round(self.top), round(self.left)
        exact = self.side == crop and max(abs(self.top - top), abs(self.left - left)) < MAX_PIXEL_ERROR
        return (top, left) if exact else None

    def covers(self, size: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of a tile of a size that a crop is interpolated from."""
        ranges = []
        for first, length in zip((self.top, self.left), size, strict=True):
            more = not (first.is_integer() and self.side.is_integer())  # the neighbours in between
            ranges.append(slice(max(math.floor(first) - more, 0), min(math.ceil(first + self.side) + more, length)))
        return ranges[0], ranges[1]


def draw_placement(height: int, width: int, crop: int, random: np.random.Generator) -> Placement:
    """Draw a crop of a tile, inside it if it fits; otherwise it covers the tile and the rest is empty."""
    scaled = random.random() < SCALED_SHARE
    scale = float(np.exp(random.uniform(*np.log(SCALE_RANGE)))) if scaled else 1.0
    side = float(crop / scale)
    top, left = (_offset(length, side, scaled, random) for length in (height, width))
    return Placement(top, left, side, int(random.integers(4)), bool(random.integers(2)))


def _offset(length: int, side: float, scaled: bool, random: np.random.Generator) -> float:
    low, high = sorted((0.0, length - side))
    if scaled:
        return float(random.uniform(low, high))
    return float(random.integers(int(low), int(high) + 1))  # whole pixels, so that nothing is interpolated


def take(image: Tensor, placement: Placement, crop: int, mode: str = "bilinear") -> Tensor:
    """Cut a crop out of an image, C x H x W: C x crop x crop, 0 (no data) outside the tile."""
    if (corner := placement.whole_pixels(crop)) is not None:
        return _turn(_cut(image, *corner, crop), placement)
    grid = _grid(image.shape[-2], image.shape[-1], placement, crop)
    return F.grid_sample(image[None], grid.to(image), mode=mode, padding_mode="zeros", align_corners=False)[0]


def take_label(label: Tensor, placement: Placement, crop: int) -> Tensor:
    """Cut a crop out of a label, H x W int64, by the nearest pixel: crop x crop, `IGNORE` outside the tile."""
    shifted = (label - IGNORE).float()  # so that zeros outside the tile become void
    return take(shifted[None], placement, crop, "nearest")[0].round().long() + IGNORE


def _cut(image: Tensor, top: int, left: int, crop: int) -> Tensor:
    """Cut a square out of ... x H x W, filled with 0 outside."""
    height, width = image.shape[-2:]
    inside = image[..., max(top, 0) : top + crop, max(left, 0) : left + crop]
    beyond = (max(-left, 0), max(left + crop - width, 0), max(-top, 0), max(top + crop - height, 0))
    return F.pad(inside, beyond) if any(beyond) else inside


def _turn(image: Tensor, placement: Placement) -> Tensor:
    """Mirror and turn ... x H x W as the crop is."""
    return torch.rot90(image.flip(-1) if placement.flip else image, placement.turns, (-2, -1))


@lru_cache(maxsize=4)  # all modalities and the label have the same
def _grid(height: int, width: int, placement: Placement, crop: int) -> Tensor:
    """Return 1 x crop x crop x 2 positions (x, y), -1..1 between the outer edges of the tile."""
    centres = (torch.arange(crop, dtype=torch.float64) + 0.5) / crop * placement.side
    ys = (centres + placement.top) / height * 2 - 1
    xs = (centres + placement.left) / width * 2 - 1
    grid = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1)
    if placement.flip:
        grid = grid.flip(1)
    return torch.rot90(grid, placement.turns, (0, 1)).float()[None]
