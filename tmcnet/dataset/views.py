"""Two views of each tile pair and the patches they share: the input of pre-training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tmcnet.config import PretrainConfig, SensorsConfig
from tmcnet.config.pretraining import VARIANTS
from tmcnet.config.training import Variant
from tmcnet.dataset.correspondence import IntArray, View, draw_patches, patch_range
from tmcnet.dataset.loading import Tile
from tmcnet.dataset.photometric import PublishedDraw, corrected, hue_turn, published
from tmcnet.seeding import generator

CROP_TRIES = 5
CROP_AREA_SHARE = (0.4, 1.0)
"""Range of the area of a crop as a share of the tile, as published."""
VIEW_TRIES = 10
COLOURS = ("red", "green", "blue")
"""Names of the bands whose hue may turn."""
RATIO = (3 / 4, 4 / 3)
"""Range of the width of a crop over its height."""
SMOOTHED_FROM = 1.25
"""Reduction from which a crop is smoothed before it is resampled; below it, smoothing costs more than it saves."""


class ViewBatch(NamedTuple):
    """Two views of N tile pairs.

    Attributes:
        names: Names of the tiles.
        views: Views 1 and 2 of each modality, N x C x S x S, all on the same pixels.
        corners: First (x, y) of each patch in view 1 and in view 2, N x P x 2 int64.
    """

    names: list[str]
    views: dict[str, tuple[Tensor, Tensor]]
    corners: tuple[Tensor, Tensor]


def _draw_crop(rng: np.random.Generator, height: int, width: int, config: PretrainConfig) -> View:
    """A random resized crop smaller than the tile; after a few tries the middle square."""
    for _ in range(CROP_TRIES):
        area = rng.uniform(*CROP_AREA_SHARE) * height * width
        ratio = rng.uniform(*RATIO)
        w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if rng.random() < 0.5:
            w, h = h, w
        if 0 < w < width and 0 < h < height:
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            return View(int(top), int(left), h, w, config.crop_size)
    side = min(height, width)
    return View((height - side) // 2, (width - side) // 2, side, side, config.crop_size)


def _oriented(rng: np.random.Generator, crop: View) -> View:
    """Flip (horizontal, vertical, both, or none at twice the chance) and, four times in five, turn."""
    flip = int(rng.integers(5))
    turns = int(rng.integers(4)) if rng.random() < 0.8 else 0
    return View(crop.top, crop.left, crop.height, crop.width, crop.size, flip in (0, 2), flip in (1, 2), turns)


def draw_views(
    rng: np.random.Generator, height: int, width: int, config: PretrainConfig, variant: Variant
) -> tuple[View, View]:
    """Draw two views of a tile that share room for the patches.

    View 2 is flipped and turned; view 1 too in `corrected`, where the published pair is lopsided. Pairs that share
    too little are drawn again; after some tries view 2 takes the crop of view 1, which always leaves room.

    Args:
        rng: Source of the draws.
        height: Rows of the tile.
        width: Columns of the tile.
        config: `crop_size`, `patch_size`, `patches`.
        variant: `reference` or `corrected`.
    """
    for _ in range(VIEW_TRIES):
        first = _draw_crop(rng, height, width, config)
        first = first if variant == "reference" else _oriented(rng, first)
        second = _oriented(rng, _draw_crop(rng, height, width, config))
        (left, top), (right, bottom) = patch_range(first, second, config.patch_size)
        if max(right - left + 1, 0) * max(bottom - top + 1, 0) >= config.patches:
            return first, second
    return first, _oriented(rng, first)


def render(image: Tensor, view: View) -> Tensor:
    """Cut a view out of C x H x W: crop, bilinear resize (smoothed where it shrinks much), flips, quarter turns."""
    return _laid(_cut(image, view), view)


def _cut(image: Tensor, view: View) -> Tensor:
    """The view but for the transposition that `_laid` makes, in memory of its own."""
    crop = image[:, view.top : view.top + view.height, view.left : view.left + view.width]
    # Two quarter turns are both flips; one and three are one of them before a transposition. The crop is flipped and
    # not the view, since it has to be copied anyway.
    flips = view.flip_x ^ (view.turns in (2, 3)), view.flip_y ^ (view.turns in (1, 2))
    crop = crop.flip([axis for axis, wanted in zip((-1, -2), flips, strict=True) if wanted])
    shrinks = max(view.height, view.width) > SMOOTHED_FROM * view.size
    # Bands as images of one channel: torch resizes those more than twice as fast on a CPU.
    size = (view.size, view.size)
    return F.interpolate(crop[:, None], size, mode="bilinear", align_corners=False, antialias=shrinks)[:, 0]


def _laid(cut: Tensor, view: View) -> Tensor:
    """A cut as the view lies. What changes pixels comes before: it is faster along memory, and does not mind."""
    return cut.mT if view.turns % 2 else cut


class ViewMaker:
    """Makes the views of a step's tiles; what it draws depends on the seed, the step and each tile's name and slot.

    All modalities share the geometry of a view. The published photometric changes (`reference`) are of view 2 only
    and the same for all of them. Those by sensor (`corrected`) change both views, each image on its own and as its
    sensor allows: hue turns where the optical bands `red`, `green` and `blue` are there by name.

    Args:
        config: Sizes and seed.
        sensors: What each sensor measures.
        variant: `reference` or `corrected`.
        clip: Largest absolute value after normalisation.
        photometric_by_sensor: Which photometric changes; None for the variant's own.
    """

    def __init__(
        self,
        config: PretrainConfig,
        sensors: SensorsConfig,
        variant: Variant,
        clip: float,
        photometric_by_sensor: bool | None = None,
    ) -> None:
        self.config, self.sensors, self.variant, self.clip = config, sensors, variant, clip
        own = VARIANTS[variant].photometric_by_sensor
        self.by_sensor = own if photometric_by_sensor is None else photometric_by_sensor
        bands = sensors["optical"].bands
        coloured = sensors["optical"].kind == "reflectance" and set(COLOURS) <= set(bands)
        self.colours = [bands.index(name) for name in COLOURS] if coloured else []

    def __call__(self, tiles: Sequence[Tile], step: int, slots: Sequence[int] | None = None) -> ViewBatch:
        """Make the views of a batch, or of a share of it.

        Args:
            tiles: The tiles; a tile that comes twice in a batch gets different views.
            step: Step, counted from 0.
            slots: Places of the tiles in the batch of the step; None: these tiles are all of it.
        """
        seed = self.config.seed
        side, bands = self.config.crop_size, [len(image) for image in tiles[0].images.values()]
        # Written view by view: memory for all images and then for their batches took more time than the changes.
        views = [torch.empty(len(tiles), count, side, side) for count in bands for _ in range(2)]
        corners: list[tuple[IntArray, IntArray]] = []
        for row, (slot, tile) in enumerate(zip(slots or range(len(tiles)), tiles, strict=True)):
            rng = generator(seed, "views", tile.name, step, slot)
            pair = draw_views(rng, *tile.size, self.config, self.variant)
            corners.append(draw_patches(rng, *pair, self.config.patch_size, self.config.patches))
            cuts = (_cut(image, view) for image in tile.images.values() for view in pair)
            changed = self._own(cuts, rng) if self.by_sensor else self._published(cuts, rng)
            for batch, image, view in zip(views, changed, pair * len(tile.images), strict=True):
                batch[row] = _laid(image, view)
        pairs = zip(views[::2], views[1::2], strict=True)
        corners1, corners2 = (torch.from_numpy(np.stack(column)) for column in zip(*corners, strict=True))
        names = [tile.name for tile in tiles]
        return ViewBatch(names, dict(zip(tiles[0].images, pairs, strict=True)), (corners1, corners2))

    def _published(self, cuts: Iterable[Tensor], rng: np.random.Generator) -> Iterator[Tensor]:
        """The published changes of view 2; the cuts are views 1 and 2 of each modality in turn."""
        draw = PublishedDraw.draw(rng)
        for place, cut in enumerate(cuts):
            yield published(cut, draw, self.clip) if place % 2 else cut

    def _own(self, cuts: Iterable[Tensor], rng: np.random.Generator) -> Iterator[Tensor]:
        """Changes of each view on its own, as its sensor allows; the cuts are views 1 and 2 of each modality."""
        strength, most = self.config.photometric, np.deg2rad(self.config.hue)
        modalities = [modality for modality in self.sensors.items() for _ in range(2)]
        for cut, (name, sensor) in zip(cuts, modalities, strict=True):
            hue = None
            if name == "optical" and self.colours:
                hue = hue_turn(len(cut), self.colours, strength * rng.uniform(-most, most))
            yield corrected(cut, sensor.kind, rng, self.clip, strength, hue)
